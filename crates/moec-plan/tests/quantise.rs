//! Codes and scales against NumPy (rounding to even, arithmetic in f32) and PyTorch's `float8_e4m3fn`, on 32 numbers of which
//! several stand on the middle between two codes of some format.

use moec_plan::{
    Format,
    quantise::{e2m1, e4m3, fp8, int4, int8, mxfp4, row, stored_column},
};

const VALUES: [f32; 32] = [
    -0.46875, 0.21875, -0.796875, 1.4375, -0.3125, -0.4375, 0.28125, 0.0, 1.375, -0.15625, -0.40625, 0.34375,
    -0.609375, 1.5, 0.0, -0.375, 0.40625, -0.515625, 1.625, 0.15625, -0.34375, 0.46875, -0.421875, 1.75, 0.3125,
    -0.3125, 0.53125, -0.328125, 1.875, 0.46875, -0.28125, 0.59375,
];

#[test]
fn integers() {
    let expected = [
        -32, 15, -54, 97, -21, -30, 19, 0, 93, -11, -28, 23, -41, 102, 0, -25, 28, -35, 110, 11, -23, 32, -29, 119, 21,
        -21, 36, -22, 127, 32, -19, 40,
    ];
    for found in [int8(&VALUES), row(&VALUES)] {
        assert_eq!((found.scale.to_bits(), &found.codes[..]), (0x3c71_e3c8, &expected[..]));
    }
    // Of the two scales (errors 0.1462 and 0.1766), the first.
    let found = int4(&VALUES);
    let expected = [
        2, -1, 3, -6, 1, 2, -1, 0, -6, 1, 2, -1, 3, -6, 0, 2, -2, 2, -7, -1, 1, -2, 2, -7, -1, 1, -2, 1, -8, -2, 1, -3,
    ];
    assert_eq!((found.scale.to_bits(), &found.codes[..]), (0xbe70_0000, &expected[..]));
}

#[test]
fn small_floats() {
    let found = mxfp4(&VALUES);
    let expected =
        [12, 2, 13, 7, 10, 12, 2, 0, 7, 9, 11, 3, 12, 7, 0, 11, 3, 12, 7, 1, 11, 4, 11, 7, 2, 10, 4, 11, 7, 4, 10, 4];
    assert_eq!((found.scale, &found.codes[..]), (0.25, &expected[..]));
    let found = fp8(&VALUES);
    let expected = [
        238, 101, 244, 123, 233, 237, 104, 0, 122, 225, 236, 106, 241, 123, 0, 235, 108, 239, 124, 97, 234, 110, 237,
        125, 105, 233, 112, 234, 126, 110, 232, 113,
    ];
    assert_eq!((found.scale.to_bits(), &found.codes[..]), (0x3b89_2492, &expected[..]));
}

/// What is of a format already stays as it is, whatever the largest of the group.
#[test]
fn numbers_of_a_format_stay() {
    for most in 0..8u8 {
        let group: Vec<f32> = (0..32).map(|at| e2m1((at % (most + 1)) | (at & 8)) * 0.125).collect();
        let stored = stored_column(Format::Mxfp4, &group);
        assert!(stored.iter().zip(&group).all(|(stored, value)| *stored == f64::from(*value)), "up to code {most}");
    }
    // With 448 among them the scale is 1.
    let group: Vec<f32> = (0..=0x7e).map(e4m3).collect();
    assert_eq!(fp8(&group).codes, (0..=0x7e).collect::<Vec<u8>>());
}

#[test]
fn zeros_and_what_is_no_number() {
    for format in Format::ALL {
        assert!(stored_column(format, &[0.0; 40]).iter().all(|value| *value == 0.0), "{format}");
    }
    assert_eq!((row(&[0.0; 3]).scale, row(&[0.0; 3]).codes), (0.0, vec![0; 3]));
    assert!(row(&[1.0, f32::NAN]).scale.is_nan(), "a row with NaN gives NaN");
}
