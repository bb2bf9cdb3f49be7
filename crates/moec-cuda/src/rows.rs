//! Row programs and scans: one block for a row, or for a part of a scan. What each operation does with the loops is fixed text
//! (kernels/cuda/rows.cuh); printed are the loops' sizes, the views and the expression.
//!
//! Before:  `map [64] mul($0, $1) (row 3 [1], param 2 [1]) -> local 0 [1]`
//! After:   `each(64ll, [&](i64 at) { …; write(local_0[i0], op_mul(read(…), read(…))); });`

use std::fmt::Write;

use moec_plan::{Extent, LocalId, Plan, ReduceOp, RowGroup, RowOp, RowProgram, Rows, Scan, View, Work, fixed_product};
use moec_types::{DType, Expr};

use crate::{
    expr::{self, read_as, storage_type, value_type},
    launch::{Counted, Kernel, Launch, Sessions, Taken, Way},
    place::{self, Seen},
};

/// Locals of one row that shared memory takes; more are in the pass's scratch.
const MOST_SHARED_BYTES: u64 = 40 << 10;

/// Blocks at most where each has its own scratch.
const MOST_WITH_SCRATCH: u64 = 264;

pub fn rows(plan: &Plan, name: &str, rows: Rows, program: &RowProgram, group: Option<&RowGroup>) -> Kernel {
    let room = Room::new(&[program]);
    let threads = threads(&[program]);
    let expert = group.map(|_| "expert");
    let seen = Seen { plan, part: "row", expert, locals: &dtypes(program) };
    let mut text = opening(name, threads, &room);
    let [first, end] = place::range(rows);
    let _ = writeln!(text, "  for (i64 row = {first} + block(); row < {end}; row += blocks()) {{");
    if let Some(group) = group {
        let offsets = place::elements(plan, group.offsets);
        let _ = writeln!(text, "    const int expert = expert_of({offsets}, {}, {}, row);", group.first, group.count);
        text.push_str("    if (expert < 0) continue;\n");
    }
    text.push_str(&room.locals(program));
    program.ops.iter().for_each(|op| text.push_str(&operation(&seen, op)));
    room.kernel(name, threads, text, rows.into())
}

/// Each part of each session goes through all its tokens: what a token needs of the one before it, its block has.
pub fn scan(plan: &Plan, name: &str, scan: &Scan) -> Kernel {
    let programs = [&scan.start, &scan.program];
    let room = Room::new(&programs);
    let threads = threads(&programs);
    let mut text = opening(name, threads, &room);
    let parts = scan.parts;
    let _ = writeln!(text, "  for (i64 item = block(); item < given->segment_count * {parts}ll; item += blocks()) {{");
    let _ = writeln!(text, "    Pass pass = *given;\n    pass.segments += item / {parts}ll;");
    let _ = writeln!(text, "    const i64 part = item % {parts}ll, first = pass.segments->first;");
    let new = "(pass.segments->past == 0 ? 1 : 0)";
    for (program, tokens) in [(&scan.start, new), (&scan.program, "pass.segments->tokens")] {
        let seen = Seen { plan, part: "part", expert: None, locals: &dtypes(program) };
        let _ = writeln!(text, "    for (i64 row = first; row < first + {tokens}; row++) {{");
        text.push_str(&room.locals(program));
        program.ops.iter().for_each(|op| text.push_str(&operation(&seen, op)));
        text.push_str("    }\n");
    }
    let counted = Counted { rows: Rows::Fixed(parts), each: 1, sessions: Sessions::Each };
    room.kernel(name, threads, text, counted)
}

fn dtypes(program: &RowProgram) -> Vec<DType> {
    program.locals.iter().map(|local| local.dtype).collect()
}

fn opening(name: &str, threads: u64, room: &Room) -> String {
    let mut text = format!("MOEC_KERNEL({threads}) {name}(const Pass *given, int rank) {{\n");
    text.push_str("  const Pass &pass = *given;\n");
    let _ = writeln!(text, "  MOEC_SHARED int words[{threads}];");
    let bytes = room.bytes.max(16);
    if room.is_shared() {
        let _ = writeln!(text, "  MOEC_SHARED i64 room[{}];", bytes / 8);
    } else {
        let _ = writeln!(text, "  i64 *room = (i64 *)(pass.scratch + block() * {bytes}ll);");
    }
    text
}

/// As many as there is to do at once, a power of two.
fn threads(programs: &[&RowProgram]) -> u64 {
    let turns = |op: &RowOp| {
        let loops = match op {
            RowOp::Map { extents, .. } => extents.clone(),
            RowOp::Reduce { extents, over, .. } => [&extents[..], over].concat(),
            RowOp::Cumsum { extents, .. } => extents.clone(),
            RowOp::ScatterAdd { extents, count, .. } => [&extents[..], &[*count]].concat(),
            RowOp::TopK { extents, len, .. } => [&extents[..], &[*len]].concat(),
        };
        fixed_product(&loops).unwrap_or(u64::MAX)
    };
    let most = programs.iter().flat_map(|program| &program.ops).map(turns).max().unwrap_or(1);
    most.min(256).next_power_of_two().max(32)
}

/// Where the locals of a row are.
struct Room {
    bytes: u64,
}

impl Room {
    fn new(programs: &[&RowProgram]) -> Self {
        Room { bytes: programs.iter().map(|program| layout(program).1).max().unwrap_or(0) }
    }

    fn is_shared(&self) -> bool {
        self.bytes <= MOST_SHARED_BYTES
    }

    /// The kernel, but for its end: one block for a row.
    fn kernel(&self, name: &str, threads: u64, mut text: String, counted: Counted) -> Kernel {
        let most = if self.is_shared() { 0 } else { MOST_WITH_SCRATCH };
        text.push_str("  }\n}\n");
        let _ = writeln!(text, "MOEC_SHAPE {name}_shape[] = {{{threads}, 1, 0, 1, 0, {most}}};");
        let way = Way { kernels: vec![name.to_owned()], taken: Taken::ALWAYS, hopper: false };
        let launch = Launch { ways: vec![way], counted, traced: None };
        Kernel { text, launch, scratch_bytes: self.bytes * most }
    }

    fn locals(&self, program: &RowProgram) -> String {
        let mut text = String::new();
        for ((at, local), start) in program.locals.iter().enumerate().zip(layout(program).0) {
            let dtype = storage_type(local.dtype);
            let _ = writeln!(text, "      {dtype} *const local_{at} = ({dtype} *)((char *)room + {start});");
        }
        text
    }
}

/// Where each local starts, and the bytes of all. What only a top-k sorts in is not needed.
fn layout(program: &RowProgram) -> (Vec<u64>, u64) {
    let sorts_in = |id: LocalId| {
        program.ops.iter().any(|op| match op {
            RowOp::TopK { work: Some(Work::Local(room)), .. } => *room == id,
            RowOp::TopK { work: Some(Work::Buffer(_)) | None, .. } => false,
            RowOp::Map { .. } | RowOp::Reduce { .. } | RowOp::Cumsum { .. } | RowOp::ScatterAdd { .. } => false,
        })
    };
    let mut end = 0;
    let mut starts = Vec::new();
    for (at, local) in program.locals.iter().enumerate() {
        starts.push(end);
        if !sorts_in(LocalId(at as u32)) {
            end += (local.elements * local.dtype.bytes()).next_multiple_of(16);
        }
    }
    (starts, end)
}

/// Loops that one number runs through, the last fastest: its declaration of `i{first}` and those after it.
fn unfold(number: &str, first: usize, extents: &[Extent]) -> String {
    let mut text = String::new();
    // 32 bits where they do: divisions are what this costs.
    let narrow = fixed_product(extents).is_some_and(|product| product < 1 << 31);
    let number = if narrow { format!("(int){number}") } else { number.to_owned() };
    let mut inner = Vec::new();
    for (at, extent) in extents.iter().enumerate().rev() {
        let within = inner.iter().fold(number.clone(), |text, size| format!("{text} / {size}"));
        let size = match extent.fixed() {
            Some(size) => size.max(1).to_string(),
            None => place::extent(*extent),
        };
        let all = if at == 0 { String::new() } else { format!(" % {size}") };
        let _ = write!(text, "const i64 i{} = {within}{all}; ", first + at);
        inner.push(size);
    }
    text
}

fn product(extents: &[Extent]) -> String {
    match fixed_product(extents) {
        Some(product) => format!("{product}ll"),
        None => extents.iter().map(|extent| place::extent(*extent)).collect::<Vec<_>>().join(" * "),
    }
}

fn ivs(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("i{at}")).collect()
}

/// The expression of what its views read, and its type.
fn value(seen: &Seen, expr: &Expr, args: &[View], ivs: &[String]) -> (String, DType) {
    let read: Vec<String> = args.iter().map(|view| seen.read(view, ivs)).collect();
    let dtypes: Vec<DType> = args.iter().map(|view| read_as(seen.dtype(view.source))).collect();
    let dtype = expr.dtype(&dtypes).expect("verified: the expression has a type");
    (expr::print(expr, &read), dtype)
}

fn reduction(op: ReduceOp) -> &'static str {
    match op {
        ReduceOp::Sum => "Sum",
        ReduceOp::Prod => "Prod",
        ReduceOp::Max => "Max",
        ReduceOp::Min => "Min",
        ReduceOp::Any => "Any",
        ReduceOp::All => "All",
    }
}

fn operation(seen: &Seen, op: &RowOp) -> String {
    let mut text = String::new();
    match op {
        RowOp::Map { extents, expr, args, into } => {
            let ivs = ivs(extents.len());
            let (value, _) = value(seen, expr, args, &ivs);
            let _ = writeln!(text, "      each({}, [&](i64 at) {{", product(extents));
            let _ = writeln!(text, "        {}", unfold("at", 0, extents));
            let _ = writeln!(text, "        {}\n      }});", seen.write(into, &ivs, &value));
        }
        RowOp::Reduce { op, extents, over, expr, args, into } => {
            let all = ivs(extents.len() + over.len());
            let (value, dtype) = value(seen, expr, args, &all);
            let (outer, inner) = (unfold("at", 0, extents), unfold("along", extents.len(), over));
            let (op, dtype) = (reduction(*op), value_type(dtype));
            let (kept, over) = (product(extents), product(over));
            let _ = writeln!(text, "      reduce<{op}>({kept}, {over}, ({dtype} *)words, [&](i64 at, i64 along) {{");
            let _ = writeln!(text, "        {outer}{inner}\n        return {value};");
            let _ = writeln!(text, "      }}, [&](i64 at, {dtype} value) {{");
            let _ = writeln!(text, "        {outer}\n        {}\n      }});", seen.write(into, &all, "value"));
        }
        RowOp::Cumsum { extents, along, expr, args, into } => {
            let all = ivs(extents.len() + 1);
            let (value, dtype) = value(seen, expr, args, &all);
            let (outer, last, dtype) = (unfold("at", 0, extents), extents.len(), value_type(dtype));
            let (kept, along) = (product(extents), place::extent(*along));
            let _ = writeln!(text, "      cumsum<{dtype}>({kept}, {along}, [&](i64 at, i64 i{last}) {{");
            let _ = writeln!(text, "        {outer}\n        return {value};");
            let _ = writeln!(text, "      }}, [&](i64 at, i64 i{last}, {dtype} value) {{");
            let _ = writeln!(text, "        {outer}\n        {}\n      }});", seen.write(into, &all, "value"));
        }
        RowOp::ScatterAdd { extents, over, count, index, expr, args, into } => {
            let all = ivs(extents.len() + over.len());
            let (value, dtype) = value(seen, expr, args, &all);
            let (outer, inner) = (unfold("at", 0, extents), unfold("along", extents.len(), over));
            let (last, dtype) = (extents.len(), value_type(dtype));
            let (kept, over, count) = (product(extents), product(over), place::extent(*count));
            let in_place = matches!(seen.dtype(into.source), DType::F32 | DType::I32);
            let sizes = format!("{kept}, {over}, {count}");
            let _ = writeln!(text, "      scatter_add<{dtype}, {in_place}>({sizes}, [&](i64 at, i64 along) {{");
            let _ = writeln!(text, "        {outer}{inner}\n        return {};", seen.read(index, &all));
            let _ = writeln!(text, "      }}, [&](i64 at, i64 along) {{");
            let _ = writeln!(text, "        {outer}{inner}\n        return {value};");
            let _ = writeln!(text, "      }}, [&](i64 at, i64 i{last}) {{");
            let _ = writeln!(text, "        {outer}\n        return {};", seen.read(into, &all));
            let _ = writeln!(text, "      }}, [&](i64 at, i64 i{last}, {dtype} value) {{");
            let _ = writeln!(text, "        {outer}\n        {}\n      }});", seen.write(into, &all, "value"));
        }
        RowOp::TopK { extents, len, k, arg, values, indices, work: _ } => {
            let all = ivs(extents.len() + 1);
            let (outer, last) = (unfold("at", 0, extents), extents.len());
            let (kept, len, k) = (product(extents), place::extent(*len), place::extent(*k));
            let _ = writeln!(text, "      top_k({kept}, {len}, {k}, [&](i64 at, i64 i{last}) {{");
            let _ = writeln!(text, "        {outer}\n        return {};", seen.read(arg, &all));
            let _ = writeln!(text, "      }}, [&](i64 at, i64 i{last}, float value, int index) {{");
            let _ = writeln!(text, "        {outer}\n        {}", seen.write(values, &all, "value"));
            let _ = writeln!(text, "        {}\n      }});", seen.write(indices, &all, "index"));
        }
    }
    text
}
