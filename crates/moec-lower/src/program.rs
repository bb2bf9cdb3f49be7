//! Row-wise ops as one row program.

use std::collections::BTreeMap;

use moec_diag::Span;
use moec_ir::{Module, Node as ModelNode, Op, OpId, ValueId, ops};
use moec_plan::{
    BufferId, Extent, Home, Indirect, Local, LocalId, ReduceOp, RowOp, RowProgram, Rows, Source, StepKind, View, Work,
    fixed_product,
};
use moec_types::{Axis, BinaryOp, DType, Dim, Expr, Size};

use crate::{
    Unsupported,
    access::{Access, Body, RowDim, advance, can_merge, contiguous, elements, extents, map_strides, whole},
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

/// Builds one row program.
pub struct Programmer<'a, 'm> {
    pub lowering: &'a mut Lowering<'m>,
    pub locals: Vec<Local>,
    pub ops: Vec<RowOp>,
    pub values: BTreeMap<ValueId, Access>,
    /// Readers within the program, the yields included.
    pub uses: BTreeMap<ValueId, usize>,
    /// Where yielded values go, and what they are called outside.
    pub targets: BTreeMap<ValueId, Vec<(BufferId, ValueId)>>,
    pub row: Option<RowAxis>,
    /// The program sees a part of this axis only.
    pub part: Option<Part>,
    /// What made the program impossible.
    pub failed: Option<Unsupported>,
}

/// An axis that is cut into parts of equal size, one for each row of the step (or part of a scan).
#[derive(Clone, Debug)]
pub struct Part {
    pub axis: Axis,
    /// Positions of the axis in one part.
    pub size: u64,
}

impl<'a, 'm> Programmer<'a, 'm> {
    pub fn new(lowering: &'a mut Lowering<'m>, row: Option<RowAxis>) -> Self {
        Programmer {
            row,
            part: None,
            failed: None,
            lowering,
            locals: Vec::new(),
            ops: Vec::new(),
            values: BTreeMap::new(),
            uses: BTreeMap::new(),
            targets: BTreeMap::new(),
        }
    }

    /// A value from outside the program.
    pub fn outer(&mut self, value: ValueId, at: Span) -> Result<Access, Unsupported> {
        let ty = self.lowering.module.tensor(value).clone();
        let dims = self.whole_dims(value);
        let refuse = |reason: &str| Unsupported {
            op: format!("a value of type {ty}"),
            reason: reason.to_owned(),
            way_round: "let only attention read what `past` gives, in the form of std::attention".to_owned(),
            at,
        };
        let view = match self.lowering.places.get(&value).cloned() {
            Some(Place::Buffer(buffer)) => self.all_in_buffer(buffer, value),
            Some(Place::Gathered { tokens, route }) => {
                let token_of = self.lowering.token_of(route, at);
                let index = View {
                    source: Source::Row(token_of),
                    offset: 0,
                    strides: vec![0; dims.len()],
                    row: 0,
                    index: None,
                };
                let index = Indirect { view: index, stride: elements(&dims) };
                View { index: Some(Box::new(index)), ..whole(Source::Whole(tokens), &dims) }
            }
            Some(Place::Param(param)) => {
                let packed = self.lowering.packing.plain(self.lowering.module, param);
                let (strides, row) = self.natural(value);
                View { strides, row, ..whole(Source::Param(packed), &dims) }
            }
            Some(Place::Literal(literal)) => {
                let (strides, row) = self.natural(value);
                View { strides, row, ..whole(Source::Literal(literal), &dims) }
            }
            Some(Place::Stack(param)) => {
                let packed = self.lowering.packing.plain(self.lowering.module, param);
                let (strides, row) = self.natural_with(value, Some(self.lowering.packing.instance_stride(packed)));
                View { strides, row, ..whole(Source::Param(packed), &dims) }
            }
            Some(Place::Iota(dim)) => {
                let row = u64::from(dims.is_empty());
                let strides = vec![1; dims.len()];
                let source = match dim.size {
                    Size::Fixed(_) => Source::Place,
                    Size::Input(_) => Source::Position,
                    Size::Share { .. } => Source::Place,
                    // Only its axis counts: it says in which order others lie.
                    Size::Past(_) | Size::Slots { .. } if !self.lowering.is_computed_with(value) => Source::Place,
                    Size::Past(_) | Size::Slots { .. } => return Err(refuse("its positions are not those of a row")),
                };
                View { source, offset: 0, strides, row, index: None }
            }
            Some(Place::Count(extent)) => whole(Source::Count(extent), &[]),
            Some(Place::Past { .. }) => return Err(refuse("it holds every earlier position")),
            None => panic!("lowering met a value that nothing placed: {ty}"),
        };
        Ok(Access::view(ty.dtype, self.dims(value), self.cut(view, &dims)))
    }

    pub fn node(&mut self, node: &ModelNode) -> Result<(), Unsupported> {
        match &node.op {
            Op::ParamRef(_) | Op::Stack(_) | Op::Literal(_) | Op::Iota(_) | Op::Count(_) => {
                self.lowering.leaf(node)?;
                let access = self.outer(node.results[0], node.at)?;
                self.values.insert(node.results[0], access);
            }
            Op::Map(op) => self.map(op, node),
            Op::Reduce(op) => self.reduce(op, node),
            Op::Contract(op) => self.contract(op, node),
            Op::Cumsum(op) => self.cumsum(op, node),
            Op::ScatterAdd(op) => self.scatter_add(op, node),
            Op::TopK(op) => self.top_k(op, node),
            Op::Gather(op) => self.gather(op, node),
            Op::Split(op) => self.split(op, node),
            Op::Merge(op) => self.merge(op, node),
            Op::Rename(op) => {
                let mut access = self.read(node.operands[0]);
                access.dims.iter_mut().filter(|(axis, _)| *axis == op.from).for_each(|(axis, _)| *axis = op.to.clone());
                self.values.insert(node.results[0], access);
            }
            Op::Slice(op) => self.slice(op, node),
            Op::Concat(op) => self.concat(op, node),
            Op::Linear(_)
            | Op::Past(_)
            | Op::Assign(_)
            | Op::Scan(_)
            | Op::Attention(_)
            | Op::Route(_)
            | Op::Dispatch(_)
            | Op::Experts(_)
            | Op::Combine(_)
            | Op::Each(_)
            | Op::Layers(_)
            | Op::Rows(_) => panic!("`{}` stands in a row program", node.op.mnemonic()),
        }
        Ok(())
    }

    /// The dims of a value as the program sees them: without that of the rows, and of a part what is in it.
    pub fn dims(&self, value: ValueId) -> Vec<RowDim> {
        let mut dims = self.whole_dims(value);
        if let Some(part) = &self.part {
            let cut = dims.iter_mut().filter(|(axis, _)| *axis == part.axis);
            cut.for_each(|(_, extent)| *extent = Extent::Fixed(part.size));
        }
        dims
    }

    /// A view of all of an axis as its first part sees it; the next part is so many elements further.
    pub fn cut(&self, view: View, dims: &[RowDim]) -> View {
        let Some(part) = &self.part else { return view };
        let Some(at) = dims.iter().position(|(axis, _)| *axis == part.axis) else { return view };
        View { row: view.strides[at] * part.size, ..view }
    }

    /// The dims of a value but for that of the rows, in the order of its type.
    fn whole_dims(&self, value: ValueId) -> Vec<RowDim> {
        let of_rows = |axis: &Axis| self.row.as_ref().is_some_and(|row| row.axis == *axis);
        let dims = self.lowering.module.tensor(value).dims.iter().filter(|dim| !of_rows(&dim.axis));
        dims.map(|dim| (dim.axis.clone(), self.lowering.extent(&dim.size))).collect()
    }

    /// A value that lies in its natural order: strides of its dims, and elements from one row of the program to the next,
    /// where the rows go along an axis of fixed size. What a pass counts, or a bin, lies outside of all else.
    fn natural(&self, value: ValueId) -> (Vec<u64>, u64) {
        self.natural_with(value, None)
    }

    /// The same, where steps along the slowest dim may be longer than what lies within it.
    fn natural_with(&self, value: ValueId, slowest: Option<u64>) -> (Vec<u64>, u64) {
        let all = &self.lowering.module.tensor(value).dims;
        let mut strides = vec![0; all.len()];
        let mut next = 1;
        for (stride, dim) in strides.iter_mut().zip(all).rev() {
            if let Some(size) = dim.size.fixed() {
                *stride = next;
                next *= size;
            }
        }
        let counted = strides.iter_mut().zip(all).filter(|(_, dim)| dim.size.fixed().is_none());
        counted.for_each(|(stride, _)| *stride = next);
        if let (Some(stride), Some(longer)) = (strides.first_mut(), slowest) {
            *stride = longer;
        }
        let Some(at) = all.iter().position(|dim| self.row.as_ref().is_some_and(|row| row.axis == dim.axis)) else {
            return (strides, 0);
        };
        let stride = strides.remove(at);
        (strides, if all[at].size.fixed().is_some() { stride } else { 0 })
    }

    /// A value's buffer as the program sees it, in the order of its dims.
    fn in_buffer(&self, buffer: BufferId, value: ValueId) -> View {
        self.cut(self.all_in_buffer(buffer, value), &self.whole_dims(value))
    }

    /// A value's own row of its buffer; or all of it, where loops go along what the pass counts, or the rows of the buffer
    /// are not those of the program.
    fn all_in_buffer(&self, buffer: BufferId, value: ValueId) -> View {
        let all = &self.lowering.module.tensor(value).dims;
        let (strides, row) = self.natural(value);
        let of_rows = |axis: &Axis| self.row.as_ref().is_some_and(|row| row.axis == *axis);
        let loops_along_rows = all.iter().any(|dim| dim.size.fixed().is_none() && !of_rows(&dim.axis));
        let rows = self.row.as_ref().map_or(Rows::ONE, |row| row.rows);
        let other_rows = match self.lowering.buffers[buffer.0 as usize].rows {
            found @ Rows::Fixed(_) => found != Rows::ONE && found != rows,
            Rows::Tokens | Rows::Outputs | Rows::Slots { .. } | Rows::Share(_) | Rows::Positions => false,
        };
        let all_of_it = loops_along_rows || row != 0 || other_rows;
        let source = if all_of_it { Source::Whole(buffer) } else { Source::Row(buffer) };
        View { source, offset: 0, strides, row, index: None }
    }

    fn dtype(&self, value: ValueId) -> DType {
        self.lowering.module.tensor(value).dtype
    }

    /// A value in memory.
    pub fn read(&mut self, value: ValueId) -> Access {
        let access = self.values[&value].clone();
        if access.memory().is_some() {
            return access;
        }
        let access = self.materialise(&access, None);
        self.values.insert(value, access.clone());
        access
    }

    /// Scratch: the row's own where its size is known, else a buffer.
    fn local(&mut self, dtype: DType, dims: &[RowDim]) -> View {
        if let Some(rows) = dims.iter().find_map(|(_, extent)| rows_along(*extent)) {
            self.needs_one_row("scratch that grows with the input, for each token");
            let buffer = self.lowering.new_buffer("scratch", dtype, rows, elements(dims));
            return whole(Source::Whole(buffer), dims);
        }
        self.locals.push(Local { dtype, elements: elements(dims).max(1) });
        whole(Source::Local(LocalId(self.locals.len() as u32 - 1)), dims)
    }

    /// Where to write a new value: its first target, when loops may write there in the value's own order, else scratch.
    fn place(&mut self, value: ValueId) -> View {
        let (dtype, dims) = (self.dtype(value), self.dims(value));
        let direct = self.targets.get(&value).and_then(|targets| targets.first()).map(|(buffer, _)| *buffer);
        match direct {
            Some(buffer) if !matches!(self.lowering.buffers[buffer.0 as usize].home, Home::Cache { .. }) => {
                self.in_buffer(buffer, value)
            }
            Some(_) | None => self.local(dtype, &dims),
        }
    }

    /// Computes an access into `into` (or scratch) and returns it as a view.
    pub fn materialise(&mut self, access: &Access, into: Option<View>) -> Access {
        let into = into.unwrap_or_else(|| self.local(access.dtype, &access.dims));
        let (expr, args) = match &access.body {
            Body::View(_) => (Expr::Arg(0), vec![access.over(&access.dims)]),
            Body::Lazy { expr, args } => (expr.clone(), args.iter().map(|arg| arg.over(&access.dims)).collect()),
        };
        self.ops.push(RowOp::Map { extents: extents(&access.dims), expr, args, into: into.clone() });
        Access::view(access.dtype, access.dims.clone(), into)
    }

    /// Keeps an expression until it is read, if it is read once; else computes it now.
    fn define(&mut self, value: ValueId, access: Access) {
        let once = self.uses.get(&value).copied().unwrap_or(0) <= 1;
        let access = if once && !self.targets.contains_key(&value) {
            access
        } else {
            let into = self.place(value);
            self.materialise(&access, Some(into))
        };
        self.values.insert(value, access);
    }

    /// Operands as one expression over views, for loops over `dims`. Expressions that would be computed more than once for
    /// each of their own elements are computed first.
    fn operands(&mut self, operands: &[ValueId], dims: &[RowDim]) -> (Vec<Expr>, Vec<Access>) {
        let mut views: Vec<Access> = Vec::new();
        let mut exprs = Vec::new();
        for operand in operands {
            let access = self.values[operand].clone();
            let inline = matches!(access.body, Body::Lazy { .. }) && same_turns(&access.dims, dims);
            let access = if inline { access } else { self.read(*operand) };
            let base = views.len();
            match access.body {
                Body::View(_) => {
                    views.push(access);
                    exprs.push(Expr::Arg(base));
                }
                Body::Lazy { expr, args } => {
                    views.extend(args);
                    exprs.push(expr.substitute(&|at| Expr::Arg(base + at)));
                }
            }
        }
        (exprs, views)
    }

    fn map(&mut self, op: &ops::Map, node: &ModelNode) {
        let result = node.results[0];
        let dims = self.dims(result);
        let (exprs, args) = self.operands(&node.operands, &dims);
        let expr = op.expr.substitute(&|at| exprs[at].clone());
        self.define(result, Access { dtype: self.dtype(result), dims, body: Body::Lazy { expr, args } });
    }

    fn reduce(&mut self, op: &ops::Reduce, node: &ModelNode) {
        let (arg, result) = (node.operands[0], node.results[0]);
        let all = self.dims(arg);
        let (kept, over): (Vec<RowDim>, Vec<RowDim>) = all.into_iter().partition(|(axis, _)| !op.over.contains(axis));
        let (reduce, mean) = match op.op {
            ops::ReduceOp::Sum => (ReduceOp::Sum, false),
            ops::ReduceOp::Mean => (ReduceOp::Sum, true),
            ops::ReduceOp::Prod => (ReduceOp::Prod, false),
            ops::ReduceOp::Max => (ReduceOp::Max, false),
            ops::ReduceOp::Min => (ReduceOp::Min, false),
            ops::ReduceOp::Any => (ReduceOp::Any, false),
            ops::ReduceOp::All => (ReduceOp::All, false),
        };
        let loops: Vec<RowDim> = kept.iter().chain(&over).cloned().collect();
        let (exprs, args) = self.operands(&[arg], &loops);
        let into = if mean { self.local(DType::F32, &kept) } else { self.place(result) };
        self.reduction(reduce, &kept, &over, exprs[0].clone(), &args, into.clone());
        let sum = Access::view(self.dtype(result), kept.clone(), into);
        if mean {
            // What is fixed is a number now; what the pass counts, when it runs.
            let counted = over.iter().filter(|(_, extent)| extent.fixed().is_none());
            let mut args = vec![sum];
            let mut count = Expr::F32(elements(&over) as f32);
            for (_, extent) in counted {
                let number = Expr::cast(DType::F32, Expr::Arg(args.len()));
                count = Expr::binary(BinaryOp::Mul, number, count);
                args.push(Access::view(DType::I32, Vec::new(), whole(Source::Count(*extent), &[])));
            }
            let expr = Expr::binary(BinaryOp::Div, Expr::Arg(0), count);
            self.define(result, Access { dtype: DType::F32, dims: kept, body: Body::Lazy { expr, args } });
        } else {
            self.values.insert(result, sum);
        }
    }

    fn reduction(&mut self, op: ReduceOp, kept: &[RowDim], over: &[RowDim], expr: Expr, args: &[Access], into: View) {
        let loops: Vec<RowDim> = kept.iter().chain(over).cloned().collect();
        let args = args.iter().map(|arg| arg.over(&loops)).collect();
        self.ops.push(RowOp::Reduce { op, extents: extents(kept), over: extents(over), expr, args, into });
    }

    fn contract(&mut self, op: &ops::Contract, node: &ModelNode) {
        let result = node.results[0];
        let left = self.read(node.operands[0]);
        let right = self.read(node.operands[1]);
        let kept = self.dims(result);
        let dim = |axis| left.dims[left.position(axis).expect("no row goes along what is summed over")].clone();
        let over: Vec<RowDim> = op.over.iter().map(dim).collect();
        let into = self.place(result);
        let product = Expr::binary(BinaryOp::Mul, Expr::Arg(0), Expr::Arg(1));
        self.reduction(ReduceOp::Sum, &kept, &over, product, &[left, right], into.clone());
        self.values.insert(result, Access::view(DType::F32, kept, into));
    }

    fn cumsum(&mut self, op: &ops::Cumsum, node: &ModelNode) {
        let (arg, result) = (node.operands[0], node.results[0]);
        let (along, kept): (Vec<RowDim>, Vec<RowDim>) =
            self.dims(arg).into_iter().partition(|(axis, _)| *axis == op.over);
        let loops: Vec<RowDim> = kept.iter().chain(&along).cloned().collect();
        let (exprs, args) = self.operands(&[arg], &loops);
        let dims = self.dims(result);
        let place = self.place(result);
        let into = Access::view(self.dtype(result), dims, place);
        self.ops.push(RowOp::Cumsum {
            extents: extents(&kept),
            along: along[0].1,
            expr: exprs[0].clone(),
            args: args.iter().map(|arg| arg.over(&loops)).collect(),
            into: into.over(&loops),
        });
        self.values.insert(result, into);
    }

    fn scatter_add(&mut self, op: &ops::ScatterAdd, node: &ModelNode) {
        let [arg, index] = node.operands[..] else { panic!("verified: a sum by index has two operands") };
        let result = node.results[0];
        let index = self.read(index);
        let all = self.dims(arg);
        let kept: Vec<RowDim> = all.iter().filter(|(axis, _)| !op.axes.contains(axis)).cloned().collect();
        let dim =
            |axis: &Axis| all.iter().find(|dim| dim.0 == *axis).expect("no row goes along what is added up").clone();
        let over: Vec<RowDim> = op.axes.iter().map(dim).collect();
        let loops: Vec<RowDim> = kept.iter().chain(&over).cloned().collect();
        let (exprs, args) = self.operands(&[arg], &loops);
        let to = (op.into.axis.clone(), self.lowering.extent(&op.into.size));
        let (dims, place) = (self.dims(result), self.place(result));
        let into = Access::view(self.dtype(result), dims, place);
        let places: Vec<RowDim> = kept.iter().chain([&to]).cloned().collect();
        self.ops.push(RowOp::ScatterAdd {
            extents: extents(&kept),
            over: extents(&over),
            count: to.1,
            index: index.over(&loops),
            expr: exprs[0].clone(),
            args: args.iter().map(|arg| arg.over(&loops)).collect(),
            into: into.over(&places),
        });
        self.values.insert(result, into);
    }

    fn top_k(&mut self, op: &ops::TopK, node: &ModelNode) {
        let arg = self.read(node.operands[0]);
        let at = arg.position(&op.over).expect("no row goes along what is chosen from");
        let chosen = (op.over.clone(), arg.dims[at].1);
        let kept: Vec<RowDim> = arg.dims.iter().filter(|(axis, _)| *axis != op.over).cloned().collect();
        let with = |last: &RowDim| kept.iter().chain([last]).cloned().collect::<Vec<_>>();
        let k = (op.choices.axis.clone(), self.lowering.extent(&op.choices.size));
        let work = self.room_to_sort(&kept, chosen.1, k.1);
        let places: Vec<Access> = node
            .results
            .iter()
            .map(|result| {
                let view = self.place(*result);
                Access::view(self.dtype(*result), self.dims(*result), view)
            })
            .collect();
        self.ops.push(RowOp::TopK {
            extents: extents(&kept),
            len: chosen.1,
            k: k.1,
            work,
            arg: arg.over(&with(&chosen)),
            values: places[0].over(&with(&k)),
            indices: places[1].over(&with(&k)),
        });
        for (result, place) in node.results.iter().zip(places) {
            self.values.insert(*result, place);
        }
    }

    /// Room for a top-k that sorts everything, where that is faster than to look for the largest again and again, or where
    /// the number of elements is known only when it runs.
    fn room_to_sort(&mut self, kept: &[RowDim], len: Extent, k: Extent) -> Option<Work> {
        if let (Some(len), Some(k)) = (len.fixed(), k.fixed()) {
            // A look takes a sixteenth of a step for each element, a sort ten, and its counters some thousand once.
            let faster = k * len > 16 * (10 * len + 2000);
            return faster.then(|| {
                let dims = [(Axis::new("sorted"), Extent::Fixed(len * Work::ELEMENTS))];
                self.local(DType::I32, &dims);
                Work::Local(LocalId(self.locals.len() as u32 - 1))
            });
        }
        self.needs_one_row("a choice among tokens, for each token");
        let rows = rows_along(len).unwrap_or(Rows::ONE);
        Some(Work::Buffer(self.lowering.new_buffer("sorted", DType::I32, rows, elements(kept) * Work::ELEMENTS)))
    }

    /// What works along what a pass counts has room for one row only.
    fn needs_one_row(&mut self, what: &str) {
        if self.row.is_some() && self.failed.is_none() {
            self.failed = Some(Unsupported {
                op: what.to_owned(),
                reason: "it would grow with the square of the input".to_owned(),
                way_round: "give one of the two axes a fixed size".to_owned(),
                at: Span::NONE,
            });
        }
    }

    /// A gather is a view: nothing moves until something reads it.
    fn gather(&mut self, op: &ops::Gather, node: &ModelNode) {
        let plain = |access: &Access| access.memory().is_some_and(|view| view.index.is_none());
        let mut sources = Vec::new();
        for operand in &node.operands {
            let access = self.read(*operand);
            sources.push(if plain(&access) { access } else { self.materialise(&access, None) });
        }
        let [table, index] = &sources[..] else { panic!("verified: a gather has two operands") };
        let dims = self.dims(node.results[0]);
        let at = table.position(&op.over).expect("verified: the axis is there");
        let stride = table.over(&table.dims).strides[at];
        let indirect = Indirect { view: index.over(&dims), stride };
        let view = View { index: Some(Box::new(indirect)), ..table.over(&dims) };
        self.alias(node.results[0], Access::view(self.dtype(node.results[0]), dims, view));
    }

    /// A value that is only another view of memory, copied where it is yielded (in `finish`).
    fn alias(&mut self, value: ValueId, access: Access) {
        self.values.insert(value, access);
    }

    fn split(&mut self, op: &ops::Split, node: &ModelNode) {
        let access = self.read(node.operands[0]);
        let at = access.position(&op.axis).expect("verified: the axis is there");
        let new: Vec<RowDim> = op.into.iter().map(|dim| (dim.axis.clone(), self.lowering.extent(&dim.size))).collect();
        let inner = contiguous(&new);
        let strides = |old: &[u64]| {
            let parts = inner.iter().map(|stride| stride * old[at]);
            old[..at].iter().copied().chain(parts).chain(old[at + 1..].iter().copied()).collect()
        };
        let view = map_strides(access.memory().expect("just read"), &strides);
        let dims = access.dims[..at].iter().cloned().chain(new).chain(access.dims[at + 1..].iter().cloned()).collect();
        self.alias(node.results[0], Access::view(access.dtype, dims, view));
    }

    fn merge(&mut self, op: &ops::Merge, node: &ModelNode) {
        let mut access = self.read(node.operands[0]);
        let find = |access: &Access| -> Vec<usize> {
            op.axes.iter().map(|axis| access.position(axis).expect("verified: the axes are there")).collect()
        };
        let sizes: Vec<Extent> = find(&access).iter().map(|at| access.dims[*at].1).collect();
        if !can_merge(access.memory().expect("just read"), &find(&access), &sizes) {
            // Lay it out with the merged axes side by side.
            let merged = op.axes.iter().map(|axis| access.dims[access.position(axis).expect("verified")].clone());
            let rest = access.dims.iter().filter(|(axis, _)| !op.axes.contains(axis)).cloned();
            let dims: Vec<RowDim> = rest.chain(merged).collect();
            let ordered = Access::view(access.dtype, dims.clone(), access.over(&dims));
            access = self.materialise(&ordered, None);
        }
        let places = find(&access);
        let first = *places.iter().min().expect("verified: there are axes");
        let kept: Vec<usize> = (0..access.dims.len()).filter(|at| *at == first || !places.contains(at)).collect();
        let last_real =
            places.iter().rev().zip(sizes.iter().rev()).find(|(_, size)| **size != Extent::Fixed(1)).map(|(at, _)| *at);
        let strides = |old: &[u64]| {
            let merged = last_real.map_or(0, |at| old[at]);
            kept.iter().map(|at| if *at == first { merged } else { old[*at] }).collect()
        };
        let view = map_strides(access.memory().expect("just read"), &strides);
        let total = Extent::Fixed(fixed_product(&sizes).expect("verified: only what has a fixed size is merged"));
        let dims = kept
            .iter()
            .map(|at| if *at == first { (op.into.clone(), total) } else { access.dims[*at].clone() })
            .collect();
        self.alias(node.results[0], Access::view(access.dtype, dims, view));
    }

    fn slice(&mut self, op: &ops::Slice, node: &ModelNode) {
        let access = self.read(node.operands[0]);
        let at = access.position(&op.axis).expect("verified: the axis is there");
        let mut view = advance(access.memory().expect("just read"), at, op.start);
        let mut dims = access.dims;
        if op.drop {
            dims.remove(at);
            view =
                map_strides(&view, &|old| old.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, s)| *s).collect());
        } else {
            dims[at].1 = Extent::Fixed(op.len);
        }
        self.alias(node.results[0], Access::view(access.dtype, dims, view));
    }

    fn concat(&mut self, op: &ops::Concat, node: &ModelNode) {
        let result = node.results[0];
        let into = self.place(result);
        let whole = Access::view(self.dtype(result), self.dims(result), into);
        let along = whole.position(&op.over).expect("verified: the axis is there");
        let mut start = 0;
        for operand in &node.operands {
            let access = self.values[operand].clone();
            let at = access.position(&op.over).expect("verified: the axis is there");
            let len = access.dims[at].1.fixed().expect("verified: only what has a fixed size is laid end to end");
            let part = advance(whole.memory().expect("a view"), along, start);
            let part = Access::view(access.dtype, whole.dims.clone(), part).over(&access.dims);
            self.materialise(&access, Some(part));
            start += len;
        }
        self.values.insert(result, whole);
    }

    /// Brings every yielded value to all of its targets.
    pub fn finish(&mut self, yields: &[Yield]) {
        for (inner, targets) in std::mem::take(&mut self.targets) {
            let access = self.read(inner);
            let dims = yields.iter().find(|(value, _)| *value == inner).map(|(_, outer)| self.dims(*outer));
            let dims = dims.expect("targets are yields");
            for (buffer, outer) in targets {
                let target = self.target(buffer, outer, &dims);
                let access = Access::view(access.dtype, dims.clone(), access.over(&dims));
                if access.memory() != Some(&target) {
                    self.materialise(&access, Some(target));
                }
            }
        }
    }

    /// The view through which a value is written to its buffer: caches may order a row's dims differently.
    fn target(&self, buffer: BufferId, value: ValueId, dims: &[RowDim]) -> View {
        match self.lowering.cache_order(value) {
            Some(order) => {
                let all = self.cut(whole(Source::Row(buffer), &order), &order);
                Access::view(DType::F32, order, all).over(dims)
            }
            None => self.in_buffer(buffer, value),
        }
    }
}

/// The rows of a buffer with one for each turn of a loop that the pass counts.
fn rows_along(extent: Extent) -> Option<Rows> {
    match extent {
        Extent::Fixed(_) => None,
        Extent::Tokens => Some(Rows::Tokens),
        Extent::Share(share) => Some(Rows::Share(share)),
    }
}

/// Whether two sets of loops have as many turns.
fn same_turns(a: &[RowDim], b: &[RowDim]) -> bool {
    let counted = |dims: &[RowDim]| dims.iter().filter(|(_, extent)| extent.fixed().is_none()).count();
    elements(a) == elements(b) && counted(a) == counted(b)
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
            Op::Count(op) => Place::Count(self.extent(&op.size)),
            _ => panic!("`{}` is not a leaf", node.op.mnemonic()),
        };
        self.places.insert(node.results[0], place);
        Ok(())
    }
}
