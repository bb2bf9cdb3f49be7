//! Row-wise ops as one row program: which ops go into it, along which rows, and where its results go.

mod builder;

use std::collections::BTreeMap;

use moec_diag::Span;
use moec_ir::{Module, Node as ModelNode, Op, OpId, ValueId, ops};
use moec_plan::{BufferId, Home, RowOp, RowProgram, Rows, Source, StepKind, View};
use moec_types::{Axis, Dim, Expr, Size};

pub use self::builder::{Part, Programmer};
use crate::{
    Unsupported,
    access::{Access, RowDim, extents, whole},
    context::{Lowering, Place},
};

/// A value that a program yields: what it is inside, and outside.
type Yield = (ValueId, ValueId);

impl Lowering<'_> {
    pub fn rows(&mut self, op: &ops::Rows, node: &ModelNode) -> Result<(), Unsupported> {
        let region = self.module.region(op.region);
        let args = region.args.iter().copied().zip(node.operands.iter().copied()).collect::<Vec<_>>();
        let yields = region.results.iter().copied().zip(node.results.iter().copied()).collect::<Vec<_>>();
        let row = node.results.iter().find_map(|value| self.row_axis(*value, &[]));
        self.program(&args, &region.nodes, &yields, row, node.at)
    }

    /// An op that no pass has put into a program: a row-wise one, or one that works along what a pass counts. Then the rows
    /// go along what else it counts, and if that is nothing, there is one row.
    pub fn single(&mut self, at: OpId) -> Result<(), Unsupported> {
        let node = self.module.node(at);
        let args = node.operands.iter().map(|value| (*value, *value)).collect::<Vec<_>>();
        let yields = node.results.iter().map(|value| (*value, *value)).collect::<Vec<_>>();
        let along = made_along(&node.op);
        let row = node.results.iter().find_map(|value| self.row_axis(*value, &along));
        self.program(&args, &[at], &yields, row, node.at)
    }

    /// The axis of a value that rows go along, but for those of `not`: one that a pass counts.
    fn row_axis(&self, value: ValueId, not: &[Axis]) -> Option<RowAxis> {
        if let Some(member) = &self.member {
            return Some(member.slots.clone());
        }
        let dims = &self.module.tensor(value).dims;
        let dim = dims.iter().find(|dim| dim.size.fixed().is_none() && !not.contains(&dim.axis))?;
        Some(RowAxis { axis: dim.axis.clone(), rows: self.row_count(&dim.size)? })
    }

    /// `args`: values as they are called inside, and the outer values that they stand for.
    fn program(
        &mut self,
        args: &[Yield],
        nodes: &[OpId],
        yields: &[Yield],
        row: Option<RowAxis>,
        at: Span,
    ) -> Result<(), Unsupported> {
        let module = self.module;
        let rows = row.as_ref().map_or(Rows::ONE, |row| row.rows);
        let mut targets = BTreeMap::new();
        for (inner, outer) in yields {
            self.shape(*outer, at)?;
            let buffer = self.result_buffer(*outer, at)?;
            self.places.insert(*outer, Place::Buffer(buffer));
            targets.entry(*inner).or_insert_with(Vec::new).push((buffer, *outer));
        }
        let mut uses = BTreeMap::new();
        for operand in
            nodes.iter().flat_map(|at| &module.node(*at).operands).chain(yields.iter().map(|(inner, _)| inner))
        {
            *uses.entry(*operand).or_insert(0) += 1;
        }
        let mut programmer = Programmer { uses, targets, ..Programmer::new(self, row) };
        for (inner, outer) in args {
            let access = programmer.outer(*outer, at)?;
            programmer.values.insert(*inner, access);
        }
        for node in nodes {
            programmer.node(module.node(*node))?;
        }
        programmer.finish(yields);
        if let Some(problem) = programmer.failed {
            return Err(problem);
        }
        let program = RowProgram { locals: programmer.locals, ops: programmer.ops };
        let label = label(module, nodes, yields);
        let group = self.row_group(rows);
        self.step(StepKind::Rows { rows, program, group }, at, label);
        Ok(())
    }

    /// A new name for an axis moves nothing.
    pub fn rename(&mut self, op: &ops::Rename, at: OpId) -> Result<(), Unsupported> {
        let node = self.module.node(at);
        let place = match self.places.get(&node.operands[0]) {
            Some(Place::Buffer(buffer)) => Place::Buffer(*buffer),
            Some(Place::Iota(dim)) => Place::Iota(Dim::new(op.to.clone(), dim.size.clone())),
            Some(
                Place::Gathered { .. }
                | Place::Param(_)
                | Place::Stack(_)
                | Place::Literal(_)
                | Place::Count(_)
                | Place::Past { .. },
            )
            | None => return self.single(at),
        };
        self.places.insert(node.results[0], place);
        Ok(())
    }

    /// Where the result of a step goes: straight to an output or a cache where that is all that becomes of it.
    pub fn result_buffer(&mut self, value: ValueId, at: Span) -> Result<BufferId, Unsupported> {
        if self.tokens == Rows::Outputs
            && let Some(port) = self.module.outputs.iter().position(|output| output.value == value)
            && let Some(found) = self
                .buffers
                .iter()
                .position(|buffer| buffer.home == Home::Output(port as u32) && buffer.rows == Rows::Tokens)
        {
            return Ok(BufferId(found as u32));
        }
        match self.only_reader(value) {
            Some(ModelNode { op: Op::Past(_), results, .. }) => self.past_buffer(value, results[0], at),
            _ => self.buffer_for(value, at),
        }
    }

    /// Makes sure that `buffer` holds a value, with the dims of a row in the value's order.
    pub fn copy_into(&mut self, value: ValueId, buffer: BufferId, at: Span) -> Result<(), Unsupported> {
        if matches!(self.places.get(&value), Some(Place::Buffer(here)) if *here == buffer) {
            return Ok(());
        }
        let (rows, dims) = self.shape(value, at)?;
        let target = whole(Source::Row(buffer), &dims);
        self.copy(value, rows, &dims, target, at)
    }

    /// `target[dims] = value`, for every row.
    pub fn copy(
        &mut self,
        value: ValueId,
        rows: Rows,
        dims: &[RowDim],
        target: View,
        at: Span,
    ) -> Result<(), Unsupported> {
        let row = self.row_axis(value, &[]);
        self.copy_rows(value, row, rows, dims, target, at)
    }

    /// The same, where the rows go along an axis of the caller's choice.
    pub fn copy_rows(
        &mut self,
        value: ValueId,
        row: Option<RowAxis>,
        rows: Rows,
        dims: &[RowDim],
        target: View,
        at: Span,
    ) -> Result<(), Unsupported> {
        let access = Programmer::new(self, row).outer(value, at)?;
        let copy =
            RowOp::Map { extents: extents(dims), expr: Expr::Arg(0), args: vec![access.over(dims)], into: target };
        let program = RowProgram { locals: Vec::new(), ops: vec![copy] };
        let group = self.row_group(rows);
        self.step(StepKind::Rows { rows, program, group }, at, "copy");
        Ok(())
    }

    /// Whether anything but the axes of a value is of use to its readers.
    fn is_computed_with(&self, value: ValueId) -> bool {
        let mentioned = |at: &OpId| {
            let node = self.module.node(*at);
            let Op::Map(map) = &node.op else { return true };
            let mut mentioned = false;
            map.expr.visit(&mut |expr| {
                mentioned |= matches!(expr, Expr::Arg(at) if node.operands[*at] == value);
            });
            mentioned
        };
        self.yielded.contains(&value) || self.readers.get(&value).into_iter().flatten().any(mentioned)
    }

    /// A value's elements as a row program (or a GEMM's epilogue) sees them.
    pub fn access(&mut self, value: ValueId, at: Span) -> Result<Access, Unsupported> {
        let row = self.row_axis(value, &[]);
        Programmer::new(self, row).outer(value, at)
    }
}

/// The axes that an op works along or makes: no row of it goes along them.
fn made_along(op: &Op) -> Vec<Axis> {
    let made = match op {
        Op::TopK(op) => Some(op.choices.axis.clone()),
        Op::ScatterAdd(op) => Some(op.into.axis.clone()),
        _ => None,
    };
    op.along().iter().cloned().chain(made).collect()
}

/// The axis that the rows of a program go along.
#[derive(Clone, Debug)]
pub struct RowAxis {
    pub axis: Axis,
    pub rows: Rows,
}

/// The parameters that a program reads; what it yields where it reads none.
fn label(module: &Module, nodes: &[OpId], yields: &[Yield]) -> String {
    let param = |at: &OpId| match &module.node(*at).op {
        Op::ParamRef(op) => Some(module.param(op.param).path.as_str()),
        Op::Stack(op) => Some(module.param(op.param).path.as_str()),
        _ => None,
    };
    let mut words: Vec<&str> = nodes.iter().filter_map(param).collect();
    if words.is_empty() {
        words = yields.iter().filter_map(|(_, outer)| module.name_of(*outer)).collect();
    }
    words.join(", ")
}

impl Lowering<'_> {
    /// Places what has no operands: parameters, literals, positions and counts.
    pub fn leaf(&mut self, node: &ModelNode) -> Result<(), Unsupported> {
        let place = match &node.op {
            Op::ParamRef(op) => Place::Param(op.param),
            Op::Stack(op) => Place::Stack(op.param),
            Op::Literal(op) => Place::Literal(self.literal(op)),
            Op::Iota(op) => Place::Iota(op.dim.clone()),
            Op::Count(ops::Count { size: Size::Past(axis) }) => {
                let reason = format!("it counts all positions of `{axis}` up to now");
                return Err(self.unsupported(node, reason, "count the positions of this pass"));
            }
            Op::Count(op) => {
                if let Some(axis) = self.sequences.counted_elsewhere(&op.size) {
                    let reason = format!("a pass along another sequence has no new positions of `{axis}` to count");
                    let way_round = format!("let what `past(…, {axis} as …)` keeps have the number in it");
                    return Err(self.unsupported(node, reason, way_round));
                }
                Place::Count(self.extent(&op.size))
            }
            _ => panic!("`{}` is not a leaf", node.op.mnemonic()),
        };
        self.places.insert(node.results[0], place);
        Ok(())
    }
}
