//! Multiply-adds of matrix tiles (AMX), on tile registers alone.

use std::arch::{asm, x86_64::__cpuid_count};

use super::together;

/// Turns of the loop, and products of tiles in each: four sums hide how long one takes.
const TURNS: usize = 20_000;
const PRODUCTS: usize = 4;
/// Multiplications and additions of one product: 16 by 16 sums, of 32 pairs' halves or 64 bytes.
const PAIRS: usize = 2 * 16 * 16 * 32;
const BYTES: usize = 2 * 16 * 16 * 64;

/// Eight tiles of 16 rows of 64 bytes, as the instruction wants to be told.
#[repr(C, align(64))]
struct Config([u8; 64]);

impl Config {
    fn new() -> Config {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        bytes[16..32].as_chunks_mut::<2>().0.fill(64u16.to_le_bytes());
        bytes[48..56].fill(16);
        Config(bytes)
    }
}

/// Whether the machine has tiles for both, and the system keeps them for this process (it must be asked for).
pub fn usable() -> bool {
    const TILES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    if __cpuid_count(0, 0).eax < 7 || __cpuid_count(7, 0).edx & TILES != TILES {
        return false;
    }
    // SAFETY: a system call that takes two numbers.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
}

/// Of pairs of bf16, and of bytes; only where they are [`usable`].
pub fn rates(threads: usize) -> [f64; 2] {
    let rate =
        |operations: usize, run: fn()| (TURNS * PRODUCTS * operations * threads) as f64 / together(threads, &|_| run());
    [rate(PAIRS, pairs), rate(BYTES, bytes)]
}

/// A function that multiplies two tiles of zeros by two others, again and again.
macro_rules! products {
    ($name:ident, $instruction:literal) => {
        fn $name() {
            let config = Config::new();
            // SAFETY: tiles are usable, and nothing else in this thread uses them.
            unsafe {
                asm!(
                    "ldtilecfg [{config}]",
                    "2:",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    concat!($instruction, " tmm1, tmm4, tmm7"),
                    concat!($instruction, " tmm2, tmm5, tmm6"),
                    concat!($instruction, " tmm3, tmm5, tmm7"),
                    "dec {turns}",
                    "jnz 2b",
                    "tilerelease",
                    config = in(reg) &config,
                    turns = inout(reg) TURNS => _,
                    options(nostack),
                );
            }
        }
    };
}

products!(pairs, "tdpbf16ps");
products!(bytes, "tdpbusd");
