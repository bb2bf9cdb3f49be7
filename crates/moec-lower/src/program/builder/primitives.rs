//! Each primitive as row ops: what it reads, the loops it takes, and where its value goes.

use moec_diag::Span;
use moec_ir::{Node as ModelNode, ValueId, ops};
use moec_plan::{Extent, Indirect, LocalId, ReduceOp, RowOp, Rows, Source, View, Work, fixed_product};
use moec_types::{Axis, BinaryOp, DType, Expr};

use super::{Programmer, rows_along};
use crate::{
    Unsupported,
    access::{Access, Body, RowDim, advance, can_merge, contiguous, elements, extents, map_strides, whole},
};

impl Programmer<'_, '_> {
    pub(super) fn map(&mut self, op: &ops::Map, node: &ModelNode) {
        let result = node.results[0];
        let dims = self.dims(result);
        let (exprs, args) = self.operands(&node.operands, &dims);
        let expr = op.expr.substitute(&|at| exprs[at].clone());
        self.define(result, Access { dtype: self.dtype(result), dims, body: Body::Lazy { expr, args } });
    }

    pub(super) fn reduce(&mut self, op: &ops::Reduce, node: &ModelNode) {
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

    pub(super) fn contract(&mut self, op: &ops::Contract, node: &ModelNode) {
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

    pub(super) fn cumsum(&mut self, op: &ops::Cumsum, node: &ModelNode) {
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

    pub(super) fn scatter_add(&mut self, op: &ops::ScatterAdd, node: &ModelNode) {
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

    pub(super) fn top_k(&mut self, op: &ops::TopK, node: &ModelNode) {
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
    pub(super) fn needs_one_row(&mut self, what: &str) {
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
    pub(super) fn gather(&mut self, op: &ops::Gather, node: &ModelNode) {
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

    pub(super) fn split(&mut self, op: &ops::Split, node: &ModelNode) {
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

    pub(super) fn merge(&mut self, op: &ops::Merge, node: &ModelNode) {
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

    pub(super) fn slice(&mut self, op: &ops::Slice, node: &ModelNode) {
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

    /// Windows overlap in memory: one stride from place to place, another within a window.
    pub(super) fn unfold(&mut self, op: &ops::Unfold, node: &ModelNode) {
        let access = self.read(node.operands[0]);
        let at = access.position(&op.axis).expect("verified: the axis is there");
        let strides = |old: &[u64]| {
            let mut strides = old.to_vec();
            strides.splice(at..=at, [old[at] * op.step, old[at]]);
            strides
        };
        let view = map_strides(access.memory().expect("just read"), &strides);
        let dims = self.dims(node.results[0]);
        let dim = |axis: &Axis| dims.iter().find(|dim| dim.0 == *axis).expect("verified: the axis is made").clone();
        let mut own = access.dims;
        own.splice(at..=at, [dim(&op.place), dim(&op.window.axis)]);
        self.alias(node.results[0], Access::view(access.dtype, own, view));
    }

    pub(super) fn concat(&mut self, op: &ops::Concat, node: &ModelNode) {
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
}
