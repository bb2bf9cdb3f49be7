//! Weights of 8 and 4 bits as integers, times rows of 8-bit integers: sums are exact up to the scales.
//!
//! Weights are stored with an offset that makes them unsigned (128, or 8 for 4 bits), because the instructions that multiply
//! fours of bytes want one side so; what it adds is the offset times the sum of the row, which the row has with it
//! (`gemm::rows`). Four-bit weights become bytes in registers.

use moec_plan::Format;

use super::{Ahead, Columns, Kernel, group_starts, row_pointers, store_tile, vectors_at, walk};
use crate::{
    builder::{Builder, Elem, F32, I32, Ty, Val},
    gemm::rows::integer_tail,
    level::Level,
    math,
};

const SUMS: Ty = Ty::vector(Elem::F32, 16);
const WORDS: Ty = Ty::vector(Elem::I32, 16);

pub fn body(b: &Builder, level: Level, kernel: &Kernel, rows: Val, columns: Columns, k: Val, tile: Val) {
    let pointers = row_pointers(b, kernel, rows);
    let starts = group_starts(b, kernel, columns);
    let tails: Vec<Val> = pointers.iter().map(|row| b.offset(*row, integer_tail(b, k))).collect();
    let body = Body { level, kernel, pointers, tails, starts, scales: columns.k_bytes, ahead: columns.ahead };
    let sums = match kernel.storage {
        Format::Int4 { group } => body.four_bits(b, k, group),
        _ => body.eight_bits(b, k),
    };
    let scale = |at: usize| b.splat(b.load(F32, body.tails[at / kernel.vectors() as usize]), 16);
    let scaled: Vec<Val> = sums.into_iter().enumerate().map(|(at, sum)| b.mul(sum, scale(at))).collect();
    store_tile(b, kernel, &scaled, tile);
}

struct Body<'a> {
    level: Level,
    kernel: &'a Kernel,
    pointers: Vec<Val>,
    /// Behind the integers of each row: its scale, then for each group what the offset of the weights adds, negated.
    tails: Vec<Val>,
    starts: Vec<Val>,
    /// Bytes of a panel's scales.
    scales: Val,
    ahead: Ahead,
}

impl Body<'_> {
    /// Sums of `[rows, vectors]` without the scales of the rows.
    fn eight_bits(&self, b: &Builder, k: Val) -> Vec<Val> {
        let vectors = self.kernel.vectors();
        let whole = walk(b, b.shr(k, 2), &self.corrections(b, b.i64(0)), &|b, four, sums| {
            let weights: Vec<Fours> = self.words(b, four).into_iter().map(|words| self.fours(b, words)).collect();
            self.add_products(b, b.shl(four, 2), &weights, sums);
        });
        let scale = |vector: u32| {
            let branch = 64 * i64::from(vector % self.kernel.branches);
            b.load(SUMS, b.offset_by(self.starts[(vector / self.kernel.branches) as usize], branch))
        };
        let scales: Vec<Val> = (0..vectors).map(scale).collect();
        let scaled = |(at, sum): (usize, Val)| b.mul(b.int_to_float(sum), scales[at % vectors as usize]);
        whole.into_iter().enumerate().map(scaled).collect()
    }

    /// The same: group by group, an exact sum each, times its scale.
    fn four_bits(&self, b: &Builder, k: Val, group: u32) -> Vec<Val> {
        let vectors = self.kernel.vectors();
        let count = (self.kernel.rows * vectors) as usize;
        let eights = i64::from(group / 8);
        let groups = b.div(k, b.i64(i64::from(group)));
        let zeros = vec![b.float(SUMS, 0.0); count];
        b.for_loop([b.i64(0), groups, b.i64(1)], &zeros, |b, number, sums| {
            let first = b.mul(number, b.i64(eights));
            let range = [first, b.add(first, b.i64(eights)), b.i64(2)];
            let whole = b.for_loop(range, &self.corrections(b, number), |b, eight, sums| {
                let mut sums = sums.to_vec();
                for eight in [eight, b.add(eight, b.i64(1))] {
                    let words = self.words(b, eight);
                    for shift in [0, 4] {
                        let half = |words: &Val| {
                            let half = b.and(b.shr_unsigned(*words, shift), b.int(WORDS, 0x0f0f_0f0f));
                            self.fours(b, half)
                        };
                        let weights: Vec<Fours> = words.iter().map(half).collect();
                        self.add_products(b, b.add(b.shl(eight, 3), b.i64(shift)), &weights, &mut sums);
                    }
                }
                sums
            });
            let scale_at = b.mul(number, b.i64(32 * i64::from(self.kernel.branches)));
            let scale = |vector: u32| {
                let start = b.offset(self.starts[(vector / self.kernel.branches) as usize], scale_at);
                let ptr = b.offset_by(start, 32 * i64::from(vector % self.kernel.branches));
                math::from_bf16(b, b.load(Ty::vector(Elem::I16, 16), ptr))
            };
            let scales: Vec<Val> = (0..vectors).map(scale).collect();
            let scaled =
                |(at, whole): (usize, Val)| b.mul_add(b.int_to_float(whole), scales[at % vectors as usize], sums[at]);
            whole.into_iter().enumerate().map(scaled).collect()
        })
    }

    /// What sums begin with: for each row, that of the group, in each of its vectors.
    fn corrections(&self, b: &Builder, group: Val) -> Vec<Val> {
        let of = |tail: &Val| b.splat(b.load(I32, b.offset_by(b.offset(*tail, b.shl(group, 2)), 4)), 16);
        let each = |tail| std::iter::repeat_n(of(tail), self.kernel.vectors() as usize);
        self.tails.iter().flat_map(each).collect()
    }

    /// The 64 bytes of each vector that are number `at` of its panel.
    fn words(&self, b: &Builder, at: Val) -> Vec<Val> {
        let at = b.add(b.mul(at, b.i64(64 * i64::from(self.kernel.branches))), self.scales);
        vectors_at(b, self.kernel, (&self.starts, self.ahead), at)
    }

    /// Adds the products of four elements from `k` on.
    fn add_products(&self, b: &Builder, k: Val, weights: &[Fours], sums: &mut [Val]) {
        for (row, pointer) in self.pointers.iter().enumerate() {
            let a = self.signed_fours(b, b.splat(b.load(I32, b.offset(*pointer, k)), 16));
            for (vector, weight) in weights.iter().enumerate() {
                let sum = &mut sums[row * weights.len() + vector];
                *sum = weight.times(b, self.level, &a, *sum);
            }
        }
    }

    /// Four unsigned bytes in each of 16 words.
    fn fours(&self, b: &Builder, words: Val) -> Fours {
        if self.level.multiplies_fours() {
            return Fours::Bytes(words);
        }
        let mask = b.int(WORDS, 0x00ff_00ff);
        Fours::Pairs(b.and(words, mask), b.and(b.shr_unsigned(words, 8), mask))
    }

    /// Four signed bytes likewise.
    fn signed_fours(&self, b: &Builder, words: Val) -> Fours {
        if self.level.multiplies_fours() {
            return Fours::Bytes(words);
        }
        let halves = b.recast(words, Ty::vector(Elem::I16, 32));
        let (even, odd) = (b.shr(b.shl(halves, 8), 8), b.shr(halves, 8));
        Fours::Pairs(b.recast(even, WORDS), b.recast(odd, WORDS))
    }
}

/// Fours of integers in each of 16 words.
enum Fours {
    Bytes(Val),
    /// As 16 bits each: the first and third, the second and fourth.
    Pairs(Val, Val),
}

impl Fours {
    /// `sum` and the products of unsigned fours with signed ones.
    fn times(&self, b: &Builder, level: Level, signed: &Fours, sum: Val) -> Val {
        match (self, signed) {
            (Fours::Bytes(x), Fours::Bytes(y)) => {
                let [x, y] = [x, y].map(|words| b.recast(*words, Ty::vector(Elem::I8, 64)));
                b.intrinsic_to("x86.avx512.vpdpbusd.512", &[sum, x, y], WORDS)
            }
            (Fours::Pairs(x, x2), Fours::Pairs(y, y2)) => {
                b.add(sum, b.add(pair_products(b, level, *x, *y), pair_products(b, level, *x2, *y2)))
            }
            (Fours::Bytes(_), Fours::Pairs(..)) | (Fours::Pairs(..), Fours::Bytes(_)) => unreachable!("of one level"),
        }
    }
}

/// In each of 16 words, the sum of the products of its two 16-bit integers. Nothing overflows: they are of 8 bits.
fn pair_products(b: &Builder, level: Level, x: Val, y: Val) -> Val {
    let name = match level {
        Level::Scalar => "x86.sse2.pmadd.wd",
        Level::Avx2 => "x86.avx2.pmadd.wd",
        Level::Avx512 | Level::Avx512Dot | Level::Amx => "x86.avx512.pmaddw.d.512",
    };
    let lanes = level.lanes();
    let part = |first: u32| {
        let [x, y] = [x, y].map(|words| b.recast(b.part(words, first, lanes), Ty::vector(Elem::I16, lanes * 2)));
        b.intrinsic_to(name, &[x, y], Ty::vector(Elem::I32, lanes))
    };
    b.join(&(0..16 / lanes).map(|at| part(at * lanes)).collect::<Vec<_>>())
}
