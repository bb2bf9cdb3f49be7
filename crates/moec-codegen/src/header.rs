//! The C header of a model: kernels/runtime/header.h.in with the model's name, sizes and ports filled in.

use std::{collections::BTreeSet, fmt::Write};

use moec_plan::{Plan, Port};
use moec_types::DType;

use crate::interface::{
    BadName, PortRows, check_name, macro_name, port_rows, sees_later_positions, source_port, token_ports,
};

const HEADER: &str = include_str!("../../../kernels/runtime/header.h.in");
const TOKENS: &str = include_str!("../../../kernels/runtime/header_tokens.h.in");
const SOURCE: &str = include_str!("../../../kernels/runtime/header_source.h.in");

/// What `session_run` must be given.
const ONE_SEQUENCE: &str = "Every input must be given, once;";
const SEQUENCES: &str =
    "Inputs along one sequence are given together, or none of them, which appends nothing to it; other inputs always;";

/// The most tokens of one pass: `MOEC_PASS_TOKENS` of kernels/runtime/moec.h.
const PASS_TOKENS: u64 = 512;

/// The text of `NAME.h`.
pub fn header(plan: &Plan) -> Result<String, BadName> {
    check_name(&plan.name)?;
    let tokens = token_ports(plan).map(|(ids, _)| {
        let limit = ids.index_limit.map_or("2^31".to_owned(), |limit| limit.to_string());
        TOKENS.replace("@INDEX_LIMIT@", &limit)
    });
    let source = source_port(plan).map(|source| {
        let limit = source.index_limit.map_or("2^31".to_owned(), |limit| limit.to_string());
        SOURCE.replace("@INDEX_LIMIT@", &limit).replace("@INPUT@", &comment(&source.name))
    });
    let text = HEADER
        .replace("@CONSTANTS@\n", &constants(plan))
        .replace("@PASS_TOKENS@", &pass_tokens(plan))
        .replace("@TOKEN_FUNCTIONS@\n", &[source, tokens].into_iter().flatten().collect::<String>())
        .replace("@EVERY_INPUT@", if plan.sources.is_empty() { ONE_SEQUENCE } else { SEQUENCES })
        .replace("@PORTS@", ports(plan).trim_end())
        .replace("@NAME@", &plan.name.to_ascii_uppercase())
        .replace("@name@", &plan.name);
    Ok(text)
}

fn pass_tokens(plan: &Plan) -> String {
    if sees_later_positions(plan) {
        return "((size_t)(max_tokens))".to_owned();
    }
    format!("((size_t)(max_tokens) < {PASS_TOKENS} ? (size_t)(max_tokens) : (size_t){PASS_TOKENS})")
}

/// The `#define`s of sizes, each with what it counts.
fn constants(plan: &Plan) -> String {
    let mut text = String::new();
    let mut taken = BTreeSet::new();
    let mut define = |parts: &[&str], value: String, what: &str| {
        let name = macro_name(&[&[plan.name.as_str()], parts].concat(), &mut taken);
        writeln!(text, "#define {name} {value} /* {what} */").expect("a String takes everything");
    };
    if let Some((ids, logits)) = token_ports(plan) {
        let row = plan.buffer(logits.buffer).row;
        define(&["VOCAB"], row.to_string(), "floats in a row of logits");
        if let Some(limit) = ids.index_limit {
            define(&["TOKEN_LIMIT"], limit.to_string(), "token ids are less than this");
        }
    }
    for (role, ports) in [("INPUT", &plan.inputs), ("OUTPUT", &plan.outputs)] {
        for port in ports {
            for (axis, size) in &port.axes {
                let what = format!("axis {} of {}", comment(axis), comment(&port.name));
                define(&[role, &port.name, axis], size.to_string(), &what);
            }
        }
    }
    let (per_token, fixed) = plan.workspace_bytes();
    let mut bytes = |name: &str, value: u64, what: &str| define(&[name], format!("((size_t){value})"), what);
    bytes("WEIGHT_BYTES", plan.weight_bytes(), "in the weight file, besides its header");
    bytes("WORKSPACE_BYTES_PER_TOKEN", per_token, "of a pass");
    bytes("WORKSPACE_BYTES_FIXED", fixed, "of a pass, whatever its tokens");
    bytes("CACHE_BYTES_PER_TOKEN", plan.cache_bytes_per_position(), "of a session's positions");
    bytes("STATE_BYTES", plan.state_bytes(), "of a session, whatever its positions");
    text
}

/// The inputs and outputs, in lines of a comment.
fn ports(plan: &Plan) -> String {
    let line = |role: &str, port: &Port| {
        let buffer = plan.buffer(port.buffer);
        let positions = match port_rows(plan, port) {
            Some(PortRows::Tokens | PortRows::Outputs) if port.sequence == 0 => Some("positions".to_owned()),
            Some(PortRows::Tokens | PortRows::Outputs) => Some(format!("positions of sequence {}", port.sequence)),
            Some(PortRows::One) | None => None,
        };
        let axes = port.axes.iter().map(|(axis, size)| format!("{}={size}", comment(axis)));
        let shape: Vec<String> = positions.into_iter().chain(axes).collect();
        let limit = match (buffer.dtype, port.index_limit) {
            (DType::I32, Some(limit)) => format!(", each in 0 .. {limit}"),
            _ => String::new(),
        };
        format!(" *   {role} \"{}\": {}[{}]{limit}\n", comment(&port.name), buffer.dtype, shape.join(", "))
    };
    let inputs = plan.inputs.iter().map(|port| line("input ", port));
    let outputs = plan.outputs.iter().map(|port| line("output", port));
    inputs.chain(outputs).collect()
}

/// A name that cannot end a comment, nor be taken for a placeholder.
fn comment(name: &str) -> String {
    name.replace("*/", "* /").replace('@', "(at)")
}
