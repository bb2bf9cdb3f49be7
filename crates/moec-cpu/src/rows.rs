//! Row programs: loops over affine views, with lanes along the loop where most views are contiguous.
//!
//! `out[i] = x[i] * w[i]` over 100 elements becomes, with 16 lanes, a loop of 6 vectors and a loop of 4 scalars: the same
//! code emitted twice.

use moec_plan::{ReduceOp, RowGroup, RowOp, RowProgram, Rows, View};
use moec_types::{BinaryOp, Expr};

use crate::{
    builder::{Builder, Cmp, Elem, I32, Ty, Val},
    expr,
    frame::Frame,
    view::{Lanes, Motion, Row, is_indirect},
};

pub fn emit(b: &Builder, frame: &Frame, rows: Rows, program: &RowProgram, group: Option<&RowGroup>) {
    let (locals, keys) = layout(program);
    let body = |b: &Builder, row: Val, expert: Option<Val>| {
        let row = Row { frame, program, rows, row, locals: &locals, expert };
        for op in &program.ops {
            match op {
                RowOp::Map { extents, expr, args, into } => map(b, &row, extents, expr, args, into),
                RowOp::Reduce { op, extents, over, expr, args, into } => {
                    Reduction::new(&row, *op, extents, over, expr, args, into).emit(b);
                }
                RowOp::TopK { extents, len, k, arg, values, indices } => {
                    let keys = b.offset_by(frame.scratch, keys as i64);
                    top_k(b, &row, extents, [*len, *k], [arg, values, indices], keys);
                }
            }
        }
    };
    if rows == Rows::One {
        let first = b.cmp(Cmp::Eq, frame.thread, b.i64(0));
        return b.when(first, |b| body(b, b.i64(0), None));
    }
    let share = |b: &Builder, first: Val, end: Val| {
        let (from, to) = frame.share(b, b.sub(end, first));
        (b.add(first, from), b.add(first, to))
    };
    let Some(group) = group else {
        let (first, end) = frame.rows(b, rows);
        let (from, to) = share(b, first, end);
        return b.range(from, to, b.i64(1), |b, row| body(b, row, None));
    };
    let offsets = frame.buffer(b, group.offsets).base;
    let bound = |b: &Builder, expert: Val| {
        let expert = b.add(expert, b.i64(i64::from(group.first)));
        b.widen_signed(b.load(I32, b.offset(offsets, b.shl(expert, 2))), Elem::I64)
    };
    let count = b.i64(i64::from(group.count));
    let (from, to) = share(b, bound(b, b.i64(0)), bound(b, count));
    // This thread's share, expert by expert.
    b.repeat(count, |b, expert| {
        let first = b.max(from, bound(b, expert));
        let end = b.min(to, bound(b, b.add(expert, b.i64(1))));
        b.range(first, end, b.i64(1), |b, row| body(b, row, Some(expert)));
    });
}

/// Bytes of scratch that one row needs.
pub fn scratch_bytes(program: &RowProgram) -> u64 {
    let longest = program.ops.iter().map(|op| match op {
        RowOp::TopK { len, .. } => *len,
        RowOp::Map { .. } | RowOp::Reduce { .. } => 0,
    });
    let keys = longest.max().unwrap_or(0).next_multiple_of(16) * 4;
    layout(program).1 + keys
}

/// Where each local starts, and where the keys of a top-k do.
fn layout(program: &RowProgram) -> (Vec<u64>, u64) {
    let mut end = 0;
    let place = |bytes: u64| {
        let start = end;
        end += bytes.next_multiple_of(64);
        start
    };
    let starts: Vec<u64> = program.locals.iter().map(|local| local.elements * local.dtype.bytes()).map(place).collect();
    (starts, end)
}

/// Loops without those of one turn, and with those merged that all views run through alike. Loops before and after
/// `boundary` stay apart. Gives the new extents, boundary and views.
fn simplify(extents: &[u64], boundary: usize, views: &[View]) -> (Vec<u64>, usize, Vec<View>) {
    let (mut extents, mut boundary, mut views) = (extents.to_vec(), boundary, views.to_vec());
    let mut at = 0;
    while at < extents.len() {
        let merges = at > 0 && at != boundary && views.iter().all(|view| runs_on(view, at, extents[at]));
        if extents[at] == 1 {
            views.iter_mut().for_each(|view| drop_loop(view, at));
        } else if merges {
            extents[at - 1] *= extents[at];
            views.iter_mut().for_each(|view| drop_loop(view, at - 1));
        } else {
            at += 1;
            continue;
        }
        extents.remove(at);
        boundary -= usize::from(at < boundary);
    }
    (extents, boundary, views)
}

/// Whether the loop before `at` goes on where this one, of `extent` turns, ends.
fn runs_on(view: &View, at: usize, extent: u64) -> bool {
    view.strides[at - 1] == view.strides[at] * extent
        && view.index.as_ref().is_none_or(|index| runs_on(&index.view, at, extent))
}

fn drop_loop(view: &mut View, at: usize) {
    view.strides.remove(at);
    if let Some(index) = &mut view.index {
        drop_loop(&mut index.view, at);
    }
}

/// The loop of `candidates` along which lanes pay, and how many. The first view is the one written, where `writes`.
fn lanes_along(row: &Row, extents: &[u64], candidates: std::ops::Range<usize>, views: &[View]) -> Lanes {
    let cost = |along: usize| {
        let motions: Vec<Motion> = views.iter().map(|view| row.motion(view, along)).collect();
        let jumps = motions.iter().filter(|motion| **motion == Motion::Jumps).count();
        let pays = extents[along] >= 4 && (motions.contains(&Motion::Contiguous) || jumps == 0);
        pays.then_some((jumps, usize::MAX - along))
    };
    let along = candidates.filter(|along| cost(*along).is_some()).min_by_key(|along| cost(*along))?;
    let most = 1u64 << extents[along].ilog2();
    Some((along, row.frame.level.lanes().min(most.min(64) as u32)))
}

/// Loops over all of `extents` but `skipped`, setting `ivs`; `body` is emitted once.
fn nest(b: &Builder, loops: &[(usize, u64)], ivs: &mut Vec<Val>, body: &mut dyn FnMut(&Builder, &mut Vec<Val>)) {
    let Some(((at, extent), rest)) = loops.split_first() else { return body(b, ivs) };
    b.repeat(b.i64(*extent as i64), |b, iv| {
        ivs[*at] = iv;
        nest(b, rest, ivs, body);
    });
}

/// A loop in steps of the lanes, then one of scalars for the rest.
fn along_lanes(
    b: &Builder,
    extent: u64,
    (along, lanes): (usize, u32),
    ivs: &mut Vec<Val>,
    body: &mut dyn FnMut(&Builder, &mut Vec<Val>, Lanes),
) {
    let full = extent - extent % u64::from(lanes);
    for (from, to, step, lanes) in [(0, full, lanes, Some((along, lanes))), (full, extent, 1, None)] {
        if from < to {
            b.range(b.i64(from as i64), b.i64(to as i64), b.i64(i64::from(step)), |b, iv| {
                ivs[along] = iv;
                body(b, ivs, lanes);
            });
        }
    }
}

fn loops(extents: &[u64], range: std::ops::Range<usize>, skipped: Option<usize>) -> Vec<(usize, u64)> {
    range.filter(|at| Some(*at) != skipped).map(|at| (at, extents[at])).collect()
}

fn map(b: &Builder, row: &Row, extents: &[u64], expr: &Expr, args: &[View], into: &View) {
    if extents.contains(&0) {
        return;
    }
    let views: Vec<View> = std::iter::once(into).chain(args).cloned().collect();
    let (extents, _, views) = simplify(extents, 0, &views);
    let (into, args) = (&views[0], &views[1..]);
    let one = |b: &Builder, ivs: &[Val], lanes: Lanes| {
        let count = lanes.map_or(0, |(_, count)| count);
        let args: Vec<Val> = args.iter().map(|view| row.load(b, view, ivs, lanes)).collect();
        let value = expr::evaluate(b, row.frame.level, expr, &args, count);
        row.store(b, into, ivs, lanes, value);
    };
    let lanes = if is_indirect(into) { None } else { lanes_along(row, &extents, 0..extents.len(), &views) };
    let outer = loops(&extents, 0..extents.len(), lanes.map(|(along, _)| along));
    let mut ivs = vec![b.i64(0); extents.len()];
    nest(b, &outer, &mut ivs, &mut |b, ivs| match lanes {
        None => one(b, ivs, None),
        Some(lanes) => along_lanes(b, extents[lanes.0], lanes, ivs, &mut |b, ivs, lanes| one(b, ivs, lanes)),
    });
}

/// A reduction with its loops simplified.
struct Reduction<'a> {
    row: &'a Row<'a>,
    op: ReduceOp,
    extents: Vec<u64>,
    /// Loops before it are kept, from it on reduced over.
    kept: usize,
    expr: &'a Expr,
    args: Vec<View>,
    into: View,
}

/// Sums that run side by side along a loop with lanes, to hide the latency of an addition.
const SIDE_BY_SIDE: u64 = 4;

impl<'a> Reduction<'a> {
    fn new(
        row: &'a Row<'a>,
        op: ReduceOp,
        extents: &[u64],
        over: &[u64],
        expr: &'a Expr,
        args: &[View],
        into: &View,
    ) -> Self {
        let all: Vec<u64> = extents.iter().chain(over).copied().collect();
        let mut views: Vec<View> = vec![padded(into, all.len())];
        views.extend(args.iter().cloned());
        let (extents, kept, mut views) = simplify(&all, extents.len(), &views);
        let into = views.remove(0);
        Reduction { row, op, extents, kept, expr, args: views, into }
    }

    fn emit(&self, b: &Builder) {
        if self.extents[..self.kept].contains(&0) {
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
        nest(b, &outer, &mut ivs, &mut |b, ivs| match lanes {
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
        let result = fold(b, &over, &mut ivs, &[start], &mut |b, ivs, sums| vec![self.take(b, sums[0], ivs, lanes)]);
        self.row.store(b, &self.into, &ivs, lanes, result[0]);
    }

    /// Lanes along a loop that is reduced over: several kept rows at once share what they have in common, or one row has
    /// several accumulators.
    fn lanes_over(&self, b: &Builder, lanes: (usize, u32), mut ivs: Vec<Val>) {
        let (along, count) = lanes;
        // The last kept loop goes in blocks.
        let inner = self.kept.checked_sub(1);
        let outer = loops(&self.extents, 0..inner.unwrap_or(0), None);
        nest(b, &outer, &mut ivs, &mut |b, ivs| {
            let Some(inner) = inner else { return self.block(b, along, count, 1, ivs) };
            let extent = self.extents[inner];
            let full = extent - extent % SIDE_BY_SIDE;
            for (from, to, step) in [(0, full, SIDE_BY_SIDE), (full, extent, 1)] {
                if from < to {
                    b.range(b.i64(from as i64), b.i64(to as i64), b.i64(step as i64), |b, iv| {
                        ivs[inner] = iv;
                        self.block(b, along, count, step, ivs);
                    });
                }
            }
        });
    }

    /// `rows` successive kept rows.
    fn block(&self, b: &Builder, along: usize, lanes: u32, rows: u64, ivs: &[Val]) {
        let extent = self.extents[along];
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
        let sums = fold(b, &over, &mut ivs, &start, &mut |b, ivs, sums| {
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
            moec_types::DType::I32 => b.int(Ty { elem: Elem::I32, lanes }, i64::from(int)),
            moec_types::DType::Bool => b.bool(Ty { elem: Elem::I1, lanes }, int != 0),
            moec_types::DType::F32 | moec_types::DType::Bf16 | moec_types::DType::F16 => {
                b.float(Ty { elem: Elem::F32, lanes }, float)
            }
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
pub fn arithmetic(dtype: moec_types::DType) -> moec_types::DType {
    if dtype.is_float() { moec_types::DType::F32 } else { dtype }
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

/// Nested loops that carry values.
fn fold(
    b: &Builder,
    loops: &[(usize, u64)],
    ivs: &mut Vec<Val>,
    start: &[Val],
    body: &mut dyn FnMut(&Builder, &mut Vec<Val>, &[Val]) -> Vec<Val>,
) -> Vec<Val> {
    let Some(((at, extent), rest)) = loops.split_first() else { return body(b, ivs, start) };
    let outside = ivs[*at];
    let range = [0, *extent as i64, 1].map(|value| b.i64(value));
    let sums = b.for_loop(range, start, |b, iv, sums| {
        ivs[*at] = iv;
        fold(b, rest, ivs, sums, body)
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

/// Passes over keys: i32 that sort as the floats do, NaN below all numbers and what was taken below that.
fn top_k(b: &Builder, row: &Row, extents: &[u64], [len, k]: [u64; 2], [arg, values, indices]: [&View; 3], keys: Val) {
    const TAKEN: i64 = i32::MIN as i64;
    let width = row.frame.level.lanes();
    let ty = Ty::vector(Elem::I32, width);
    let padded_len = len.next_multiple_of(u64::from(width));
    let along = extents.len();
    let contiguous = row.motion(arg, along) == Motion::Contiguous && len >= u64::from(width);
    let mut ivs = vec![b.i64(0); along + 1];
    let one = |b: &Builder, ivs: &mut Vec<Val>| {
        let fill = |b: &Builder, ivs: &[Val], lanes: Lanes| {
            let key = sort_key(b, row.load(b, arg, ivs, lanes));
            b.store(key, b.offset(keys, b.shl(ivs[along], 2)));
        };
        if padded_len > len {
            b.store(b.int(ty, TAKEN), b.offset_by(keys, 4 * (padded_len - u64::from(width)) as i64));
        }
        if contiguous {
            along_lanes(b, len, (along, width), ivs, &mut |b, ivs, lanes| fill(b, ivs, lanes));
        } else {
            b.repeat(b.i64(len as i64), |b, iv| {
                ivs[along] = iv;
                fill(b, ivs, None);
            });
        }
        b.repeat(b.i64(k as i64), |b, turn| {
            let best = [b.int(ty, TAKEN), b.int(ty, 0)];
            let range = [0, padded_len as i64, i64::from(width)].map(|at| b.i64(at));
            let best = b.for_loop(range, &best, |b, iv, best| {
                let key = b.load(ty, b.offset(keys, b.shl(iv, 2)));
                let at = b.add(b.iota(width), b.splat(b.narrow(iv, Elem::I32), width));
                let better = b.cmp(Cmp::Gt, key, best[0]);
                vec![b.select(better, key, best[0]), b.select(better, at, best[1])]
            });
            let at = b.widen_signed(first_of_largest(b, best[0], best[1]), Elem::I64);
            b.store(b.int(Ty::scalar(Elem::I32), TAKEN), b.offset(keys, b.shl(at, 2)));
            ivs[along] = at;
            let value = row.load(b, arg, ivs, None);
            ivs[along] = turn;
            row.store(b, values, ivs, None, value);
            row.store(b, indices, ivs, None, b.narrow(at, Elem::I32));
        });
    };
    let outer = loops(extents, 0..along, None);
    nest(b, &outer, &mut ivs, &mut |b, ivs| one(b, ivs));
}

/// The index of the largest key; of equal ones, the least index.
fn first_of_largest(b: &Builder, mut keys: Val, mut at: Val) -> Val {
    while keys.ty.lanes > 1 {
        let half = keys.ty.lanes / 2;
        let [key, other] = [0, half].map(|first| b.part(keys, first, half));
        let [index, other_index] = [0, half].map(|first| b.part(at, first, half));
        let larger = b.cmp(Cmp::Gt, other, key);
        let earlier = b.and(b.cmp(Cmp::Eq, other, key), b.cmp(Cmp::Lt, other_index, index));
        let better = b.or(larger, earlier);
        keys = b.select(better, other, key);
        at = b.select(better, other_index, index);
    }
    b.lane(at, 0)
}

/// An i32 that compares as the float does: -0 equals 0, and NaN is one above the least.
fn sort_key(b: &Builder, x: Val) -> Val {
    let positive_zero = b.add(x, b.float(x.ty, 0.0));
    let bits = b.bits(positive_zero, Elem::I32);
    let flip = b.and(b.shr(bits, 31), b.int(bits.ty, 0x7fff_ffff));
    let is_nan = b.cmp(Cmp::Ne, x, x);
    b.select(is_nan, b.int(bits.ty, i64::from(i32::MIN) + 1), b.xor(bits, flip))
}
