//! The kernel of many rows where the machine multiplies matrix tiles: 16 or 32 rows times one or two vectors of columns.
//!
//! The packed layouts are what tiles want: 16 words of 64 bytes, the next k in each, are a tile, and a row of bf16 or bytes is a
//! tile's row. Four-bit weights are widened to bytes before (`gemm::tiles`). What the last k leave of a tile is filled up with
//! zeros on the stack. Numbers are those of the other kernels to the bit where they are integers; pairs are added up in another
//! order.

use moec_plan::Format;

use super::Kernels;
use crate::{
    builder::{Builder, Cmp, Elem, F32, I32, I64, ModuleBuilder, PTR, TILE_ROW, TILE_ROWS, TileProduct, Ty, Val},
    gemm::rows::integer_tail,
    math,
};

const SUMS: Ty = Ty::vector(Elem::F32, 16);
const WORDS: Ty = Ty::vector(Elem::I32, 16);

/// Sums take tiles 0 to 3, `a` two and `b` two.
const TILE_OF_A: u32 = 4;
const TILE_OF_B: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TileKernel {
    /// Tiles of rows, and vectors of columns: 1 or 2.
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
    /// The elements of the first vector of columns, and bytes to those of the second; words of 64 bytes are `b_stride` bytes
    /// apart. Of four-bit weights, the widened ones.
    pub b: Val,
    pub b_next: Val,
    pub b_stride: Val,
    /// The scales of the first vector, bytes to those of the second, and to those of the next group.
    pub scales: Val,
    pub scales_next: Val,
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

    fn sums(&self) -> impl Iterator<Item = (u32, u32)> + use<> {
        let columns = self.columns;
        (0..self.rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
    }
}

impl Kernels {
    /// Emits a call. The thread's tiles are whole.
    pub fn call_tiles(&self, b: &Builder, kernel: TileKernel, operands: TileOperands) {
        self.tiles.borrow_mut().insert(kernel);
        let TileOperands { a, a_stride, live, b: columns, b_next, b_stride, .. } = operands;
        let TileOperands { scales, scales_next, scales_stride, k, out, out_stride, .. } = operands;
        let operands =
            [a, a_stride, live, columns, b_next, b_stride, scales, scales_next, scales_stride, k, out, out_stride];
        b.call(&kernel.name(), &operands, &[]);
    }

    pub(super) fn emit_tiles(&self, module: &ModuleBuilder) {
        const ARGUMENTS: [Ty; 12] = [PTR, I64, I64, PTR, I64, I64, PTR, I64, I64, I64, PTR, I64];
        for kernel in self.tiles.borrow().iter() {
            module.function(&kernel.name(), &ARGUMENTS, &[], |builder, arguments| {
                let [a, a_stride, live, b, b_next, b_stride] = [0, 1, 2, 3, 4, 5].map(|at| arguments[at]);
                let [scales, scales_next, scales_stride, k, out, out_stride] =
                    [6, 7, 8, 9, 10, 11].map(|at| arguments[at]);
                let operands = TileOperands {
                    a,
                    a_stride,
                    live,
                    b,
                    b_next,
                    b_stride,
                    scales,
                    scales_next,
                    scales_stride,
                    k,
                    out,
                    out_stride,
                };
                body(builder, kernel, &operands);
                Vec::new()
            });
        }
    }
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
    let TileOperands { a, b: columns, b_next, b_stride, .. } = *operands;
    let steps = b.shr(bytes, TILE_ROW.ilog2().into());
    let step_of_b = b.mul(b_stride, b.i64(TILE_ROWS));
    b.repeat(steps, |b, step| {
        let a = b.offset(a, b.mul(step, b.i64(TILE_ROW)));
        let first = b.offset(columns, b.mul(step, step_of_b));
        multiply(b, kernel, operands, a, [first, b.offset(first, b_next)], b_stride);
    });

    // What is left: all that stands behind in the rows is multiplied by zeros.
    let done = b.mul(steps, b.i64(TILE_ROW));
    let rest = b.shr(b.sub(bytes, done), 2);
    let filled = b.stack(2 * TILE_ROW * TILE_ROWS);
    let of_column = |column: u32| b.offset_by(filled, TILE_ROW * TILE_ROWS * i64::from(column));
    b.when(b.cmp(Cmp::Gt, rest, b.i64(0)), |b| {
        for column in 0..kernel.columns {
            let first = b.offset(columns, b.mul(b_next, b.i64(i64::from(column))));
            let from = b.offset(first, b.mul(steps, step_of_b));
            let row = |b: &Builder, at: Val| b.offset(of_column(column), b.mul(at, b.i64(TILE_ROW)));
            b.range(b.i64(0), rest, b.i64(1), |b, at| {
                b.store(b.load(WORDS, b.offset(from, b.mul(at, b_stride))), row(b, at));
            });
            b.range(rest, b.i64(TILE_ROWS), b.i64(1), |b, at| b.store(b.int(WORDS, 0), row(b, at)));
        }
        multiply(b, kernel, operands, b.offset(a, done), [of_column(0), of_column(1)], b.i64(TILE_ROW));
    });
}

/// One tile along k. Loads stand where their first reader is.
fn multiply(b: &Builder, kernel: &TileKernel, operands: &TileOperands, a: Val, columns: [Val; 2], b_stride: Val) {
    for (row, column) in kernel.sums() {
        if column == 0 {
            let from = b.offset(a, b.mul(operands.a_stride, b.i64(TILE_ROWS * i64::from(row))));
            b.load_tile(TILE_OF_A + row, from, operands.a_stride);
        }
        if row == 0 {
            b.load_tile(TILE_OF_B + column, columns[column as usize], b_stride);
        }
        let sums = row * kernel.columns + column;
        b.multiply_tiles(kernel.product(), sums, TILE_OF_A + row, TILE_OF_B + column);
    }
}

/// 16 scales of each vector.
fn scales(b: &Builder, kernel: &TileKernel, operands: &TileOperands, load: impl Fn(&Builder, Val) -> Val) -> Vec<Val> {
    let of = |column: u32| load(b, b.offset(operands.scales, b.mul(operands.scales_next, b.i64(i64::from(column)))));
    (0..kernel.columns).map(of).collect()
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
    let scales = scales(b, kernel, operands, |b, ptr| b.load(SUMS, ptr));
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
    each_row(b, operands, |b, _, _, place| {
        (0..columns).for_each(|column| b.store(b.float(SUMS, 0.0), place(column)));
    });
    let groups = b.div(operands.k, b.i64(i64::from(group)));
    let group_tiles = b.i64(widened_tiles(group) as i64);
    b.repeat(groups, |b, number| {
        let of_group = TileOperands {
            a: b.offset(operands.a, b.mul(number, b.i64(i64::from(group)))),
            b: b.offset(operands.b, b.mul(b.mul(number, group_tiles), b.i64(TILE_ROW * TILE_ROWS))),
            scales: b.offset(operands.scales, b.mul(number, operands.scales_stride)),
            ..*operands
        };
        zero(b, kernel);
        b.repeat(group_tiles, |b, tile| {
            let a = b.offset(of_group.a, b.mul(tile, b.i64(TILE_ROW)));
            let first = b.offset(of_group.b, b.mul(tile, b.i64(TILE_ROW * TILE_ROWS)));
            multiply(b, kernel, &of_group, a, [first, b.offset(first, operands.b_next)], b.i64(TILE_ROW));
        });
        store(b, kernel, whole, b.i64(whole_stride));
        let scales = scales(b, kernel, &of_group, |b, ptr| math::from_bf16(b, b.load(Ty::vector(Elem::I16, 16), ptr)));
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

/// Tiles along k that a group of four-bit weights takes when it is widened; zeros fill up the last.
pub fn widened_tiles(group: u32) -> u64 {
    u64::from(group).div_ceil(TILE_ROW as u64)
}
