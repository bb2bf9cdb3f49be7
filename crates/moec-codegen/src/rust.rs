//! A Rust crate over the static library: templates/rust with the model's name, sizes and ports filled in.
//!
//! Inputs and outputs become fields of two structs, so that a name or an element type that is wrong does not compile. The
//! crate has no dependencies, and `src/model.rs` stands on its own: a build script can make it a module of another crate.

use std::{collections::BTreeSet, fmt::Write};

use moec_plan::{Plan, Port};
use moec_types::DType;

use crate::interface::{BadName, PortRows, check_name, port_rows, source_port, token_ports};

const CARGO: &str = include_str!("../templates/rust/Cargo.toml.in");
const BUILD: &str = include_str!("../templates/rust/build.rs.in");
const LIB: &str = include_str!("../templates/rust/lib.rs.in");
const MODEL: &str = include_str!("../templates/rust/model.rs.in");
const TOKENS: &str = include_str!("../templates/rust/tokens.rs.in");
const TOGETHER: &str = include_str!("../templates/rust/together.rs.in");
const ROOM: &str = include_str!("../templates/rust/room.rs.in");
const SOURCE: &str = include_str!("../templates/rust/source.rs.in");

const TOKEN_FUNCTIONS: &str = "    \
    fn @name@_forward(s: *mut RawSession, ids: *const i32, n: usize, logits: *mut f32, e: *mut *mut RawError) -> c_int;
    fn @name@_step(s: *mut RawSession, ids: *const i32, n: usize, logits: *mut f32, e: *mut *mut RawError) -> c_int;
    fn @name@_step_batch(m: *mut RawModel, turns: *const RawTurn, count: usize, e: *mut *mut RawError) -> c_int;
";
const SOURCE_FUNCTIONS: &str = "    \
    fn @name@_encode(s: *mut RawSession, ids: *const i32, n: usize, e: *mut *mut RawError) -> c_int;
";

/// The files of the crate, by their paths in it; `libNAME.a` goes beside them.
pub fn rust_crate(plan: &Plan) -> Result<[(&'static str, String); 4], BadName> {
    check_name(&plan.name)?;
    let fill = |text: &str| {
        text.replace("@package@", &package_name(&plan.name))
            .replace("@crate@", &package_name(&plan.name).replace('-', "_"))
            .replace("@name@", &plan.name)
            .replace("@version@", env!("CARGO_PKG_VERSION"))
    };
    let files = [("Cargo.toml", CARGO.into()), ("build.rs", BUILD.into()), ("src/lib.rs", LIB.into())];
    let [cargo, build, lib] = files.map(|(path, text): (_, String)| (path, fill(&text)));
    Ok([cargo, build, lib, ("src/model.rs", fill(&model(plan)))])
}

/// Cargo takes the C name for a package's, but for those that Rust has other plans with.
fn package_name(name: &str) -> String {
    let taken = RUST_WORDS.contains(&name) || ["core", "alloc", "test", "build", "deps", "examples"].contains(&name);
    if taken { format!("{name}-model") } else { name.to_owned() }
}

fn model(plan: &Plan) -> String {
    let limit = |port: &Port| port.index_limit.map_or("2^31".to_owned(), |limit| limit.to_string());
    let (tokens, source) = (token_ports(plan), source_port(plan));
    let constants = tokens.map_or(String::new(), |(_, logits)| {
        format!("/// Floats in a row of logits.\npub const VOCAB: usize = {};\n\n", plan.buffer(logits.buffer).row)
    });
    let methods = [
        source.map(|source| SOURCE.replace("@INDEX_LIMIT@", &limit(source))),
        tokens.map(|(ids, _)| TOKENS.replace("@INDEX_LIMIT@", &limit(ids))),
    ];
    let functions = [source.map(|_| SOURCE_FUNCTIONS), tokens.map(|_| TOKEN_FUNCTIONS)];
    MODEL
        .replace("@CONSTANTS@\n", &constants)
        .replace("@TOKEN_METHODS@", &methods.into_iter().flatten().collect::<String>())
        .replace("@TOKEN_FUNCTIONS@", &functions.into_iter().flatten().collect::<String>())
        .replace("@PORTS@\n", &(ports(plan) + &tokens.map_or(String::new(), |_| format!("{TOGETHER}{ROOM}"))))
        .replace("@ANY@", if plan.inputs.is_empty() { "" } else { "<'_>" })
        .replace("@SEQUENCES@", &(plan.sources.len() + 1).to_string())
}

/// `Inputs`, `Outputs`, and the tables of what they are.
fn ports(plan: &Plan) -> String {
    let inputs = fields(plan, &plan.inputs);
    let outputs = fields(plan, &plan.outputs);
    let lifetime = if inputs.is_empty() { "" } else { "<'a>" };
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments| writeln!(text, "{words}").expect("a String takes everything");
    line(format_args!("/// What goes in, row-major; a row for each position where it says so."));
    if !plan.sources.is_empty() {
        line(format_args!(
            "/// Inputs along one sequence are given together, or none of them, which appends nothing to it."
        ));
    }
    line(format_args!("#[derive(Clone, Copy, Debug, Default, PartialEq)]\npub struct Inputs{lifetime} {{"));
    for field in &inputs {
        let (name, slice) = (&field.name, format!("&'a [{}]", rust_type(field.dtype)));
        let taken = if field.optional { format!("Option<{slice}>") } else { slice };
        line(format_args!("    /// {}\n    pub {name}: {taken},", field.shape));
    }
    line(format_args!("}}\n\n/// What comes out, likewise.\n#[derive(Clone, Debug, Default, PartialEq)]"));
    line(format_args!("pub struct Outputs {{"));
    for field in &outputs {
        line(format_args!("    /// {}\n    pub {}: Vec<{}>,", field.shape, field.name, rust_type(field.dtype)));
    }
    line(format_args!("}}\n"));

    let any = if inputs.is_empty() { "" } else { "<'_>" };
    let count = inputs.len();
    line(format_args!("impl Inputs{any} {{\n    /// Where each of `INPUTS` is, and how many elements it has."));
    line(format_args!("    fn data(&self) -> [Option<(*const c_void, usize)>; {count}] {{\n        ["));
    for Field { name, optional, .. } in &inputs {
        let given = "data.as_ptr().cast(), data.len()";
        match optional {
            true => line(format_args!("            self.{name}.map(|data| ({given})),")),
            false => line(format_args!("            Some(self.{name}).map(|data| ({given})),")),
        }
    }
    line(format_args!("        ]\n    }}\n}}\n"));
    let count = outputs.len();
    line(format_args!("impl Outputs {{\n    /// Makes room for so many rows of each of `OUTPUTS`."));
    line(format_args!("    fn places(&mut self, rows: &[usize]) -> [*mut c_void; {count}] {{"));
    for (at, Field { name, dtype, .. }) in outputs.iter().enumerate() {
        let zero = zero(*dtype);
        line(format_args!("        self.{name}.resize(rows[{at}] * OUTPUTS[{at}].row(), {zero});"));
    }
    let places: Vec<String> = outputs.iter().map(|field| format!("self.{}.as_mut_ptr().cast()", field.name)).collect();
    line(format_args!("        [{}]\n    }}\n}}\n", places.join(", ")));

    for (table, fields) in [("INPUTS", &inputs), ("OUTPUTS", &outputs)] {
        line(format_args!("static {table}: [Port; {}] = [", fields.len()));
        for Field { port, dtype, positions, .. } in fields {
            let axes: Vec<String> = port.axes.iter().map(|(_, size)| size.to_string()).collect();
            let (number, axes) = (dtype_number(*dtype), axes.join(", "));
            line(format_args!(
                "    Port {{ name: c{:?}, dtype: {number}, positions: {positions:?}, axes: &[{axes}] }},",
                port.name
            ));
        }
        line(format_args!("];\n"));
    }
    text
}

/// An input or output as a struct's field.
struct Field<'p> {
    port: &'p Port,
    name: String,
    dtype: DType,
    /// The sequence whose positions are its rows.
    positions: Option<u32>,
    /// Whether it may be left out.
    optional: bool,
    /// For people: `` `x`: f32[positions, D=8] ``.
    shape: String,
}

fn fields<'p>(plan: &Plan, ports: &'p [Port]) -> Vec<Field<'p>> {
    let mut taken = BTreeSet::new();
    let field = |port: &'p Port| {
        let buffer = plan.buffer(port.buffer);
        let along = matches!(port_rows(plan, port), Some(PortRows::Tokens | PortRows::Outputs));
        let positions = along.then_some(port.sequence);
        let first = positions.map(|sequence| match sequence {
            0 => "positions".to_owned(),
            other => format!("positions of sequence {other}"),
        });
        let axes = port.axes.iter().map(|(axis, size)| format!("{axis}={size}"));
        let axes: Vec<String> = first.into_iter().chain(axes).collect();
        let limit = match (buffer.dtype, port.index_limit) {
            (DType::I32, Some(limit)) => format!(", each in 0 .. {limit}"),
            _ => String::new(),
        };
        let shape = format!("`{}`: {}[{}]{limit}", port.name, buffer.dtype, axes.join(", ")).replace('\n', " ");
        let optional = along && !plan.sources.is_empty();
        Field { port, name: field_name(&port.name, &mut taken), dtype: buffer.dtype, positions, optional, shape }
    };
    ports.iter().map(field).collect()
}

/// A name from the program as one of Rust's; different ones stay different.
fn field_name(name: &str, taken: &mut BTreeSet<String>) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() { char.to_ascii_lowercase() } else { '_' };
    let mut base: String = name.chars().map(plain).collect();
    if !base.starts_with(|first: char| first.is_ascii_alphabetic()) || RUST_WORDS.contains(&base.as_str()) {
        base.insert_str(0, "the_");
    }
    let mut unique = base.clone();
    let mut number = 2;
    while !taken.insert(unique.clone()) {
        unique = format!("{base}_{number}");
        number += 1;
    }
    unique
}

fn rust_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::Bf16 => "Bf16",
        DType::F16 => "F16",
        DType::I32 => "i32",
        DType::Bool => "bool",
    }
}

fn zero(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "0.0",
        DType::Bf16 => "Bf16(0)",
        DType::F16 => "F16(0)",
        DType::I32 => "0",
        DType::Bool => "false",
    }
}

/// `NAME_dtype_t` of the header.
fn dtype_number(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => 0,
        DType::Bf16 => 1,
        DType::F16 => 2,
        DType::I32 => 3,
        DType::Bool => 4,
    }
}

/// Keywords, of all editions and reserved ones.
const RUST_WORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];
