//! What every backend may rely on: ids exist, views stay within what they look at, shapes fit.

use std::fmt;

use moec_types::{DType, Expr};

use crate::{
    Attention, Bin, BufferId, Gemm, Home, Layout, Node, PANEL, ParamId, Plan, RowGroup, RowOp, RowProgram, Rows,
    Source, Step, StepKind, Store, View,
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
        let enough = param.instance_bytes >= param.instance_elements() * param.storage.bytes();
        ensure(enough, || "an instance is smaller than its elements".into()).map_err(at(&param.name))?;
        end = param.offset + param.bytes();
    }
    nodes(plan, &plan.body)
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
    }
}

fn step(plan: &Plan, step: &Step) -> Check {
    match &step.kind {
        StepKind::Rows { rows, program, group } => {
            group.iter().try_for_each(|group| row_group(plan, *rows, group))?;
            ensure(*rows != Rows::Positions, || "no step computes all positions".into())?;
            program.ops.iter().try_for_each(|op| row_op(plan, *rows, program, op))
        }
        StepKind::Gemm(gemm) => self::gemm(plan, gemm),
        StepKind::Bin(bin) => self::bin(plan, bin),
        StepKind::Attention(step) => attention(plan, step),
    }
}

fn row_group(plan: &Plan, rows: Rows, group: &RowGroup) -> Check {
    ensure(matches!(rows, Rows::Slots { .. }), || format!("a group of experts over rows {rows}"))?;
    let last = u64::from(group.first) + u64::from(group.count);
    let experts = buffer(plan, group.offsets)?.row.saturating_sub(1);
    ensure(last <= experts, || format!("experts up to {last} of {experts}"))
}

fn row_op(plan: &Plan, rows: Rows, program: &RowProgram, op: &RowOp) -> Check {
    let looks = Looks { plan, rows, program: Some(program) };
    match op {
        RowOp::Map { extents, expr, args, into } => {
            args.iter().try_for_each(|view| looks.view(view, extents))?;
            looks.written(into, extents)?;
            looks.expression(expr, args)
        }
        RowOp::Reduce { op: _, extents, over, expr, args, into } => {
            let loops: Vec<u64> = extents.iter().chain(over).copied().collect();
            args.iter().try_for_each(|view| looks.view(view, &loops))?;
            looks.written(into, extents)?;
            looks.expression(expr, args)
        }
        RowOp::TopK { extents, len, k, arg, values, indices } => {
            ensure(k <= len, || format!("the {k} largest of {len}"))?;
            let with = |last: u64| extents.iter().copied().chain([last]).collect::<Vec<_>>();
            looks.view(arg, &with(*len))?;
            looks.written(values, &with(*k))?;
            looks.written(indices, &with(*k))
        }
    }
}

/// What views may look at, from within a step.
struct Looks<'p> {
    plan: &'p Plan,
    rows: Rows,
    program: Option<&'p RowProgram>,
}

impl Looks<'_> {
    fn written(&self, view: &View, loops: &[u64]) -> Check {
        let writable = matches!(view.source, Source::Local(_) | Source::Row(_) | Source::Whole(_));
        ensure(writable, || format!("`{view}` cannot be written"))?;
        self.view(view, loops)
    }

    fn view(&self, view: &View, loops: &[u64]) -> Check {
        ensure(view.strides.len() == loops.len(), || format!("`{view}` has not one stride for each of {loops:?}"))?;
        let furthest =
            view.strides.iter().zip(loops).map(|(stride, size)| stride * size.saturating_sub(1)).sum::<u64>();
        let elements = self.elements(view.source)?;
        if let Some(index) = &view.index {
            ensure(self.dtype(index.view.source)? == DType::I32, || format!("`{view}`: the index is not i32"))?;
            ensure(index.view.index.is_none(), || format!("`{view}`: an index within an index"))?;
            self.view(&index.view, loops)?;
        }
        let inside = elements.is_none_or(|elements| view.offset + furthest < elements);
        ensure(inside || loops.contains(&0), || format!("`{view}` over {loops:?} looks past {elements:?} elements"))
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
                let fits = found.rows == Rows::One
                    || found.rows == Rows::Positions
                    || found.rows == self.rows
                    || (found.rows == Rows::Tokens && self.rows == Rows::Outputs)
                    || (found.rows == Rows::Outputs && self.rows == Rows::Tokens);
                ensure(fits, || format!("%{} has rows {}, the step {}", id.0, found.rows, self.rows))?;
                Some(found.row)
            }
            Source::Whole(id) => {
                let found = buffer(self.plan, id)?;
                (found.rows == Rows::One).then_some(found.row)
            }
            Source::Param(id) => match param(self.plan, id)?.layout {
                Layout::Plain { elements } => Some(elements),
                Layout::Panels { .. } => return Err(format!("parameter {} is in panels", id.0)),
            },
            Source::Literal(id) => {
                let literal = self.plan.literals.get(id.0 as usize).ok_or_else(|| format!("no literal {}", id.0))?;
                Some(literal.data.len() as u64)
            }
            Source::Place => None,
            Source::Position => {
                ensure(matches!(self.rows, Rows::Tokens | Rows::Outputs), || "only tokens have positions".into())?;
                None
            }
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
            Source::Place | Source::Position => DType::I32,
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
    ensure(a.row == k, || format!("rows of {} elements meet weights of {k}", a.row))?;
    let looks = Looks { plan, rows: gemm.rows, program: None };
    gemm.extras.iter().try_for_each(|view| looks.view(view, &[n]))?;
    let extras = gemm.extras.iter().map(|view| looks.dtype(view.source)).collect::<Result<Vec<_>, _>>()?;
    let types: Vec<DType> = (0..branches).map(|_| DType::F32).chain(extras).collect();
    typed(&gemm.epilogue, &types)?;
    if let Home::Cache { panels: true, .. } = out.home {
        return Err("a GEMM writes rows, not panels".into());
    }
    let Some(group) = &gemm.group else {
        return ensure(out.row == n, || format!("{n} columns go to rows of {}", out.row));
    };
    let offsets = buffer(plan, group.offsets)?.row;
    let last = u64::from(group.first) + u64::from(weights.experts);
    ensure(last < offsets, || format!("experts up to {last} of {}", offsets.saturating_sub(1)))?;
    let slots = gemm.rows == Rows::Slots { choices: group.choices };
    ensure(slots, || format!("a group of {} choices over rows {}", group.choices, gemm.rows))?;
    match group.store {
        Store::Slots => ensure(out.row == n, || format!("{n} columns go to rows of {}", out.row)),
        Store::Choices { weights } => {
            let fits = out.row == n * group.choices && buffer(plan, weights)?.row == group.choices;
            ensure(fits, || format!("{} choices of {n} columns go to rows of {}", group.choices, out.row))
        }
    }
}

fn bin(plan: &Plan, bin: &Bin) -> Check {
    let rows_of = |id| buffer(plan, id).map(|buffer| buffer.row);
    let inverse = bin.slot_of.map_or(Ok(bin.choices), rows_of)?;
    let fits = rows_of(bin.indices)? == bin.choices
        && rows_of(bin.weights)? == bin.choices
        && rows_of(bin.offsets)? == bin.experts + 1
        && rows_of(bin.order)? == 1
        && inverse == bin.choices;
    ensure(fits, || "its buffers do not fit the choices and experts".into())
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
    let looks = Looks { plan, rows: step.rows, program: None };
    step.extras.iter().try_for_each(|view| looks.view(view, &[step.groups, step.queries]))?;
    let extras = step.extras.iter().map(|view| looks.dtype(view.source)).collect::<Result<Vec<_>, _>>()?;
    let types: Vec<DType> = [DType::F32, DType::I32, DType::I32].into_iter().chain(extras).collect();
    typed(&step.score, &types)
}

// Panels are addressed by shifts in backends.
const _: () = assert!(PANEL.is_power_of_two());
