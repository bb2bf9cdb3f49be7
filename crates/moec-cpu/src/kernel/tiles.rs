//! The kernel of many rows where the machine multiplies matrix tiles: 16 or 32 rows times one or two vectors of columns.
//!
//! The packed layouts are what tiles want: 16 words of 64 bytes, the next k in each, are a tile, and a row of bf16 or bytes is a
//! tile's row. Four-bit weights are widened to bytes before (`gemm::tiles`). What the last k leave of a tile is filled up with
//! zeros on the stack. Numbers are those of the other kernels to the bit where they are integers; pairs are added up in another
//! order.

use moec_plan::Format;

use super::Kernels;
use crate::{
    builder::{
        Builder, Cmp, Elem, F32, I32, I64, ModuleBuilder, PTR, TILE_ROW, TILE_ROWS, TileProduct, Ty, Val, tile_config,
    },
    gemm::rows::integer_tail,
    math,
};

const SUMS: Ty = Ty::vector(Elem::F32, 16);
const WORDS: Ty = Ty::vector(Elem::I32, 16);

/// Sums take tiles 0 to 3, `a` two, and the columns go round among two.
const TILE_OF_A: u32 = 4;
const TILE_OF_B: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TileKernel {
    /// Tiles of rows, 1 or 2, and vectors of columns, up to 4 or 2: [`TileKernel::most_columns`].
    pub rows: u32,
    pub columns: u32,
    pub storage: Format,
}

/// What a kernel is given.
#[derive(Clone, Copy)]
pub struct TileOperands {
    /// The first row, and bytes from one to the next. All rows of the tiles can be read; of what they hold, `live` count.
    pub a: Val,
    pub a_stride: Val,
    pub live: Val,
    /// An array of two pointers for each vector of columns: to its elements (of four-bit weights, the widened ones) and to its
    /// scales.
    pub columns: Val,
    /// Bytes from 64 of a vector to its next 64; from its scales to those of the next group.
    pub b_stride: Val,
    pub scales_stride: Val,
    /// Elements along k, with what fills up the last group.
    pub k: Val,
    /// Takes the sums: rows `out_stride` bytes apart, the vectors side by side. Has room for all rows of the tiles.
    pub out: Val,
    pub out_stride: Val,
}

impl TileKernel {
    fn name(&self) -> String {
        let TileKernel { rows, columns, storage } = *self;
        ["tiles_", &rows.to_string(), "_", &columns.to_string(), "_", &storage.to_string()].concat()
    }

    fn product(&self) -> TileProduct {
        match self.storage {
            Format::Pairs => TileProduct::Pairs,
            Format::Int8 | Format::Int4 { .. } => TileProduct::Fours,
            Format::Each(_) | Format::Mxfp4 | Format::Fp8 { .. } => unreachable!("rows stay f32"),
        }
    }

    /// Vectors of columns that so many tiles of rows have sums for.
    pub fn most_columns(rows: u32) -> u32 {
        TILE_OF_A / rows
    }

    fn sums(&self) -> impl Iterator<Item = (u32, u32)> + use<> {
        let columns = self.columns;
        (0..self.rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
    }
}

impl Kernels {
    /// Emits a call. The thread's tiles are whole.
    pub fn call_tiles(&self, b: &Builder, kernel: TileKernel, operands: TileOperands) {
        self.tiles.borrow_mut().insert(kernel);
        let TileOperands { a, a_stride, live, columns, b_stride, scales_stride, k, out, out_stride } = operands;
        b.call(&kernel.name(), &[a, a_stride, live, columns, b_stride, scales_stride, k, out, out_stride], &[]);
    }

    pub(super) fn emit_tiles(&self, module: &ModuleBuilder) {
        const ARGUMENTS: [Ty; 9] = [PTR, I64, I64, PTR, I64, I64, I64, PTR, I64];
        for kernel in self.tiles.borrow().iter() {
            module.function(&kernel.name(), &ARGUMENTS, &[], |b, arguments| {
                let [a, a_stride, live, columns, b_stride, scales_stride, k, out, out_stride] =
                    [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|at| arguments[at]);
                let operands = TileOperands { a, a_stride, live, columns, b_stride, scales_stride, k, out, out_stride };
                body(b, kernel, &operands);
                Vec::new()
            });
        }
    }
}

/// For each vector of columns, one of its two pointers.
fn pointers(b: &Builder, kernel: &TileKernel, operands: &TileOperands, which: i64) -> Vec<Val> {
    let load = |column: u32| b.load(PTR, b.offset_by(operands.columns, 16 * i64::from(column) + 8 * which));
    (0..kernel.columns).map(load).collect()
}

fn body(b: &Builder, kernel: &TileKernel, operands: &TileOperands) {
    let TileOperands { k, out, out_stride, .. } = *operands;
    match kernel.storage {
        Format::Pairs => {
            zero(b, kernel);
            products(b, kernel, operands, b.shl(k, 1));
            store(b, kernel, out, out_stride);
        }
        Format::Int8 => {
            zero(b, kernel);
            products(b, kernel, operands, k);
            store(b, kernel, out, out_stride);
            scale_bytes(b, kernel, operands);
        }
        Format::Int4 { group } => four_bits(b, kernel, operands, group),
        Format::Each(_) | Format::Mxfp4 | Format::Fp8 { .. } => unreachable!("rows stay f32"),
    }
}

fn zero(b: &Builder, kernel: &TileKernel) {
    (0..kernel.rows * kernel.columns).for_each(|sum| b.zero_tile(sum));
}

/// Tiles of sums to their places from `out` on.
fn store(b: &Builder, kernel: &TileKernel, out: Val, stride: Val) {
    for (row, column) in kernel.sums() {
        let to = b.offset(out, b.mul(stride, b.i64(TILE_ROWS * i64::from(row))));
        b.store_tile(row * kernel.columns + column, b.offset_by(to, TILE_ROW * i64::from(column)), stride);
    }
}

/// Adds the products along so many bytes of the rows, a multiple of 4.
fn products(b: &Builder, kernel: &TileKernel, operands: &TileOperands, bytes: Val) {
    let TileOperands { a, b_stride, .. } = *operands;
    let columns = pointers(b, kernel, operands, 0);
    let steps = b.shr(bytes, TILE_ROW.ilog2().into());
    let step_of_b = b.shl(b_stride, TILE_ROWS.ilog2().into());
    b.repeat(steps, |b, step| {
        let a = b.offset(a, b.shl(step, TILE_ROW.ilog2().into()));
        let at = b.mul(step, step_of_b);
        if kernel.rows == 1 {
            // Few rows: the weights come from memory, and the caches are told two steps ahead.
            let ahead = b.add(at, b.shl(step_of_b, 1));
            for column in &columns {
                let line = |row: i64| b.offset(b.offset(*column, ahead), b.mul(b_stride, b.i64(row)));
                (0..TILE_ROWS).for_each(|row| b.prefetch(line(row)));
            }
        }
        multiply(b, kernel, operands, a, &|column| b.offset(columns[column], at), b_stride);
    });

    // What is left: all that stands behind in the rows is multiplied by zeros.
    let done = b.shl(steps, TILE_ROW.ilog2().into());
    let rest = b.shr(b.sub(bytes, done), 2);
    let filled = b.stack(TILE_ROW * TILE_ROWS * i64::from(kernel.columns));
    let of_column = |column: usize| b.offset_by(filled, TILE_ROW * TILE_ROWS * column as i64);
    b.when(b.cmp(Cmp::Gt, rest, b.i64(0)), |b| {
        for (column, start) in columns.iter().enumerate() {
            let from = b.offset(*start, b.mul(steps, step_of_b));
            let row = |b: &Builder, at: Val| b.offset(of_column(column), b.mul(at, b.i64(TILE_ROW)));
            b.range(b.i64(0), rest, b.i64(1), |b, at| {
                b.store(b.load(WORDS, b.offset(from, b.mul(at, b_stride))), row(b, at));
            });
            b.range(rest, b.i64(TILE_ROWS), b.i64(1), |b, at| b.store(b.int(WORDS, 0), row(b, at)));
        }
        multiply(b, kernel, operands, b.offset(a, done), &of_column, b.i64(TILE_ROW));
    });
}

/// One tile along k. Loads stand where their first reader is.
fn multiply(
    b: &Builder,
    kernel: &TileKernel,
    operands: &TileOperands,
    a: Val,
    columns: &dyn Fn(usize) -> Val,
    b_stride: Val,
) {
    for (row, column) in kernel.sums() {
        if column == 0 {
            let from = b.offset(a, b.mul(operands.a_stride, b.i64(TILE_ROWS * i64::from(row))));
            b.load_tile(TILE_OF_A + row, from, operands.a_stride);
        }
        if row == 0 {
            b.load_tile(TILE_OF_B + column % 2, columns(column as usize), b_stride);
        }
        let sums = row * kernel.columns + column;
        b.multiply_tiles(kernel.product(), sums, TILE_OF_A + row, TILE_OF_B + column % 2);
    }
}

/// For each live row: what stands behind it, its number, and the place of each vector of its sums.
fn each_row(b: &Builder, operands: &TileOperands, body: impl Fn(&Builder, Val, Val, &dyn Fn(usize) -> Val)) {
    let tail = b.offset(operands.a, integer_tail(b, operands.k));
    b.repeat(operands.live, |b, row| {
        let tail = b.offset(tail, b.mul(row, operands.a_stride));
        let place = b.offset(operands.out, b.mul(row, operands.out_stride));
        body(b, tail, row, &|column| b.offset_by(place, TILE_ROW * column as i64));
    });
}

/// Sums of integers become f32: less what the offset of the weights adds, times the scales of the columns and of the row.
fn scale_bytes(b: &Builder, kernel: &TileKernel, operands: &TileOperands) {
    let scales: Vec<Val> = pointers(b, kernel, operands, 1).into_iter().map(|ptr| b.load(SUMS, ptr)).collect();
    each_row(b, operands, |b, tail, _, place| {
        let scale = b.splat(b.load(F32, tail), 16);
        let correction = b.splat(b.load(I32, b.offset_by(tail, 4)), 16);
        for (column, of_column) in scales.iter().enumerate() {
            let place = place(column);
            let sum = b.int_to_float(b.add(b.load(WORDS, place), correction));
            b.store(b.mul(b.mul(sum, *of_column), scale), place);
        }
    });
}

/// Group by group: exact sums, times the group's scales; in the end times the scale of the row.
fn four_bits(b: &Builder, kernel: &TileKernel, operands: &TileOperands, group: u32) {
    let rows = TILE_ROWS * i64::from(kernel.rows);
    let whole_stride = TILE_ROW * i64::from(kernel.columns);
    let whole = b.stack(rows * whole_stride);
    let columns = kernel.columns as usize;
    let [elements, scales] = [0, 1].map(|which| pointers(b, kernel, operands, which));
    each_row(b, operands, |b, _, _, place| {
        (0..columns).for_each(|column| b.store(b.float(SUMS, 0.0), place(column)));
    });
    let groups = b.div(operands.k, b.i64(i64::from(group)));
    let (group_tiles, tile_bytes) = widened_tiles(group);
    let group_tiles = b.i64(group_tiles);
    b.repeat(groups, |b, number| {
        let group_of_a = b.offset(operands.a, b.mul(number, b.i64(i64::from(group))));
        let first_tile = b.mul(number, group_tiles);
        zero(b, kernel);
        b.repeat(group_tiles, |b, tile| {
            let a = b.offset(group_of_a, b.mul(tile, b.i64(TILE_ROW)));
            let at = b.mul(b.add(first_tile, tile), b.i64(tile_bytes));
            multiply(b, kernel, operands, a, &|column| b.offset(elements[column], at), operands.b_stride);
        });
        store(b, kernel, whole, b.i64(whole_stride));
        let at = b.mul(number, operands.scales_stride);
        let load = |ptr: &Val| math::from_bf16(b, b.load(Ty::vector(Elem::I16, 16), b.offset(*ptr, at)));
        let scales: Vec<Val> = scales.iter().map(load).collect();
        each_row(b, operands, |b, tail, row, place| {
            let correction = b.load(I32, b.offset_by(b.offset(tail, b.shl(number, 2)), 4));
            let correction = b.splat(correction, 16);
            let whole = b.offset(whole, b.mul(row, b.i64(whole_stride)));
            for (column, of_column) in scales.iter().enumerate() {
                let sum = b.load(WORDS, b.offset_by(whole, TILE_ROW * column as i64));
                let sum = b.int_to_float(b.add(sum, correction));
                let place = place(column);
                b.store(b.mul_add(sum, *of_column, b.load(SUMS, place)), place);
            }
        });
    });
    each_row(b, operands, |b, tail, _, place| {
        let scale = b.splat(b.load(F32, tail), 16);
        for column in 0..columns {
            let place = place(column);
            b.store(b.mul(b.load(SUMS, place), scale), place);
        }
    });
}

/// Rows of tiles of weights: a group of four-bit ones may be shorter than a tile.
pub fn rows_of_weights(storage: Format) -> u8 {
    match storage {
        Format::Int4 { group } => (i64::from(group) / 4).min(TILE_ROWS) as u8,
        Format::Each(_) | Format::Pairs | Format::Int8 | Format::Mxfp4 | Format::Fp8 { .. } => TILE_ROWS as u8,
    }
}

/// The sizes of tiles that a kernel wants.
pub fn kernel_config(rows_of_weights: u8) -> [u8; 64] {
    let (rows, bytes) = (TILE_ROWS as u8, TILE_ROW as u8);
    let (a, weights) = ((rows, 4 * rows_of_weights), (rows_of_weights, bytes));
    tile_config([(rows, bytes), (rows, bytes), (rows, bytes), (rows, bytes), a, a, weights, weights])
}

/// What a group of four-bit weights becomes: so many tiles along k, of so many bytes each; zeros fill up the last.
pub fn widened_tiles(group: u32) -> (i64, i64) {
    let bytes = i64::from(rows_of_weights(Format::Int4 { group })) * TILE_ROW;
    (u64::from(group).div_ceil(TILE_ROW as u64) as i64, bytes)
}
