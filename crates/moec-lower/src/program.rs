//! Row-wise ops as one row program.

use std::collections::BTreeMap;

use moec_diag::Span;
use moec_ir::{Module, Node as ModelNode, Op, OpId, ValueId, ops};
use moec_plan::{BufferId, Home, Indirect, Local, LocalId, ReduceOp, RowOp, RowProgram, Rows, Source, StepKind, View};
use moec_types::{Axis, BinaryOp, DType, Expr, Size};

use crate::{
    Unsupported,
    access::{Access, Body, RowDim, advance, can_merge, contiguous, elements, map_strides, whole},
    context::{Lowering, Place},
};

/// A value that a program yields: what it is inside, and outside.
type Yield = (ValueId, ValueId);

impl Lowering<'_> {
    pub fn rows(&mut self, op: &ops::Rows, node: &ModelNode) -> Result<(), Unsupported> {
        let region = self.module.region(op.region);
        let args = region.args.iter().copied().zip(node.operands.iter().copied()).collect::<Vec<_>>();
        let yields = region.results.iter().copied().zip(node.results.iter().copied()).collect::<Vec<_>>();
        self.program(&args, &region.nodes, &yields, node.at)
    }

    /// A row-wise op that no pass has put into a program.
    pub fn single(&mut self, at: OpId) -> Result<(), Unsupported> {
        let node = self.module.node(at);
        let args = node.operands.iter().map(|value| (*value, *value)).collect::<Vec<_>>();
        let yields = node.results.iter().map(|value| (*value, *value)).collect::<Vec<_>>();
        self.program(&args, &[at], &yields, node.at)
    }

    /// `args`: values as they are called inside, and the outer values that they stand for.
    fn program(&mut self, args: &[Yield], nodes: &[OpId], yields: &[Yield], at: Span) -> Result<(), Unsupported> {
        let module = self.module;
        let mut rows = Rows::One;
        let mut targets = BTreeMap::new();
        for (inner, outer) in yields {
            let (here, _) = self.shape(*outer, at)?;
            if here != Rows::One {
                rows = here;
            }
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
        let mut programmer =
            Programmer { lowering: self, locals: Vec::new(), ops: Vec::new(), values: BTreeMap::new(), uses, targets };
        for (inner, outer) in args {
            let access = programmer.outer(*outer, at)?;
            programmer.values.insert(*inner, access);
        }
        for node in nodes {
            programmer.node(module.node(*node))?;
        }
        programmer.finish(yields);
        let program = RowProgram { locals: programmer.locals, ops: programmer.ops };
        let label = label(module, nodes, yields);
        let group = self.row_group(rows);
        self.step(StepKind::Rows { rows, program, group }, at, label);
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
        let access = Programmer::new(self).outer(value, at)?;
        let extents = dims.iter().map(|(_, size)| *size).collect();
        let copy = RowOp::Map { extents, expr: Expr::Arg(0), args: vec![access.over(dims)], into: target };
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
        Programmer::new(self).outer(value, at)
    }
}

/// The parameters that a program reads; what it yields where it reads none.
fn label(module: &Module, nodes: &[OpId], yields: &[Yield]) -> String {
    let param = |at: &OpId| match &module.node(*at).op {
        Op::ParamRef(op) => Some(module.param(op.param).path.as_str()),
        _ => None,
    };
    let mut words: Vec<&str> = nodes.iter().filter_map(param).collect();
    if words.is_empty() {
        words = yields.iter().filter_map(|(_, outer)| module.name_of(*outer)).collect();
    }
    words.join(", ")
}

/// Builds one row program.
struct Programmer<'a, 'm> {
    lowering: &'a mut Lowering<'m>,
    locals: Vec<Local>,
    ops: Vec<RowOp>,
    values: BTreeMap<ValueId, Access>,
    /// Readers within the program, the yields included.
    uses: BTreeMap<ValueId, usize>,
    /// Where yielded values go, and what they are called outside.
    targets: BTreeMap<ValueId, Vec<(BufferId, ValueId)>>,
}

impl<'a, 'm> Programmer<'a, 'm> {
    fn new(lowering: &'a mut Lowering<'m>) -> Self {
        Programmer {
            lowering,
            locals: Vec::new(),
            ops: Vec::new(),
            values: BTreeMap::new(),
            uses: BTreeMap::new(),
            targets: BTreeMap::new(),
        }
    }

    /// A value from outside the program.
    fn outer(&mut self, value: ValueId, at: Span) -> Result<Access, Unsupported> {
        let ty = self.lowering.module.tensor(value).clone();
        let dims: Vec<RowDim> = ty.dims.iter().filter_map(|dim| Some((dim.axis.clone(), dim.size.fixed()?))).collect();
        let refuse = |reason: &str| Unsupported {
            op: format!("a value of type {ty}"),
            reason: reason.to_owned(),
            way_round: "let only attention read what `past` gives, in the form of std::attention".to_owned(),
            at,
        };
        let view = match self.lowering.places.get(&value).cloned() {
            Some(Place::Buffer(buffer)) => whole(Source::Row(buffer), &dims),
            Some(Place::Gathered { tokens, route }) => {
                let token_of = self.lowering.token_of(route, at);
                let index =
                    View { source: Source::Row(token_of), offset: 0, strides: vec![0; dims.len()], index: None };
                let index = Indirect { view: index, stride: elements(&dims) };
                View { index: Some(Box::new(index)), ..whole(Source::Whole(tokens), &dims) }
            }
            Some(Place::Param(param)) => {
                let packed = self.lowering.packing.plain(self.lowering.module, param);
                whole(Source::Param(packed), &dims)
            }
            Some(Place::Literal(literal)) => whole(Source::Literal(literal), &dims),
            Some(Place::Iota(dim)) => match dim.size {
                Size::Fixed(_) => whole(Source::Place, &dims),
                Size::Input(_) => View { source: Source::Position, offset: 0, strides: Vec::new(), index: None },
                // Only its axis counts: it says in which order others lie.
                Size::Past(_) | Size::Slots { .. } | Size::Share { .. } if !self.lowering.is_computed_with(value) => {
                    View { source: Source::Place, offset: 0, strides: Vec::new(), index: None }
                }
                Size::Past(_) | Size::Slots { .. } | Size::Share { .. } => {
                    return Err(refuse("its positions are not those of a row"));
                }
            },
            Some(Place::Past { .. }) => return Err(refuse("it holds every earlier position")),
            None => panic!("lowering met a value that nothing placed: {ty}"),
        };
        Ok(Access::view(ty.dtype, dims, view))
    }

    fn node(&mut self, node: &ModelNode) -> Result<(), Unsupported> {
        match &node.op {
            Op::ParamRef(_) | Op::Literal(_) | Op::Iota(_) => {
                self.lowering.node_leaf(node);
                let access = self.outer(node.results[0], node.at)?;
                self.values.insert(node.results[0], access);
            }
            Op::Map(op) => self.map(op, node),
            Op::Reduce(op) => self.reduce(op, node)?,
            Op::Contract(op) => self.contract(op, node)?,
            Op::Cumsum(op) => self.cumsum(op, node)?,
            Op::TopK(op) => self.top_k(op, node)?,
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
            Op::Count(_) => {
                let reason = "it is known only when the model runs";
                return Err(self.lowering.unsupported(node, reason, "give the axis a size"));
            }
            Op::Linear(_)
            | Op::ScatterAdd(_)
            | Op::Past(_)
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

    /// The dims of a value's row, in the order of its type.
    fn dims(&self, value: ValueId) -> Vec<RowDim> {
        let dims = &self.lowering.module.tensor(value).dims;
        dims.iter().filter_map(|dim| Some((dim.axis.clone(), dim.size.fixed()?))).collect()
    }

    fn dtype(&self, value: ValueId) -> DType {
        self.lowering.module.tensor(value).dtype
    }

    /// A value in memory.
    fn read(&mut self, value: ValueId) -> Access {
        let access = self.values[&value].clone();
        if access.memory().is_some() {
            return access;
        }
        let access = self.materialise(&access, None);
        self.values.insert(value, access.clone());
        access
    }

    fn local(&mut self, dtype: DType, dims: &[RowDim]) -> View {
        self.locals.push(Local { dtype, elements: elements(dims).max(1) });
        whole(Source::Local(LocalId(self.locals.len() as u32 - 1)), dims)
    }

    /// Where to write a new value: its first target, when loops may write there in the value's own order, else scratch.
    fn place(&mut self, value: ValueId) -> View {
        let (dtype, dims) = (self.dtype(value), self.dims(value));
        let direct = self.targets.get(&value).and_then(|targets| targets.first()).map(|(buffer, _)| *buffer);
        match direct {
            Some(buffer) if !matches!(self.lowering.buffers[buffer.0 as usize].home, Home::Cache { .. }) => {
                whole(Source::Row(buffer), &dims)
            }
            Some(_) | None => self.local(dtype, &dims),
        }
    }

    /// Computes an access into `into` (or scratch) and returns it as a view.
    fn materialise(&mut self, access: &Access, into: Option<View>) -> Access {
        let into = into.unwrap_or_else(|| self.local(access.dtype, &access.dims));
        let (expr, args) = match &access.body {
            Body::View(_) => (Expr::Arg(0), vec![access.over(&access.dims)]),
            Body::Lazy { expr, args } => (expr.clone(), args.iter().map(|arg| arg.over(&access.dims)).collect()),
        };
        let extents = access.dims.iter().map(|(_, size)| *size).collect();
        self.ops.push(RowOp::Map { extents, expr, args, into: into.clone() });
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
            let inline = matches!(access.body, Body::Lazy { .. }) && elements(&access.dims) == elements(dims);
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

    fn reduce(&mut self, op: &ops::Reduce, node: &ModelNode) -> Result<(), Unsupported> {
        let (arg, result) = (node.operands[0], node.results[0]);
        let all = self.dims(arg);
        if op.over.iter().any(|axis| !all.iter().any(|(name, _)| name == axis)) {
            let reason = "it reads across positions";
            return Err(self.lowering.unsupported(node, reason, "reduce over axes of one position only"));
        }
        let (kept, over): (Vec<RowDim>, Vec<RowDim>) = all.into_iter().partition(|(axis, _)| !op.over.contains(axis));
        let count = elements(&over);
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
            let expr = Expr::binary(BinaryOp::Div, Expr::Arg(0), Expr::F32(count as f32));
            self.define(result, Access { dtype: DType::F32, dims: kept, body: Body::Lazy { expr, args: vec![sum] } });
        } else {
            self.values.insert(result, sum);
        }
        Ok(())
    }

    fn reduction(&mut self, op: ReduceOp, kept: &[RowDim], over: &[RowDim], expr: Expr, args: &[Access], into: View) {
        let loops: Vec<RowDim> = kept.iter().chain(over).cloned().collect();
        let sizes = |dims: &[RowDim]| dims.iter().map(|(_, size)| *size).collect();
        let args = args.iter().map(|arg| arg.over(&loops)).collect();
        self.ops.push(RowOp::Reduce { op, extents: sizes(kept), over: sizes(over), expr, args, into });
    }

    fn contract(&mut self, op: &ops::Contract, node: &ModelNode) -> Result<(), Unsupported> {
        let result = node.results[0];
        let left = self.read(node.operands[0]);
        let right = self.read(node.operands[1]);
        let kept = self.dims(result);
        let over: Option<Vec<RowDim>> =
            op.over.iter().map(|axis| left.position(axis).map(|at| left.dims[at].clone())).collect();
        let Some(over) = over else {
            let reason = "it sums over positions";
            return Err(self.lowering.unsupported(node, reason, "sum over axes of one position only"));
        };
        let into = self.place(result);
        let product = Expr::binary(BinaryOp::Mul, Expr::Arg(0), Expr::Arg(1));
        self.reduction(ReduceOp::Sum, &kept, &over, product, &[left, right], into.clone());
        self.values.insert(result, Access::view(DType::F32, kept, into));
        Ok(())
    }

    /// At each position, a sum over the positions before it.
    fn cumsum(&mut self, op: &ops::Cumsum, node: &ModelNode) -> Result<(), Unsupported> {
        let result = node.results[0];
        let arg = self.read(node.operands[0]);
        let kept = self.dims(result);
        let Some(at) = arg.position(&op.over) else {
            let reason = "it adds up over positions";
            return Err(self.lowering.unsupported(node, reason, "add up along an axis of one position"));
        };
        // No axis of the program has a name like this.
        let earlier = (Axis::new(&format!("{}'", op.over)), arg.dims[at].1);
        let mut before = arg.clone();
        before.dims[at] = earlier.clone();
        let positions = |dim: &RowDim| {
            let dims = vec![dim.clone()];
            let view = whole(Source::Place, &dims);
            Access::view(DType::I32, dims, view)
        };
        let (here, there) = (positions(&arg.dims[at]), positions(&earlier));
        let zero = if arg.dtype == DType::I32 { Expr::I32(0) } else { Expr::F32(0.0) };
        let counts = Expr::binary(BinaryOp::Le, Expr::Arg(2), Expr::Arg(1));
        let expr = Expr::select(counts, Expr::Arg(0), zero);
        let into = self.place(result);
        self.reduction(ReduceOp::Sum, &kept, &[earlier], expr, &[before, here, there], into.clone());
        self.values.insert(result, Access::view(self.dtype(result), kept, into));
        Ok(())
    }

    fn top_k(&mut self, op: &ops::TopK, node: &ModelNode) -> Result<(), Unsupported> {
        let arg = self.read(node.operands[0]);
        let Some(at) = arg.position(&op.over) else {
            let reason = "it chooses among positions";
            return Err(self.lowering.unsupported(node, reason, "choose along an axis of one position"));
        };
        let chosen = (op.over.clone(), arg.dims[at].1);
        let kept: Vec<RowDim> = arg.dims.iter().filter(|(axis, _)| *axis != op.over).cloned().collect();
        let with = |last: &RowDim| kept.iter().chain([last]).cloned().collect::<Vec<_>>();
        let Some(k) = op.choices.size.fixed() else {
            let reason = "how many it chooses is known only when the model runs";
            return Err(self.lowering.unsupported(node, reason, "choose a number of them"));
        };
        let k = (op.choices.axis.clone(), k);
        let places: Vec<Access> = node
            .results
            .iter()
            .map(|result| {
                let view = self.place(*result);
                Access::view(self.dtype(*result), self.dims(*result), view)
            })
            .collect();
        self.ops.push(RowOp::TopK {
            extents: kept.iter().map(|(_, size)| *size).collect(),
            len: chosen.1,
            k: k.1,
            arg: arg.over(&with(&chosen)),
            values: places[0].over(&with(&k)),
            indices: places[1].over(&with(&k)),
        });
        for (result, place) in node.results.iter().zip(places) {
            self.values.insert(*result, place);
        }
        Ok(())
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
        let new: Vec<RowDim> = op
            .into
            .iter()
            .map(|dim| (dim.axis.clone(), dim.size.fixed().expect("verified: split into fixed sizes")))
            .collect();
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
        let sizes: Vec<u64> = find(&access).iter().map(|at| access.dims[*at].1).collect();
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
        let last_real = places.iter().rev().zip(sizes.iter().rev()).find(|(_, size)| **size != 1).map(|(at, _)| *at);
        let strides = |old: &[u64]| {
            let merged = last_real.map_or(0, |at| old[at]);
            kept.iter().map(|at| if *at == first { merged } else { old[*at] }).collect()
        };
        let view = map_strides(access.memory().expect("just read"), &strides);
        let total = sizes.iter().product();
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
            dims[at].1 = op.len;
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
            let len = access.dims[at].1;
            let part = advance(whole.memory().expect("a view"), along, start);
            let part = Access::view(access.dtype, whole.dims.clone(), part).over(&access.dims);
            self.materialise(&access, Some(part));
            start += len;
        }
        self.values.insert(result, whole);
    }

    /// Brings every yielded value to all of its targets.
    fn finish(&mut self, yields: &[Yield]) {
        for (inner, targets) in std::mem::take(&mut self.targets) {
            let access = self.read(inner);
            let dims = yields.iter().find(|(value, _)| *value == inner).map(|(_, outer)| self.dims(*outer));
            let dims = dims.expect("targets are yields");
            for (buffer, outer) in targets {
                let target = self.lowering.row_of(buffer, outer, &dims);
                let access = Access::view(access.dtype, dims.clone(), access.over(&dims));
                if access.memory() != Some(&target) {
                    self.materialise(&access, Some(target));
                }
            }
        }
    }
}

impl Lowering<'_> {
    /// The view through which a value is written to its buffer: caches may order a row's dims differently.
    fn row_of(&self, buffer: BufferId, value: ValueId, dims: &[RowDim]) -> View {
        let order = self.cache_order(value).unwrap_or_else(|| dims.to_vec());
        Access::view(DType::F32, order.clone(), whole(Source::Row(buffer), &order)).over(dims)
    }

    /// Places parameters, literals and positions that stand within a row program.
    fn node_leaf(&mut self, node: &ModelNode) {
        let place = match &node.op {
            Op::ParamRef(op) => Place::Param(op.param),
            Op::Literal(op) => Place::Literal(self.literal(op)),
            Op::Iota(op) => Place::Iota(op.dim.clone()),
            _ => panic!("`{}` is not a leaf", node.op.mnemonic()),
        };
        self.places.insert(node.results[0], place);
    }
}
