//! The plan's text: one line for each thing, one block for each row program and layer kind.
//!
//! ```text
//! plan bard
//! input ids %0 [] limit 256
//! buffer %3 "h" f32 tokens 128 workspace 512 0
//! param 1 "layers[l].attn.q" panels 128 128 1 f32 layers 4 each experts 1 bytes 65536 at 0 {
//!   0 "layers[l].attn.q" rows [Head, Dh] columns [D]
//! }
//! rows tokens "h" barrier {
//!   local 0 f32 128
//!   map [128] mul($0, $1) (row 3 [1], param 2 [1]) -> local 0 [1]
//! }
//! ```

use std::fmt::{self, Display, Formatter};

use crate::{
    Assign, Attention, Bin, Buffer, Gemm, Home, Layout, Lookup, Node, PackedParam, Plan, Port, ReduceOp, RowOp,
    RowProgram, Rows, Source, Step, StepKind, Store, View, Work,
};

/// A list as `[a, b]`.
struct List<'a, T>(&'a [T]);

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (at, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

/// Views as `(a, b)`.
struct Views<'a>(&'a [View]);

impl Display for Views<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (at, view) in self.0.iter().enumerate() {
            write!(f, "{}{view}", if at == 0 { "" } else { ", " })?;
        }
        f.write_str(")")
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl ReduceOp {
    pub const ALL: [ReduceOp; 6] =
        [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min, ReduceOp::Any, ReduceOp::All];

    pub fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Prod => "prod",
            ReduceOp::Max => "max",
            ReduceOp::Min => "min",
            ReduceOp::Any => "any",
            ReduceOp::All => "all",
        }
    }
}

impl Display for Rows {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Rows::Fixed(rows) => write!(f, "fixed({rows})"),
            Rows::Tokens => f.write_str("tokens"),
            Rows::Outputs => f.write_str("outputs"),
            Rows::Slots { choices } => write!(f, "slots({choices})"),
            Rows::Share(share) => share.fmt(f),
            Rows::Positions => f.write_str("positions"),
        }
    }
}

impl Display for View {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::Local(id) => write!(f, "local {}", id.0)?,
            Source::Row(id) => write!(f, "row {}", id.0)?,
            Source::Whole(id) => write!(f, "whole {}", id.0)?,
            Source::Param(id) => write!(f, "param {}", id.0)?,
            Source::Literal(id) => write!(f, "literal {}", id.0)?,
            Source::Place => f.write_str("place")?,
            Source::Position => f.write_str("position")?,
            Source::Count(extent) => write!(f, "count {extent}")?,
        }
        if self.offset != 0 {
            write!(f, " + {}", self.offset)?;
        }
        write!(f, " {}", List(&self.strides))?;
        if self.row != 0 {
            write!(f, " each {}", self.row)?;
        }
        match &self.index {
            Some(index) => write!(f, " by {} * ({})", index.stride, index.view),
            None => Ok(()),
        }
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan {}", quoted(&self.name))?;
        self.inputs.iter().try_for_each(|port| write_port(f, "input", port))?;
        self.outputs.iter().try_for_each(|port| write_port(f, "output", port))?;
        for (at, buffer) in self.buffers.iter().enumerate() {
            write_buffer(f, at, buffer)?;
        }
        for (at, literal) in self.literals.iter().enumerate() {
            let data: Vec<String> = literal.data.iter().map(|value| format!("{value:?}")).collect();
            writeln!(f, "literal {at} {} {}", literal.dtype, List(&data))?;
        }
        for (at, param) in self.params.iter().enumerate() {
            write_param(f, at, param)?;
        }
        self.body.iter().try_for_each(|node| write_node(f, node, 0))?;
        for source in &self.sources {
            writeln!(f, "source")?;
            source.iter().try_for_each(|node| write_node(f, node, 0))?;
        }
        Ok(())
    }
}

fn write_port(f: &mut Formatter<'_>, word: &str, port: &Port) -> fmt::Result {
    let axes: Vec<String> = port.axes.iter().map(|(name, size)| format!("{name}={size}")).collect();
    write!(f, "{word} {} %{} {}", quoted(&port.name), port.buffer.0, List(&axes))?;
    if port.sequence > 0 {
        write!(f, " of {}", port.sequence)?;
    }
    match port.index_limit {
        Some(limit) => writeln!(f, " limit {limit}"),
        None => writeln!(f),
    }
}

fn write_buffer(f: &mut Formatter<'_>, at: usize, buffer: &Buffer) -> fmt::Result {
    write!(f, "buffer %{at} {} {} {} {} ", quoted(&buffer.name), buffer.dtype, buffer.rows, buffer.row)?;
    match &buffer.home {
        Home::Input(port) => writeln!(f, "input {port}"),
        Home::Output(port) => writeln!(f, "output {port}"),
        Home::Workspace { per_token, fixed } => writeln!(f, "workspace {per_token} {fixed}"),
        Home::Cache { instances, per_position, panels } => {
            writeln!(f, "cache {} {instances} {per_position}", if *panels { "panels" } else { "rows" })
        }
        Home::State { instances, offset } => writeln!(f, "state {instances} {offset}"),
    }
}

fn write_param(f: &mut Formatter<'_>, at: usize, param: &PackedParam) -> fmt::Result {
    write!(f, "param {at} {} ", quoted(&param.name))?;
    match param.layout {
        Layout::Plain { elements } => write!(f, "plain {elements}")?,
        Layout::Panels { k, n, branches } => write!(f, "panels {k} {n} {branches}")?,
    }
    let each = if param.per_layer { " each" } else { "" };
    write!(f, " {} layers {}{each} experts {} ", param.storage, param.layers, param.experts)?;
    writeln!(f, "bytes {} at {} {{", param.instance_bytes, param.offset)?;
    for source in &param.sources {
        let (rows, columns) = (List(&source.rows), List(&source.columns));
        writeln!(f, "  {} {} rows {rows} columns {columns}", source.param, quoted(&source.path))?;
    }
    writeln!(f, "}}")
}

fn write_node(f: &mut Formatter<'_>, node: &Node, depth: usize) -> fmt::Result {
    let indent = "  ".repeat(depth);
    match node {
        Node::Step(step) => write_step(f, step, &indent),
        Node::Layers(layers) => {
            writeln!(f, "{indent}layers {} {{", List(&layers.order))?;
            for kind in &layers.kinds {
                writeln!(f, "{indent}  kind {{")?;
                kind.iter().try_for_each(|node| write_node(f, node, depth + 2))?;
                writeln!(f, "{indent}  }}")?;
            }
            writeln!(f, "{indent}}}")
        }
    }
}

fn write_step(f: &mut Formatter<'_>, step: &Step, indent: &str) -> fmt::Result {
    let label = quoted(&step.label);
    let barrier = if step.barrier { " barrier" } else { "" };
    match &step.kind {
        StepKind::Rows { rows, program, group } => {
            write!(f, "{indent}rows {label}{barrier} {rows}")?;
            if let Some(group) = group {
                write!(f, " group %{} first {} count {}", group.offsets.0, group.first, group.count)?;
            }
            writeln!(f, " {{")?;
            write_program(f, program, indent)?;
            writeln!(f, "{indent}}}")
        }
        StepKind::Gemm(gemm) => {
            let word = if gemm.group.is_some() { "grouped_gemm" } else { "gemm" };
            write!(f, "{indent}{word} {label}{barrier} ")?;
            write_gemm(f, gemm)
        }
        StepKind::Bin(bin) => {
            write!(f, "{indent}bin {label}{barrier} ")?;
            write_bin(f, bin)
        }
        StepKind::Attention(attention) => {
            write!(f, "{indent}attention {label}{barrier} ")?;
            write_attention(f, attention)
        }
        StepKind::Assign(assign) => {
            let Assign { tokens, score, experts, most, out, room } = assign;
            write!(f, "{indent}assign {label}{barrier} {tokens} %{} experts {experts} most {most} ", score.0)?;
            writeln!(f, "in %{} -> %{}", room.0, out.0)
        }
        StepKind::Scan(scan) => {
            writeln!(f, "{indent}scan {label}{barrier} {} {{", scan.parts)?;
            write_program(f, &scan.start, indent)?;
            writeln!(f, "{indent}}} {{")?;
            write_program(f, &scan.program, indent)?;
            writeln!(f, "{indent}}}")
        }
    }
}

fn write_program(f: &mut Formatter<'_>, program: &RowProgram, indent: &str) -> fmt::Result {
    for (at, local) in program.locals.iter().enumerate() {
        writeln!(f, "{indent}  local {at} {} {}", local.dtype, local.elements)?;
    }
    for op in &program.ops {
        match op {
            RowOp::Map { extents, expr, args, into } => {
                writeln!(f, "{indent}  map {} {expr} {} -> {into}", List(extents), Views(args))?;
            }
            RowOp::Reduce { op, extents, over, expr, args, into } => {
                let (extents, over) = (List(extents), List(over));
                writeln!(f, "{indent}  {} {extents} over {over} {expr} {} -> {into}", op.name(), Views(args))?;
            }
            RowOp::Cumsum { extents, along, expr, args, into } => {
                writeln!(f, "{indent}  cumsum {} along {along} {expr} {} -> {into}", List(extents), Views(args))?;
            }
            RowOp::ScatterAdd { extents, over, count, index, expr, args, into } => {
                write!(f, "{indent}  scatter_add {} over {} to {count} ", List(extents), List(over))?;
                writeln!(f, "by ({index}) {expr} {} -> {into}", Views(args))?;
            }
            RowOp::TopK { extents, len, k, arg, values, indices, work } => {
                write!(f, "{indent}  top_k {} {k} of {len} ({arg}) -> {values}, {indices}", List(extents))?;
                match work {
                    None => writeln!(f)?,
                    Some(Work::Local(id)) => writeln!(f, " in local {}", id.0)?,
                    Some(Work::Buffer(id)) => writeln!(f, " in %{}", id.0)?,
                }
            }
        }
    }
    Ok(())
}

fn write_gemm(f: &mut Formatter<'_>, gemm: &Gemm) -> fmt::Result {
    let Gemm { rows, batch, a, weights, epilogue, extras, out, group } = gemm;
    let batch = if *batch == 1 { String::new() } else { format!("batch {batch} ") };
    write!(f, "{rows} {batch}%{} param {} {epilogue} {} -> %{}", a.0, weights.0, Views(extras), out.0)?;
    let Some(group) = group else { return writeln!(f) };
    let gather = if group.gather { " gather" } else { "" };
    let (offsets, order) = (group.offsets.0, group.order.0);
    write!(f, " group %{offsets} %{order} choices {} first {}{gather}", group.choices, group.first)?;
    match group.store {
        Store::Slots => writeln!(f, " slots"),
        Store::Choices { weights } => writeln!(f, " weighed %{}", weights.0),
    }
}

fn write_bin(f: &mut Formatter<'_>, bin: &Bin) -> fmt::Result {
    write!(f, "{} route {} %{} %{} ", bin.tokens, bin.route, bin.indices.0, bin.weights.0)?;
    write!(f, "experts {} choices {} -> %{} %{}", bin.experts, bin.choices, bin.offsets.0, bin.order.0)?;
    match bin.slot_of {
        Some(slot_of) => writeln!(f, " inverse %{}", slot_of.0),
        None => writeln!(f),
    }
}

fn write_attention(f: &mut Formatter<'_>, step: &Attention) -> fmt::Result {
    let Attention {
        rows,
        q,
        k,
        v,
        out,
        groups,
        queries,
        width,
        values,
        score,
        extras,
        sink,
        lookups,
        keys_of,
        causal,
        window,
    } = step;
    write!(f, "{rows} %{} %{} %{} [{groups}, {queries}, {width}, {values}] {score} {}", q.0, k.0, v.0, Views(extras))?;
    if let Some(sink) = sink {
        write!(f, " sink {sink}")?;
    }
    for Lookup { view, stride, places, index } in lookups {
        write!(f, " lookup {index} [{stride}, {places}] ({view})")?;
    }
    if let Some(sequence) = keys_of {
        write!(f, " of {sequence}")?;
    }
    if *causal {
        f.write_str(" causal")?;
    }
    if let Some(window) = window {
        write!(f, " window {window}")?;
    }
    writeln!(f, " -> %{}", out.0)
}
