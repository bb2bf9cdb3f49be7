//! Rows of a GEMM, as the format of its weights wants them: made once for all columns, in the thread's scratch.
//!
//! A row is `padded(k)` elements (f32, bf16 or 8-bit integers), zeros behind k, rounded up to 64 bytes. Behind integers stand
//! the row's scale (f32) and, for each group, minus the offset of the stored weights times the group's sum (i32).

use moec_plan::{Format, Gemm, Layout, Plan, RowFormat, quantise::LEAST_ROW};

use super::tiles;
use crate::{
    builder::{Builder, Cmp, Elem, F32, I32, Ty, Val},
    level::Level,
    math,
};

const FLOATS: Ty = Ty::vector(Elem::F32, 16);
const WORDS: Ty = Ty::vector(Elem::I32, 16);

/// What is added to the weights that multiply integers, so that they are not negative.
fn offset(format: Format) -> i64 {
    if format.element_bits() == 4 { 8 } else { 128 }
}

/// Where what stands behind the integers of a row begins.
pub fn integer_tail(b: &Builder, padded: Val) -> Val {
    b.and(b.add(padded, b.i64(63)), b.i64(-64))
}

/// The converted rows of one item.
#[derive(Clone, Copy)]
pub struct Rows {
    format: Format,
    k: u64,
    /// At once: what the second-level cache keeps beside the weights.
    pub most: u64,
    pub row_bytes: u64,
    /// What an item costs whatever its rows, in rows: its weights come from memory.
    pub reading: i64,
}

impl Rows {
    /// `None` where rows are multiplied as they are.
    pub fn of(level: Level, format: Format, k: u64) -> Option<Rows> {
        if format.each().is_some() {
            return None;
        }
        let padded = format.padded(k);
        let row_bytes = match format.rows() {
            RowFormat::F32 => padded * 4,
            RowFormat::Bf16 => padded * 2,
            RowFormat::Int8 => {
                let groups = padded / format.group(k).max(1);
                padded.next_multiple_of(64) + 4 + 4 * groups
            }
        };
        // An odd number of cache lines: neighbouring rows fall into different sets of the first-level cache.
        let row_bytes = row_bytes.next_multiple_of(64) | 64;
        // Machines with tiles have a second-level cache of 2 MiB, and rows cost little there beside reading the weights.
        let (cache, multiple, reading) =
            if tiles::takes(level, format) { (5 << 18, tiles::BLOCK as u64, 64) } else { (384 << 10, 8, 16) };
        let most = (cache / row_bytes).clamp(multiple.max(16), 256) / multiple * multiple;
        Some(Rows { format, k, most, row_bytes, reading })
    }

    pub fn all_bytes(&self) -> u64 {
        self.most * self.row_bytes
    }

    /// At any level.
    pub fn scratch_bytes(plan: &Plan, gemm: &Gemm) -> u64 {
        let param = plan.param(gemm.weights);
        let Layout::Panels { k, branches, .. } = param.layout else { return 0 };
        let of = |level| Rows::of(level, param.storage, k).map_or(0, |rows| rows.all_bytes());
        let most = Level::ALL.into_iter().map(of).max().unwrap_or(0);
        most + tiles::widened_bytes(param.storage, k, branches)
    }

    /// Makes one row at `into` of the f32 at `from`.
    pub fn convert(&self, b: &Builder, from: Val, into: Val) {
        match self.format.rows() {
            RowFormat::F32 => self.each_vector(b, 0, self.format.padded(self.k), &|b, at| {
                b.store(self.vector(b, from, at), b.offset(into, b.shl(at.val(b), 2)));
            }),
            // Up to 64 bytes: a tile takes them all.
            RowFormat::Bf16 => self.each_vector(b, 0, self.k.next_multiple_of(32), &|b, at| {
                let halves = math::to_bf16(b, self.vector(b, from, at));
                b.store(halves, b.offset(into, b.shl(at.val(b), 1)));
            }),
            RowFormat::Int8 => self.integers(b, from, into),
        }
    }

    /// `moec_plan::quantise::row`.
    fn integers(&self, b: &Builder, from: Val, into: Val) {
        let zero = b.float(FLOATS, 0.0);
        let end = b.i64((self.k - self.k % 16) as i64);
        let size = |b: &Builder, at: At| b.intrinsic("fabs", &[self.vector(b, from, at)]);
        let whole = b
            .for_loop([b.i64(0), end, b.i64(16)], &[zero], |b, at, most| vec![b.max(most[0], size(b, At::Within(at)))])
            [0];
        let whole =
            if self.k.is_multiple_of(16) { whole } else { b.max(whole, size(b, At::Known(self.k - self.k % 16))) };
        let most = b.across(whole, |b, x, y| b.max(x, y));
        let float = |value| b.float(F32, value);
        let (least, full) = (float(LEAST_ROW), float(127.0));
        let inverse = b.select(b.cmp(Cmp::Ge, most, least), b.div(full, most), float(0.0));
        let scale = b.select(b.cmp(Cmp::Lt, most, least), float(0.0), b.div(most, full));
        let padded = self.format.padded(self.k);
        let tail = b.offset_by(into, padded.next_multiple_of(64) as i64);
        b.store(scale, tail);

        // To the nearest, ties to even: added to this, a float of up to 22 bits leaves its integer in the lowest ones.
        const MAGIC: f32 = 12_582_912.0;
        let inverse = b.splat(inverse, 16);
        let one = |b: &Builder, at: At, sum: Val| {
            let scaled = b.mul(self.vector(b, from, at), inverse);
            let shifted = b.bits(b.add(scaled, b.float(FLOATS, MAGIC)), Elem::I32);
            let codes = b.sub(shifted, b.int(WORDS, i64::from(MAGIC.to_bits())));
            b.store(b.narrow(codes, Elem::I8), b.offset(into, at.val(b)));
            b.add(sum, codes)
        };
        let correction = |b: &Builder, sum: Val, place: Val| {
            let sum = b.across(sum, |b, x, y| b.add(x, y));
            b.store(b.mul(sum, b.int(I32, -offset(self.format))), place);
        };
        let group = self.format.group(self.k);
        let zero = b.int(WORDS, 0);
        if self.format == Format::Int8 {
            let sum =
                b.for_loop([b.i64(0), end, b.i64(16)], &[zero], |b, at, sum| vec![one(b, At::Within(at), sum[0])])[0];
            let sum = if self.k.is_multiple_of(16) { sum } else { one(b, At::Known(self.k - self.k % 16), sum) };
            return correction(b, sum, b.offset_by(tail, 4));
        }
        let of_group = |b: &Builder, at: &dyn Fn(&Builder, u64) -> At| {
            (0..group / 16).fold(zero, |sum, vector| one(b, at(b, vector * 16), sum))
        };
        let full = self.k / group;
        b.repeat(b.i64(full as i64), |b, number| {
            let first = b.mul(number, b.i64(group as i64));
            let sum = of_group(b, &|b, at| At::Within(b.add(first, b.i64(at as i64))));
            correction(b, sum, b.offset_by(b.offset(tail, b.shl(number, 2)), 4));
        });
        if full * group < padded {
            let sum = of_group(b, &|_, at| At::Known(full * group + at));
            correction(b, sum, b.offset_by(tail, 4 + 4 * full as i64));
        }
    }

    /// All vectors of 16 from `first` up to `end`.
    fn each_vector(&self, b: &Builder, first: u64, end: u64, body: &dyn Fn(&Builder, At)) {
        let whole = self.k - self.k % 16;
        b.range(b.i64(first as i64), b.i64(whole as i64), b.i64(16), |b, at| body(b, At::Within(at)));
        (whole..end).step_by(16).for_each(|at| body(b, At::Known(at)));
    }

    /// 16 elements of the row, zeros behind its end.
    fn vector(&self, b: &Builder, from: Val, at: At) -> Val {
        match at {
            At::Within(at) => b.load(FLOATS, b.offset(from, b.shl(at, 2))),
            At::Known(at) if at + 16 <= self.k => b.load(FLOATS, b.offset_by(from, 4 * at as i64)),
            At::Known(at) if at >= self.k => b.float(FLOATS, 0.0),
            At::Known(at) => {
                let element = |at: u64| {
                    if at < self.k { b.load(F32, b.offset_by(from, 4 * at as i64)) } else { b.float(F32, 0.0) }
                };
                b.gather(&(at..at + 16).map(element).collect::<Vec<_>>())
            }
        }
    }
}

/// Where 16 elements begin.
#[derive(Clone, Copy)]
enum At {
    /// All of them are the row's.
    Within(Val),
    Known(u64),
}

impl At {
    fn val(self, b: &Builder) -> Val {
        match self {
            At::Within(at) => at,
            At::Known(at) => b.i64(at as i64),
        }
    }
}
