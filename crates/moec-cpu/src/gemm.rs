//! GEMMs, plain and grouped by expert: shares of (rows, panels) for each thread, the kernel, and the epilogue.

pub mod rows;
pub mod tiles;

use moec_plan::{Format, Gemm, Group, Home, Layout, PANEL, RowProgram, Source, Store, View};
use moec_types::DType;

use crate::{
    builder::{Builder, Cmp, Elem, F32, I32, I64, Val},
    expr,
    frame::{Frame, Matrix},
    helping,
    kernel::{Ahead, Columns, Kernel, Kernels},
    level::Level,
    memory,
    view::Row,
};
use rows::Rows;

/// Vectors of columns that an item of converted rows takes at once. With few rows each is a stream from memory, and a core
/// that walks several reads faster than with one.
const STREAMS: u32 = 8;

/// Rows of one item of work at most: their part of `a` stays in L2 while the panels of the item are read once.
const ITEM_ROWS: i64 = 64;

/// Items of converted rows may be taken by any thread where a barrier stands before the step.
pub fn emit(b: &Builder, frame: &Frame, kernels: &Kernels, gemm: &Gemm, has_barrier: bool) {
    let shape = Shape::new(frame, gemm);
    let block = Block { frame, kernels, gemm, shape: &shape, room: Room::new(b, &shape), expert: None };
    match &gemm.group {
        None => plain(b, &block, has_barrier),
        Some(group) => grouped(b, &block, group, has_barrier),
    }
}

/// The sizes of the matrices, and how the work is cut.
struct Shape {
    k: u64,
    n: u64,
    branches: u32,
    storage: Format,
    /// Rows are converted, so many at once.
    converted: Option<Rows>,
    /// Panels that one item takes, and items that cover all panels.
    panels: u32,
    items: u64,
    /// Rows of the largest kernel.
    rows: u32,
}

impl Shape {
    fn new(frame: &Frame, gemm: &Gemm) -> Self {
        let param = frame.plan.param(gemm.weights);
        let Layout::Panels { k, n, branches } = param.layout else { unreachable!("checked before") };
        let count = n.div_ceil(PANEL);
        let converted = Rows::of(frame.level, param.storage, k);
        let (panels, rows) = match converted {
            None => {
                let panels = (4 / branches).clamp(1, count as u32).min(frame.level.accumulators() / 2).max(1);
                (panels, Kernel::most_rows(frame.level, panels * branches))
            }
            Some(_) => {
                let panels = (STREAMS / branches).clamp(1, count as u32);
                (panels, Kernel::most_rows(frame.level, branches.min(frame.level.accumulators() / 2).max(1)))
            }
        };
        let items = count.div_ceil(u64::from(panels));
        Shape { k, n, branches, storage: param.storage, converted, panels, items, rows }
    }

    /// Panels of the last item.
    fn last_panels(&self) -> u32 {
        (self.n.div_ceil(PANEL) - (self.items - 1) * u64::from(self.panels)) as u32
    }

    fn panel_bytes(&self) -> i64 {
        self.storage.panel(self.k, self.branches).all() as i64
    }

    /// Elements along k that a kernel goes through, and the bytes that it wants to know of.
    fn depth(&self) -> (i64, i64) {
        let bytes = match self.storage {
            Format::Each(dtype) => PANEL * u64::from(self.branches) * dtype.bytes(),
            Format::Pairs | Format::Int8 | Format::Int4 { .. } | Format::Mxfp4 | Format::Fp8 { .. } => {
                self.storage.panel(self.k, self.branches).scales
            }
        };
        (self.storage.padded(self.k) as i64, bytes as i64)
    }

    /// Panels that a kernel of so many rows takes at once.
    fn at_once(&self, level: Level, rows: u32) -> u32 {
        // Weights with a scale for each group have two sets of sums.
        let sets = if self.storage.group(0) > 0 { 2 } else { 1 };
        (level.accumulators() / sets / (rows * self.branches)).max(1)
    }
}

/// Stack for one block of rows: pointers to rows of `a`, and the tile.
#[derive(Clone, Copy)]
struct Room {
    pointers: Val,
    tile: Val,
}

impl Room {
    fn new(b: &Builder, shape: &Shape) -> Self {
        let tile = (i64::from(shape.rows * shape.panels * shape.branches) * 64).max(tiles::room(shape.branches));
        Room { pointers: b.stack(8 * i64::from(shape.rows)), tile: b.stack(tile) }
    }
}

fn plain(b: &Builder, block: &Block, has_barrier: bool) {
    let Block { frame, gemm, shape, .. } = *block;
    let batch = b.i64(gemm.batch as i64);
    let (first, end) = frame.rows(b, gemm.rows);
    let (first, end) = (b.mul(first, batch), b.mul(end, batch));
    let weights = frame.param(b, gemm.weights, None);
    let a = Matrix { row: shape.k, ..frame.buffer(b, gemm.a) };
    let in_cache = matches!(frame.plan.buffer(gemm.out).home, Home::Cache { .. });
    let out = (!in_cache).then(|| Matrix { row: shape.n, ..frame.buffer(b, gemm.out) });
    let of_a = |b: &Builder, row: Val| a.row(b, row);
    let target = |b: &Builder, row: Val| {
        let ptr = out.map_or_else(|| kept_row(b, frame, gemm, shape, row), |out| out.row(b, row));
        Target { ptr, extra_row: row, factor: None }
    };
    if let Some(rows) = shape.converted {
        let cost = shape.cost(b, b.sub(end, first), rows);
        helping::shares(b, frame, has_barrier, cost, |b, share, counter| {
            let start = Turn::new(b, counter);
            block.convert(b, rows, [first, end], (start, share, counter), weights, &of_a, &target);
        });
        return;
    }
    let row_items = b.div(b.add(b.sub(end, first), b.i64(ITEM_ROWS - 1)), b.i64(ITEM_ROWS));
    let (from, to) = frame.share(b, b.mul(row_items, b.i64(shape.items as i64)));
    b.range(from, to, b.i64(1), |b, item| {
        let panel_item = b.div(item, row_items);
        let row_item = b.rem(item, row_items);
        let from = b.add(first, b.mul(row_item, b.i64(ITEM_ROWS)));
        let to = b.min(b.add(from, b.i64(ITEM_ROWS)), end);
        block.run(b, panel_item, [from, to], weights, &of_a, &target);
    });
}

/// Where a matrix row of a cache starts.
fn kept_row(b: &Builder, frame: &Frame, gemm: &Gemm, shape: &Shape, row: Val) -> Val {
    if gemm.batch == 1 {
        return frame.row(b, gemm.out, row);
    }
    let batch = b.i64(gemm.batch as i64);
    let bytes = shape.n * frame.plan.buffer(gemm.out).dtype.bytes();
    let within = b.mul(b.rem(row, batch), b.i64(bytes as i64));
    b.offset(frame.row(b, gemm.out, b.div(row, batch)), within)
}

fn grouped(b: &Builder, block: &Block, group: &Group, has_barrier: bool) {
    let Block { frame, gemm, shape, .. } = *block;
    let a = Matrix { row: shape.k, ..frame.buffer(b, gemm.a) };
    let out = frame.buffer(b, gemm.out).base;
    let order = frame.buffer(b, group.order).base;
    let offsets = frame.buffer(b, group.offsets).base;
    let entry =
        |b: &Builder, array: Val, at: Val| b.widen_signed(b.load(I32, b.offset(array, b.shl(at, 2))), Elem::I64);
    let out_bytes = (shape.n * frame.plan.buffer(gemm.out).dtype.bytes()) as i64;
    let choices = b.i64(group.choices as i64);
    let batch = b.i64(gemm.batch as i64);
    // A matrix row: its slot, and which of the slot's.
    let slot_of = |b: &Builder, row: Val| if gemm.batch == 1 { row } else { b.div(row, batch) };
    let row_of = |b: &Builder, slot: Val, row: Val| {
        if gemm.batch == 1 { slot } else { b.add(b.mul(slot, batch), b.rem(row, batch)) }
    };
    let experts = i64::from(frame.plan.param(gemm.weights).experts);
    let all_experts = frame.plan.buffer(group.offsets).row as i64 - 1;

    let factors = match group.store {
        Store::Slots => None,
        Store::Choices { weights } => Some(frame.buffer(b, weights).base),
    };
    let of_a = |b: &Builder, row: Val| {
        if !group.gather {
            return a.row(b, row);
        }
        let token = b.div(entry(b, order, slot_of(b, row)), choices);
        a.row(b, row_of(b, token, row))
    };
    let target = |b: &Builder, row: Val| match factors {
        None => Target { ptr: b.offset(out, b.mul(row, b.i64(out_bytes))), extra_row: row, factor: None },
        Some(factors) => {
            let choice = entry(b, order, slot_of(b, row));
            let factor = b.load(F32, b.offset(factors, b.shl(choice, 2)));
            let to = row_of(b, choice, row);
            Target { ptr: b.offset(out, b.mul(to, b.i64(out_bytes))), extra_row: row, factor: Some(factor) }
        }
    };

    // Each thread walks the experts, and takes of the items its share.
    let first = b.i64(i64::from(group.first));
    let rows_of = |b: &Builder, expert: Val| {
        let at = b.add(expert, first);
        let from = b.mul(entry(b, offsets, at), batch);
        let to = b.mul(entry(b, offsets, b.add(at, b.i64(1))), batch);
        let items = b.div(b.add(b.sub(to, from), b.i64(ITEM_ROWS - 1)), b.i64(ITEM_ROWS));
        (from, to, items)
    };
    let range = || [b.i64(0), b.i64(experts), b.i64(1)];
    let total = b.for_loop(range(), &[b.i64(0)], |b, expert, total| {
        let (from, to, items) = rows_of(b, expert);
        let cost = match shape.converted {
            Some(rows) => shape.cost(b, b.sub(to, from), rows),
            None => b.mul(items, b.i64(shape.items as i64)),
        };
        vec![b.add(total[0], cost)]
    })[0];
    let of_expert = |b: &Builder, expert: Val| {
        (frame.param(b, gemm.weights, Some(expert)), Block { expert: Some(expert), ..*block })
    };
    match shape.converted {
        Some(rows) => helping::shares(b, frame, has_barrier, total, |b, share, counter| {
            b.for_loop(range(), &Turn::new(b, counter).values(), |b, expert, turn| {
                let (from, to, _) = rows_of(b, expert);
                let (weights, block) = of_expert(b, expert);
                let turn = (Turn::of(turn), share, counter);
                block.convert(b, rows, [from, to], turn, weights, &of_a, &target).values().to_vec()
            });
        }),
        None => {
            let (mine_from, mine_to) = frame.share(b, total);
            b.for_loop(range(), &[b.i64(0)], |b, expert, before| {
                let before = before[0];
                let (from, to, row_items) = rows_of(b, expert);
                let (weights, block) = of_expert(b, expert);
                let items = b.mul(row_items, b.i64(shape.items as i64));
                let after = b.add(before, items);
                let item_from = b.sub(b.max(before, mine_from), before);
                let item_to = b.sub(b.min(after, mine_to), before);
                b.range(item_from, item_to, b.i64(1), |b, item| {
                    let panel_item = b.div(item, row_items);
                    let row_item = b.rem(item, row_items);
                    let from = b.add(from, b.mul(row_item, b.i64(ITEM_ROWS)));
                    let to = b.min(b.add(from, b.i64(ITEM_ROWS)), to);
                    block.run(b, panel_item, [from, to], weights, &of_a, &target);
                });
                vec![after]
            });
        }
    }

    if factors.is_some() {
        // Choices without an expert stand at the end.
        let placed = entry(b, offsets, b.i64(all_experts));
        let slots = frame.rows(b, gemm.rows).1;
        let (from, to) = frame.share(b, b.sub(slots, placed));
        b.range(b.add(placed, from), b.add(placed, to), b.i64(1), |b, slot| {
            let row = b.offset(out, b.mul(entry(b, order, slot), b.i64(out_bytes * gemm.batch as i64)));
            let dtype = frame.plan.buffer(gemm.out).dtype;
            b.repeat(b.i64((gemm.batch * shape.n) as i64), |b, at| {
                let ptr = b.offset(row, b.mul(at, b.i64(dtype.bytes() as i64)));
                memory::store_strided(b, frame.level, dtype, b.float(F32, 0.0), ptr, dtype.bytes() as i64);
            });
        });
    }
}

/// Where a row of the result goes.
struct Target {
    ptr: Val,
    /// The row that `Source::Row` extras mean.
    extra_row: Val,
    /// The row's weight.
    factor: Option<Val>,
}

/// How far a thread is with a share.
#[derive(Clone, Copy)]
struct Turn {
    /// What the rows so far cost.
    before: Val,
    /// Items of the share among them.
    passed: Val,
    /// The item that the thread has taken and not computed yet.
    item: Val,
}

impl Turn {
    fn new(b: &Builder, counter: Val) -> Turn {
        Turn { before: b.i64(0), passed: b.i64(0), item: helping::take(b, counter) }
    }

    fn of(values: &[Val]) -> Turn {
        Turn { before: values[0], passed: values[1], item: values[2] }
    }

    fn values(self) -> [Val; 3] {
        [self.before, self.passed, self.item]
    }
}

/// One item: some panels times some rows.
#[derive(Clone, Copy)]
struct Block<'a> {
    frame: &'a Frame<'a>,
    kernels: &'a Kernels,
    gemm: &'a Gemm,
    shape: &'a Shape,
    room: Room,
    expert: Option<Val>,
}

impl Shape {
    /// What so many rows cost with all their items, in rows.
    fn cost(&self, b: &Builder, count: Val, rows: Rows) -> Val {
        let most = b.i64(rows.most as i64);
        let blocks = b.div(b.add(count, b.i64(rows.most as i64 - 1)), most);
        let each = b.add(count, b.mul(blocks, b.i64(rows.reading)));
        b.mul(each, b.i64(self.items as i64))
    }
}

type RowPointer<'f> = dyn Fn(&Builder, Val) -> Val + 'f;
type RowTarget<'f> = dyn Fn(&Builder, Val) -> Target + 'f;

impl Block<'_> {
    /// Of a share of the rows times all panels, the items that this thread gets. The share has the costs from `share.0` up to
    /// `share.1`; an item belongs to whose share it begins in. Rows are converted where the thread gets an item of them.
    /// Gives what the next rows begin with.
    #[allow(clippy::too_many_arguments)]
    fn convert(
        &self,
        b: &Builder,
        rows: Rows,
        [first, end]: [Val; 2],
        (turn, share, counter): (Turn, (Val, Val), Val),
        weights: Val,
        of_a: &RowPointer,
        target: &RowTarget,
    ) -> Turn {
        let (items, most) = (b.i64(self.shape.items as i64), b.i64(rows.most as i64));
        let row_bytes = b.i64(rows.row_bytes as i64);
        let scratch = self.frame.scratch;
        let turn = b.for_loop([first, end, most], &turn.values(), |b, from, turn| {
            let Turn { before, passed, item } = Turn::of(turn);
            let to = b.min(b.add(from, most), end);
            let each = b.add(b.sub(to, from), b.i64(rows.reading));
            let item_at = |b: &Builder, cost: Val| {
                let cost = b.max(b.sub(cost, before), b.i64(0));
                b.min(b.div(b.add(cost, b.sub(each, b.i64(1))), each), items)
            };
            let (item_from, item_to) = (item_at(b, share.0), item_at(b, share.1));
            let after = b.add(passed, b.sub(item_to, item_from));
            let compute = |b: &Builder| {
                let place = |b: &Builder, row: Val| b.offset(scratch, b.mul(b.sub(row, from), row_bytes));
                b.range(from, to, b.i64(1), |b, row| rows.convert(b, of_a(b, row), place(b, row)));
                self.with_tiles(b, b.sub(to, from), |b| {
                    b.while_loop(
                        &[item],
                        |b, item| b.cmp(Cmp::Lt, item[0], after),
                        |b, item| {
                            let item = b.add(item_from, b.sub(item[0], passed));
                            self.run(b, item, [from, to], weights, &place, target);
                            vec![helping::take(b, counter)]
                        },
                    )
                })
            };
            let item = b.either(b.cmp(Cmp::Lt, item, after), &[I64], compute, |_| vec![item])[0];
            Turn { before: b.add(before, b.mul(each, items)), passed: after, item }.values().to_vec()
        });
        Turn::of(&turn)
    }

    fn run(&self, b: &Builder, item: Val, rows: [Val; 2], weights: Val, of_a: &RowPointer, target: &RowTarget) {
        let shape = self.shape;
        let bytes = shape.panel_bytes() * i64::from(shape.panels);
        let ptr = b.offset(weights, b.mul(item, b.i64(bytes)));
        let column = b.mul(item, b.i64(i64::from(shape.panels) * PANEL as i64));
        let (last, rest) = (shape.last_panels(), shape.n % PANEL);
        if last == shape.panels && rest == 0 {
            return self.panels(b, shape.panels, 0, column, rows, ptr, of_a, target);
        }
        if shape.items == 1 {
            return self.panels(b, last, rest, column, rows, ptr, of_a, target);
        }
        let is_last = b.cmp(Cmp::Eq, item, b.i64(shape.items as i64 - 1));
        b.either(
            is_last,
            &[],
            |b| {
                self.panels(b, last, rest, column, rows, ptr, of_a, target);
                Vec::new()
            },
            |b| {
                self.panels(b, shape.panels, 0, column, rows, ptr, of_a, target);
                Vec::new()
            },
        );
    }

    /// `panels` panels from `column` on; the last has `rest` columns, or all where that is 0.
    #[allow(clippy::too_many_arguments)]
    fn panels(
        &self,
        b: &Builder,
        panels: u32,
        rest: u64,
        column: Val,
        [from, to]: [Val; 2],
        ptr: Val,
        of_a: &RowPointer,
        target: &RowTarget,
    ) {
        let from = self.many_rows(b, (panels, rest), column, [from, to], ptr, of_a, target);
        let from = self.blocks(b, (panels, rest), column, [from, to], ptr, of_a, target);
        self.last_rows(b, (panels, rest), column, [from, to], ptr, of_a, target);
    }

    /// As many rows as the largest kernel takes, as often as there are so many: panels in turn, and for each all the blocks, so
    /// that a panel comes from memory once, while the one before it is multiplied. Gives the first row behind them.
    #[allow(clippy::too_many_arguments)]
    fn blocks(
        &self,
        b: &Builder,
        (panels, rest): (u32, u64),
        column: Val,
        [from, to]: [Val; 2],
        ptr: Val,
        of_a: &RowPointer,
        target: &RowTarget,
    ) -> Val {
        let shape = self.shape;
        let rows = b.i64(shape.rows.into());
        let count = b.div(b.sub(to, from), rows);
        let at_once = shape.at_once(self.frame.level, shape.rows).min(panels);
        let whole = (panels - u32::from(rest > 0)) / at_once * at_once;
        let run = |b: &Builder, panel: Val, panels: u32, rest: u64| {
            let bytes = shape.panel_bytes();
            let ptr = b.offset(ptr, b.mul(panel, b.i64(bytes)));
            let column = b.add(column, b.shl(panel, 4));
            b.range(b.i64(0), count, b.i64(1), |b, at| {
                let row = b.add(from, b.mul(at, rows));
                let ahead = Ahead::next(b, at, count, bytes * i64::from(panels));
                self.point_at(b, row, rows, of_a);
                self.kernel(b, (shape.rows, panels, panels), (ptr, ahead), self.room.tile);
                self.epilogues(b, [row, rows], (panels, rest), column, target);
            });
        };
        b.when(b.cmp(Cmp::Gt, count, b.i64(0)), |b| {
            b.range(b.i64(0), b.i64(whole.into()), b.i64(at_once.into()), |b, panel| run(b, panel, at_once, 0));
            if whole < panels {
                run(b, b.i64(whole.into()), panels - whole, rest);
            }
        });
        b.add(from, b.mul(count, rows))
    }

    /// Fewer rows than the largest kernel takes, by kernels of fewer: each goes through all panels.
    #[allow(clippy::too_many_arguments)]
    fn last_rows(
        &self,
        b: &Builder,
        (panels, rest): (u32, u64),
        column: Val,
        [from, to]: [Val; 2],
        ptr: Val,
        of_a: &RowPointer,
        target: &RowTarget,
    ) {
        let shape = self.shape;
        let sizes: Vec<u32> = (0..shape.rows.ilog2()).map(|power| 1 << power).collect();
        b.while_loop(
            &[from],
            |b, row| b.cmp(Cmp::Lt, row[0], to),
            |b, row| {
                let row = row[0];
                let left = b.sub(to, row);
                let size = sizes.iter().skip(1).fold(b.i64(1), |size, next| {
                    let next = b.i64(i64::from(*next));
                    b.select(b.cmp(Cmp::Ge, left, next), next, size)
                });
                self.point_at(b, row, size, of_a);
                for rows in sizes.iter().copied() {
                    b.when(b.cmp(Cmp::Eq, size, b.i64(i64::from(rows))), |b| {
                        let at_once = shape.at_once(self.frame.level, rows);
                        for at in (0..panels).step_by(at_once as usize) {
                            let ptr = b.offset_by(ptr, shape.panel_bytes() * i64::from(at));
                            let tile = b.offset_by(self.room.tile, 64 * i64::from(at));
                            self.kernel(b, (rows, at_once.min(panels - at), panels), (ptr, Ahead::near(b)), tile);
                        }
                    });
                }
                self.epilogues(b, [row, size], (panels, rest), column, target);
                vec![b.add(row, size)]
            },
        );
    }

    /// Pointers to `count` rows of `a` from `row` on, for the kernel.
    fn point_at(&self, b: &Builder, row: Val, count: Val, of_a: &RowPointer) {
        b.repeat(count, |b, at| {
            let pointer = of_a(b, b.add(row, at));
            b.store(pointer, b.offset(self.room.pointers, b.shl(at, 3)));
        });
    }

    /// So many rows times some panels of the `wide` that the tile has.
    fn kernel(&self, b: &Builder, (rows, groups, wide): (u32, u32, u32), (ptr, ahead): (Val, Ahead), tile: Val) {
        let shape = self.shape;
        let (depth, k_bytes) = shape.depth();
        let kernel = Kernel { rows, groups, branches: shape.branches, wide, lanes: 16, storage: shape.storage };
        let columns = Columns { ptr, k_bytes: b.i64(k_bytes), group_bytes: b.i64(shape.panel_bytes()), ahead };
        self.kernels.call(b, kernel, self.room.pointers, columns, b.i64(depth), tile);
    }

    /// The rows of the tile to their places.
    fn epilogues(
        &self,
        b: &Builder,
        [row, count]: [Val; 2],
        (panels, rest): (u32, u64),
        column: Val,
        target: &RowTarget,
    ) {
        let bytes = i64::from(panels * self.shape.branches) * 64;
        b.repeat(count, |b, at| {
            let sums = b.offset(self.room.tile, b.mul(at, b.i64(bytes)));
            self.epilogue(b, sums, panels, rest, column, &target(b, b.add(row, at)));
        });
    }

    /// One row of the tile, `[branches, panels, 16]`, to its place.
    fn epilogue(&self, b: &Builder, sums: Val, panels: u32, rest: u64, column: Val, target: &Target) {
        let full = if rest == 0 { panels } else { panels - 1 };
        let branch_bytes = i64::from(panels) * 64;
        if full > 0 {
            b.repeat(b.i64(i64::from(full)), |b, panel| {
                let within = b.shl(panel, 4);
                self.columns(b, b.offset(sums, b.shl(within, 2)), branch_bytes, b.add(column, within), 16, target);
            });
        }
        if rest > 0 {
            b.repeat(b.i64(rest as i64), |b, at| {
                let within = b.add(b.i64(i64::from(full) * 16), at);
                self.columns(b, b.offset(sums, b.shl(within, 2)), branch_bytes, b.add(column, within), 0, target);
            });
        }
    }

    fn columns(&self, b: &Builder, sums: Val, branch_bytes: i64, column: Val, lanes: u32, target: &Target) {
        let (frame, gemm) = (self.frame, self.gemm);
        let level = frame.level;
        let branch =
            |at: u32| memory::load(b, level, DType::F32, b.offset_by(sums, branch_bytes * i64::from(at)), lanes);
        let mut args: Vec<Val> = (0..self.shape.branches).map(branch).collect();
        let dtype = frame.plan.buffer(gemm.out).dtype;
        let stride = (frame.buffer_stride(gemm.out) * dtype.bytes()) as i64;
        let ptr = b.offset(target.ptr, b.mul(column, b.i64(stride)));
        for view in &gemm.extras {
            args.push(self.extra(b, view, column, lanes, target, (ptr, stride)));
        }
        let mut value = expr::evaluate(b, level, &gemm.epilogue, &args, lanes);
        if let Some(factor) = target.factor {
            value = b.mul(value, b.splat(factor, lanes));
        }
        memory::store_strided(b, level, dtype, value, ptr, stride);
    }

    fn extra(&self, b: &Builder, view: &View, column: Val, lanes: u32, target: &Target, own: (Val, i64)) -> Val {
        let (frame, gemm) = (self.frame, self.gemm);
        if view.source == Source::Row(gemm.out) && view.offset == 0 && view.strides == [1] && view.index.is_none() {
            let dtype = frame.plan.buffer(gemm.out).dtype;
            return memory::load_strided(b, frame.level, dtype, own.0, own.1, lanes);
        }
        let program = RowProgram { locals: Vec::new(), ops: Vec::new() };
        let row = Row {
            frame,
            program: &program,
            row: target.extra_row,
            part: target.extra_row,
            locals: &[],
            expert: self.expert,
        };
        let lanes = (lanes > 0).then_some((0, lanes));
        row.load(b, view, &[column], lanes)
    }
}
