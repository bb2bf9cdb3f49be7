//! Multiply-adds of vectors, on registers alone.

use std::{
    arch::{asm, x86_64::*},
    hint::black_box,
};

use super::{CHAINS, STEPS};

/// A function that adds up products in registers. The empty instruction keeps the compiler from knowing the factors, or
/// it would do the sum once.
macro_rules! chains {
    ($name:ident, $feature:literal, $register:ident, $zero:expr, |$sum:ident, $a:ident, $b:ident| $step:expr) => {
        #[target_feature(enable = $feature)]
        pub fn $name() {
            let (mut $a, $b) = ($zero, $zero);
            let mut sums = [$zero; CHAINS];
            for _ in 0..STEPS {
                for sum in &mut sums {
                    let $sum = *sum;
                    *sum = $step;
                }
                // SAFETY: it has no instruction.
                unsafe { asm!("/* {0} */", inout($register) $a, options(nomem, nostack, preserves_flags)) };
            }
            black_box(sums);
        }
    };
}

chains!(f32_512, "avx512f", zmm_reg, _mm512_setzero_ps(), |sum, a, b| _mm512_fmadd_ps(a, b, sum));
chains!(f32_256, "avx2,fma", ymm_reg, _mm256_setzero_ps(), |sum, a, b| _mm256_fmadd_ps(a, b, sum));
chains!(int8, "avx512f,avx512vnni", zmm_reg, _mm512_setzero_si512(), |sum, a, b| _mm512_dpbusd_epi32(sum, a, b));

#[target_feature(enable = "avx512f,avx512bf16")]
pub fn bf16() {
    let (mut a, zero) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    let mut sums = [_mm512_setzero_ps(); CHAINS];
    for _ in 0..STEPS {
        // SAFETY: both are 64 bytes, any of which are good.
        let [a_pairs, b_pairs] = [a, zero].map(|bits| unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) });
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, a_pairs, b_pairs);
        }
        // SAFETY: it has no instruction.
        unsafe { asm!("/* {0} */", inout(zmm_reg) a, options(nomem, nostack, preserves_flags)) };
    }
    black_box(sums);
}

pub fn f32_128() {
    let (mut a, b) = (1.0f32, 1.0f32);
    let mut sums = [[0.0f32; 4]; CHAINS];
    for _ in 0..STEPS {
        for sum in &mut sums {
            sum.iter_mut().for_each(|sum| *sum += a * b);
        }
        a = black_box(a);
    }
    black_box(sums);
}
