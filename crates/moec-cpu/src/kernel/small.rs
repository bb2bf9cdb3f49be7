//! Weights as floats of 4 and 8 bits with a scale for each group, times rows of f32.
//!
//! A vector of words holds four or eight elements of each of 16 columns; they become f32 one after the other.

use moec_plan::Format;

use super::{Columns, Kernel, group_starts, row_pointers, store_tile, vectors_at};
use crate::{
    builder::{Builder, Elem, F32, Ty, Val},
    level::Level,
};

const SUMS: Ty = Ty::vector(Elem::F32, 16);
const WORDS: Ty = Ty::vector(Elem::I32, 16);

pub fn body(b: &Builder, _: Level, kernel: &Kernel, rows: Val, columns: Columns, k: Val, tile: Val) {
    let (vectors, branches) = (kernel.vectors(), i64::from(kernel.branches));
    let count = (kernel.rows * vectors) as usize;
    let (pointers, starts) = (row_pointers(b, kernel, rows), group_starts(b, kernel, columns));
    let small = Small::of(kernel.storage);
    let vector_at = |b: &Builder, vector: u32, at: Val, bytes: i64| {
        let start = b.offset(starts[(vector / kernel.branches) as usize], at);
        b.offset_by(start, bytes * i64::from(vector % kernel.branches))
    };
    let words_of_group = small.group / small.in_word;
    let groups = b.div(k, b.i64(small.group));
    let zeros = vec![b.float(SUMS, 0.0); count];
    let sums = b.for_loop([b.i64(0), groups, b.i64(1)], &zeros, |b, number, sums| {
        let first = b.mul(number, b.i64(words_of_group));
        let range = [first, b.add(first, b.i64(words_of_group)), b.i64(1)];
        let of_group = b.for_loop(range, &zeros, |b, word, sums| {
            let mut sums = sums.to_vec();
            let at = b.add(b.mul(word, b.i64(64 * branches)), columns.k_bytes);
            let words = vectors_at(b, kernel, (&starts, columns.ahead), at);
            let row_at = b.mul(word, b.i64(4 * small.in_word));
            for element in 0..small.in_word {
                let weights: Vec<Val> = words.iter().map(|words| small.element(b, *words, element)).collect();
                for (row, pointer) in pointers.iter().enumerate() {
                    let a = b.load(F32, b.offset_by(b.offset(*pointer, row_at), 4 * element));
                    let a = b.splat(a, 16);
                    for (vector, weight) in weights.iter().enumerate() {
                        let sum = &mut sums[row * vectors as usize + vector];
                        *sum = b.mul_add(a, *weight, *sum);
                    }
                }
            }
            sums
        });
        let scale_at = b.mul(number, b.i64(small.scales * branches));
        let scales: Vec<Val> =
            (0..vectors).map(|vector| small.scale(b, vector_at(b, vector, scale_at, small.scales))).collect();
        let scaled = |(at, of_group): (usize, Val)| b.mul_add(of_group, scales[at % vectors as usize], sums[at]);
        of_group.into_iter().enumerate().map(scaled).collect()
    });
    store_tile(b, kernel, &sums, tile);
}

/// How elements lie in words.
struct Small {
    group: i64,
    /// Elements of a word.
    in_word: i64,
    /// Bytes of 16 scales.
    scales: i64,
    eight_bits: bool,
}

impl Small {
    fn of(format: Format) -> Small {
        let eight_bits = format.element_bits() == 8;
        let in_word = 32 / format.element_bits() as i64;
        Small { group: format.group(0) as i64, in_word, scales: 16 * format.scale_bytes() as i64, eight_bits }
    }

    /// Element `at` of each word.
    fn element(&self, b: &Builder, words: Val, at: i64) -> Val {
        let byte = at % 4 * 8;
        if self.eight_bits {
            e4m3(b, b.shr_unsigned(words, byte))
        } else {
            e2m1(b, b.shr_unsigned(words, byte + at / 4 * 4))
        }
    }

    fn scale(&self, b: &Builder, ptr: Val) -> Val {
        if self.eight_bits {
            return b.load(SUMS, ptr);
        }
        let codes = b.widen(b.load(Ty::vector(Elem::I8, 16), ptr), Elem::I32);
        let power = b.shl(codes, 23);
        // Code 0 is 2^-127, which is no normal number.
        let least = b.cmp(crate::builder::Cmp::Eq, codes, b.int(WORDS, 0));
        let scale = b.bits(b.select(least, b.int(WORDS, 1 << 22), power), Elem::F32);
        // Elements come doubled.
        b.mul(scale, b.float(SUMS, 0.5))
    }
}

/// The low byte of each word as a float of 8 bits.
fn e4m3(b: &Builder, words: Val) -> Val {
    let size = b.shl(b.and(words, b.int(WORDS, 0x7f)), 20);
    let sign = b.shl(b.and(words, b.int(WORDS, 0x80)), 24);
    // The exponents' biases differ by 120; below the normals this is right as well.
    b.mul(b.bits(b.or(size, sign), Elem::F32), b.float(SUMS, 2f32.powi(120)))
}

/// The low four bits of each word as a float, doubled: it is an integer then, of three straight pieces.
fn e2m1(b: &Builder, words: Val) -> Val {
    let int = |value| b.int(WORDS, value);
    let code = b.and(words, int(7));
    let double = b.sub(b.shl(code, 1), int(4));
    let four = b.sub(b.shl(code, 2), int(16));
    let size = b.int_to_float(b.max(code, b.max(double, four)));
    let sign = b.shl(b.and(words, int(8)), 28);
    b.bits(b.or(b.bits(size, Elem::I32), sign), Elem::F32)
}
