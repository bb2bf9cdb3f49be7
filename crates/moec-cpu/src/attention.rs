//! Attention over cached keys and values by running softmax: scores of a block of keys live in scratch only.
//!
//! The query rows of one session and one group of heads, `[positions, queries]` flattened, go in items of a few rows; an item
//! walks the keys page by page: scores by the GEMM kernel on the panels of keys, the score expression, maxima and exponentials by lanes, then
//! the weighted values by the GEMM kernel on the rows of values.

use moec_plan::{Attention, Lookup, PAGE, PANEL, RowProgram, View};
use moec_types::DType;

use crate::{
    builder::{Builder, Cmp, Elem, F32, I32, Ty, Val},
    expr,
    frame::{Frame, Matrix, Segment},
    kernel::{Ahead, Columns, Kernel, Kernels},
    math, memory,
    view::Row,
};

/// Query rows of an item, and keys of a block: a page.
const ITEM_ROWS: i64 = 16;
const BLOCK_KEYS: i64 = PAGE as i64;
const PANEL_KEYS: i64 = PANEL as i64;
/// Vectors of columns that a kernel takes at most, and rows times these.
const MOST_GROUPS: u32 = 8;
const MOST_SUMS: i64 = 16;

/// Scratch of one item, in bytes from its start.
struct Scratch {
    /// f32 `[ITEM_ROWS, BLOCK_KEYS]`: scores, then probabilities.
    scores: i64,
    /// f32 `[ITEM_ROWS, values]`: sums so far.
    sums: i64,
    /// f32 `[ITEM_ROWS]` each: the largest score so far, the sum of exponentials.
    largest: i64,
    total: i64,
    /// Pointers to rows for the kernel.
    pointers: i64,
    /// The kernel's result.
    tile: i64,
    end: i64,
}

impl Scratch {
    fn new(values: u64) -> Self {
        let round = |bytes: i64| (bytes + 63) / 64 * 64;
        let scores = 0;
        let sums = scores + ITEM_ROWS * BLOCK_KEYS * 4;
        let largest = sums + round(ITEM_ROWS * values as i64 * 4);
        let total = largest + ITEM_ROWS * 4;
        let pointers = total + ITEM_ROWS * 4;
        let tile = pointers + ITEM_ROWS * 8;
        Scratch { scores, sums, largest, total, pointers, tile, end: tile + MOST_SUMS * 64 }
    }
}

pub fn scratch_bytes(attention: &Attention) -> u64 {
    Scratch::new(attention.values).end as u64
}

pub fn emit(b: &Builder, frame: &Frame, kernels: &Kernels, attention: &Attention) {
    let [q, out] = [attention.q, attention.out].map(|id| frame.buffer(b, id));
    let (first, end) = frame.rows(b, attention.rows);
    // Of a segment: its first row whose result is wanted, its query rows, and how often they make an item.
    let work = |b: &Builder, segment: &Segment| {
        let from = b.max(first, segment.first);
        let to = b.max(from, b.min(end, b.add(segment.first, segment.tokens)));
        let rows = b.mul(b.sub(to, from), b.i64(attention.queries as i64));
        (from, rows, b.div(b.add(rows, b.i64(ITEM_ROWS - 1)), b.i64(ITEM_ROWS)))
    };
    let groups = b.i64(attention.groups as i64);
    let segments = || [b.i64(0), frame.segment_count(b), b.i64(1)];
    let total = b.for_loop(segments(), &[b.i64(0)], |b, at, total| {
        let (_, _, row_items) = work(b, &frame.segment(b, at));
        vec![b.add(total[0], b.mul(row_items, groups))]
    })[0];
    let (mine_from, mine_to) = frame.share(b, total);
    b.for_loop(segments(), &[b.i64(0)], |b, at, before| {
        let before = before[0];
        let segment = frame.segment(b, at);
        let (first, rows, row_items) = work(b, &segment);
        let after = b.add(before, b.mul(row_items, groups));
        let item = Item { frame, kernels, attention, scratch: Scratch::new(attention.values), segment, q, out };
        let from = b.sub(b.max(before, mine_from), before);
        let to = b.sub(b.min(after, mine_to), before);
        b.range(from, to, b.i64(1), |b, at| {
            let group = b.div(at, row_items);
            let from = b.mul(b.rem(at, row_items), b.i64(ITEM_ROWS));
            let to = b.min(b.add(from, b.i64(ITEM_ROWS)), rows);
            item.run(b, group, first, from, to);
        });
        vec![after]
    });
}

struct Item<'a> {
    frame: &'a Frame<'a>,
    kernels: &'a Kernels,
    attention: &'a Attention,
    scratch: Scratch,
    segment: Segment,
    q: Matrix,
    out: Matrix,
}

/// Keys of one page: those from `key` on.
struct Block {
    k: Matrix,
    v: Matrix,
    key: Val,
    keys: Val,
    /// The first one's place within the page.
    within: Val,
}

/// A query row: its row within the pass, and its place within its group.
struct Query {
    row: Val,
    query: Val,
}

impl Item<'_> {
    fn run(&self, b: &Builder, group: Val, first: Val, from: Val, to: Val) {
        let (frame, attention) = (self.frame, self.attention);
        let queries = b.i64(attention.queries as i64);
        let query =
            |b: &Builder, row: Val| Query { row: b.add(first, b.div(row, queries)), query: b.rem(row, queries) };
        let count = b.sub(to, from);
        let place = |bytes: i64| b.offset_by(frame.scratch, bytes);
        let [scores, sums, largest, total] =
            [self.scratch.scores, self.scratch.sums, self.scratch.largest, self.scratch.total].map(place);
        let values_bytes = attention.values as i64 * 4;

        b.repeat(count, |b, row| {
            // A sink is as good as a key that was looked at before, and has no value.
            let (score, weight) = match &attention.sink {
                None => (b.float(F32, f32::NEG_INFINITY), 0.0),
                Some(sink) => {
                    let none = [b.float(F32, 0.0), b.int(I32, 0), b.int(I32, 0)];
                    let mut args = none.to_vec();
                    args.extend(self.extras(b, group, query(b, b.add(from, row)).query));
                    (expr::evaluate(b, frame.level, sink, &args, 0), 1.0)
                }
            };
            b.store(score, b.offset(largest, b.shl(row, 2)));
            b.store(b.float(F32, weight), b.offset(total, b.shl(row, 2)));
        });
        b.repeat(b.mul(count, b.i64(attention.values as i64)), |b, at| {
            b.store(b.float(F32, 0.0), b.offset(sums, b.shl(at, 2)));
        });

        // The keys that any row of the item may look at.
        let segment = &self.segment;
        let all = match attention.keys_of {
            None => b.add(segment.past, segment.tokens),
            Some(sequence) => segment.positions_of(b, sequence),
        };
        let last = b.sub(to, b.i64(1));
        let end = match attention.causal {
            true => b.add(segment.position(b, query(b, last).row), b.i64(1)),
            false => all,
        };
        let start = match attention.window {
            None => b.i64(0),
            Some(window) => {
                let oldest = segment.position(b, query(b, from).row);
                let start = b.max(b.sub(oldest, b.i64(window as i64 - 1)), b.i64(0));
                b.min(b.and(start, b.i64(-PANEL_KEYS)), end)
            }
        };
        // Blocks are pages, whichever the first key: a row's result does not depend on the rows beside it.
        let page_bits = i64::from(PAGE.ilog2());
        let pages = b.shr(b.add(end, b.i64(BLOCK_KEYS - 1)), page_bits);
        b.range(b.shr(start, page_bits), pages, b.i64(1), |b, page| {
            let page_start = b.shl(page, page_bits);
            let key = b.max(start, page_start);
            let keys = b.sub(b.min(end, b.add(page_start, b.i64(BLOCK_KEYS))), key);
            let [k, v] = [attention.k, attention.v].map(|id| frame.page(b, id, segment.pages, page));
            let block = Block { k, v, key, keys, within: b.sub(key, page_start) };
            self.scores(b, group, &query, from, count, &block, scores);
            b.repeat(count, |b, row| {
                let of = query(b, b.add(from, row));
                let row_scores = b.offset(scores, b.mul(row, b.i64(BLOCK_KEYS * 4)));
                let sums = b.offset(sums, b.mul(row, b.i64(values_bytes)));
                let [largest, total] = [largest, total].map(|array| b.offset(array, b.shl(row, 2)));
                self.softmax(b, group, &of, &block, row_scores, [largest, total, sums]);
            });
            self.add_values(b, group, count, &block, scores, sums);
        });

        b.repeat(count, |b, row| {
            let of = query(b, b.add(from, row));
            let head = b.add(b.mul(group, queries), of.query);
            let number = frame.row_number(b, attention.out, of.row);
            let out = b.offset(self.out.row(b, number), b.mul(head, b.i64(values_bytes)));
            let sums = b.offset(sums, b.mul(row, b.i64(values_bytes)));
            let total = b.load(F32, b.offset(total, b.shl(row, 2)));
            each_lane(b, frame.level.lanes(), attention.values, &|b, at, lanes| {
                let at = b.shl(at, 2);
                let sum = memory::load(b, frame.level, DType::F32, b.offset(sums, at), lanes);
                b.store(b.div(sum, b.splat(total, lanes)), b.offset(out, at));
            });
        });
    }

    /// Blocks of rows for the kernel: `body` gets how many, and the first.
    fn row_blocks(&self, b: &Builder, count: Val, body: &dyn Fn(&Builder, u32, Val)) {
        let mut from = b.i64(0);
        for power in (0..=Kernel::most_rows(self.frame.level, 1).ilog2()).rev() {
            let rows = 1u32 << power;
            let size = b.i64(i64::from(rows));
            let end = b.sub(count, b.and(count, b.i64(i64::from(rows) - 1)));
            b.range(from, end, size, |b, row| body(b, rows, row));
            from = end;
        }
    }

    /// Vectors of columns beside each other that the sums of so many rows leave registers for.
    fn groups(&self, rows: u32) -> u32 {
        (self.frame.level.accumulators() / rows).clamp(1, MOST_GROUPS)
    }

    #[allow(clippy::too_many_arguments)]
    fn scores(
        &self,
        b: &Builder,
        group: Val,
        query: &dyn Fn(&Builder, Val) -> Query,
        from: Val,
        count: Val,
        block: &Block,
        scores: Val,
    ) {
        let (frame, attention) = (self.frame, self.attention);
        let storage = frame.plan.buffer(attention.k).dtype;
        let width = b.i64(attention.width as i64);
        let [pointers, tile] = [self.scratch.pointers, self.scratch.tile].map(|at| b.offset_by(frame.scratch, at));
        let width_bytes = b.i64(attention.width as i64 * 4);
        b.repeat(count, |b, row| {
            let of = query(b, b.add(from, row));
            let head = b.add(b.mul(group, b.i64(attention.queries as i64)), of.query);
            let number = frame.row_number(b, attention.q, of.row);
            let q = b.offset(self.q.row(b, number), b.mul(head, width_bytes));
            b.store(q, b.offset(pointers, b.shl(row, 3)));
        });
        let element = storage.bytes() as i64;
        let group_start = b.mul(group, b.mul(width, b.i64(PANEL_KEYS * element)));
        let panel_bytes = PANEL_KEYS * (block.k.row * block.k.element_bytes) as i64;
        let start = b.offset(block.k.row(b, block.within), group_start);
        let panels = b.shr(b.add(block.keys, b.i64(PANEL_KEYS - 1)), PANEL_KEYS.ilog2().into());
        self.row_blocks(b, count, &|b, rows, row| {
            let pointers = b.offset(pointers, b.shl(row, 3));
            let mut from = b.i64(0);
            for groups in [self.groups(rows), 1] {
                let size = b.i64(i64::from(groups));
                let end = b.sub(panels, b.and(panels, b.i64(i64::from(groups) - 1)));
                b.range(from, end, size, |b, panel| {
                    let ptr = b.offset(start, b.mul(panel, b.i64(panel_bytes)));
                    let k_bytes = b.i64(PANEL_KEYS * element);
                    let columns = Columns { ptr, k_bytes, group_bytes: b.i64(panel_bytes), ahead: Ahead::none(b) };
                    let kernel = Kernel {
                        rows,
                        groups,
                        branches: 1,
                        wide: groups,
                        lanes: PANEL as u32,
                        storage: storage.into(),
                    };
                    self.kernels.call(b, kernel, pointers, columns, width, tile);
                    b.repeat(b.i64(i64::from(rows)), |b, at| {
                        let row_start = b.mul(b.add(row, at), b.i64(BLOCK_KEYS));
                        let into = b.offset(scores, b.shl(b.add(row_start, b.mul(panel, b.i64(PANEL_KEYS))), 2));
                        let from = b.offset(tile, b.mul(at, b.i64(i64::from(groups) * 64)));
                        for shift in (0..i64::from(groups)).map(|group| group * 64) {
                            let part = b.load(Ty::vector(Elem::F32, 16), b.offset_by(from, shift));
                            b.store(part, b.offset_by(into, shift));
                        }
                    });
                });
                from = end;
            }
        });
    }

    /// The extras of a head.
    fn extras(&self, b: &Builder, group: Val, query: Val) -> Vec<Val> {
        let (frame, attention) = (self.frame, self.attention);
        let program = RowProgram { locals: Vec::new(), ops: Vec::new() };
        let row = Row { frame, program: &program, row: b.i64(0), part: b.i64(0), locals: &[], expert: None };
        attention.extras.iter().map(|view| row.load(b, view, &[group, query], None)).collect()
    }

    /// What a head reads from a table for sixteen keys.
    fn looked_up(&self, b: &Builder, lookup: &Lookup, head: [Val; 2], [query, keys]: [Val; 2]) -> Val {
        let lanes = PANEL as u32;
        let none = b.float(Ty::vector(Elem::F32, lanes), 0.0);
        let place = expr::evaluate(b, self.frame.level, &lookup.index, &[none, query, keys], lanes);
        // Lanes behind the last key hold positions that no key has.
        let limit = |value: i64| b.splat(b.int(I32, value), lanes);
        let place = b.min(b.max(place, limit(0)), limit(lookup.places as i64 - 1));
        let program = RowProgram { locals: Vec::new(), ops: Vec::new() };
        let (frame, zero) = (self.frame, b.i64(0));
        let row = Row { frame, program: &program, row: zero, part: zero, locals: &[], expert: None };
        let strides = [&lookup.view.strides[..], &[lookup.stride]].concat();
        let view = View { strides, ..lookup.view.clone() };
        let read = |lane: u32| {
            let at = b.widen_signed(b.lane(place, lane), Elem::I64);
            row.load(b, &view, &[head[0], head[1], at], None)
        };
        b.gather(&(0..lanes).map(read).collect::<Vec<_>>())
    }

    /// Scores become probabilities relative to the largest score so far; what was summed before is scaled to match.
    #[allow(clippy::too_many_arguments)]
    fn softmax(
        &self,
        b: &Builder,
        group: Val,
        query: &Query,
        &Block { key, keys, .. }: &Block,
        scores: Val,
        [largest, total, sums]: [Val; 3],
    ) {
        let (frame, attention) = (self.frame, self.attention);
        let ty = Ty::vector(Elem::F32, 16);
        let lanes = ty.lanes;
        let position = b.narrow(self.segment.position(b, query.row), Elem::I32);
        let extras = self.extras(b, group, query.query);
        let infinity = b.float(F32, f32::NEG_INFINITY);
        let range = [b.i64(0), keys, b.i64(PANEL_KEYS)];
        let best = b.for_loop(range, &[b.splat(infinity, lanes)], |b, within, best| {
            let ptr = b.offset(scores, b.shl(within, 2));
            let at = b.add(b.iota(lanes), b.splat(b.narrow(within, Elem::I32), lanes));
            let positions = b.add(at, b.splat(b.narrow(key, Elem::I32), lanes));
            let mut args = vec![b.load(ty, ptr), b.splat(position, lanes), positions];
            let ends = [args[1], args[2]];
            args.extend(extras.iter().map(|extra| b.splat(*extra, lanes)));
            args.extend(attention.lookups.iter().map(|lookup| self.looked_up(b, lookup, [group, query.query], ends)));
            let score = expr::evaluate(b, frame.level, &attention.score, &args, lanes);
            let is_key = b.cmp(Cmp::Lt, at, b.splat(b.narrow(keys, Elem::I32), lanes));
            let score = b.select(is_key, score, b.splat(infinity, lanes));
            b.store(score, ptr);
            vec![b.max(best[0], score)]
        });
        let before = b.load(F32, largest);
        let best = b.max(before, b.across(best[0], |b, x, y| b.max(x, y)));
        b.store(best, largest);
        // Where nothing was looked at yet, any finite value will do.
        let none = b.cmp(Cmp::Eq, best, infinity);
        let base = b.select(none, b.float(F32, 0.0), best);
        let shrink = math::exp(b, b.sub(before, base));
        let sum = b.for_loop(range, &[b.float(ty, 0.0)], |b, within, sum| {
            let ptr = b.offset(scores, b.shl(within, 2));
            let probability = math::exp(b, b.sub(b.load(ty, ptr), b.splat(base, lanes)));
            b.store(probability, ptr);
            vec![b.add(sum[0], probability)]
        });
        let sum = b.across(sum[0], |b, x, y| b.add(x, y));
        b.store(b.mul_add(b.load(F32, total), shrink, sum), total);
        let changed = b.cmp(Cmp::Ne, shrink, b.float(F32, 1.0));
        b.when(changed, |b| {
            each_lane(b, frame.level.lanes(), attention.values, &|b, at, lanes| {
                let ptr = b.offset(sums, b.shl(at, 2));
                let sum = memory::load(b, frame.level, DType::F32, ptr, lanes);
                b.store(b.mul(sum, b.splat(shrink, lanes)), ptr);
            });
        });
    }

    /// `sums += probabilities · values`.
    #[allow(clippy::too_many_arguments)]
    fn add_values(&self, b: &Builder, group: Val, count: Val, block: &Block, scores: Val, sums: Val) {
        let (frame, attention) = (self.frame, self.attention);
        let storage = frame.plan.buffer(attention.v).dtype;
        let element = storage.bytes() as i64;
        let values = attention.values;
        let [pointers, tile] = [self.scratch.pointers, self.scratch.tile].map(|at| b.offset_by(frame.scratch, at));
        b.repeat(count, |b, row| {
            let ptr = b.offset(scores, b.mul(row, b.i64(BLOCK_KEYS * 4)));
            b.store(ptr, b.offset(pointers, b.shl(row, 3)));
        });
        let row_bytes = b.i64((block.v.row * block.v.element_bytes) as i64);
        let start = b.offset(block.v.row(b, block.within), b.mul(group, b.i64(values as i64 * element)));
        self.row_blocks(b, count, &|b, rows, row| {
            let pointers = b.offset(pointers, b.shl(row, 3));
            let part = |b: &Builder, column: Val, lanes: u32, groups: u32| {
                let ptr = b.offset(start, b.mul(column, b.i64(element)));
                let columns = Columns {
                    ptr,
                    k_bytes: row_bytes,
                    group_bytes: b.i64(i64::from(lanes) * element),
                    ahead: Ahead::none(b),
                };
                let kernel = Kernel { rows, groups, branches: 1, wide: groups, lanes, storage: storage.into() };
                self.kernels.call(b, kernel, pointers, columns, block.keys, tile);
                let wide = lanes * groups;
                b.repeat(b.i64(i64::from(rows)), |b, at| {
                    let from = b.offset(tile, b.mul(at, b.i64(i64::from(wide) * 4)));
                    let place = b.add(b.mul(b.add(row, at), b.i64(values as i64)), column);
                    let into = b.offset(sums, b.shl(place, 2));
                    for shift in (0..i64::from(groups)).map(|group| group * i64::from(lanes) * 4) {
                        let [from, into] = [from, into].map(|ptr| b.offset_by(ptr, shift));
                        let ty = Ty::vector(Elem::F32, lanes);
                        b.store(b.add(b.load(ty, into), b.load(ty, from)), into);
                    }
                });
            };
            // As wide as the registers allow, then what is left in ever smaller vectors.
            let mut done = 0;
            for (lanes, groups) in [(16, self.groups(rows)), (16, 1), (8, 1), (4, 1), (2, 1), (1, 1)] {
                let wide = u64::from(lanes * groups);
                let end = values - (values - done) % wide;
                if done < end {
                    let range = [done, end, wide].map(|at| b.i64(at as i64));
                    b.range(range[0], range[1], range[2], |b, column| part(b, column, lanes, groups));
                    done = end;
                }
            }
        });
    }
}

/// A loop over `0 .. count` in vectors, then scalars.
fn each_lane(b: &Builder, lanes: u32, count: u64, body: &dyn Fn(&Builder, Val, u32)) {
    let full = count - count % u64::from(lanes);
    for (from, to, step, lanes) in [(0, full, lanes, lanes), (full, count, 1, 0)] {
        if from < to {
            b.range(b.i64(from as i64), b.i64(to as i64), b.i64(i64::from(step)), |b, at| body(b, at, lanes));
        }
    }
}
