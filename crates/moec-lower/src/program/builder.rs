//! The parts of one row program as they come together: values, the views they are read through, the room they take.

mod primitives;

use std::collections::BTreeMap;

use moec_diag::Span;
use moec_ir::{Node as ModelNode, Op, ValueId};
use moec_plan::{BufferId, Extent, Home, Indirect, Local, LocalId, RowOp, Rows, Source, View};
use moec_types::{Axis, DType, Expr, Size};

use super::{RowAxis, Yield};
use crate::{
    Unsupported,
    access::{Access, Body, RowDim, elements, extents, whole},
    context::{Lowering, Place},
};

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
            Op::Unfold(op) => self.unfold(op, node),
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
