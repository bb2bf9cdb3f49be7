//! The AMX instructions on machines without them: each raises SIGILL, and the handler does what it is documented to do.
//!
//! So the very machine code that other machines run is tested on any. Tiles are the thread's own. What the documentation has
//! undefined (tiles not configured, sizes that do not fit, one tile twice) stays SIGILL and ends the process. Source of the
//! semantics: Intel's Software Developer's Manual, volume 2, from LDTILECFG on.

use std::{
    cell::{Cell, UnsafeCell},
    ffi::c_void,
};

/// Rows of a tile, and bytes of a row.
const ROWS: usize = 16;
const ROW_BYTES: usize = 64;

/// Tiles and their configuration.
struct Tiles {
    /// As LDTILECFG reads it: palette, start row, bytes of each tile's rows from 16 on, rows of each from 48 on.
    config: [u8; 64],
    rows: [[[u8; ROW_BYTES]; ROWS]; 8],
}

const INITIAL: Tiles = Tiles { config: [0; 64], rows: [[[0; ROW_BYTES]; ROWS]; 8] };

thread_local! {
    // Made with the thread: nothing is allocated in the handler.
    static TILES: UnsafeCell<Tiles> = const { UnsafeCell::new(INITIAL) };
    static EXECUTED: Cell<u64> = const { Cell::new(0) };
}

/// Instructions that this thread had executed here.
pub fn executed() -> u64 {
    EXECUTED.get()
}

/// From now on the process has tiles.
pub fn install() {
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
    }
}

extern "C" fn handle(signal: i32, _: *mut libc::siginfo_t, context: *mut c_void) {
    let context = unsafe { &mut *(context as *mut libc::ucontext_t) };
    let registers = &mut context.uc_mcontext.gregs;
    let done = TILES.with(|tiles| {
        let (instruction, next) = decode(registers)?;
        execute(unsafe { &mut *tiles.get() }, instruction)?;
        EXECUTED.set(EXECUTED.get() + 1);
        Some(next)
    });
    match done {
        Some(next) => registers[libc::REG_RIP as usize] = next as i64,
        // Raised again when it returns, for good.
        None => {
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}

/// An instruction with its addresses.
#[derive(Clone, Copy)]
enum Instruction {
    LoadConfig(usize),
    StoreConfig(usize),
    Release,
    Zero(usize),
    Load { tile: usize, from: usize, stride: usize },
    Store { tile: usize, to: usize, stride: usize },
    Multiply { product: Product, sums: usize, a: usize, b: usize },
}

#[derive(Clone, Copy)]
enum Product {
    Bf16,
    Bytes { a_signed: bool, b_signed: bool },
}

/// Bytes of code, one at a time: what stands behind an instruction may not be there to read.
struct Code(usize);

impl Code {
    fn byte(&mut self) -> u8 {
        let byte = unsafe { *(self.0 as *const u8) };
        self.0 += 1;
        byte
    }

    fn displacement(&mut self, mode: u8) -> usize {
        match mode {
            0 => 0,
            1 => self.byte() as i8 as usize,
            _ => i32::from_le_bytes([0; 4].map(|_| self.byte())) as usize,
        }
    }
}

/// What stands where the registers point, and the address behind it.
fn decode(registers: &[i64; 23]) -> Option<(Instruction, usize)> {
    // The order of the numbers that instructions have.
    const NAMES: [i32; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    let register = |number: u8| registers[NAMES[usize::from(number)] as usize] as usize;
    let mut code = Code(registers[libc::REG_RIP as usize] as usize);
    // A VEX prefix of three bytes: opcode map 0F38, 128 bits, W 0.
    if code.byte() != 0xc4 {
        return None;
    }
    let (first, second, opcode) = (code.byte(), code.byte(), code.byte());
    if first & 0x1f != 2 || second & 0x84 != 0 {
        return None;
    }
    let (prefix, operand) = (second & 3, (second >> 3 & 15) ^ 15);
    let modrm = code.byte();
    let (mode, middle, low) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
    let extended = |bit: u8| if first >> bit & 1 == 0 { 8 } else { 0 };
    let is_tile = |number: u8| number < 8;
    if !is_tile(middle + extended(7)) || (opcode != 0x5c && opcode != 0x5e && operand != 0) {
        return None;
    }
    if mode == 3 {
        let instruction = match (opcode, prefix) {
            (0x49, 0) if middle == 0 && low == 0 => Instruction::Release,
            (0x49, 3) if low == 0 => Instruction::Zero(middle.into()),
            (0x5c, 2) => multiply(Product::Bf16, [middle, low, operand])?,
            (0x5e, prefix) => {
                let (a_signed, b_signed) = (prefix >= 2, prefix & 1 == 1);
                multiply(Product::Bytes { a_signed, b_signed }, [middle, low, operand])?
            }
            _ => return None,
        };
        return (extended(5) == 0).then_some((instruction, code.0));
    }
    let (mut address, mut stride) = (0, 0);
    let with_index = low == 4;
    if with_index {
        let sib = code.byte();
        let (scale, index, base) = (sib >> 6, (sib >> 3 & 7) + extended(6), sib & 7);
        if index != 4 {
            stride = register(index) << scale;
        }
        address += if base == 5 && mode == 0 { code.displacement(2) } else { register(base + extended(5)) };
        address = address.wrapping_add(code.displacement(mode));
    } else if low == 5 && mode == 0 {
        let displacement = code.displacement(2);
        address = code.0.wrapping_add(displacement);
    } else {
        address = register(low + extended(5)).wrapping_add(code.displacement(mode));
    }
    let instruction = match (opcode, prefix) {
        (0x49, 0) if middle == 0 => Instruction::LoadConfig(address.wrapping_add(stride)),
        (0x49, 1) if middle == 0 => Instruction::StoreConfig(address.wrapping_add(stride)),
        (0x4b, 1 | 3) if with_index => Instruction::Load { tile: middle.into(), from: address, stride },
        (0x4b, 2) if with_index => Instruction::Store { tile: middle.into(), to: address, stride },
        _ => return None,
    };
    Some((instruction, code.0))
}

fn multiply(product: Product, [sums, a, b]: [u8; 3]) -> Option<Instruction> {
    let differ = sums != a && sums != b && a != b && b < 8;
    let [sums, a, b] = [sums, a, b].map(usize::from);
    differ.then_some(Instruction::Multiply { product, sums, a, b })
}

/// `None` where it is undefined.
fn execute(tiles: &mut Tiles, instruction: Instruction) -> Option<()> {
    match instruction {
        Instruction::LoadConfig(from) => {
            let config = unsafe { std::ptr::read_unaligned(from as *const [u8; 64]) };
            *tiles = Tiles { config: configured(config)?, ..INITIAL };
        }
        Instruction::StoreConfig(to) => unsafe { std::ptr::write_unaligned(to as *mut [u8; 64], tiles.config) },
        Instruction::Release => *tiles = INITIAL,
        Instruction::Zero(tile) => {
            tiles.size(tile)?;
            tiles.rows[tile] = INITIAL.rows[0];
            tiles.config[1] = 0;
        }
        Instruction::Load { tile, from, stride } => {
            let (rows, bytes) = tiles.size(tile)?;
            let mut loaded = INITIAL.rows[0];
            for (at, row) in loaded.iter_mut().enumerate().take(rows) {
                let from = from.wrapping_add(stride.wrapping_mul(at)) as *const u8;
                unsafe { std::ptr::copy_nonoverlapping(from, row.as_mut_ptr(), bytes) };
            }
            tiles.rows[tile] = loaded;
            tiles.config[1] = 0;
        }
        Instruction::Store { tile, to, stride } => {
            let (rows, bytes) = tiles.size(tile)?;
            for (at, row) in tiles.rows[tile].iter().enumerate().take(rows) {
                let to = to.wrapping_add(stride.wrapping_mul(at)) as *mut u8;
                unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), to, bytes) };
            }
            tiles.config[1] = 0;
        }
        Instruction::Multiply { product, sums, a, b } => {
            let [size, of_a, of_b] = [tiles.size(sums)?, tiles.size(a)?, tiles.size(b)?];
            let fits = size.0 == of_a.0 && of_a.1 == of_b.0 * 4 && size.1 == of_b.1 && size.1 % 4 == 0;
            if !fits {
                return None;
            }
            let (a, b) = (tiles.rows[a], tiles.rows[b]);
            let mut made = INITIAL.rows[0];
            for row in 0..size.0 {
                for column in 0..size.1 / 4 {
                    let four = |row: &[u8; 64], at: usize| <[u8; 4]>::try_from(&row[4 * at..4 * at + 4]).expect("four");
                    let words = (0..of_b.0).map(|k| (four(&a[row], k), four(&b[k], column)));
                    let sum = four(&tiles.rows[sums][row], column);
                    let sum = match product {
                        Product::Bf16 => pairs(f32::from_le_bytes(sum), words).to_le_bytes(),
                        Product::Bytes { a_signed, b_signed } => {
                            fours(i32::from_le_bytes(sum), words, a_signed, b_signed).to_le_bytes()
                        }
                    };
                    made[row][4 * column..4 * column + 4].copy_from_slice(&sum);
                }
            }
            tiles.rows[sums] = made;
            tiles.config[1] = 0;
        }
    }
    Some(())
}

impl Tiles {
    /// Rows of a tile and bytes of a row, where there are any.
    fn size(&self, tile: usize) -> Option<(usize, usize)> {
        let bytes = u16::from_le_bytes([self.config[16 + 2 * tile], self.config[17 + 2 * tile]]);
        let size = (usize::from(self.config[48 + tile]), usize::from(bytes));
        (self.config[0] == 1 && size.0 > 0).then_some(size)
    }
}

/// What the configuration becomes, where it may be so. Palette 0 is as a release.
fn configured(config: [u8; 64]) -> Option<[u8; 64]> {
    if config[0] == 0 {
        return Some(INITIAL.config);
    }
    let unused = config[2..16].iter().chain(&config[32..48]).chain(&config[56..]).all(|byte| *byte == 0);
    let fits = |tile: usize| {
        let bytes = u16::from_le_bytes([config[16 + 2 * tile], config[17 + 2 * tile]]);
        bytes <= 64 && config[48 + tile] <= 16 && (bytes == 0) == (config[48 + tile] == 0)
    };
    (config[0] == 1 && unused && (0..8).all(fits)).then_some(config)
}

/// Products of pairs of bf16: the first of all pairs are added up and the second, then both together to the sum. To nearest,
/// ties to even, products unrounded; numbers below the normal ones are zeros.
fn pairs(sum: f32, words: impl Iterator<Item = ([u8; 4], [u8; 4])>) -> f32 {
    fn flushed(value: f32) -> f32 {
        if value.is_subnormal() { value.signum() * 0.0 } else { value }
    }
    let float = |bytes: [u8; 4], at: usize| flushed(f32::from_le_bytes([0, 0, bytes[2 * at], bytes[2 * at + 1]]));
    let both =
        words.fold([0.0f32; 2], |both, (a, b)| [0, 1].map(|at| flushed(float(a, at).mul_add(float(b, at), both[at]))));
    flushed(flushed(sum) + flushed(both[0] + both[1]))
}

/// Products of fours of bytes. The sum wraps around.
fn fours(sum: i32, words: impl Iterator<Item = ([u8; 4], [u8; 4])>, a_signed: bool, b_signed: bool) -> i32 {
    let widened = |byte: u8, signed: bool| if signed { i32::from(byte as i8) } else { i32::from(byte) };
    words.fold(sum, |sum, (a, b)| {
        (0..4).fold(sum, |sum, at| sum.wrapping_add(widened(a[at], a_signed) * widened(b[at], b_signed)))
    })
}
