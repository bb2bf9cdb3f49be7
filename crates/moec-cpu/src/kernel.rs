//! The inner kernel of everything that multiplies: a block of rows times some columns, sums in registers.
//!
//! `tile[r, c] = sum over k of a[r][k] * w[k, c]` for a few rows `r` (through pointers, so that rows may be gathered) and a
//! few vectors of columns. GEMMs call it on panels of packed weights, attention on panels of keys and rows of values. It is
//! a function of its own, made once for each shape that is used: code size does not grow with the number of GEMMs.
//! Epilogues read the tile, which is in L1 by then.

mod integers;
mod pairs;
mod small;
mod tiles;

use std::{cell::RefCell, collections::BTreeSet};

use moec_plan::Format;
use moec_types::DType;

use crate::{
    builder::{Builder, Elem, I64, ModuleBuilder, PTR, Ty, Val},
    level::Level,
    memory,
};

pub use tiles::{TileKernel, TileOperands, kernel_config, rows_of_weights, widened_tiles};

/// The shape of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel {
    pub rows: u32,
    /// Vectors of columns `group_bytes` apart.
    pub groups: u32,
    /// Vectors of columns that stand side by side within a group.
    pub branches: u32,
    /// Groups from one branch to the next in the tile: the kernel may fill a part of it.
    pub wide: u32,
    /// Columns of a vector: 16, or fewer for what is left over.
    pub lanes: u32,
    pub storage: Format,
}

/// The kernels that the code so far calls.
#[derive(Default)]
pub struct Kernels {
    used: RefCell<BTreeSet<Kernel>>,
    tiles: RefCell<BTreeSet<TileKernel>>,
}

/// Where the columns of a kernel are.
#[derive(Clone, Copy)]
pub struct Columns {
    pub ptr: Val,
    /// Bytes from one k to the next; of what is not stored each by itself, the bytes of a panel's scales.
    pub k_bytes: Val,
    /// Bytes from one group to the next.
    pub group_bytes: Val,
}

impl Kernel {
    fn name(&self) -> String {
        let Kernel { rows, groups, branches, wide, lanes, storage } = *self;
        let parts = [rows, groups, branches, wide, lanes].map(|part| part.to_string()).join("_");
        ["kernel_", &parts, "_", &storage.to_string()].concat()
    }

    /// Vectors of columns in each row.
    fn vectors(&self) -> u32 {
        self.groups * self.branches
    }

    /// f32 elements of a row of the tile: `[branches, wide, lanes]`.
    pub fn tile_row(&self) -> u64 {
        u64::from(self.wide * self.branches * self.lanes)
    }

    /// Bytes into the tile of one vector of sums; `vector` counts `[groups, branches]`.
    fn tile_place(&self, row: u32, vector: u32) -> i64 {
        let (group, branch) = (vector / self.branches, vector % self.branches);
        4 * (u64::from(row) * self.tile_row() + u64::from((branch * self.wide + group) * self.lanes)) as i64
    }

    /// So many rows at once (a power of two), given the vectors of one row.
    pub fn most_rows(level: Level, vectors: u32) -> u32 {
        let most = (level.accumulators() / vectors).clamp(1, 8);
        1 << most.ilog2()
    }
}

impl Kernels {
    /// Emits a call: `rows` is an array of pointers to the rows of `a` (f32, or as `gemm::rows` makes them), `tile` takes the
    /// sums. `k` counts what fills up the last group.
    pub fn call(&self, b: &Builder, kernel: Kernel, rows: Val, columns: Columns, k: Val, tile: Val) {
        self.used.borrow_mut().insert(kernel);
        b.call(&kernel.name(), &[rows, columns.ptr, columns.k_bytes, columns.group_bytes, k, tile], &[]);
    }

    /// Emits all that were called.
    pub fn emit(&self, module: &ModuleBuilder, level: Level) {
        self.emit_tiles(module);
        for kernel in self.used.borrow().iter() {
            module.function(&kernel.name(), &[PTR, PTR, I64, I64, I64, PTR], &[], |b, arguments| {
                let [rows, ptr, k_bytes, group_bytes, k, tile] = [0, 1, 2, 3, 4, 5].map(|at| arguments[at]);
                let columns = Columns { ptr, k_bytes, group_bytes };
                match kernel.storage {
                    Format::Each(dtype) => body(b, level, (*kernel, dtype), rows, columns, k, tile),
                    Format::Pairs => pairs::body(b, level, kernel, rows, columns, k, tile),
                    Format::Int8 | Format::Int4 { .. } => integers::body(b, level, kernel, rows, columns, k, tile),
                    Format::Mxfp4 | Format::Fp8 { .. } => small::body(b, level, kernel, rows, columns, k, tile),
                }
                Vec::new()
            });
        }
    }
}

/// Where each group of columns begins.
fn group_starts(b: &Builder, kernel: &Kernel, columns: Columns) -> Vec<Val> {
    let start = |group| b.offset(columns.ptr, b.mul(columns.group_bytes, b.i64(i64::from(group))));
    (0..kernel.groups).map(start).collect()
}

fn row_pointers(b: &Builder, kernel: &Kernel, rows: Val) -> Vec<Val> {
    (0..kernel.rows).map(|row| b.load(PTR, b.offset_by(rows, 8 * i64::from(row)))).collect()
}

fn body(b: &Builder, level: Level, (kernel, storage): (Kernel, DType), rows: Val, columns: Columns, k: Val, tile: Val) {
    let Kernel { groups, branches, lanes, .. } = kernel;
    let vectors = groups * branches;
    // Few rows: several k at once, each with its own sums.
    let ways = (level.chains() / (kernel.rows * vectors)).max(1);
    let pointers = row_pointers(b, &kernel, rows);
    let starts = group_starts(b, &kernel, columns);
    let branch_bytes = i64::from(lanes) * storage.bytes() as i64;
    let sum_ty = Ty::vector(Elem::F32, lanes);
    let zero = b.float(sum_ty, 0.0);

    // One k for each of `ways`: sums are [way, row, group, branch].
    let step = |b: &Builder, at: Val, sums: &[Val], ways: u32| {
        let mut next = sums.to_vec();
        for way in 0..ways {
            let at = b.add(at, b.i64(i64::from(way)));
            let shift = b.mul(at, columns.k_bytes);
            let weights: Vec<Val> = starts
                .iter()
                .flat_map(|start| {
                    let ptr = b.offset(*start, shift);
                    let branch = |branch: u32| b.offset_by(ptr, branch_bytes * i64::from(branch));
                    (0..branches).map(|at| memory::load(b, level, storage, branch(at), lanes)).collect::<Vec<_>>()
                })
                .collect();
            for row in 0..kernel.rows {
                let a = b.load(Ty::scalar(Elem::F32), b.offset(pointers[row as usize], b.shl(at, 2)));
                let a = b.splat(a, lanes);
                for (vector, weight) in weights.iter().enumerate() {
                    let at = ((way * kernel.rows + row) * vectors) as usize + vector;
                    next[at] = b.mul_add(a, *weight, next[at]);
                }
            }
        }
        next
    };
    let count = (kernel.rows * vectors) as usize;
    // k by k unrolled a little, so that the loop itself costs nothing.
    let unrolled = ways.max(if count <= 8 { 4 } else { 2 });
    let turns = b.mul(b.div(k, b.i64(i64::from(unrolled))), b.i64(i64::from(unrolled)));
    let start = vec![zero; count * ways as usize];
    let sums = b.for_loop([b.i64(0), turns, b.i64(i64::from(unrolled))], &start, |b, at, sums| {
        let mut sums = sums.to_vec();
        for part in 0..unrolled / ways {
            sums = step(b, b.add(at, b.i64(i64::from(part * ways))), &sums, ways);
        }
        sums
    });
    let rest = b.for_loop([turns, k, b.i64(1)], &sums[..count], |b, at, sums| step(b, at, sums, 1));
    for at in 0..count {
        let others = (1..ways as usize).map(|way| sums[way * count + at]);
        let sum = others.fold(rest[at], |sum, other| b.add(sum, other));
        let place = kernel.tile_place(at as u32 / vectors, at as u32 % vectors);
        b.store(sum, b.offset_by(tile, place));
    }
}
