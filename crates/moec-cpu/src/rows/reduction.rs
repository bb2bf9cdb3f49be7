//! Reductions: sums and extremes over loops, with lanes along either what is kept or what is reduced over.

use moec_plan::{Extent, ReduceOp, View};
use moec_types::{BinaryOp, DType, Expr};

use super::{along_lanes, lanes_along, loops, nest, simplify};
use crate::{
    builder::{Builder, Elem, Ty, Val},
    expr,
    frame::Frame,
    view::{Lanes, Row, is_indirect},
};

/// A reduction with its loops simplified.
pub struct Reduction<'a> {
    row: &'a Row<'a>,
    op: ReduceOp,
    extents: Vec<Extent>,
    /// Loops before it are kept, from it on reduced over.
    kept: usize,
    expr: &'a Expr,
    args: Vec<View>,
    into: View,
}

/// Sums that run side by side along a loop with lanes, to hide the latency of an addition.
const SIDE_BY_SIDE: u64 = 4;

impl<'a> Reduction<'a> {
    pub fn new(
        row: &'a Row<'a>,
        op: ReduceOp,
        extents: &[Extent],
        over: &[Extent],
        expr: &'a Expr,
        args: &[View],
        into: &View,
    ) -> Self {
        let all: Vec<Extent> = extents.iter().chain(over).copied().collect();
        let mut views: Vec<View> = vec![padded(into, all.len())];
        views.extend(args.iter().cloned());
        let (extents, kept, mut views) = simplify(&all, extents.len(), &views);
        let into = views.remove(0);
        Reduction { row, op, extents, kept, expr, args: views, into }
    }

    pub fn emit(&self, b: &Builder) {
        if self.extents[..self.kept].contains(&Extent::Fixed(0)) {
            return;
        }
        let (all, kept) = (self.extents.len(), self.kept);
        let over = lanes_along(self.row, &self.extents, kept..all, &self.args);
        let mut ivs = vec![b.i64(0); all];
        if let Some(lanes) = over {
            return self.lanes_over(b, lanes, ivs);
        }
        let indirect = is_indirect(&self.into);
        let views: Vec<View> = std::iter::once(&self.into).chain(&self.args).cloned().collect();
        let lanes = if indirect { None } else { lanes_along(self.row, &self.extents, 0..kept, &views) };
        let outer = loops(&self.extents, 0..kept, lanes.map(|(along, _)| along));
        nest(b, self.row.frame, &outer, &mut ivs, &mut |b, ivs| match lanes {
            None => self.one(b, ivs, None),
            Some(lanes) => {
                along_lanes(b, self.extents[lanes.0], lanes, ivs, &mut |b, ivs, lanes| self.one(b, ivs, lanes));
            }
        });
    }

    /// Lanes along a kept loop (or none): one accumulator.
    fn one(&self, b: &Builder, ivs: &[Val], lanes: Lanes) {
        let count = lanes.map_or(0, |(_, count)| count);
        let over = loops(&self.extents, self.kept..self.extents.len(), None);
        let mut ivs = ivs.to_vec();
        let start = self.identity(b, count);
        let result = fold(b, self.row.frame, &over, &mut ivs, &[start], &mut |b, ivs, sums| {
            vec![self.take(b, sums[0], ivs, lanes)]
        });
        self.row.store(b, &self.into, &ivs, lanes, result[0]);
    }

    /// Lanes along a loop that is reduced over: several kept rows at once share what they have in common, or one row has
    /// several accumulators.
    fn lanes_over(&self, b: &Builder, lanes: (usize, u32), mut ivs: Vec<Val>) {
        let (along, count) = lanes;
        // The last kept loop goes in blocks.
        let inner = self.kept.checked_sub(1);
        let outer = loops(&self.extents, 0..inner.unwrap_or(0), None);
        nest(b, self.row.frame, &outer, &mut ivs, &mut |b, ivs| {
            let Some(inner) = inner else { return self.block(b, along, count, 1, ivs) };
            let extent = self.row.frame.extent(b, self.extents[inner]);
            let full = b.sub(extent, b.rem(extent, b.i64(SIDE_BY_SIDE as i64)));
            let most = self.extents[inner].fixed().unwrap_or(u64::MAX);
            for (from, to, step) in [(b.i64(0), full, SIDE_BY_SIDE), (full, extent, 1)] {
                if step <= most && (step > 1 || !most.is_multiple_of(SIDE_BY_SIDE)) {
                    b.range(from, to, b.i64(step as i64), |b, iv| {
                        ivs[inner] = iv;
                        self.block(b, along, count, step, ivs);
                    });
                }
            }
        });
    }

    /// `rows` successive kept rows.
    fn block(&self, b: &Builder, along: usize, lanes: u32, rows: u64, ivs: &[Val]) {
        let extent = self.extents[along].fixed().expect("lanes run along fixed loops");
        let (wide, rest) = (u64::from(lanes), extent % u64::from(lanes));
        let side = if rows == 1 && extent >= wide * SIDE_BY_SIDE { SIDE_BY_SIDE } else { 1 };
        let over = loops(&self.extents, self.kept..self.extents.len(), Some(along));
        let row_ivs = |b: &Builder, ivs: &[Val], at: u64| {
            let mut ivs = ivs.to_vec();
            if at > 0 {
                ivs[self.kept - 1] = b.add(ivs[self.kept - 1], b.i64(at as i64));
            }
            ivs
        };
        // Accumulators of lanes: rows times side by side; then one scalar a row for the rest.
        let vectors = (rows * side) as usize;
        let mut start = vec![self.identity(b, lanes); vectors];
        if rest > 0 {
            start.extend(vec![self.identity(b, 0); rows as usize]);
        }
        let mut ivs = ivs.to_vec();
        let sums = fold(b, self.row.frame, &over, &mut ivs, &start, &mut |b, ivs, sums| {
            let mut sums = sums.to_vec();
            let mut done = 0;
            for step in [wide * side, wide] {
                let to = extent - extent % step;
                if done >= to {
                    continue;
                }
                let range = [done, to, step].map(|at| b.i64(at as i64));
                let next = b.for_loop(range, &sums[..vectors], |b, iv, sums| {
                    let mut next = sums.to_vec();
                    for row in 0..rows {
                        let mut ivs = row_ivs(b, ivs, row);
                        for part in 0..step / wide {
                            let at = (row * side + part) as usize;
                            ivs[along] = b.add(iv, b.i64((part * wide) as i64));
                            next[at] = self.take(b, next[at], &ivs, Some((along, lanes)));
                        }
                    }
                    next
                });
                sums.splice(..vectors, next);
                done = to;
            }
            if rest > 0 {
                let range = [extent - rest, extent, 1].map(|at| b.i64(at as i64));
                let next = b.for_loop(range, &sums[vectors..], |b, iv, sums| {
                    let one = |(row, sum): (usize, &Val)| {
                        let mut ivs = row_ivs(b, ivs, row as u64);
                        ivs[along] = iv;
                        self.take(b, *sum, &ivs, None)
                    };
                    sums.iter().enumerate().map(one).collect()
                });
                sums.splice(vectors.., next);
            }
            sums
        });
        for row in 0..rows as usize {
            let parts = &sums[row * side as usize..(row + 1) * side as usize];
            let sum = parts.iter().copied().reduce(|a, part| combine(b, self.op, a, part)).expect("a part");
            let mut sum = b.across(sum, |b, x, y| combine(b, self.op, x, y));
            if rest > 0 {
                sum = combine(b, self.op, sum, sums[vectors + row]);
            }
            self.row.store(b, &self.into, &row_ivs(b, &ivs, row as u64), None, sum);
        }
    }

    fn take(&self, b: &Builder, sum: Val, ivs: &[Val], lanes: Lanes) -> Val {
        let args: Vec<Val> = self.args.iter().map(|view| self.row.load(b, view, ivs, lanes)).collect();
        let count = lanes.map_or(0, |(_, count)| count);
        let of = |expr: &Expr| expr::evaluate(b, self.row.frame.level, expr, &args, count);
        match self.expr {
            Expr::Binary(BinaryOp::Mul, x, y) if self.op == ReduceOp::Sum && sum.ty.elem == Elem::F32 => {
                b.mul_add(of(x), of(y), sum)
            }
            whole => combine(b, self.op, sum, of(whole)),
        }
    }

    fn identity(&self, b: &Builder, lanes: u32) -> Val {
        let dtypes: Vec<_> = self.args.iter().map(|view| arithmetic(self.row.dtype(view.source))).collect();
        let dtype = self.expr.dtype(&dtypes).expect("a well-typed expression");
        let number = |float: f32, int: i32| match dtype {
            DType::I32 => b.int(Ty { elem: Elem::I32, lanes }, i64::from(int)),
            DType::Bool => b.bool(Ty { elem: Elem::I1, lanes }, int != 0),
            DType::F32 | DType::Bf16 | DType::F16 => b.float(Ty { elem: Elem::F32, lanes }, float),
        };
        match self.op {
            ReduceOp::Sum | ReduceOp::Any => number(0.0, 0),
            ReduceOp::Prod | ReduceOp::All => number(1.0, 1),
            ReduceOp::Max => number(f32::NEG_INFINITY, i32::MIN),
            ReduceOp::Min => number(f32::INFINITY, i32::MAX),
        }
    }
}

/// What elements of a type are computed in.
pub fn arithmetic(dtype: DType) -> DType {
    if dtype.is_float() { DType::F32 } else { dtype }
}

fn combine(b: &Builder, op: ReduceOp, x: Val, y: Val) -> Val {
    match op {
        ReduceOp::Sum => b.add(x, y),
        ReduceOp::Prod => b.mul(x, y),
        ReduceOp::Max => b.max(x, y),
        ReduceOp::Min => b.min(x, y),
        ReduceOp::Any => b.or(x, y),
        ReduceOp::All => b.and(x, y),
    }
}

/// Makes the next values from the loops' places and the values before.
type FoldBody<'f> = dyn FnMut(&Builder, &mut Vec<Val>, &[Val]) -> Vec<Val> + 'f;

/// Nested loops that carry values.
fn fold(
    b: &Builder,
    frame: &Frame,
    loops: &[(usize, Extent)],
    ivs: &mut Vec<Val>,
    start: &[Val],
    body: &mut FoldBody,
) -> Vec<Val> {
    let Some(((at, extent), rest)) = loops.split_first() else { return body(b, ivs, start) };
    let outside = ivs[*at];
    let range = [b.i64(0), frame.extent(b, *extent), b.i64(1)];
    let sums = b.for_loop(range, start, |b, iv, sums| {
        ivs[*at] = iv;
        fold(b, frame, rest, ivs, sums, body)
    });
    ivs[*at] = outside;
    sums
}

/// The view with further loops that do not move it.
fn padded(view: &View, loops: usize) -> View {
    let mut view = view.clone();
    view.strides.resize(loops, 0);
    if let Some(index) = &mut view.index {
        index.view = padded(&index.view, loops);
    }
    view
}
