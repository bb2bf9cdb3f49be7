//! Sums that go where an index says: cleared, then added to in the order of what is summed.

use moec_plan::{Extent, View};
use moec_types::{DType, Expr};

use super::{along_lanes, lanes_along, loops, nest};
use crate::{
    builder::{Builder, Cmp, Elem, Ty, Val},
    expr,
    view::{Lanes, Row},
};

pub struct Scatter<'a> {
    pub row: &'a Row<'a>,
    pub extents: &'a [Extent],
    pub over: &'a [Extent],
    /// Places along the last loop of `into`.
    pub count: Extent,
    pub index: &'a View,
    pub expr: &'a Expr,
    pub args: &'a [View],
    pub into: &'a View,
}

impl Scatter<'_> {
    pub fn emit(&self, b: &Builder) {
        if self.extents.contains(&Extent::Fixed(0)) {
            return;
        }
        self.clear(b);
        let all = [self.extents, self.over].concat();
        let kept = self.extents.len();
        let frame = self.row.frame;
        let mut ivs = vec![b.i64(0); all.len()];
        // What is kept turns fastest where one index serves all of it.
        let shared = self.index.strides[..kept].iter().all(|stride| *stride == 0);
        let over = loops(&all, kept..all.len(), None);
        if shared {
            nest(b, frame, &over, &mut ivs, &mut |b, ivs| {
                self.when_inside(b, ivs, |b, ivs, to| {
                    self.along_kept(b, ivs, |b, ivs, lanes| self.add(b, ivs, to, lanes))
                });
            });
        } else {
            let outer = loops(&all, 0..kept, None);
            nest(b, frame, &outer, &mut ivs, &mut |b, ivs| {
                nest(b, frame, &over, ivs, &mut |b, ivs| {
                    self.when_inside(b, ivs, |b, ivs, to| self.add(b, ivs, to, None));
                });
            });
        }
    }

    /// Loops over what is kept, with lanes where that pays.
    fn along_kept(&self, b: &Builder, ivs: &[Val], mut body: impl FnMut(&Builder, &[Val], Lanes)) {
        let kept = self.extents.len();
        let mut views = vec![self.into.clone()];
        views[0].strides.truncate(kept);
        views.extend(self.args.iter().cloned());
        let lanes = lanes_along(self.row, self.extents, 0..kept, &views);
        let outer = loops(self.extents, 0..kept, lanes.map(|(along, _)| along));
        nest(b, self.row.frame, &outer, &mut ivs.to_vec(), &mut |b, ivs| match lanes {
            None => body(b, ivs, None),
            Some(lanes) => {
                along_lanes(b, self.extents[lanes.0], lanes, ivs, &mut |b, ivs, lanes| body(b, ivs, lanes));
            }
        });
    }

    fn clear(&self, b: &Builder) {
        let kept = self.extents.len();
        b.repeat(self.row.frame.extent(b, self.count), |b, to| {
            let mut ivs = vec![b.i64(0); kept];
            ivs.push(to);
            self.along_kept(b, &ivs, |b, ivs, lanes| {
                let zero = self.zero(b, lanes);
                self.row.store(b, self.into, ivs, lanes, zero);
            });
        });
    }

    fn zero(&self, b: &Builder, lanes: Lanes) -> Val {
        let lanes = lanes.map_or(0, |(_, count)| count);
        match self.row.dtype(self.into.source) {
            DType::I32 | DType::Bool => b.int(Ty { elem: Elem::I32, lanes }, 0),
            DType::F32 | DType::Bf16 | DType::F16 => b.float(Ty { elem: Elem::F32, lanes }, 0.0),
        }
    }

    fn when_inside(&self, b: &Builder, ivs: &[Val], body: impl FnOnce(&Builder, &[Val], Val)) {
        let to = b.widen_signed(self.row.load(b, self.index, ivs, None), Elem::I64);
        let inside = b.cmp(Cmp::Below, to, self.row.frame.extent(b, self.count));
        b.when(inside, |b| body(b, ivs, to));
    }

    fn add(&self, b: &Builder, ivs: &[Val], to: Val, lanes: Lanes) {
        let count = lanes.map_or(0, |(_, count)| count);
        let args: Vec<Val> = self.args.iter().map(|view| self.row.load(b, view, ivs, lanes)).collect();
        let value = expr::evaluate(b, self.row.frame.level, self.expr, &args, count);
        let kept = self.extents.len();
        let place: Vec<Val> = ivs[..kept].iter().copied().chain([to]).collect();
        let sum = b.add(self.row.load(b, self.into, &place, lanes), value);
        self.row.store(b, self.into, &place, lanes, sum);
    }
}
