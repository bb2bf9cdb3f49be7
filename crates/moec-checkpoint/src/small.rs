//! Numbers of 4 and 8 bits, as the Open Compute Project's formats define them.

/// A sign, 4 bits of exponent (bias 7), 3 of fraction; all ones is NaN, and there is no infinity.
pub fn f8e4m3(byte: u8) -> f32 {
    let (exponent, fraction) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * power_of_two(-9),
        _ => (8.0 + fraction) * power_of_two(exponent - 10),
    };
    if byte & 128 == 0 { size } else { -size }
}

/// A sign, 2 bits of exponent (bias 1), 1 of fraction: the low 4 bits of a byte.
pub fn f4e2m1(half: u8) -> f32 {
    const SIZES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let size = SIZES[usize::from(half & 7)];
    if half & 8 == 0 { size } else { -size }
}

/// 2 ^ (byte - 127); 255 is NaN.
pub fn e8m0(byte: u8) -> f32 {
    if byte == 255 { f32::NAN } else { power_of_two(i32::from(byte) - 127) }
}

/// Of an exponent from -127 to 127.
fn power_of_two(exponent: i32) -> f32 {
    2f32.powi(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The extremes that the formats' documents print.
    #[test]
    fn numbers_are_those_of_the_formats() {
        assert_eq!([0x7e, 0xfe, 0x08, 0x01, 0x38].map(f8e4m3), [448.0, -448.0, 0.015625, 0.001953125, 1.0]);
        assert!(f8e4m3(0x7f).is_nan() && f8e4m3(0xff).is_nan());
        assert_eq!([0x1, 0x7, 0xf, 0x2].map(f4e2m1), [0.5, 6.0, -6.0, 1.0]);
        assert_eq!([127, 128, 0, 254].map(e8m0), [1.0, 2.0, 2f32.powi(-127), 2f32.powi(127)]);
        assert!(e8m0(255).is_nan());
    }
}
