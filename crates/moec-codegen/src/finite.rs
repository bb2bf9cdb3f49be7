//! Finding weights that are no numbers: one of them makes NaN of all that a model computes.

use half::{bf16, f16};

use crate::pack::Values;

/// Elements that are infinite or NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotFinite {
    /// Where the first of them stands among the values.
    pub first: usize,
    pub value: f32,
    /// How many there are.
    pub count: usize,
}

impl Values<'_> {
    /// The elements that are not finite, if any.
    pub fn not_finite(&self) -> Option<NotFinite> {
        match self {
            Values::F32(values) => among(values, |value| !value.is_finite(), |value| value),
            // All bits of the exponent are set in these, and in no others.
            Values::Bf16(bits) => among(bits, |bits| bits & 0x7f80 == 0x7f80, |bits| bf16::from_bits(bits).to_f32()),
            Values::F16(bits) => among(bits, |bits| bits & 0x7c00 == 0x7c00, |bits| f16::from_bits(bits).to_f32()),
            Values::Coded(coded) => among(&coded.floats(), |value| !value.is_finite(), |value| value),
            Values::I32(_) | Values::Bool(_) => None,
        }
    }
}

fn among<T: Copy>(values: &[T], wrong: impl Fn(T) -> bool, number: impl Fn(T) -> f32) -> Option<NotFinite> {
    // Counting has no branches; looking for the place is for the few that have one.
    let count = values.iter().filter(|value| wrong(**value)).count();
    let first = (count > 0).then(|| values.iter().position(|value| wrong(*value))).flatten()?;
    Some(NotFinite { first, value: number(values[first]), count })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn each_type_tells_its_extremes_from_what_is_no_number() {
        let largest = Values::F32(Cow::Borrowed(&[f32::MAX, f32::MIN, -0.0, f32::from_bits(1)]));
        assert_eq!(largest.not_finite(), None);
        let values = Values::F32(Cow::Borrowed(&[1.0, f32::NEG_INFINITY, f32::NAN]));
        assert_eq!(values.not_finite(), Some(NotFinite { first: 1, value: f32::NEG_INFINITY, count: 2 }));
        let halves = [bf16::MAX, bf16::MIN, bf16::INFINITY].map(bf16::to_bits);
        let found = Values::Bf16(Cow::Borrowed(&halves)).not_finite().expect("one");
        assert_eq!((found.first, found.value, found.count), (2, f32::INFINITY, 1));
        let halves = [f16::MAX, f16::NAN, f16::MIN].map(f16::to_bits);
        let found = Values::F16(Cow::Borrowed(&halves)).not_finite().expect("one");
        assert!(found.first == 1 && found.value.is_nan() && found.count == 1);
    }
}
