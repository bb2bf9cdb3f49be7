//! The C interface of a model, as facts: which functions there are and what a port looks like from outside. The header
//! words them, a backend's entry object defines them.

use std::collections::BTreeSet;

use miette::Diagnostic;
use moec_plan::{BufferId, Node, Plan, Port, RowOp, Rows, Source, StepKind, View};
use moec_types::DType;
use thiserror::Error;

/// How a parameter or result is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CType {
    /// `int`
    Int,
    /// `size_t`
    Size,
    /// Any pointer.
    Pointer,
    /// Of results only.
    Nothing,
}

/// `NAME_suffix(params)` of the header: it forwards to `moec_suffix` of the run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    pub suffix: &'static str,
    pub result: CType,
    pub params: &'static [CType],
    /// The run time's function takes the model's description before the other parameters.
    pub describes: bool,
}

/// The rows of an input or output. The numbers are those of kernels/runtime/moec_model.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRows {
    One = 0,
    Tokens = 1,
    Outputs = 2,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` cannot be the name of a library: {reason}")]
#[diagnostic(
    code(moec::codegen::bad_name),
    help("its C functions and types begin with it: choose letters, digits and `_`, a letter first")
)]
pub struct BadName {
    pub name: String,
    pub reason: &'static str,
}

use CType::{Int, Nothing, Pointer, Size};

const fn function(suffix: &'static str, result: CType, params: &'static [CType]) -> Function {
    Function { suffix, result, params, describes: false }
}

const fn describing(suffix: &'static str, result: CType, params: &'static [CType]) -> Function {
    Function { suffix, result, params, describes: true }
}

const FUNCTIONS: [Function; 19] = [
    function("abi", Int, &[]),
    describing("open", Int, &[Pointer, Pointer, Pointer, Pointer]),
    function("close", Nothing, &[Pointer]),
    function("session_new", Int, &[Pointer, Size, Pointer, Pointer]),
    function("session_fork", Int, &[Pointer, Size, Pointer, Pointer]),
    function("session_free", Nothing, &[Pointer]),
    function("session_reset", Int, &[Pointer]),
    function("session_position", Size, &[Pointer]),
    function("session_run", Int, &[Pointer, Pointer, Size, Pointer, Size, Pointer]),
    function("run", Int, &[Pointer, Pointer, Size, Pointer, Size, Pointer]),
    function("session_trace", Int, &[Pointer, Pointer, Pointer]),
    function("selftest", Int, &[Pointer, Pointer]),
    function("cache_bytes", Size, &[Pointer]),
    function("level", Pointer, &[Pointer]),
    function("threads", Int, &[Pointer]),
    function("error_code", Int, &[Pointer]),
    function("error_message", Pointer, &[Pointer]),
    function("error_free", Nothing, &[Pointer]),
    describing("version", Pointer, &[]),
];

const TOKEN_FUNCTIONS: [Function; 3] = [
    function("forward", Int, &[Pointer, Pointer, Size, Pointer, Pointer]),
    function("step", Int, &[Pointer, Pointer, Size, Pointer, Pointer]),
    function("step_batch", Int, &[Pointer, Pointer, Size, Pointer]),
];

const SOURCE_FUNCTIONS: [Function; 1] = [function("encode", Int, &[Pointer, Pointer, Size, Pointer])];

/// All functions of the model's header.
pub fn functions(plan: &Plan) -> Vec<Function> {
    let tokens = if token_ports(plan).is_some() { &TOKEN_FUNCTIONS[..] } else { &[] };
    let source = if source_port(plan).is_some() { &SOURCE_FUNCTIONS[..] } else { &[] };
    FUNCTIONS.iter().chain(tokens).chain(source).copied().collect()
}

/// What an encoder reads, where a model from tokens to logits has one.
pub fn source_port(plan: &Plan) -> Option<&Port> {
    token_ports(plan)?;
    plan.inputs.iter().find(|port| port.sequence > 0)
}

/// The ids and the logits, where a model has one input of an i32 a position, and one output of f32 for each position; and,
/// if there is a second sequence, one more such input along that.
pub fn token_ports(plan: &Plan) -> Option<(&Port, &Port)> {
    let [logits] = &plan.outputs[..] else { return None };
    let (ids, source) = match &plan.inputs[..] {
        [ids] => (ids, None),
        [a, b] if a.sequence == 0 && b.sequence == 1 => (a, Some(b)),
        [a, b] if a.sequence == 1 && b.sequence == 0 => (b, Some(a)),
        _ => return None,
    };
    let are_ids = |port: &Port| {
        let buffer = plan.buffer(port.buffer);
        buffer.dtype == DType::I32 && buffer.row == 1 && port_rows(plan, port) == Some(PortRows::Tokens)
    };
    let to = plan.buffer(logits.buffer);
    let takes_ids = are_ids(ids) && source.is_none_or(are_ids);
    let gives_rows =
        to.dtype == DType::F32 && matches!(port_rows(plan, logits), Some(PortRows::Tokens | PortRows::Outputs));
    (takes_ids && gives_rows).then_some((ids, logits))
}

/// `None`: rows that only a pass can count, so that a caller could not know how much memory to give.
pub fn port_rows(plan: &Plan, port: &Port) -> Option<PortRows> {
    match plan.buffer(port.buffer).rows {
        Rows::Fixed(_) => Some(PortRows::One),
        Rows::Tokens if only_wanted_rows_written(&plan.body, port.buffer) => Some(PortRows::Outputs),
        Rows::Tokens => Some(PortRows::Tokens),
        Rows::Outputs => Some(PortRows::Outputs),
        Rows::Slots { .. } | Rows::Share(_) | Rows::Positions => None,
    }
}

/// Whether all steps that write the buffer, of which there is one, write the rows that are asked for and no others.
fn only_wanted_rows_written(body: &[Node], buffer: BufferId) -> bool {
    let mut written = written_rows(body, buffer).into_iter().peekable();
    written.peek().is_some() && written.all(|rows| rows == Rows::Outputs)
}

/// The rows of each step that writes the buffer.
fn written_rows(body: &[Node], buffer: BufferId) -> Vec<Rows> {
    let of = |node: &Node| match node {
        Node::Layers(layers) => layers.kinds.iter().flat_map(|kind| written_rows(kind, buffer)).collect(),
        Node::Step(step) => {
            let (rows, written) = match &step.kind {
                StepKind::Rows { rows, program, .. } => (*rows, program.ops.iter().any(|op| writes(op, buffer))),
                StepKind::Gemm(gemm) => (gemm.rows, gemm.out == buffer),
                StepKind::Bin(bin) => {
                    let written = [Some(bin.offsets), Some(bin.order), bin.slot_of].contains(&Some(buffer));
                    (bin.tokens, written)
                }
                StepKind::Assign(assign) => (assign.tokens, assign.out == buffer),
                StepKind::Attention(attention) => (attention.rows, attention.out == buffer),
                StepKind::Scan(scan) => (Rows::Tokens, scan.program.ops.iter().any(|op| writes(op, buffer))),
            };
            if written { vec![rows] } else { Vec::new() }
        }
    };
    body.iter().flat_map(of).collect()
}

fn writes(op: &RowOp, buffer: BufferId) -> bool {
    op.writes().iter().any(|view| matches!(view.source, Source::Row(id) | Source::Whole(id) if id == buffer))
}

/// Whether an earlier position may see a later one of the same pass: then an input must not be cut into several passes.
pub fn sees_later_positions(plan: &Plan) -> bool {
    fn any(plan: &Plan, nodes: &[Node]) -> bool {
        nodes.iter().any(|node| match node {
            Node::Layers(layers) => layers.kinds.iter().any(|kind| any(plan, kind)),
            Node::Step(step) => match &step.kind {
                StepKind::Attention(attention) => !attention.causal && attention.keys_of.is_none(),
                StepKind::Assign(assign) => !matches!(assign.tokens, Rows::Fixed(_)),
                StepKind::Rows { rows, program, .. } => {
                    program.ops.iter().flat_map(RowOp::reads).any(|view| looks_across(plan, *rows, view))
                }
                StepKind::Gemm(_) | StepKind::Bin(_) | StepKind::Scan(_) => false,
            },
        })
    }
    plan.passes().any(|pass| any(plan, pass))
}

/// Whether a row program sees, through this view, tokens other than the one whose row it computes.
fn looks_across(plan: &Plan, rows: Rows, view: &View) -> bool {
    let all_tokens = |id: BufferId| matches!(plan.buffer(id).rows, Rows::Tokens | Rows::Outputs | Rows::Share(_));
    let of_one_token = matches!(rows, Rows::Slots { .. });
    let itself = match view.source {
        Source::Whole(id) => !of_one_token && all_tokens(id),
        Source::Count(_) => true,
        Source::Row(_)
        | Source::Local(_)
        | Source::Param(_)
        | Source::Literal(_)
        | Source::Place
        | Source::Position => false,
    };
    itself || view.index.as_ref().is_some_and(|index| looks_across(plan, rows, &index.view))
}

/// Whether `name` can begin every symbol of a library.
pub fn check_name(name: &str) -> Result<(), BadName> {
    let fail = |reason| Err(BadName { name: name.to_owned(), reason });
    if !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return fail("it does not begin with a letter");
    }
    if !name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_') {
        return fail("it has other characters than letters, digits and `_`");
    }
    if name.len() > 64 {
        return fail("it is longer than 64 characters");
    }
    if name == "moec" || name.starts_with("moec_") {
        return fail("names that begin with `moec` belong to the run time");
    }
    if TAKEN.contains(&name) {
        return fail("C, C++ or their libraries use it");
    }
    Ok(())
}

/// Keywords, and names whose `NAME`, `NAME_open`, `NAME_close` or the like the C library has.
const TAKEN: &[&str] = &[
    "alignas",
    "alignof",
    "and",
    "and_eq",
    "asm",
    "auto",
    "bitand",
    "bitor",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "class",
    "compl",
    "concept",
    "const",
    "consteval",
    "constexpr",
    "constinit",
    "continue",
    "decltype",
    "default",
    "delete",
    "do",
    "double",
    "else",
    "enum",
    "explicit",
    "export",
    "extern",
    "false",
    "float",
    "for",
    "friend",
    "goto",
    "if",
    "inline",
    "int",
    "long",
    "mutable",
    "namespace",
    "new",
    "noexcept",
    "not",
    "not_eq",
    "nullptr",
    "operator",
    "or",
    "or_eq",
    "private",
    "protected",
    "public",
    "register",
    "requires",
    "restrict",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "struct",
    "switch",
    "template",
    "this",
    "throw",
    "true",
    "try",
    "typedef",
    "typeid",
    "typename",
    "typeof",
    "union",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "wchar_t",
    "while",
    "xor",
    "xor_eq",
    "dbm",
    "dl",
    "errno",
    "exit",
    "exp",
    "index",
    "lib",
    "linux",
    "log",
    "main",
    "mq",
    "null",
    "open",
    "pow",
    "printf",
    "pthread",
    "random",
    "read",
    "sem",
    "shm",
    "signal",
    "sin",
    "size_t",
    "std",
    "tan",
    "time",
    "unix",
    "write",
    "y0",
    "y1",
];

/// A macro's part made of a name from the program: upper case, and only what a macro may have. Different names may fall
/// together; `taken` remembers them and tells them apart.
pub(crate) fn macro_name(parts: &[&str], taken: &mut BTreeSet<String>) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() { char.to_ascii_uppercase() } else { '_' };
    let name: String = parts.join("_").chars().map(plain).collect();
    let mut unique = name.clone();
    let mut number = 2;
    while !taken.insert(unique.clone()) {
        unique = format!("{name}_{number}");
        number += 1;
    }
    unique
}
