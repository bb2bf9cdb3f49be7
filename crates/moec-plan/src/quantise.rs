//! From numbers to fewer bits: which integers or small floats stand for a column's weights or a row's values.
//!
//! Everything rounds to the nearest, ties to even. Weights are finite (packing refuses others). Columns and groups of zeros
//! get the scale 0 (with `mxfp4`, 2^-127) and zeros.

use half::{bf16, f16};
use moec_types::DType;

use crate::{Format, RowFormat};

/// Integers, and what they are to be multiplied by.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaled<T> {
    pub scale: f32,
    pub codes: Vec<T>,
}

impl<T> Scaled<T> {
    /// The same with other codes.
    pub fn map<U>(self, code: impl Fn(T) -> U) -> Scaled<U> {
        Scaled { scale: self.scale, codes: self.codes.into_iter().map(code).collect() }
    }
}

/// The largest magnitude; NaN if there is any.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most: f32, value| if most.is_nan() || most >= value.abs() { most } else { value.abs() })
}

/// Below this a row counts as zeros: the reciprocal of what it is scaled by would leave f32.
pub const LEAST_ROW: f32 = 1e-30;

/// A row of a GEMM: the largest magnitude `m` becomes 127. In f32: `codes = round(values * (127 / m))`, `scale = m / 127`.
/// A row without a magnitude of [`LEAST_ROW`] is zeros.
pub fn row(values: &[f32]) -> Scaled<i8> {
    let most = largest(values);
    let inverse = if most >= LEAST_ROW { 127.0 / most } else { 0.0 };
    let codes = values.iter().map(|value| (value * inverse).round_ties_even() as i8).collect();
    Scaled { scale: if most < LEAST_ROW { 0.0 } else { most / 127.0 }, codes }
}

/// A column of weights as integers of -127 to 127.
pub fn int8(column: &[f32]) -> Scaled<i8> {
    let scale = largest(column) / 127.0;
    let codes = column.iter().map(|value| nearest(*value, scale, 127.0)).collect();
    Scaled { scale, codes }
}

/// A group of weights as integers of -8 to 7 times a bf16 scale. Of two scales, the one that brings the largest magnitude to
/// -8 and the one that brings it to 7, that with the smaller sum of squared errors; the first where they are alike.
pub fn int4(group: &[f32]) -> Scaled<i8> {
    let most = group.iter().fold(0.0, |most: f32, value| if value.abs() > most.abs() { *value } else { most });
    let with = |scale: f32| {
        let scale = bf16::from_f32(scale).to_f32();
        let codes: Vec<i8> = group.iter().map(|value| nearest(*value, scale, 8.0).min(7)).collect();
        let error = |(value, code): (&f32, &i8)| f64::from(value - f32::from(*code) * scale).powi(2);
        let errors: f64 = group.iter().zip(&codes).map(error).sum();
        (errors, Scaled { scale, codes })
    };
    let (full, even) = (with(most / -8.0), with(most.abs() / 7.0));
    if full.0 <= even.0 { full.1 } else { even.1 }
}

/// `value / scale`, between `-most` and `most`; 0 where the scale is 0.
fn nearest(value: f32, scale: f32, most: f32) -> i8 {
    if scale == 0.0 { 0 } else { (value / scale).round_ties_even().clamp(-most, most) as i8 }
}

/// The magnitudes of e2m1, by the low three bits of a code.
const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// What a code of e2m1 (the low 4 bits) stands for.
pub fn e2m1(code: u8) -> f32 {
    let size = E2M1[usize::from(code & 7)];
    if code & 8 == 0 { size } else { -size }
}

/// What a scale of e8m0 stands for: 2^(code - 127). 255, NaN, is never packed.
pub fn e8m0(code: u8) -> f32 {
    2f32.powi(i32::from(code) - 127)
}

/// A group of weights as e2m1 codes and an e8m0 scale (its exponent is in `scale` as a number): the exponent of the largest
/// magnitude less 2, which is that of e2m1's largest. What is of this format already stays exactly as it is: a smaller scale
/// only adds numbers between.
pub fn mxfp4(group: &[f32]) -> Scaled<u8> {
    let most = largest(group);
    let exponent = if most == 0.0 { -127 } else { (exponent(most) - 2).clamp(-127, 127) };
    let scale = 2f32.powi(exponent);
    let code = |value: &f32| {
        let size = value.abs() / scale;
        // Ties go to the code with an even last bit.
        let below = (0..7).rev().find(|at| size >= E2M1[*at as usize]).unwrap_or(0u8);
        let (low, high) = (E2M1[usize::from(below)], E2M1[usize::from(below) + 1]);
        let middle = (low + high) / 2.0;
        let up = size > middle || (size == middle && below % 2 == 1);
        (below + u8::from(up)) | if value.is_sign_negative() { 8 } else { 0 }
    };
    Scaled { scale, codes: group.iter().map(code).collect() }
}

/// The floor of the logarithm to base 2, of what is above 0.
fn exponent(value: f32) -> i32 {
    let bits = value.to_bits() >> 23 & 255;
    // Subnormals are below anything that a scale can reach.
    if bits == 0 { -149 } else { bits as i32 - 127 }
}

/// The e8m0 code of a power of two from 2^-127 to 2^127.
pub fn e8m0_code(scale: f32) -> u8 {
    let bits = scale.to_bits() >> 23;
    bits as u8
}

/// What a code of e4m3 stands for.
pub fn e4m3(code: u8) -> f32 {
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * 2f32.powi(-9),
        _ => (8.0 + fraction) * 2f32.powi(exponent - 10),
    };
    if code & 128 == 0 { size } else { -size }
}

/// A group of weights as e4m3 codes: the largest magnitude becomes 448.
pub fn fp8(group: &[f32]) -> Scaled<u8> {
    let scale = largest(group) / 448.0;
    let code = |value: &f32| {
        let size = if scale == 0.0 { 0.0 } else { (value.abs() / scale).min(448.0) };
        // Below 2^-6 the distance of neighbours stays 2^-9.
        let exponent = if size == 0.0 { -6 } else { exponent(size).max(-6) };
        let step = 2f32.powi(exponent - 3);
        let steps = (size / step).round_ties_even() as i32;
        // A carry into the next exponent is the next code.
        let code = ((exponent + 6) * 8 + steps) as u8;
        code | if value.is_sign_negative() { 128 } else { 0 }
    };
    Scaled { scale, codes: group.iter().map(code).collect() }
}

/// The numbers that a column of weights stands for once it is stored, exactly.
pub fn stored_column(format: Format, column: &[f32]) -> Vec<f64> {
    let group = format.group(column.len() as u64).max(1) as usize;
    let of = |scale: f32, code: f32| f64::from(scale) * f64::from(code);
    let each = |group: &[f32]| -> Vec<f64> {
        match format {
            Format::Each(DType::Bf16) | Format::Pairs => {
                group.iter().map(|value| bf16::from_f32(*value).to_f64()).collect()
            }
            Format::Each(DType::F16) => group.iter().map(|value| f16::from_f32(*value).to_f64()).collect(),
            Format::Each(DType::F32 | DType::I32 | DType::Bool) => {
                group.iter().map(|value| f64::from(*value)).collect()
            }
            Format::Int8 => {
                let Scaled { scale, codes } = int8(group);
                codes.into_iter().map(|code| of(scale, f32::from(code))).collect()
            }
            Format::Int4 { .. } => {
                let Scaled { scale, codes } = int4(group);
                codes.into_iter().map(|code| of(scale, f32::from(code))).collect()
            }
            Format::Mxfp4 => {
                let Scaled { scale, codes } = mxfp4(group);
                codes.into_iter().map(|code| of(scale, e2m1(code))).collect()
            }
            Format::Fp8 { .. } => {
                let Scaled { scale, codes } = fp8(group);
                codes.into_iter().map(|code| of(scale, e4m3(code))).collect()
            }
        }
    };
    column.chunks(group).flat_map(each).collect()
}

/// The numbers that a row is multiplied as.
pub fn rounded_row(format: RowFormat, values: &[f32]) -> Vec<f64> {
    match format {
        RowFormat::F32 => values.iter().map(|value| f64::from(*value)).collect(),
        RowFormat::Bf16 => values.iter().map(|value| bf16::from_f32(*value).to_f64()).collect(),
        RowFormat::Int8 => {
            let Scaled { scale, codes } = row(values);
            codes.into_iter().map(|code| f64::from(scale) * f64::from(code)).collect()
        }
    }
}
