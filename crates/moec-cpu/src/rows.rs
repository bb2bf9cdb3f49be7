//! Row programs: loops over affine views, with lanes along the loop where most views are contiguous.
//!
//! `out[i] = x[i] * w[i]` over 100 elements becomes, with 16 lanes, a loop of 6 vectors and a loop of 4 scalars: the same
//! code emitted twice.

mod cumsum;
mod reduction;
mod scatter;
mod sort;
mod top_k;

use moec_plan::{Extent, RowGroup, RowOp, RowProgram, Rows, Scan, View};
use moec_types::Expr;

use crate::{
    builder::{Builder, Cmp, Elem, I32, Val},
    expr,
    frame::Frame,
    view::{Lanes, Motion, Row, is_indirect},
};
use cumsum::cumsum;
use reduction::Reduction;
use scatter::Scatter;
use sort::sort;
use top_k::top_k;

pub fn emit(b: &Builder, frame: &Frame, rows: Rows, program: &RowProgram, group: Option<&RowGroup>) {
    let body = |b: &Builder, row: Val, expert: Option<Val>| run(b, frame, program, Place { row, part: row, expert });
    if rows == Rows::ONE {
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

/// Each part of each session by one thread, which takes it through all tokens: what a token needs of the one before it, that
/// thread has.
pub fn emit_scan(b: &Builder, frame: &Frame, scan: &Scan) {
    let parts = b.i64(scan.parts as i64);
    let (from, to) = frame.share(b, b.mul(frame.segment_count(b), parts));
    b.range(from, to, b.i64(1), |b, item| {
        let segment = frame.segment(b, b.div(item, parts));
        let frame = &frame.of(&segment);
        let part = b.rem(item, parts);
        let place = |row: Val| Place { row, part, expert: None };
        let first = b.cmp(Cmp::Eq, segment.past, b.i64(0));
        b.when(first, |b| run(b, frame, &scan.start, place(segment.first)));
        let end = b.add(segment.first, segment.tokens);
        b.range(segment.first, end, b.i64(1), |b, token| run(b, frame, &scan.program, place(token)));
    });
}

/// Where a program is run.
struct Place {
    row: Val,
    part: Val,
    expert: Option<Val>,
}

/// The program's ops, one after the other.
fn run(b: &Builder, frame: &Frame, program: &RowProgram, place: Place) {
    let (locals, keys) = layout(program);
    let Place { row, part, expert } = place;
    let row = Row { frame, program, row, part, locals: &locals, expert };
    for op in &program.ops {
        match op {
            RowOp::Map { extents, expr, args, into } => map(b, &row, extents, expr, args, into),
            RowOp::Reduce { op, extents, over, expr, args, into } => {
                Reduction::new(&row, *op, extents, over, expr, args, into).emit(b);
            }
            RowOp::Cumsum { extents, along, expr, args, into } => {
                cumsum(b, &row, extents, *along, expr, args, into);
            }
            RowOp::ScatterAdd { extents, over, count, index, expr, args, into } => {
                Scatter { row: &row, extents, over, count: *count, index, expr, args, into }.emit(b);
            }
            RowOp::TopK { extents, len, k, arg, values, indices, work: Some(work) } => {
                sort(b, &row, extents, [*len, *k], [arg, values, indices], *work);
            }
            RowOp::TopK { extents, len, k, arg, values, indices, work: None } => {
                let keys = b.offset_by(frame.scratch, keys as i64);
                let sizes = [*len, *k].map(|size| size.fixed().expect("verified: without room, of fixed size"));
                top_k(b, &row, extents, sizes, [arg, values, indices], keys);
            }
        }
    }
}

/// Bytes of scratch that one row needs.
pub fn scratch_bytes(program: &RowProgram) -> u64 {
    let longest = program.ops.iter().map(|op| match op {
        RowOp::TopK { len, work: None, .. } => len.fixed().unwrap_or(0),
        RowOp::TopK { work: Some(_), .. }
        | RowOp::Map { .. }
        | RowOp::Reduce { .. }
        | RowOp::Cumsum { .. }
        | RowOp::ScatterAdd { .. } => 0,
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
fn simplify(extents: &[Extent], boundary: usize, views: &[View]) -> (Vec<Extent>, usize, Vec<View>) {
    let (mut extents, mut boundary, mut views) = (extents.to_vec(), boundary, views.to_vec());
    let mut at = 0;
    while at < extents.len() {
        let outer = if at > 0 && at != boundary { extents[at - 1].fixed() } else { None };
        let merged = outer.and_then(|outer| {
            let inner = extents[at].fixed()?;
            views.iter().all(|view| runs_on(view, at, inner)).then_some(outer * inner)
        });
        if extents[at] == Extent::Fixed(1) {
            views.iter_mut().for_each(|view| drop_loop(view, at));
        } else if let Some(merged) = merged {
            extents[at - 1] = Extent::Fixed(merged);
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
fn lanes_along(row: &Row, extents: &[Extent], candidates: std::ops::Range<usize>, views: &[View]) -> Lanes {
    let cost = |along: usize| {
        let motions: Vec<Motion> = views.iter().map(|view| row.motion(view, along)).collect();
        let jumps = motions.iter().filter(|motion| **motion == Motion::Jumps).count();
        let pays = extents[along].fixed()? >= 4 && (motions.contains(&Motion::Contiguous) || jumps == 0);
        pays.then_some((jumps, usize::MAX - along))
    };
    let along = candidates.filter(|along| cost(*along).is_some()).min_by_key(|along| cost(*along))?;
    let most = 1u64 << extents[along].fixed()?.ilog2();
    Some((along, row.frame.level.lanes().min(most.min(64) as u32)))
}

/// Loops over all of `extents` but `skipped`, setting `ivs`; `body` is emitted once.
fn nest(
    b: &Builder,
    frame: &Frame,
    loops: &[(usize, Extent)],
    ivs: &mut Vec<Val>,
    body: &mut dyn FnMut(&Builder, &mut Vec<Val>),
) {
    let Some(((at, extent), rest)) = loops.split_first() else { return body(b, ivs) };
    b.repeat(frame.extent(b, *extent), |b, iv| {
        ivs[*at] = iv;
        nest(b, frame, rest, ivs, body);
    });
}

/// A loop in steps of the lanes, then one of scalars for the rest.
///
/// # Panics
/// When the number of turns is not known now: [`lanes_along`] chooses no such loop.
fn along_lanes(
    b: &Builder,
    extent: Extent,
    (along, lanes): (usize, u32),
    ivs: &mut Vec<Val>,
    body: &mut dyn FnMut(&Builder, &mut Vec<Val>, Lanes),
) {
    let extent = extent.fixed().expect("lanes run along fixed loops");
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

fn loops(extents: &[Extent], range: std::ops::Range<usize>, skipped: Option<usize>) -> Vec<(usize, Extent)> {
    range.filter(|at| Some(*at) != skipped).map(|at| (at, extents[at])).collect()
}

fn map(b: &Builder, row: &Row, extents: &[Extent], expr: &Expr, args: &[View], into: &View) {
    if extents.contains(&Extent::Fixed(0)) {
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
    nest(b, row.frame, &outer, &mut ivs, &mut |b, ivs| match lanes {
        None => one(b, ivs, None),
        Some(lanes) => along_lanes(b, extents[lanes.0], lanes, ivs, &mut |b, ivs, lanes| one(b, ivs, lanes)),
    });
}
