//! Many rows of converted ones, where the machine multiplies matrix tiles: panel after panel, and for each all the rows.
//!
//! A pair of vectors of columns is read again for each block of 32 rows, from the second-level cache; four-bit weights are
//! widened to bytes once for all of them.

use moec_plan::Format;

use super::{Block, RowPointer, RowTarget, rows::Rows};
use crate::{
    builder::{Builder, Cmp, Elem, TILE_ROW, TILE_ROWS, Ty, Val},
    kernel::{TileKernel, TileOperands, widened_tiles},
    level::Level,
};

const WORDS: Ty = Ty::vector(Elem::I32, 16);

/// So few rows are multiplied one by one: they wait for memory either way.
pub const FEW_ROWS: i64 = 4;

/// Rows of a block.
pub const BLOCK: i64 = 2 * TILE_ROWS;

/// The constant that tiles are configured with.
pub const CONFIG: &str = "tile_config";

/// Whether many rows of this format go through tiles.
pub fn takes(level: Level, storage: Format) -> bool {
    match storage {
        Format::Pairs | Format::Int8 | Format::Int4 { .. } => level.multiplies_tiles(),
        Format::Each(_) | Format::Mxfp4 | Format::Fp8 { .. } => false,
    }
}

/// Bytes of the sums of a block of rows.
pub fn room(branches: u32) -> i64 {
    BLOCK * TILE_ROW * i64::from(branches.max(2))
}

/// Scratch for the panels that are widened at once.
pub fn widened_bytes(storage: Format, k: u64, branches: u32) -> u64 {
    match storage {
        Format::Int4 { group } => u64::from(branches.max(2)) * column_bytes(group, storage.padded(k)),
        Format::Each(_) | Format::Pairs | Format::Int8 | Format::Mxfp4 | Format::Fp8 { .. } => 0,
    }
}

/// Bytes of one vector of columns, widened: `[group, tile, 16 rows, 64 bytes]`.
fn column_bytes(group: u32, padded: u64) -> u64 {
    padded / u64::from(group) * widened_tiles(group) * (TILE_ROW * TILE_ROWS) as u64
}

impl Block<'_> {
    /// Emits `body`, where the thread has tiles if there are many rows.
    pub(super) fn with_tiles(&self, b: &Builder, rows: Val, body: impl FnOnce(&Builder)) {
        if !takes(self.frame.level, self.shape.storage) {
            return body(b);
        }
        let many = b.cmp(Cmp::Gt, rows, b.i64(FEW_ROWS));
        b.when(many, |b| b.configure_tiles(b.address_of(CONFIG)));
        body(b);
        b.when(many, |b| b.release_tiles());
    }

    /// All rows but the last few; gives the first of those. The rows stand one behind the other from `of_a` on.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn many_rows(
        &self,
        b: &Builder,
        (panels, rest): (u32, u64),
        column: Val,
        [from, to]: [Val; 2],
        ptr: Val,
        of_a: &RowPointer,
        target: &RowTarget,
    ) -> Val {
        let Some(rows) = self.shape.converted.filter(|_| takes(self.frame.level, self.shape.storage)) else {
            return from;
        };
        let left = b.rem(b.sub(to, from), b.i64(BLOCK));
        let few = b.cmp(Cmp::Le, left, b.i64(FEW_ROWS));
        let end = b.sub(to, b.select(few, left, b.i64(0)));
        // A kernel takes two vectors of columns.
        let at_once = if self.shape.branches == 1 { 2.min(panels) } else { 1 };
        let whole = (panels - u32::from(rest > 0)) / at_once;
        let run = |b: &Builder, panel: Val, panels: u32, rest: u64| {
            let ptr = b.offset(ptr, b.mul(panel, b.i64(self.shape.panel_bytes())));
            let chunk = Chunk { block: self, rows, panels, rest, column: b.add(column, b.shl(panel, 4)), ptr };
            chunk.run(b, [from, end], of_a, target);
        };
        b.when(b.cmp(Cmp::Lt, from, end), |b| {
            let end = b.i64(i64::from(whole * at_once));
            b.range(b.i64(0), end, b.i64(at_once.into()), |b, panel| run(b, panel, at_once, 0));
            if whole * at_once < panels {
                run(b, end, panels - whole * at_once, rest);
            }
        });
        end
    }
}

/// Panels that are multiplied together.
struct Chunk<'a> {
    block: &'a Block<'a>,
    rows: Rows,
    panels: u32,
    /// Columns of the last, or all where that is 0.
    rest: u64,
    column: Val,
    ptr: Val,
}

impl Chunk<'_> {
    fn run(&self, b: &Builder, [from, end]: [Val; 2], of_a: &RowPointer, target: &RowTarget) {
        self.widen(b);
        let vectors = self.block.shape.branches * self.panels;
        let row_bytes = b.i64(TILE_ROW * i64::from(vectors));
        b.range(from, end, b.i64(BLOCK), |b, row| {
            let live = b.min(b.sub(end, row), b.i64(BLOCK));
            let a = of_a(b, row);
            let kernels = |b: &Builder, rows: u32| {
                for first in (0..vectors).step_by(2) {
                    let columns = 2.min(vectors - first);
                    let kernel = TileKernel { rows, columns, storage: self.block.shape.storage };
                    self.block.kernels.call_tiles(b, kernel, self.operands(b, first, [a, live], row_bytes));
                }
                Vec::new()
            };
            b.either(b.cmp(Cmp::Le, live, b.i64(TILE_ROWS)), &[], |b| kernels(b, 1), |b| kernels(b, 2));
            b.repeat(live, |b, at| {
                let sums = b.offset(self.block.room.tile, b.mul(at, row_bytes));
                let target = target(b, b.add(row, at));
                self.block.epilogue(b, sums, self.panels, self.rest, self.column, &target);
            });
        });
    }

    /// Vectors from `first` on; they count `[branches, panels]`, one of which is 1 where a kernel takes two.
    fn operands(&self, b: &Builder, first: u32, [a, live]: [Val; 2], out_stride: Val) -> TileOperands {
        let shape = self.block.shape;
        let (k, scale_bytes) = shape.depth();
        let branches = i64::from(shape.branches);
        let first = i64::from(first);
        let words = |bytes: i64| (b.i64(bytes * branches), if branches > 1 { bytes } else { shape.panel_bytes() });
        // Of 16 columns, one group.
        let (scales_stride, scales_next) = words(16 * shape.storage.scale_bytes() as i64);
        let scales = b.offset_by(self.ptr, first * scales_next);
        let (columns, b_next, b_stride) = match shape.storage {
            Format::Int4 { group } => {
                let next = column_bytes(group, k as u64) as i64;
                (b.offset_by(self.widened(b), first * next), next, b.i64(TILE_ROW))
            }
            Format::Pairs | Format::Int8 | Format::Each(_) | Format::Mxfp4 | Format::Fp8 { .. } => {
                let (stride, next) = words(TILE_ROW);
                (b.offset_by(self.ptr, scale_bytes + first * next), next, stride)
            }
        };
        TileOperands {
            a,
            a_stride: b.i64(self.rows.row_bytes as i64),
            live,
            b: columns,
            b_next: b.i64(b_next),
            b_stride,
            scales,
            scales_next: b.i64(scales_next),
            scales_stride,
            k: b.i64(k),
            out: b.offset_by(self.block.room.tile, TILE_ROW * first),
            out_stride,
        }
    }

    /// Where widened weights are: behind the converted rows.
    fn widened(&self, b: &Builder) -> Val {
        b.offset_by(self.block.frame.scratch, self.rows.all_bytes() as i64)
    }

    /// Four-bit weights of all vectors become bytes.
    fn widen(&self, b: &Builder) {
        let shape = self.block.shape;
        let Format::Int4 { group } = shape.storage else { return };
        let (k, scale_bytes) = shape.depth();
        let group_bytes = widened_tiles(group) as i64 * TILE_ROW * TILE_ROWS;
        let branches = i64::from(shape.branches);
        let words_of_group = i64::from(group / 8);
        let widened = self.widened(b);
        for vector in 0..shape.branches * self.panels {
            let (branch, panel) = (i64::from(vector) % branches, i64::from(vector) / branches);
            let from = b.offset_by(self.ptr, panel * shape.panel_bytes() + scale_bytes + TILE_ROW * branch);
            let into = b.offset_by(widened, i64::from(vector) * column_bytes(group, k as u64) as i64);
            b.repeat(b.i64(k / i64::from(group)), |b, number| {
                let from = b.offset(from, b.mul(number, b.i64(words_of_group * TILE_ROW * branches)));
                let into = b.offset(into, b.mul(number, b.i64(group_bytes)));
                b.repeat(b.i64(words_of_group), |b, word| {
                    let words = b.load(WORDS, b.offset(from, b.mul(word, b.i64(TILE_ROW * branches))));
                    let into = b.offset(into, b.mul(word, b.i64(2 * TILE_ROW)));
                    let mask = b.int(WORDS, 0x0f0f_0f0f);
                    b.store(b.and(words, mask), into);
                    b.store(b.and(b.shr_unsigned(words, 4), mask), b.offset_by(into, TILE_ROW));
                });
                let done = 2 * words_of_group * TILE_ROW;
                b.range(b.i64(done), b.i64(group_bytes), b.i64(TILE_ROW), |b, at| {
                    b.store(b.int(WORDS, 0), b.offset(into, at));
                });
            });
        }
    }
}
