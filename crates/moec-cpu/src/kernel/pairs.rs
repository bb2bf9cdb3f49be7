//! bf16 weights in pairs along k, times rows of bf16.
//!
//! Where the machine multiplies pairs, one instruction takes two products in each lane; elsewhere a pair is two f32 vectors,
//! one shift and one mask away. The products are exact in f32 either way.

use super::{Columns, Kernel, group_starts, row_pointers};
use crate::{
    builder::{Builder, Elem, I32, Ty, Val},
    level::Level,
};

const SUMS: Ty = Ty::vector(Elem::F32, 16);
const WORDS: Ty = Ty::vector(Elem::I32, 16);

/// Elements along k that one word of a lane holds.
const PAIR: i64 = 2;

pub fn body(b: &Builder, level: Level, kernel: &Kernel, rows: Val, columns: Columns, k: Val, tile: Val) {
    let vectors = kernel.vectors();
    let count = (kernel.rows * vectors) as usize;
    // Few sums: several pairs at once, each with its own.
    let ways = (level.chains() as usize / count).max(1);
    let unrolled = ways.max(if count <= 8 { 4 } else { 2 });
    let pointers = row_pointers(b, kernel, rows);
    let starts = group_starts(b, kernel, columns);

    let step = |b: &Builder, pair: Val, sums: &mut [Val]| {
        let row_at = b.shl(pair, 2);
        let at = b.mul(pair, b.i64(64 * i64::from(kernel.branches)));
        let weights: Vec<Pair> = (0..vectors)
            .map(|vector| {
                let start = b.offset(starts[(vector / kernel.branches) as usize], at);
                let ptr = b.offset_by(start, 64 * i64::from(vector % kernel.branches));
                Pair::new(b, level, b.load(WORDS, ptr))
            })
            .collect();
        for (row, pointer) in pointers.iter().enumerate() {
            let a = Pair::new(b, level, b.splat(b.load(I32, b.offset(*pointer, row_at)), 16));
            for (vector, weight) in weights.iter().enumerate() {
                let sum = &mut sums[row * vectors as usize + vector];
                *sum = weight.times(b, &a, *sum);
            }
        }
    };
    let pairs = b.div(k, b.i64(PAIR));
    let turns = b.mul(b.div(pairs, b.i64(unrolled as i64)), b.i64(unrolled as i64));
    let zeros = vec![b.float(SUMS, 0.0); count * ways];
    let sums = b.for_loop([b.i64(0), turns, b.i64(unrolled as i64)], &zeros, |b, pair, sums| {
        let mut sums = sums.to_vec();
        for part in 0..unrolled {
            let way = part % ways * count;
            step(b, b.add(pair, b.i64(part as i64)), &mut sums[way..way + count]);
        }
        sums
    });
    let rest = b.for_loop([turns, pairs, b.i64(1)], &sums[..count], |b, pair, sums| {
        let mut sums = sums.to_vec();
        step(b, pair, &mut sums);
        sums
    });
    for (at, rest) in rest.into_iter().enumerate() {
        let sum = (1..ways).fold(rest, |sum, way| b.add(sum, sums[way * count + at]));
        b.store(sum, b.offset_by(tile, kernel.tile_place(at as u32 / vectors, at as u32 % vectors)));
    }
}

/// 16 pairs of bf16.
enum Pair {
    Packed(Val),
    /// The first of each pair, the second of each, as f32.
    Apart(Val, Val),
}

impl Pair {
    fn new(b: &Builder, level: Level, words: Val) -> Pair {
        if level.multiplies_pairs() {
            return Pair::Packed(b.recast(words, Ty::vector(Elem::Bf16, 32)));
        }
        let first = b.bits(b.shl(words, 16), Elem::F32);
        let second = b.bits(b.and(words, b.int(WORDS, 0xffff_0000_u32 as i32 as i64)), Elem::F32);
        Pair::Apart(first, second)
    }

    fn times(&self, b: &Builder, other: &Pair, sum: Val) -> Val {
        match (self, other) {
            (Pair::Packed(x), Pair::Packed(y)) => b.intrinsic_to("x86.avx512bf16.dpbf16ps.512", &[sum, *x, *y], SUMS),
            (Pair::Apart(x, x2), Pair::Apart(y, y2)) => b.mul_add(*x2, *y2, b.mul_add(*x, *y, sum)),
            (Pair::Packed(_), Pair::Apart(..)) | (Pair::Apart(..), Pair::Packed(_)) => unreachable!("of one level"),
        }
    }
}
