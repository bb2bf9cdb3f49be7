//! What every backend may rely on: ids exist, views stay within what they look at, shapes fit.

use std::fmt;

use moec_types::{DType, Expr};

use crate::{
    Assign, Attention, Bin, BufferId, Extent, Gemm, Home, Layout, Node, PAGE, PANEL, ParamId, Plan, RowGroup, RowOp,
    RowProgram, Rows, Share, Source, Step, StepKind, Store, View, Work,
};

/// Where a plan is unsound: a bug of lowering, or of who wrote the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyError {
    /// The step's label, or what else is at fault.
    pub place: String,
    pub message: String,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for VerifyError {}

type Check = Result<(), String>;

/// Checks a whole plan.
pub fn verify(plan: &Plan) -> Result<(), VerifyError> {
    let at = |place: &str| {
        let place = place.to_owned();
        move |message| VerifyError { place, message }
    };
    for port in plan.inputs.iter().chain(&plan.outputs) {
        buffer(plan, port.buffer).map_err(at(&port.name))?;
    }
    for buffer in &plan.buffers {
        placed(plan, &buffer.home).map_err(at(&buffer.name))?;
    }
    let mut end = 0;
    for param in &plan.params {
        let sound = param.offset >= end && param.offset % 64 == 0 && param.instance_bytes % 64 == 0;
        ensure(sound, || "it overlaps another parameter or is not aligned".into()).map_err(at(&param.name))?;
        let plain = matches!(param.layout, Layout::Plain { .. });
        ensure(!plain || param.storage.each().is_some(), || "it is not in panels".into()).map_err(at(&param.name))?;
        let enough = param.instance_bytes >= param.needed_bytes();
        ensure(enough, || "an instance is smaller than its elements".into()).map_err(at(&param.name))?;
        end = param.offset + param.bytes();
    }
    plan.passes().try_for_each(|pass| nodes(plan, pass))
}

fn nodes(plan: &Plan, body: &[Node]) -> Result<(), VerifyError> {
    for node in body {
        match node {
            Node::Step(step) => {
                let place = if step.label.is_empty() { step.kind.name() } else { &step.label };
                self::step(plan, step).map_err(|message| VerifyError { place: place.to_owned(), message })?;
            }
            Node::Layers(layers) => {
                if let Some(kind) = layers.order.iter().find(|kind| **kind as usize >= layers.kinds.len()) {
                    return Err(VerifyError { place: "layers".into(), message: format!("no kind {kind}") });
                }
                layers.kinds.iter().try_for_each(|kind| nodes(plan, kind))?;
            }
        }
    }
    Ok(())
}

impl StepKind {
    /// The step's word in the plan's text.
    pub fn name(&self) -> &'static str {
        match self {
            StepKind::Rows { .. } => "rows",
            StepKind::Gemm(gemm) if gemm.group.is_some() => "grouped_gemm",
            StepKind::Gemm(_) => "gemm",
            StepKind::Bin(_) => "bin",
            StepKind::Attention(_) => "attention",
            StepKind::Scan(_) => "scan",
            StepKind::Assign(_) => "assign",
        }
    }
}

fn ensure(sound: bool, message: impl FnOnce() -> String) -> Check {
    if sound { Ok(()) } else { Err(message()) }
}

fn buffer(plan: &Plan, id: BufferId) -> Result<&crate::Buffer, String> {
    plan.buffers.get(id.0 as usize).ok_or_else(|| format!("no buffer %{}", id.0))
}

fn param(plan: &Plan, id: ParamId) -> Result<&crate::PackedParam, String> {
    plan.params.get(id.0 as usize).ok_or_else(|| format!("no parameter {}", id.0))
}

fn placed(plan: &Plan, home: &Home) -> Check {
    match home {
        Home::Input(at) => ensure((*at as usize) < plan.inputs.len(), || format!("no input {at}")),
        Home::Output(at) => ensure((*at as usize) < plan.outputs.len(), || format!("no output {at}")),
        Home::Workspace { per_token, fixed } => {
            ensure(per_token % 64 == 0 && fixed % 64 == 0, || "its place is not aligned".into())
        }
        Home::Cache { instances, .. } => ensure(*instances > 0, || "a cache without instances".into()),
        Home::State { instances, offset } => {
            ensure(*instances > 0 && offset % 64 == 0, || "a state without instances, or not aligned".into())
        }
    }
}

fn step(plan: &Plan, step: &Step) -> Check {
    match &step.kind {
        StepKind::Rows { rows, program, group } => {
            group.iter().try_for_each(|group| row_group(plan, *rows, group))?;
            ensure(*rows != Rows::Positions, || "no step computes all positions".into())?;
            let looks = Looks { plan, rows: *rows, of_token: false, program: Some(program) };
            program.ops.iter().try_for_each(|op| row_op(&looks, op))
        }
        StepKind::Gemm(gemm) => self::gemm(plan, gemm),
        StepKind::Bin(bin) => self::bin(plan, bin),
        StepKind::Attention(step) => attention(plan, step),
        StepKind::Assign(assign) => self::assign(plan, assign),
        StepKind::Scan(scan) => [&scan.start, &scan.program].into_iter().try_for_each(|program| {
            let looks = Looks { plan, rows: Rows::Fixed(scan.parts), of_token: true, program: Some(program) };
            program.ops.iter().try_for_each(|op| row_op(&looks, op))
        }),
    }
}

fn row_group(plan: &Plan, rows: Rows, group: &RowGroup) -> Check {
    let slots = matches!(rows, Rows::Slots { .. } | Rows::Fixed(_));
    ensure(slots, || format!("a group of experts over rows {rows}"))?;
    let last = u64::from(group.first) + u64::from(group.count);
    let experts = buffer(plan, group.offsets)?.row.saturating_sub(1);
    ensure(last <= experts, || format!("experts up to {last} of {experts}"))
}

fn row_op(looks: &Looks, op: &RowOp) -> Check {
    match op {
        RowOp::Map { extents, expr, args, into } => {
            args.iter().try_for_each(|view| looks.view(view, extents))?;
            looks.written(into, extents)?;
            looks.expression(expr, args)
        }
        RowOp::Reduce { op: _, extents, over, expr, args, into } => {
            let loops = [&extents[..], over].concat();
            args.iter().try_for_each(|view| looks.view(view, &loops))?;
            looks.written(into, extents)?;
            looks.expression(expr, args)
        }
        RowOp::Cumsum { extents, along, expr, args, into } => {
            let loops = [&extents[..], &[*along]].concat();
            args.iter().try_for_each(|view| looks.view(view, &loops))?;
            looks.written(into, &loops)?;
            looks.expression(expr, args)
        }
        RowOp::ScatterAdd { extents, over, count, index, expr, args, into } => {
            let loops = [&extents[..], over].concat();
            args.iter().chain([index]).try_for_each(|view| looks.view(view, &loops))?;
            ensure(looks.dtype(index.source)? == DType::I32, || format!("`{index}` is no index"))?;
            ensure(into.index.is_none(), || format!("`{into}` is indexed twice"))?;
            looks.written(into, &[&extents[..], &[*count]].concat())?;
            looks.expression(expr, args)
        }
        RowOp::TopK { extents, len, k, arg, values, indices, work } => {
            if let (Some(k), Some(len)) = (k.fixed(), len.fixed()) {
                ensure(k <= len, || format!("the {k} largest of {len}"))?;
            }
            let with = |last: Extent| [&extents[..], &[last]].concat();
            looks.view(arg, &with(*len))?;
            looks.written(values, &with(*k))?;
            looks.written(indices, &with(*k))?;
            match work {
                None => ensure(len.fixed().is_some() && k.fixed().is_some(), || "nowhere to sort tokens".into()),
                Some(work) => looks.room(*work, extents, *len),
            }
        }
    }
}

/// Elements of a buffer for each row of a step: rows of a fixed number may be shared out otherwise.
fn in_each(found: &crate::Buffer, rows: Rows) -> u64 {
    match (found.rows, rows) {
        (Rows::Fixed(own), Rows::Fixed(rows)) => (own * found.row).checked_div(rows).unwrap_or(found.row),
        (_, _) => found.row,
    }
}

/// The loop that goes through all rows of a buffer.
fn counted(rows: Rows) -> Option<Extent> {
    match rows {
        Rows::Fixed(rows) => Some(Extent::Fixed(rows)),
        Rows::Tokens | Rows::Outputs => Some(Extent::Tokens),
        Rows::Slots { choices } => Some(Extent::Share(Share::multiple(choices))),
        Rows::Share(share) => Some(Extent::Share(share)),
        Rows::Positions => None,
    }
}

/// What views may look at, from within a step.
struct Looks<'p> {
    plan: &'p Plan,
    rows: Rows,
    /// `Source::Row` is the row of a token, whatever the step's rows are.
    of_token: bool,
    program: Option<&'p RowProgram>,
}

impl Looks<'_> {
    fn written(&self, view: &View, loops: &[Extent]) -> Check {
        let writable = matches!(view.source, Source::Local(_) | Source::Row(_) | Source::Whole(_));
        ensure(writable, || format!("`{view}` cannot be written"))?;
        self.view(view, loops)
    }

    /// Whether a sort of `len` elements has its room.
    fn room(&self, work: Work, extents: &[Extent], len: Extent) -> Check {
        let enough = match work {
            Work::Local(id) => {
                let source = Source::Local(id);
                let elements = self.elements(source)?;
                self.dtype(source)? == DType::I32
                    && len.fixed().is_some_and(|len| elements.is_some_and(|elements| elements >= len * Work::ELEMENTS))
            }
            Work::Buffer(id) => {
                let found = buffer(self.plan, id)?;
                let rows = match self.rows {
                    Rows::Fixed(rows) => Some(rows),
                    Rows::Tokens | Rows::Outputs | Rows::Slots { .. } | Rows::Share(_) | Rows::Positions => None,
                };
                let each = rows.and_then(|rows| Some(rows * crate::fixed_product(extents)? * Work::ELEMENTS));
                found.dtype == DType::I32
                    && counted(found.rows) == Some(len)
                    && each.is_some_and(|each| found.row >= each)
            }
        };
        ensure(enough, || format!("too little room to sort {len}"))
    }

    fn view(&self, view: &View, loops: &[Extent]) -> Check {
        ensure(view.strides.len() == loops.len(), || format!("`{view}` has not one stride for each of {loops:?}"))?;
        let moving = view.strides.iter().copied().zip(loops.iter().copied()).filter(|(stride, _)| *stride != 0);
        let within: Option<u64> = moving.map(|(stride, size)| Some(stride * size.fixed()?.saturating_sub(1))).sum();
        let by_row = match self.rows {
            Rows::Fixed(rows) => Some(view.row * rows.saturating_sub(1)),
            Rows::Tokens | Rows::Outputs | Rows::Slots { .. } | Rows::Share(_) | Rows::Positions => {
                (view.row == 0).then_some(0)
            }
        };
        let furthest = within.and_then(|within| Some(within + by_row?));
        let elements = self.elements(view.source)?;
        if let Some(index) = &view.index {
            ensure(self.dtype(index.view.source)? == DType::I32, || format!("`{view}`: the index is not i32"))?;
            ensure(index.view.index.is_none(), || format!("`{view}`: an index within an index"))?;
            self.view(&index.view, loops)?;
        }
        let inside = match (elements, furthest) {
            (Some(elements), Some(furthest)) => view.offset + furthest < elements,
            // As far as the tokens go, which no fixed number of elements does.
            (Some(_), None) => false,
            (None, _) => true,
        };
        let none = loops.contains(&Extent::Fixed(0)) || self.rows == Rows::Fixed(0);
        ensure(inside || none, || format!("`{view}` over {loops:?} looks past {elements:?} elements"))
    }

    /// How many elements a source shows; `None` where any place will do or the rows are counted at run time.
    fn elements(&self, source: Source) -> Result<Option<u64>, String> {
        Ok(match source {
            Source::Local(id) => {
                let locals = self.program.map_or(&[][..], |program| &program.locals);
                Some(locals.get(id.0 as usize).ok_or_else(|| format!("no local {}", id.0))?.elements)
            }
            Source::Row(id) => {
                let found = buffer(self.plan, id)?;
                let fits = found.rows == Rows::ONE
                    || found.rows == Rows::Positions
                    || found.rows == self.rows
                    || (found.rows == Rows::Tokens && self.rows == Rows::Outputs)
                    || (found.rows == Rows::Outputs && self.rows == Rows::Tokens)
                    || (self.of_token && found.rows == Rows::Tokens);
                ensure(fits, || format!("%{} has rows {}, the step {}", id.0, found.rows, self.rows))?;
                Some(found.row)
            }
            Source::Whole(id) => {
                let found = buffer(self.plan, id)?;
                match found.rows {
                    Rows::Fixed(rows) => Some(rows * found.row),
                    Rows::Tokens | Rows::Outputs | Rows::Slots { .. } | Rows::Share(_) | Rows::Positions => None,
                }
            }
            Source::Param(id) => {
                let found = param(self.plan, id)?;
                match found.layout {
                    Layout::Plain { elements } => {
                        let others = u64::from(found.experts.max(1)) - 1;
                        Some(others * found.instance_stride() + elements)
                    }
                    Layout::Panels { .. } => return Err(format!("parameter {} is in panels", id.0)),
                }
            }
            Source::Literal(id) => {
                let literal = self.plan.literals.get(id.0 as usize).ok_or_else(|| format!("no literal {}", id.0))?;
                Some(literal.data.len() as u64)
            }
            Source::Place | Source::Position => None,
            Source::Count(_) => Some(1),
        })
    }

    fn dtype(&self, source: Source) -> Result<DType, String> {
        Ok(match source {
            Source::Local(id) => {
                let locals = self.program.map_or(&[][..], |program| &program.locals);
                locals.get(id.0 as usize).ok_or_else(|| format!("no local {}", id.0))?.dtype
            }
            Source::Row(id) | Source::Whole(id) => buffer(self.plan, id)?.dtype,
            Source::Param(_) => DType::F32,
            Source::Literal(id) => {
                self.plan.literals.get(id.0 as usize).ok_or_else(|| format!("no literal {}", id.0))?.dtype
            }
            Source::Place | Source::Position | Source::Count(_) => DType::I32,
        })
    }

    fn expression(&self, expr: &Expr, args: &[View]) -> Check {
        let types = args.iter().map(|view| self.dtype(view.source)).collect::<Result<Vec<_>, _>>()?;
        typed(expr, &types)
    }
}

fn typed(expr: &Expr, types: &[DType]) -> Check {
    ensure(expr.arity() <= types.len(), || format!("{expr} has {} operands, {} are given", expr.arity(), types.len()))?;
    expr.dtype(types).map(|_| ()).map_err(|error| error.to_string())
}

fn gemm(plan: &Plan, gemm: &Gemm) -> Check {
    let weights = param(plan, gemm.weights)?;
    let Layout::Panels { k, n, branches } = weights.layout else { return Err("its weights are not in panels".into()) };
    let (a, out) = (buffer(plan, gemm.a)?, buffer(plan, gemm.out)?);
    let batch = gemm.batch;
    ensure(batch > 0, || "rows without rows of the matrix".into())?;
    let gathers = gemm.group.as_ref().is_some_and(|group| group.gather);
    let fits = if gathers { a.row.is_multiple_of(batch * k) } else { in_each(a, gemm.rows) == batch * k };
    ensure(fits, || format!("rows of {} elements meet {batch} times {k} weights", a.row))?;
    let by_row = gemm.extras.iter().any(|view| matches!(view.source, Source::Row(_)));
    ensure(batch == 1 || !by_row, || "an extra of the step's row for several matrix rows".into())?;
    let looks = Looks { plan, rows: gemm.rows, of_token: false, program: None };
    gemm.extras.iter().try_for_each(|view| looks.view(view, &[Extent::Fixed(n)]))?;
    let extras = gemm.extras.iter().map(|view| looks.dtype(view.source)).collect::<Result<Vec<_>, _>>()?;
    let types: Vec<DType> = (0..branches).map(|_| DType::F32).chain(extras).collect();
    typed(&gemm.epilogue, &types)?;
    if let Home::Cache { panels: true, .. } = out.home {
        return Err("a GEMM writes rows, not panels".into());
    }
    let Some(group) = &gemm.group else {
        return ensure(in_each(out, gemm.rows) == batch * n, || {
            format!("{batch} times {n} columns go to rows of {}", out.row)
        });
    };
    let offsets = buffer(plan, group.offsets)?.row;
    let last = u64::from(group.first) + u64::from(weights.experts);
    ensure(last < offsets, || format!("experts up to {last} of {}", offsets.saturating_sub(1)))?;
    let slots = match gemm.rows {
        Rows::Slots { choices } => choices == group.choices,
        Rows::Fixed(slots) => slots.is_multiple_of(group.choices),
        Rows::Tokens | Rows::Outputs | Rows::Share(_) | Rows::Positions => false,
    };
    ensure(slots, || format!("a group of {} choices over rows {}", group.choices, gemm.rows))?;
    match group.store {
        Store::Slots => {
            ensure(in_each(out, gemm.rows) == batch * n, || format!("{n} columns go to rows of {}", out.row))
        }
        Store::Choices { weights } => {
            let tokens = match gemm.rows {
                Rows::Fixed(slots) => Rows::Fixed(slots / group.choices),
                Rows::Tokens | Rows::Outputs | Rows::Slots { .. } | Rows::Share(_) | Rows::Positions => Rows::Tokens,
            };
            let fits = in_each(out, tokens) == batch * n * group.choices
                && in_each(buffer(plan, weights)?, tokens) == group.choices;
            ensure(fits, || format!("{} choices of {n} columns go to rows of {}", group.choices, out.row))
        }
    }
}

fn bin(plan: &Plan, bin: &Bin) -> Check {
    let rows_of = |id| buffer(plan, id).map(|buffer| buffer.row);
    let slots = match bin.tokens {
        Rows::Fixed(tokens) => Rows::Fixed(tokens * bin.choices),
        Rows::Tokens | Rows::Outputs => Rows::Slots { choices: bin.choices },
        Rows::Slots { .. } | Rows::Share(_) | Rows::Positions => return Err("its rows are no tokens".into()),
    };
    ensure(buffer(plan, bin.order)?.rows == slots, || "its order has not a row for each choice".into())?;
    let inverse = bin.slot_of.map_or(Ok(bin.choices), rows_of)?;
    let fits = rows_of(bin.indices)? == bin.choices
        && rows_of(bin.weights)? == bin.choices
        && rows_of(bin.offsets)? == bin.experts + 1
        && rows_of(bin.order)? == 1
        && inverse == bin.choices;
    ensure(fits, || "its buffers do not fit the choices and experts".into())
}

fn assign(plan: &Plan, assign: &Assign) -> Check {
    let (score, out, room) = (buffer(plan, assign.score)?, buffer(plan, assign.out)?, buffer(plan, assign.room)?);
    ensure(counted(assign.tokens).is_some(), || "its rows are no tokens".into())?;
    let fits = score.dtype == DType::F32 && in_each(score, assign.tokens) == assign.experts;
    ensure(fits, || format!("its scores are not {} f32 for each token", assign.experts))?;
    let fits = out.dtype == DType::I32 && in_each(out, assign.tokens) == 1;
    ensure(fits, || "its result is not one i32 for each token".into())?;
    let enough = room.rows == Rows::ONE && room.dtype.bytes() * room.row >= 4 * Assign::room_elements(assign.experts);
    ensure(enough, || "it has too little room".into())
}

fn attention(plan: &Plan, step: &Attention) -> Check {
    let (q, k, v, out) = (buffer(plan, step.q)?, buffer(plan, step.k)?, buffer(plan, step.v)?, buffer(plan, step.out)?);
    let heads = step.groups * step.queries;
    let shapes = q.row == heads * step.width
        && k.row == step.groups * step.width
        && v.row == step.groups * step.values
        && out.row == heads * step.values;
    ensure(shapes, || "heads and widths do not fit the buffers".into())?;
    let homes =
        matches!(k.home, Home::Cache { panels: true, .. }) && matches!(v.home, Home::Cache { panels: false, .. });
    ensure(homes, || "keys must be a cache in panels, values one in rows".into())?;
    let positions = matches!(step.rows, Rows::Tokens | Rows::Outputs);
    ensure(positions, || format!("queries are new positions, not rows {}", step.rows))?;
    let looks = Looks { plan, rows: step.rows, of_token: false, program: None };
    let heads_of = [step.groups, step.queries].map(Extent::Fixed);
    step.extras.iter().try_for_each(|view| looks.view(view, &heads_of))?;
    let extras = step.extras.iter().map(|view| looks.dtype(view.source)).collect::<Result<Vec<_>, _>>()?;
    let positions = [DType::F32, DType::I32, DType::I32];
    for lookup in &step.lookups {
        looks.view(&lookup.view, &heads_of)?;
        ensure(looks.dtype(lookup.view.source)? == DType::F32, || "a table of the score is not f32".into())?;
        let mut of_positions = true;
        lookup.index.visit(&mut |expr| of_positions &= !matches!(expr, Expr::Arg(at) if ![1, 2].contains(at)));
        ensure(of_positions, || "the place in a table depends on more than positions".into())?;
        typed(&lookup.index, &positions)?;
    }
    let known = |sequence: u32| sequence as usize <= plan.sources.len();
    ensure(step.keys_of.is_none_or(known), || "its keys are of no sequence".into())?;
    let read = step.lookups.iter().map(|_| DType::F32);
    let types: Vec<DType> = positions.into_iter().chain(extras).chain(read).collect();
    typed(&step.score, &types)?;
    let Some(sink) = &step.sink else { return Ok(()) };
    let mut of_extras = true;
    sink.visit(&mut |expr| of_extras &= !matches!(expr, Expr::Arg(0..=2)));
    ensure(of_extras, || "its sink reads more than the extras".into())?;
    typed(sink, &types)
}

// Panels and pages are addressed by shifts in backends.
const _: () = assert!(PANEL.is_power_of_two() && PAGE.is_power_of_two() && PAGE.is_multiple_of(PANEL));
