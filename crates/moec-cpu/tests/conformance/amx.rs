//! Machine code with tiles, on any machine: natively where there is AMX, else emulated. The emulator has its tests here, as
//! hand-written instructions; where there is AMX they ask the processor the same.

mod emulator;

use std::{
    arch::{asm, x86_64::__cpuid_count},
    sync::OnceLock,
};

pub use emulator::executed;

/// Gives this process tiles. Natively?
pub fn prepare() -> bool {
    static NATIVE: OnceLock<bool> = OnceLock::new();
    *NATIVE.get_or_init(|| {
        const TILES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
        let known = __cpuid_count(7, 0).edx & TILES == TILES;
        // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA.
        let native = known && unsafe { libc::syscall(libc::SYS_arch_prctl, 0x1023, 18) } == 0;
        if !native {
            emulator::install();
        }
        native
    })
}

/// Palette 1 and the sizes of tiles: rows, bytes of a row.
fn config(sizes: &[(u8, u8)]) -> [u8; 64] {
    let mut config = [0; 64];
    config[0] = 1;
    for (tile, (rows, bytes)) in sizes.iter().enumerate() {
        config[16 + 2 * tile] = *bytes;
        config[48 + tile] = *rows;
    }
    config
}

fn random(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// One product of tiles by instructions that name other tiles, registers and ways of addressing each time: `c` is 5 rows of
/// 12 bytes, `a` 5 of 28, `b` 7 of 12, rows 100 bytes apart.
macro_rules! product {
    ($name:literal, $a:expr, $b:expr, $c:expr) => {{
        prepare();
        let config = config(&[(1, 4), (5, 12), (0, 0), (0, 0), (0, 0), (5, 28), (7, 12), (0, 0)]);
        let (a, b, mut c): (Vec<u8>, Vec<u8>, Vec<u8>) = ($a, $b, $c);
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "tilezero tmm0",
                "tileloadd tmm5, [{a} + r12]",
                "tileloaddt1 tmm6, [r13 + 4*{quarter} - 128]",
                "tileloadd tmm1, [{c} + 2*{half} + 1000]",
                concat!($name, " tmm1, tmm5, tmm6"),
                "tilestored [{c} + 2*{half} + 1000], tmm1",
                "tilerelease",
                config = in(reg) &config,
                a = in(reg) a.as_ptr(),
                in("r12") 100usize,
                in("r13") b.as_ptr().wrapping_add(128),
                quarter = in(reg) 25usize,
                c = in(reg) c.as_mut_ptr().wrapping_sub(1000),
                half = in(reg) 50usize,
            );
        }
        c
    }};
}

const PRODUCT: [usize; 4] = [5, 3, 7, 100];

#[test]
fn tiles_of_bytes() {
    let [rows, columns, depth, apart] = PRODUCT;
    let [a, b] = [1, 2].map(|seed| random(apart * 8, seed));
    let c: Vec<u8> = random(apart * 8, 3);
    let signed = |byte: u8| i64::from(byte as i8);
    let plain = |byte: u8| i64::from(byte);
    let (ab, bb, cb) = (a.clone(), b.clone(), c.clone());
    let expected = |of_a: fn(u8) -> i64, of_b: fn(u8) -> i64| {
        let mut expected = cb.clone();
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let place = row * apart + 4 * column;
            let products =
                (0..4 * depth).map(|k| of_a(ab[row * apart + k]) * of_b(bb[k / 4 * apart + 4 * column + k % 4]));
            let sum = i64::from(i32::from_le_bytes(cb[place..place + 4].try_into().unwrap())) + products.sum::<i64>();
            expected[place..place + 4].copy_from_slice(&(sum as i32).to_le_bytes());
        }
        expected
    };
    assert_eq!(product!("tdpbssd", a.clone(), b.clone(), c.clone()), expected(signed, signed));
    assert_eq!(product!("tdpbsud", a.clone(), b.clone(), c.clone()), expected(signed, plain));
    assert_eq!(product!("tdpbusd", a.clone(), b.clone(), c.clone()), expected(plain, signed));
    assert_eq!(product!("tdpbuud", a.clone(), b.clone(), c.clone()), expected(plain, plain));
}

/// Pairs of bf16, the upper halves of f32, where the order and the rounding show.
#[test]
fn tiles_of_pairs() {
    let [rows, columns, depth, apart] = PRODUCT;
    let put = |bytes: &mut [u8], at: usize, value: f32| {
        assert_eq!(value.to_bits() & 0xffff, 0, "{value} is no bf16");
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes()[2..]);
    };
    // For each row of a: its 14 elements, the sum before, and after; b is ones, but for the last column: minus ones.
    let (big, tiny, one) = (2f32.powi(24), 2f32.powi(-130), 1.0);
    let zeros = [0.0f32; 14];
    let with = |values: &[(usize, f32)]| {
        let mut row = zeros;
        values.iter().for_each(|(at, value)| row[*at] = *value);
        row
    };
    let cases: [([f32; 14], f32, f32); 5] = [
        // Firsts and seconds are added up apart: one after the other the ones would be lost beside 2^24.
        (with(&[(0, big), (1, one), (3, one), (5, one), (7, one)]), 0.0, big + 4.0),
        // Within the firsts they are lost, each a tie that goes to even.
        (with(&[(0, big), (2, one), (4, one)]), 0.0, big),
        // The sum of the products goes to the sum before, not each by itself.
        (with(&[(0, one), (1, one)]), big, big + 2.0),
        // What is below the normal numbers counts as zero, before and after.
        (with(&[(0, tiny)]), f32::from_bits(1), 0.0),
        (with(&[(0, f32::INFINITY)]), one, f32::INFINITY),
    ];
    let (mut a, mut b, mut c) = (vec![0; apart * 8], vec![0; apart * 8], vec![0; apart * 8]);
    for k in 0..2 * depth {
        (0..columns).for_each(|n| put(&mut b, k / 2 * apart + 4 * n + 2 * (k % 2), if n == 2 { -1.0 } else { 1.0 }));
    }
    for (row, (values, sum, _)) in cases.iter().enumerate() {
        values.iter().enumerate().for_each(|(k, value)| put(&mut a, row * apart + 2 * k, *value));
        for column in 0..columns {
            let sum = if column == 2 { -sum } else { *sum };
            c[row * apart + 4 * column..][..4].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let found = product!("tdpbf16ps", a, b, c);
    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        let found = f32::from_le_bytes(found[row * apart + 4 * column..][..4].try_into().unwrap());
        let expected = if column == 2 { -cases[row].2 } else { cases[row].2 };
        assert_eq!(found, expected, "row {row}, column {column}");
    }
}

/// What is loaded into a part of a tile leaves zeros in the rest; the configuration reads back; nothing else changes.
#[test]
fn tiles_leave_everything_else_alone() {
    prepare();
    let first = config(&[(3, 8)]);
    let second = [0xffu8; 64];
    let mut read_back = [0xffu8; 64];
    let from: Vec<u8> = (0..64).collect();
    let mut to = [0xffu8; 64];
    let mut vector = [0u8; 16];
    let (mut carry, mut kept): (u8, u64);
    unsafe {
        asm!(
            "ldtilecfg [{first}]",
            "sttilecfg [{read_back}]",
            "movdqu xmm3, [{second}]",
            "mov rax, 0x123456789",
            "stc",
            "tileloadd tmm0, [{from}]",
            "tilestored [{to} + 1*{sixteen}], tmm0",
            "setc {carry}",
            "movdqu [{vector}], xmm3",
            "tilerelease",
            first = in(reg) &first,
            read_back = in(reg) &mut read_back,
            second = in(reg) &second,
            from = in(reg) from.as_ptr(),
            to = in(reg) &mut to,
            sixteen = in(reg) 16usize,
            vector = in(reg) &mut vector,
            carry = out(reg_byte) carry,
            out("rax") kept,
            out("xmm3") _,
        );
    }
    assert_eq!(read_back, first);
    assert_eq!((carry, kept, vector), (1, 0x1_2345_6789, [0xff; 16]));
    // Without a stride all rows are the first.
    let expected: Vec<u8> = (0..64).map(|at| if at % 16 < 8 && at < 48 { at as u8 % 16 } else { 0xff }).collect();
    assert_eq!(to.to_vec(), expected);
}
