//! Functions of floats, written out so that all lanes work at once and every level rounds alike.

use crate::{
    builder::{Builder, Cmp, Elem, Ty, Val},
    level::Level,
};

/// The logarithm of 2 in two parts: few bits, and the rest.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// e to the x, to 2 units in the last place: -inf gives 0, overflow inf, NaN NaN. What would be subnormal is 0: sums of
/// such probabilities are slow, and nothing.
///
/// Range reduction by ln 2 in two parts (Cody and Waite) and a polynomial of degree 6 (Cephes, `expf`).
pub fn exp(b: &Builder, x: Val) -> Val {
    // The logarithm of the least normal number.
    const LEAST: f32 = -87.336_54;
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const POLYNOMIAL: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_3e-1];
    // Adding it rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let ty = x.ty;
    let float = |value| b.float(ty, value);
    // The comparisons let NaN through.
    let vanishes = b.cmp(Cmp::Lt, x, float(LEAST));
    let x = b.select(b.cmp(Cmp::Gt, x, float(89.0)), float(89.0), x);
    let x = b.select(vanishes, float(LEAST), x);
    let rounded = b.mul_add(x, float(LOG2_E), float(ROUND));
    let whole = b.sub(rounded, float(ROUND));
    let n = b.sub(b.bits(rounded, Elem::I32), b.int(ty.of(Elem::I32), i64::from(ROUND.to_bits())));
    let r = b.mul_add(whole, float(-LN2_HIGH), x);
    let r = b.mul_add(whole, float(-LN2_LOW), r);
    let sum = b.mul_add(horner(b, r, &POLYNOMIAL), b.mul(r, r), b.add(r, float(1.0)));
    // Two factors, since 2^n alone may overflow.
    let half = b.shr(n, 1);
    let rest = b.sub(n, half);
    let value = b.mul(b.mul(sum, power_of_two(b, half)), power_of_two(b, rest));
    b.select(vanishes, float(0.0), value)
}

fn power_of_two(b: &Builder, n: Val) -> Val {
    let biased = b.add(n, b.int(n.ty, 127));
    b.bits(b.shl(biased, 23), Elem::F32)
}

/// Cephes' `tanhf`: a polynomial near 0, else by [`exp`].
pub fn tanh(b: &Builder, x: Val) -> Val {
    const POLYNOMIAL: [f32; 5] = [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1];
    let float = |value| b.float(x.ty, value);
    let size = b.intrinsic("fabs", &[x]);
    let z = b.mul(x, x);
    let near = b.mul_add(b.mul(horner(b, z, &POLYNOMIAL), z), x, x);
    let grown = exp(b, b.add(size, size));
    let far = b.sub(float(1.0), b.div(float(2.0), b.add(grown, float(1.0))));
    let far = b.intrinsic("copysign", &[far, x]);
    b.select(b.cmp(Cmp::Lt, size, float(0.625)), near, far)
}

/// The sine, to 2 units in the last place.
pub fn sin(b: &Builder, x: Val) -> Val {
    wave(b, x, "sin", 0)
}

/// The cosine, likewise.
pub fn cos(b: &Builder, x: Val) -> Val {
    wave(b, x, "cos", 1)
}

/// `sin(x + quarters * pi / 2)`: what is left of a whole number of quarter turns, in f64 (the angles of rotary embeddings
/// are as large as the context), and Cephes' polynomials. Very large angles go to libm.
fn wave(b: &Builder, x: Val, name: &str, quarters: i64) -> Val {
    const MOST: f32 = 1e6;
    let large = b.cmp(Cmp::Gt, b.intrinsic("fabs", &[x]), b.float(x.ty, MOST));
    let any_large = b.across(large, |b, x, y| b.or(x, y));
    b.either(any_large, &[x.ty], |b| vec![b.intrinsic(name, &[x])], |b| vec![near_wave(b, x, quarters)])[0]
}

fn near_wave(b: &Builder, x: Val, quarters: i64) -> Val {
    const SINE: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];
    const COSINE: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];
    // Adding it rounds to an integer, which is then in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    // A quarter turn in two parts (fdlibm): products of the first with up to 20 bits are exact.
    const QUARTER_HIGH: f64 = 1.570_796_326_734_125_6;
    const QUARTER_LOW: f64 = 6.077_100_506_506_192e-11;
    let wide = b.extend(x, Elem::F64);
    let double = |value| b.double(wide.ty, value);
    let rounded = b.add(b.mul(wide, double(std::f64::consts::FRAC_2_PI)), double(ROUND));
    let turns = b.sub(rounded, double(ROUND));
    let rest = b.sub(wide, b.mul(turns, double(QUARTER_HIGH)));
    let rest = b.truncate(b.sub(rest, b.mul(turns, double(QUARTER_LOW))), Elem::F32);
    let quarter = b.narrow(b.bits(rounded, Elem::I64), Elem::I32);
    let int = |value| b.int(quarter.ty, value);
    let quarter = b.add(quarter, int(quarters));

    let z = b.mul(rest, rest);
    let sine = b.mul_add(b.mul(horner(b, z, &SINE), z), rest, rest);
    let cosine = b.mul_add(z, b.float(x.ty, -0.5), b.float(x.ty, 1.0));
    let cosine = b.mul_add(horner(b, z, &COSINE), b.mul(z, z), cosine);
    let is_odd = b.cmp(Cmp::Ne, b.and(quarter, int(1)), int(0));
    let sign = b.shl(b.and(quarter, int(2)), 30);
    let value = b.select(is_odd, cosine, sine);
    b.bits(b.xor(b.bits(value, Elem::I32), sign), Elem::F32)
}

/// The error function, to 1 unit in the last place or so: a polynomial near 0, else 1 - e to a polynomial (N. Juffa).
pub fn erf(b: &Builder, x: Val) -> Val {
    const NEAR: [f32; 6] =
        [-5.967_617e-4, 4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_4e-1, 1.283_791_7e-1];
    const FAR: [f32; 3] = [-1.067_778_8e-1, -6.348_467e-1, -1.287_175_1e-1];
    let float = |value| b.float(x.ty, value);
    let size = b.intrinsic("fabs", &[x]);
    let square = b.mul(x, x);
    let near = horner(b, square, &NEAR);
    let near = b.mul_add(near, x, x);
    let even = b.mul_add(float(-1.728_534_7e-5), size, float(3.831_971_3e-4));
    let odd = b.mul_add(float(-3.883_964_4e-3), size, float(2.425_462_2e-2));
    let mut far = b.mul_add(even, square, odd);
    for coefficient in FAR {
        far = b.mul_add(far, size, float(coefficient));
    }
    let far = b.mul_add(far, size, b.neg(size));
    let far = b.intrinsic("copysign", &[b.sub(float(1.0), exp(b, far)), x]);
    b.select(b.cmp(Cmp::Gt, size, float(0.921_875)), far, near)
}

/// The natural logarithm, to 2 units in the last place: 0 gives -inf, less NaN.
///
/// The exponent apart, and a polynomial of degree 8 between the square roots of 1/2 and 2 (Cephes, `logf`).
pub fn log(b: &Builder, x: Val) -> Val {
    const POLYNOMIAL: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    const ROOT_HALF: i64 = 0x3f35_04f3;
    let float = |value| b.float(x.ty, value);
    // Subnormals are scaled into the normals first.
    let is_small = b.cmp(Cmp::Lt, x, float(f32::MIN_POSITIVE));
    let scaled = b.select(is_small, b.mul(x, float(8_388_608.0)), x);
    let bits = b.bits(scaled, Elem::I32);
    let exponent = b.shr(b.sub(bits, b.int(bits.ty, ROOT_HALF)), 23);
    let mantissa = b.bits(b.sub(bits, b.shl(exponent, 23)), Elem::F32);
    let exponent = b.add(b.int_to_float(exponent), b.select(is_small, float(-23.0), float(0.0)));
    let f = b.sub(mantissa, float(1.0));
    let square = b.mul(f, f);
    let sum = b.mul(b.mul(horner(b, f, &POLYNOMIAL), f), square);
    let sum = b.mul_add(exponent, float(LN2_LOW), sum);
    let sum = b.mul_add(square, float(-0.5), sum);
    let value = b.mul_add(exponent, float(LN2_HIGH), b.add(f, sum));
    let value = b.select(b.cmp(Cmp::Eq, x, float(f32::INFINITY)), x, value);
    let value = b.select(b.cmp(Cmp::Eq, x, float(0.0)), float(f32::NEG_INFINITY), value);
    // What is not at least 0 is negative or NaN.
    b.select(b.cmp(Cmp::Ge, x, float(0.0)), value, float(f32::NAN))
}

/// A polynomial, the highest coefficient first.
fn horner(b: &Builder, x: Val, coefficients: &[f32]) -> Val {
    let first = b.float(x.ty, coefficients[0]);
    coefficients[1..].iter().fold(first, |sum, next| b.mul_add(sum, x, b.float(x.ty, *next)))
}

/// Towards zero; 0 where the divisor is 0, wrapping where the quotient is too large.
pub fn divide_integers(b: &Builder, x: Val, y: Val) -> Val {
    let int = |value| b.int(x.ty, value);
    let by_zero = b.cmp(Cmp::Eq, y, int(0));
    let by_minus_one = b.cmp(Cmp::Eq, y, int(-1));
    let safe = b.select(b.or(by_zero, by_minus_one), int(1), y);
    let quotient = b.select(by_minus_one, b.neg(x), b.div(x, safe));
    b.select(by_zero, int(0), quotient)
}

/// With the sign of the divisor; 0 where the divisor is 0.
pub fn modulo_integers(b: &Builder, x: Val, y: Val) -> Val {
    let zero = b.int(x.ty, 0);
    let one = b.int(x.ty, 1);
    let trivial = b.or(b.cmp(Cmp::Eq, y, zero), b.cmp(Cmp::Eq, y, b.int(x.ty, -1)));
    let rest = b.rem(x, b.select(trivial, one, y));
    let wrong = b.and(b.cmp(Cmp::Ne, rest, zero), b.cmp(Cmp::Lt, b.xor(rest, y), zero));
    b.select(wrong, b.add(rest, y), rest)
}

/// With the sign of the divisor.
pub fn modulo_floats(b: &Builder, x: Val, y: Val) -> Val {
    let zero = b.float(x.ty, 0.0);
    let rest = b.rem(x, y);
    let signs_differ = b.xor(b.cmp(Cmp::Lt, rest, zero), b.cmp(Cmp::Lt, y, zero));
    let wrong = b.and(b.cmp(Cmp::Ne, rest, zero), signs_differ);
    b.select(wrong, b.add(rest, y), rest)
}

/// The bits of a bf16 (i16 lanes) as f32.
pub fn from_bf16(b: &Builder, bits: Val) -> Val {
    b.bits(b.shl(b.widen(bits, Elem::I32), 16), Elem::F32)
}

/// f32 to the bits of a bf16, to nearest even.
pub fn to_bf16(b: &Builder, x: Val) -> Val {
    let ty = x.ty.of(Elem::I32);
    let int = |value| b.int(ty, value);
    let bits = b.bits(x, Elem::I32);
    let odd = b.and(b.shr_unsigned(bits, 16), int(1));
    let rounded = b.add(bits, b.add(odd, int(0x7fff)));
    let is_nan = b.cmp(Cmp::Ne, x, x);
    let quiet = b.or(bits, int(0x0040_0000));
    b.narrow(b.shr_unsigned(b.select(is_nan, quiet, rounded), 16), Elem::I16)
}

/// The bits of an f16 (i16 lanes) as f32.
pub fn from_f16(b: &Builder, level: Level, bits: Val) -> Val {
    if level.has_f16() {
        return b.extend(b.bits(bits, Elem::F16), Elem::F32);
    }
    let wide = b.widen(bits, Elem::I32);
    let int = |value| b.int(wide.ty, value);
    let sign = b.shl(b.and(wide, int(0x8000)), 16);
    let size = b.and(wide, int(0x7fff));
    let shifted = b.shl(size, 13);
    let normal = b.add(shifted, int(112 << 23));
    let special = b.add(shifted, int(224 << 23));
    let least = b.bits(int(113 << 23), Elem::F32);
    let subnormal = b.sub(b.bits(b.add(shifted, int(113 << 23)), Elem::F32), least);
    let value = b.select(b.cmp(Cmp::Ge, size, int(0x7c00)), special, normal);
    let value = b.select(b.cmp(Cmp::Lt, size, int(0x0400)), b.bits(subnormal, Elem::I32), value);
    b.bits(b.or(value, sign), Elem::F32)
}

/// f32 to the bits of an f16, to nearest even.
pub fn to_f16(b: &Builder, level: Level, x: Val) -> Val {
    if level.has_f16() {
        return b.bits(b.truncate(x, Elem::F16), Elem::I16);
    }
    let ty: Ty = x.ty.of(Elem::I32);
    let int = |value| b.int(ty, value);
    let bits = b.bits(x, Elem::I32);
    let sign = b.and(b.shr_unsigned(bits, 16), int(0x8000));
    let size = b.and(bits, int(0x7fff_ffff));
    let special = b.select(b.cmp(Cmp::Gt, size, int(0x7f80_0000)), int(0x7e00), int(0x7c00));
    // Adding half of the least subnormal's unit lets the float adder round.
    let magic = int(126 << 23);
    let subnormal = b.add(b.bits(size, Elem::F32), b.bits(magic, Elem::F32));
    let subnormal = b.sub(b.bits(subnormal, Elem::I32), magic);
    let odd = b.and(b.shr_unsigned(size, 13), int(1));
    let normal = b.add(b.add(size, int(0xfff - (112 << 23))), odd);
    let normal = b.shr_unsigned(normal, 13);
    let value = b.select(b.cmp(Cmp::Lt, size, int(113 << 23)), subnormal, normal);
    let value = b.select(b.cmp(Cmp::Ge, size, int(143 << 23)), special, value);
    b.narrow(b.or(value, sign), Elem::I16)
}
