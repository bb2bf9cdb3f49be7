//! Random well-typed specs, as text: configuration, functions, a model with layers of a few kinds, outputs.
//!
//! Shared by the tests of lowering and of the CPU code. The same seed gives the same text.

pub mod across;
mod attention;
mod body;
mod forms;
pub mod random;
mod routed;
mod routing;
mod scanned;
pub mod scans;
pub mod session;
mod shapes;

use std::{collections::BTreeSet, fmt::Write};

use body::{Body, Dim, Kind, Place, Shape, Value};
use random::Random;

/// A `fn` of the file, over one axis that the caller names (`P` within).
#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    pub takes: u64,
    pub gives: Shape,
    pub most: f32,
}

/// A block of the file: from one type of rows to another.
#[derive(Clone, Debug)]
struct Block {
    name: String,
    takes: Vec<Dim>,
    gives: Vec<Dim>,
}

/// What belongs to the file as a whole.
pub struct Generator {
    pub random: Random,
    pub width: u64,
    uses: BTreeSet<String>,
    names: usize,
    config: Vec<String>,
    definitions: Vec<String>,
    functions: Vec<Function>,
    blocks: Vec<Block>,
    /// Whether tokens see each other. (In a decoder, no choice of experts may depend on that.)
    crosses: bool,
}

/// The spec that belongs to a seed.
pub fn generate(seed: u64) -> String {
    let mut random = Random::new(seed);
    let width = *random.pick(&[2, 4, 4, 6, 6, 8, 8, 8, 12, 12, 17, 33]);
    let vocabulary = random.within(3, 12);
    let mut generator = Generator {
        random,
        width,
        uses: BTreeSet::new(),
        names: 0,
        config: vec![format!("D = {width}"), format!("V = {vocabulary}")],
        definitions: Vec::new(),
        functions: Vec::new(),
        blocks: Vec::new(),
        crosses: seed % 4 == 3,
    };
    let model = model(&mut generator);
    let mut text = format!("//! Seed {seed}.\n");
    for path in &generator.uses {
        writeln!(text, "use {path}").expect("writing to a string");
    }
    writeln!(text, "config {{\n  {}\n}}", generator.config.join("\n  ")).expect("writing to a string");
    for definition in &generator.definitions {
        text.push_str(definition);
    }
    text + &model
}

impl Generator {
    /// A name that nothing has yet.
    pub fn name(&mut self, stem: &str) -> String {
        self.names += 1;
        format!("{stem}{}", self.names)
    }

    pub fn new_axis(&mut self, size: u64) -> Dim {
        Dim { axis: self.name("A"), size }
    }

    pub fn uses(&mut self, path: &str) {
        self.uses.insert(path.to_owned());
    }

    pub fn embedding(&self) -> Vec<Dim> {
        vec![Dim { axis: "D".into(), size: self.width }]
    }

    /// `A3 = 4`, or the name alone where the file knows the size.
    pub fn axis_of_param(&mut self, dim: &Dim) -> String {
        let known = matches!(dim.axis.as_str(), "D" | "V");
        if known && self.random.percent(80) { dim.axis.clone() } else { format!("{} = {}", dim.axis, dim.size) }
    }

    /// A number, by itself or as a configuration entry.
    pub fn constant(&mut self) -> String {
        let value = self.random.signed() * 1.5;
        match self.random.below(5) {
            0 => {
                let name = self.name("c");
                self.config.push(format!("{name} = {value:?}"));
                name
            }
            1 => format!("(0.25 * {:?} + 0.5)", value),
            2 => format!("{}", self.random.within(0, 2)),
            _ => format!("{:?}", value.abs()),
        }
    }

    /// A setting that is true or false.
    pub fn flag(&mut self) -> String {
        let name = self.name("flag");
        let value = self.random.percent(50);
        self.config.push(format!("{name} = {value}"));
        name
    }

    pub fn define(&mut self, head: &str, lines: &[String], end: &str) {
        let mut text = format!("{head} {{\n");
        for line in lines {
            writeln!(text, "  {line}").expect("writing to a string");
        }
        writeln!(text, "  {end}\n}}").expect("writing to a string");
        self.definitions.push(text);
    }

    /// A function, new or known.
    pub fn function(&mut self) -> Function {
        if self.functions.len() > 2 || (self.random.percent(60) && !self.functions.is_empty()) {
            return self.random.pick(&self.functions).clone();
        }
        let takes = *self.random.pick(&[self.width, self.width, 2, 3]);
        let name = self.name("func");
        let axis = Dim { axis: "P".into(), size: takes };
        let x = Value { text: "x".into(), shape: Shape::rows(&[axis]), most: 20.0, index_of: None };
        let scale = Shape { kind: Kind::F32, rows: false, dims: Vec::new() };
        let mut body = Body::new(self, Place::Function, vec![x]);
        let steps = body.random().within(1, 6);
        (0..steps).for_each(|_| body.grow());
        let last = body.values.last().cloned().expect("`x` at least");
        let row = Shape { kind: Kind::F32, ..last.shape.clone() };
        let row = Shape { rows: true, ..row };
        let end = body.coerced(last, &row);
        let lines = std::mem::take(&mut body.lines);
        drop(body);
        let text = format!("out {} + scale * mean(x over P)", end.text);
        assert!(scale.dims.is_empty());
        self.define(&format!("fn {name}(x, scale = 0.5 over P)"), &lines, &text);
        let function = Function { name, takes, gives: end.shape, most: end.most + 20.0 };
        self.functions.push(function.clone());
        function
    }

    /// A block from rows to rows, new or known.
    pub fn block(&mut self, takes: &[Dim], gives: &[Dim]) -> String {
        let known: Vec<String> = self
            .blocks
            .iter()
            .filter(|block| block.takes == takes && block.gives == gives)
            .map(|block| block.name.clone())
            .collect();
        if let Some(name) = self.random.maybe(&known).cloned()
            && self.random.percent(40)
        {
            return name;
        }
        let name = self.name("block");
        let lines = self.rows_to_rows(Place::Tokens, takes, gives, 9);
        let (end, lines) = lines.split_last().expect("a body ends");
        self.define(&format!("block {name}"), lines, end);
        self.blocks.push(Block { name: name.clone(), takes: takes.to_vec(), gives: gives.to_vec() });
        name
    }

    /// The lines of a body that takes `x` and ends in `out`.
    pub fn rows_to_rows(&mut self, place: Place, takes: &[Dim], gives: &[Dim], most: u64) -> Vec<String> {
        let x = Value { text: "x".into(), shape: Shape::rows(takes), most: 4.0, index_of: None };
        let mut body = Body::new(self, place, vec![x]);
        let steps = body.random().within(1, most);
        (0..steps).for_each(|_| body.grow());
        let end = body.finish(&Shape::rows(gives));
        let mut lines = std::mem::take(&mut body.lines);
        lines.push(format!("out {}", end.text));
        lines
    }
}

fn model(generator: &mut Generator) -> String {
    let embedding = generator.embedding();
    let name = generator.name("model");
    let mut inputs = Vec::new();
    let mut values = Vec::new();
    let by_ids = generator.random.percent(60);
    if by_ids {
        inputs.push("ids: i32[S]".to_owned());
    }
    if !by_ids || generator.random.percent(25) {
        inputs.push("x: f32[S, D]".into());
        values.push(Value { text: "x".into(), shape: Shape::rows(&embedding), most: 1.0, index_of: None });
    }
    if generator.random.percent(15) {
        let dims = [Dim { axis: "B".into(), size: 3 }];
        inputs.push("side: f32[S, B = 3]".to_owned());
        values.push(Value { text: "side".into(), shape: Shape::rows(&dims), most: 1.0, index_of: None });
    }
    if generator.random.percent(8) {
        inputs.push("shift: f32[D]".to_owned());
        let shape = Shape { kind: Kind::F32, rows: false, dims: embedding.clone() };
        values.push(Value { text: "shift".into(), shape, most: 1.0, index_of: None });
    }
    if generator.random.percent(8) {
        inputs.push("marked: bool[S]".to_owned());
        let shape = Shape { kind: Kind::Bool, rows: true, dims: Vec::new() };
        values.push(Value { text: "marked".into(), shape, most: 1.0, index_of: None });
    }
    let mut body = Body::new(generator, Place::Tokens, values);
    let mut table = None;
    if by_ids {
        body.line("param table[V, D]".into());
        // Of equal tokens, rounding would decide which is chosen first.
        let apart = if body.generator.crosses { " + 0.05 * f32(positions(over S))" } else { "" };
        body.line(format!("let embedded = gather(table, ids over V){apart}"));
        let shape = Shape::rows(&embedding);
        let value = Value { text: "embedded".into(), shape, most: 1.7, index_of: None };
        body.values.push(value);
        table = Some("table");
    }
    for _ in 0..body.random().below(4) {
        body.grow();
    }
    let h = body.finish(&Shape::rows(&embedding));
    body.line(format!("let h = {}", h.text));
    let mut carried = vec![Value { text: "h".into(), shape: Shape::rows(&embedding), most: 4.0, index_of: None }];
    if body.random().percent(30) {
        let second = body.values.iter().rev().find(|value| value.shape.kind == Kind::F32).cloned();
        let second = second.expect("the embedding is f32");
        let shape = Shape { rows: true, ..second.shape.clone() };
        let second = body.coerced(second, &shape);
        body.line(format!("let g = {}", second.text));
        carried.push(Value { text: "g".into(), shape, most: 4.0, index_of: None });
    }
    let stacks = *body.random().pick(&[0, 1, 1, 1, 1, 2]);
    for stack in 0..stacks {
        layers(&mut body, &carried, if stack == 0 { "l" } else { "m" });
    }
    if stacks == 0 || body.random().percent(20) {
        let lines = layer_parts(&mut body, &carried, "");
        body.lines.extend(lines);
    }
    body.values.extend(carried);
    outputs(&mut body, table);
    let lines = body.lines.join("\n  ");
    format!("model {name}({}) {{\n  {lines}\n}}\n", inputs.join(", "))
}

fn layers(body: &mut Body, carried: &[Value], index: &str) {
    let count = *body.random().pick(&[0, 1, 2, 2, 3, 4]);
    let lines = layer_parts(body, carried, index);
    body.line(format!("layers {index} in 0..{count} {{"));
    body.lines.extend(lines.into_iter().map(|line| format!("  {line}")));
    body.line("}".into());
}

/// A condition over the number of a layer.
fn rule(body: &mut Body, index: &str) -> String {
    if index.is_empty() {
        return body.generator.flag();
    }
    match body.random().below(4) {
        0 => format!("{index} % 2 == 1"),
        1 => format!("{index} < 1"),
        2 => format!("{index} in [0, 2]"),
        _ => format!("not ({index} + 1) % 3 == 0 or {index} == 2"),
    }
}

/// Statements that give every carried name a new value. `index` names the layer; empty outside layers.
fn layer_parts(body: &mut Body, carried: &[Value], index: &str) -> Vec<String> {
    let embedding = body.generator.embedding();
    let outer = std::mem::take(&mut body.lines);
    let known = body.values.len();
    body.values.extend(carried.iter().cloned());
    for _ in 0..body.random().within(1, 3) {
        let input = match body.random().percent(60) {
            true => {
                body.generator.uses("std::norm::rms_norm");
                let norm = body.generator.name("norm");
                body.line(format!("part {norm} = rms_norm(1e-5 over D)"));
                format!("{norm}(h)")
            }
            false => "h".to_owned(),
        };
        let part = body.generator.name("part");
        let of = part_of(body, &embedding, index);
        body.line(format!("part {part} = {of}"));
        let scale = match (index, body.random().below(8)) {
            (_, 0) => format!(" * {}", body.generator.constant()),
            ("", _) => String::new(),
            (_, 1) => format!(" * (0.5 + 0.25 * {index})"),
            _ => String::new(),
        };
        let text = match body.random().below(4) {
            0 => format!("{part}({input}){scale} + 0.5 * h"),
            1 => format!("unit(h, 0.1 over D) + {part}({input}){scale}"),
            _ => format!("h + {part}({input}){scale}"),
        };
        body.line(format!("h = {text}"));
        if body.random().percent(15) {
            body.line(format!("h = h - 0.25 * {part}(h)"));
        }
        if body.random().percent(25) {
            body.grow();
        }
    }
    if let Some(second) = carried.iter().find(|value| value.text == "g") {
        if !second.shape.dims.is_empty() && body.random().percent(35) {
            let part = body.generator.name("part");
            let of = match body.random().percent(60) {
                true => routing::moe(body.generator, &second.shape.dims, &mut body.lines),
                false => body.generator.block(&second.shape.dims, &second.shape.dims),
            };
            body.line(format!("part {part} = {of}"));
            body.line(format!("g = g + 0.5 * {part}(g)"));
        }
        let value = body.finish(&second.shape.clone());
        let text = if body.random().percent(20) { value.text } else { format!("tanh(g + {})", value.text) };
        body.line(format!("g = {text}"));
    }
    if body.random().percent(15) {
        let value = body.finish(&Shape::rows(&embedding));
        body.line(format!("h = h + 0.5 * tanh({})", value.text));
    }
    body.values.truncate(known);
    std::mem::replace(&mut body.lines, outer)
}

/// What a part is an instance of.
fn part_of(body: &mut Body, dims: &[Dim], index: &str) -> String {
    let one = |body: &mut Body| match body.random().below(14) {
        0..=3 => routing::moe(body.generator, dims, &mut body.lines),
        4..=5 if !body.generator.crosses => attention::block(body.generator),
        6..=7 if !body.generator.crosses => scanned::block(body.generator),
        4..=7 => shapes::moe(body.generator, dims),
        8 => routing::library_expert(body.generator, dims),
        9..=10 => routed::block(body.generator),
        11 => shapes::moe(body.generator, dims),
        _ => body.generator.block(dims, dims),
    };
    let first = one(body);
    if body.random().percent(30) {
        let second = one(body);
        let condition = rule(body, index);
        return format!("if {condition} {{ {first} }} else {{ {second} }}");
    }
    first
}

fn outputs(body: &mut Body, table: Option<&str>) {
    let embedding = body.generator.embedding();
    let count = *body.random().pick(&[1, 1, 1, 2, 3]);
    for number in 0..count {
        let name = format!("y{number}");
        match body.random().below(8) {
            0..=2 => {
                body.line(format!("out {name}: f32[S, D] = h"));
            }
            3 | 4 => {
                let head = body.generator.name("head");
                let (tied, flag) = (body.random().percent(50), body.generator.flag());
                let shared = match table.filter(|_| tied) {
                    Some(table) => format!(" = if {flag} {{ {table} }}"),
                    None => String::new(),
                };
                body.line(format!("param {head}[V, D]{shared}"));
                body.line(format!("out {name}: f32[S, V] = h · {head}"));
            }
            5 => {
                let value = body.find(|_| true).expect("the stream at least");
                let dtype = match value.shape.kind {
                    Kind::F32 => "f32",
                    Kind::I32 => "i32",
                    Kind::Bool => "bool",
                };
                let mut axes: Vec<String> =
                    value.shape.dims.iter().map(|dim| format!("{} = {}", dim.axis, dim.size)).collect();
                if value.shape.rows {
                    axes.insert(0, "S".to_owned());
                }
                body.line(format!("out {name}: {dtype}[{}] = {}", axes.join(", "), value.text));
            }
            6 => {
                for _ in 0..body.random().within(1, 5) {
                    body.grow();
                }
                let value = body.finish(&Shape::rows(&embedding));
                body.line(format!("out {name}: f32[S, D] = h + {}", value.text));
            }
            _ => {
                body.line(format!("out {name}: f32[S] = sum(h over D)"));
            }
        }
    }
}
