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
    builder::{Builder, Cmp, Elem, I64, ModuleBuilder, PTR, Ty, Val},
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
    pub ahead: Ahead,
}

/// How many bytes ahead of what is read the caches are told to fetch, where columns are panels of packed weights: ahead of the
/// even vectors and of the odd ones. Into the second level, whose queue is longer than the first's.
#[derive(Clone, Copy)]
pub struct Ahead(pub [Val; 2]);

impl Ahead {
    /// Not at all: what is being read is on its way.
    pub fn none(b: &Builder) -> Ahead {
        Ahead([b.i64(0); 2])
    }

    /// For one kernel alone, with few rows. The machine's own prefetching begins anew with every page.
    pub fn near(b: &Builder) -> Ahead {
        Ahead([b.i64(1024); 2])
    }

    /// For kernel number `at` of `count` that go through the same panels one after the other: while the first two have theirs
    /// from the second level, they have the next panels fetched, `bytes` further on; half each, if there are two.
    pub fn next(b: &Builder, at: Val, count: Val, bytes: i64) -> Ahead {
        let (bytes, none) = (b.i64(bytes), b.i64(0));
        let first = b.cmp(Cmp::Eq, at, b.i64(0));
        let odd = b.cmp(Cmp::Eq, at, b.min(b.sub(count, b.i64(1)), b.i64(1)));
        Ahead([b.select(first, bytes, none), b.select(odd, bytes, none)])
    }
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
        let Columns { ptr, k_bytes, group_bytes, ahead: Ahead([even, odd]) } = columns;
        b.call(&kernel.name(), &[rows, ptr, k_bytes, group_bytes, even, odd, k, tile], &[]);
    }

    /// Emits all that were called.
    pub fn emit(&self, module: &ModuleBuilder, level: Level) {
        self.emit_tiles(module);
        for kernel in self.used.borrow().iter() {
            module.function(&kernel.name(), &[PTR, PTR, I64, I64, I64, I64, I64, PTR], &[], |b, arguments| {
                let [rows, ptr, k_bytes, group_bytes, even, odd, k, tile] =
                    [0, 1, 2, 3, 4, 5, 6, 7].map(|at| arguments[at]);
                let columns = Columns { ptr, k_bytes, group_bytes, ahead: Ahead([even, odd]) };
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

/// The 64 bytes of each vector that stand `at` bytes behind where its panel begins.
fn vectors_at(b: &Builder, kernel: &Kernel, (starts, ahead): (&[Val], Ahead), at: Val) -> Vec<Val> {
    let load = |vector: u32| {
        let start = b.offset(starts[(vector / kernel.branches) as usize], at);
        let ptr = b.offset_by(start, 64 * i64::from(vector % kernel.branches));
        b.prefetch(b.offset(ptr, ahead.0[vector as usize % 2]));
        b.load(Ty::vector(Elem::I32, 16), ptr)
    };
    (0..kernel.vectors()).map(load).collect()
}

fn row_pointers(b: &Builder, kernel: &Kernel, rows: Val) -> Vec<Val> {
    (0..kernel.rows).map(|row| b.load(PTR, b.offset_by(rows, 8 * i64::from(row)))).collect()
}

/// Sums along `steps` steps of k, from `start` on. Each sum is one chain in the order of k, whatever the rows and columns
/// beside it: what a token gives does not depend on the tokens that it comes with. (Several chains for few sums, which hide
/// the latency of a multiply-add, gain nothing where weights come from memory.)
fn walk(b: &Builder, steps: Val, start: &[Val], step: &dyn Fn(&Builder, Val, &mut [Val])) -> Vec<Val> {
    // Unrolled a little, so that the loop itself costs nothing.
    let unrolled = if start.len() <= 8 { 4 } else { 2 };
    let turns = b.mul(b.div(steps, b.i64(unrolled)), b.i64(unrolled));
    let sums = b.for_loop([b.i64(0), turns, b.i64(unrolled)], start, |b, at, sums| {
        let mut sums = sums.to_vec();
        for part in 0..unrolled {
            step(b, b.add(at, b.i64(part)), &mut sums);
        }
        sums
    });
    b.for_loop([turns, steps, b.i64(1)], &sums, |b, at, sums| {
        let mut sums = sums.to_vec();
        step(b, at, &mut sums);
        sums
    })
}

/// Sums of `[rows, vectors]` to their places in the tile.
fn store_tile(b: &Builder, kernel: &Kernel, sums: &[Val], tile: Val) {
    for (at, sum) in sums.iter().enumerate() {
        let (row, vector) = (at as u32 / kernel.vectors(), at as u32 % kernel.vectors());
        b.store(*sum, b.offset_by(tile, kernel.tile_place(row, vector)));
    }
}

fn body(b: &Builder, level: Level, (kernel, storage): (Kernel, DType), rows: Val, columns: Columns, k: Val, tile: Val) {
    let Kernel { branches, lanes, .. } = kernel;
    let vectors = kernel.vectors() as usize;
    let pointers = row_pointers(b, &kernel, rows);
    let starts = group_starts(b, &kernel, columns);
    let branch_bytes = i64::from(lanes) * storage.bytes() as i64;
    let zeros = vec![b.float(Ty::vector(Elem::F32, lanes), 0.0); kernel.rows as usize * vectors];
    let sums = walk(b, k, &zeros, &|b, at, sums| {
        let shift = b.mul(at, columns.k_bytes);
        let group = |start: &Val| {
            let ptr = b.offset(*start, shift);
            let branch = |branch: u32| b.offset_by(ptr, branch_bytes * i64::from(branch));
            (0..branches).map(|at| memory::load(b, level, storage, branch(at), lanes)).collect::<Vec<_>>()
        };
        let weights: Vec<Val> = starts.iter().flat_map(group).collect();
        for (row, pointer) in pointers.iter().enumerate() {
            let a = b.splat(b.load(Ty::scalar(Elem::F32), b.offset(*pointer, b.shl(at, 2))), lanes);
            for (sum, weight) in sums[row * vectors..].iter_mut().zip(&weights) {
                *sum = b.mul_add(a, *weight, *sum);
            }
        }
    });
    store_tile(b, &kernel, &sums, tile);
}
