//! bf16 weights in pairs along k, times rows of bf16.
//!
//! Where the machine multiplies pairs, one instruction takes two products in each lane; elsewhere a pair is two f32 vectors,
//! one shift and one mask away. The products are exact in f32 either way.

use super::{Columns, Kernel, group_starts, row_pointers, store_tile, vectors_at, walk};
use crate::{
    builder::{Builder, Elem, I32, Ty, Val},
    level::Level,
};

const SUMS: Ty = Ty::vector(Elem::F32, 16);
const WORDS: Ty = Ty::vector(Elem::I32, 16);

/// Elements along k that one word of a lane holds.
const PAIR: i64 = 2;

pub fn body(b: &Builder, level: Level, kernel: &Kernel, rows: Val, columns: Columns, k: Val, tile: Val) {
    let vectors = kernel.vectors() as usize;
    let pointers = row_pointers(b, kernel, rows);
    let starts = group_starts(b, kernel, columns);
    let zeros = vec![b.float(SUMS, 0.0); kernel.rows as usize * vectors];
    let sums = walk(b, b.div(k, b.i64(PAIR)), &zeros, &|b, pair, sums| {
        let row_at = b.shl(pair, 2);
        let at = b.mul(pair, b.i64(64 * i64::from(kernel.branches)));
        let weights: Vec<Pair> = vectors_at(b, kernel, (&starts, columns.ahead), at)
            .into_iter()
            .map(|words| Pair::new(b, level, words))
            .collect();
        for (row, pointer) in pointers.iter().enumerate() {
            let a = Pair::new(b, level, b.splat(b.load(I32, b.offset(*pointer, row_at)), 16));
            for (sum, weight) in sums[row * vectors..].iter_mut().zip(&weights) {
                *sum = weight.times(b, &a, *sum);
            }
        }
    });
    store_tile(b, kernel, &sums, tile);
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
