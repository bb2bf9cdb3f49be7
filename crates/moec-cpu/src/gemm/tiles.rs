//! Many rows of converted ones, where the machine multiplies matrix tiles: panel after panel, and for each all the rows.
//!
//! A pair of vectors of columns is read again for each block of 32 rows, from the second-level cache; four-bit weights are
//! widened to bytes once for all of them.

use std::collections::BTreeSet;

use moec_plan::{Format, Plan};

use super::{Block, RowPointer, RowTarget, rows::Rows};
use crate::{
    builder::{Builder, Cmp, Elem, ModuleBuilder, TILE_ROW, TILE_ROWS, Ty, Val},
    kernel::{TileKernel, TileOperands, kernel_config, rows_of_weights, widened_tiles},
    level::Level,
};

const WORDS: Ty = Ty::vector(Elem::I32, 16);

/// Rows of a block.
pub const BLOCK: i64 = 2 * TILE_ROWS;

/// Vectors of columns that a block of one tile of rows takes at once: each is a stream from memory.
const VECTORS: u32 = 4;

/// So few rows do without tiles. Integers give the same bits either way; pairs would not, so they always go through tiles: what
/// a token gives does not depend on the tokens that it comes with.
fn few_rows(storage: Format) -> i64 {
    match storage {
        Format::Int8 | Format::Int4 { .. } => 4,
        Format::Pairs | Format::Each(_) | Format::Mxfp4 | Format::Fp8 { .. } => 0,
    }
}

/// Bytes ahead of what is widened that the caches are told to fetch.
const AHEAD: i64 = 1024;

/// The constants that tiles are configured with.
pub fn declare(module: &ModuleBuilder, plan: &Plan) {
    let storages: BTreeSet<Format> = plan.params.iter().map(|param| param.storage).collect();
    let tiled = storages.into_iter().filter(|storage| takes(Level::Amx, *storage));
    for rows in tiled.map(rows_of_weights).collect::<BTreeSet<u8>>() {
        module.constant(&config_name(rows), Elem::I8, &kernel_config(rows));
    }
}

fn config_name(rows_of_weights: u8) -> String {
    ["tile_config_", &rows_of_weights.to_string()].concat()
}

/// Whether many rows of this format go through tiles.
pub fn takes(level: Level, storage: Format) -> bool {
    match storage {
        Format::Pairs | Format::Int8 | Format::Int4 { .. } => level.multiplies_tiles(),
        Format::Each(_) | Format::Mxfp4 | Format::Fp8 { .. } => false,
    }
}

/// Bytes of the sums of a block of rows.
pub fn room(branches: u32) -> i64 {
    BLOCK * TILE_ROW * i64::from(branches.max(VECTORS))
}

/// Scratch for the panels that are widened at once.
pub fn widened_bytes(storage: Format, k: u64, branches: u32) -> u64 {
    match storage {
        Format::Int4 { group } => u64::from(branches.max(VECTORS)) * column_bytes(group, storage.padded(k)),
        Format::Each(_) | Format::Pairs | Format::Int8 | Format::Mxfp4 | Format::Fp8 { .. } => 0,
    }
}

/// Bytes of one vector of columns, widened: `[group, tile, row, 64 bytes]`.
fn column_bytes(group: u32, padded: u64) -> u64 {
    let (tiles, bytes) = widened_tiles(group);
    padded / u64::from(group) * (tiles * bytes) as u64
}

impl Block<'_> {
    /// Emits `body`, where the thread has tiles if there are many rows.
    pub(super) fn with_tiles<T>(&self, b: &Builder, rows: Val, body: impl FnOnce(&Builder) -> T) -> T {
        if !takes(self.frame.level, self.shape.storage) {
            return body(b);
        }
        let many = b.cmp(Cmp::Gt, rows, b.i64(few_rows(self.shape.storage)));
        b.when(many, |b| b.configure_tiles(b.address_of(&config_name(rows_of_weights(self.shape.storage)))));
        let result = body(b);
        b.when(many, |b| b.release_tiles());
        result
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
        let few = b.cmp(Cmp::Le, left, b.i64(few_rows(self.shape.storage)));
        let end = b.sub(to, b.select(few, left, b.i64(0)));
        let at_once = (VECTORS / self.shape.branches).clamp(1, panels);
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
        let columns = self.columns(b);
        let vectors = self.block.shape.branches * self.panels;
        let row_bytes = b.i64(TILE_ROW * i64::from(vectors));
        b.range(from, end, b.i64(BLOCK), |b, row| {
            let live = b.min(b.sub(end, row), b.i64(BLOCK));
            let a = of_a(b, row);
            let kernels = |b: &Builder, rows: u32| {
                let most = TileKernel::most_columns(rows);
                for first in (0..vectors).step_by(most as usize) {
                    let kernel =
                        TileKernel { rows, columns: most.min(vectors - first), storage: self.block.shape.storage };
                    let columns = b.offset_by(columns, 16 * i64::from(first));
                    let out = b.offset_by(self.block.room.tile, TILE_ROW * i64::from(first));
                    self.block.kernels.call_tiles(b, kernel, self.operands(b, [a, live, columns, out], row_bytes));
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

    fn operands(&self, b: &Builder, [a, live, columns, out]: [Val; 4], out_stride: Val) -> TileOperands {
        let shape = self.block.shape;
        let branches = i64::from(shape.branches);
        let b_stride = if shape.storage.element_bits() == 4 { TILE_ROW } else { TILE_ROW * branches };
        TileOperands {
            a,
            a_stride: b.i64(self.rows.row_bytes as i64),
            live,
            columns,
            b_stride: b.i64(b_stride),
            scales_stride: b.i64(self.scale_bytes() * branches),
            k: b.i64(shape.depth().0),
            out,
            out_stride,
        }
    }

    /// Bytes of a vector's scales, of one group.
    fn scale_bytes(&self) -> i64 {
        16 * self.block.shape.storage.scale_bytes() as i64
    }

    /// The array that kernels want, of vectors as the epilogue counts them: `[branches, panels]`.
    fn columns(&self, b: &Builder) -> Val {
        let shape = self.block.shape;
        let (k, all_scales) = shape.depth();
        let array = b.stack(16 * i64::from(shape.branches * self.panels));
        for (vector, (branch, panel)) in self.vectors().enumerate() {
            let panel = b.offset_by(self.ptr, panel * shape.panel_bytes());
            let elements = match shape.storage {
                Format::Int4 { group } => {
                    b.offset_by(self.widened(b), vector as i64 * column_bytes(group, k as u64) as i64)
                }
                Format::Pairs | Format::Int8 | Format::Each(_) | Format::Mxfp4 | Format::Fp8 { .. } => {
                    b.offset_by(panel, all_scales + TILE_ROW * branch)
                }
            };
            b.store(elements, b.offset_by(array, 16 * vector as i64));
            b.store(b.offset_by(panel, self.scale_bytes() * branch), b.offset_by(array, 16 * vector as i64 + 8));
        }
        array
    }

    /// Branch and panel of each vector.
    fn vectors(&self) -> impl Iterator<Item = (i64, i64)> + use<> {
        let (branches, panels) = (i64::from(self.block.shape.branches), i64::from(self.panels));
        (0..branches).flat_map(move |branch| (0..panels).map(move |panel| (branch, panel)))
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
        let (group_tiles, tile_bytes) = widened_tiles(group);
        let group_bytes = group_tiles * tile_bytes;
        let branches = i64::from(shape.branches);
        let words_of_group = i64::from(group / 8);
        let widened = self.widened(b);
        for (vector, (branch, panel)) in self.vectors().enumerate() {
            let from = b.offset_by(self.ptr, panel * shape.panel_bytes() + scale_bytes + TILE_ROW * branch);
            let into = b.offset_by(widened, vector as i64 * column_bytes(group, k as u64) as i64);
            b.repeat(b.i64(k / i64::from(group)), |b, number| {
                let from = b.offset(from, b.mul(number, b.i64(words_of_group * TILE_ROW * branches)));
                let into = b.offset(into, b.mul(number, b.i64(group_bytes)));
                b.repeat(b.i64(words_of_group), |b, word| {
                    let at = b.offset(from, b.mul(word, b.i64(TILE_ROW * branches)));
                    b.prefetch(b.offset_by(at, AHEAD));
                    let words = b.load(WORDS, at);
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
