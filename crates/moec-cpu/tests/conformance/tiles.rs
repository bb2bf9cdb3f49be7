//! Many rows through matrix tiles: what is left of tiles at every edge, and that they are used at all.

use moec_cpu::Level;
use moec_plan::{Format, Gemm, Layout, Rows, StepKind};
use moec_types::DType;

use crate::{
    PassInput, amx,
    build::{Building, add, arg},
    check,
    host::{Library, Session, has_dots},
};

/// Rows times `branches` matrices, added up.
fn product(k: u64, n: u64, branches: u32, storage: Format) -> Building {
    let mut b = Building::new(k + n);
    let a = b.input(DType::F32, Rows::Tokens, k);
    let weights = b.param(Layout::Panels { k, n, branches }, storage, 1, 1);
    let out = b.output(DType::F32, Rows::Tokens, n);
    let epilogue = (1..branches as usize).fold(arg(0), |sum, at| add(sum, arg(at)));
    let (batch, extras, group) = (1, vec![], None);
    b.step(StepKind::Gemm(Gemm { rows: Rows::Tokens, batch, a, weights, epilogue, extras, out, group }));
    b
}

fn rows(b: &mut Building, k: u64, tokens: u64) -> PassInput {
    PassInput { tokens, first_output: 0, inputs: vec![b.values(tokens * k)] }
}

/// One row, a few, a tile and its neighbours, two, and more.
const ROWS: [u64; 8] = [1, 5, 16, 17, 32, 36, 37, 70];

/// Sums of integers are exact, and scales are multiplied in one order: tiles give the bits of the kernels for few rows.
#[test]
fn integers_have_the_same_bits_without_tiles() {
    if !has_dots() {
        return eprintln!("needs AVX-512 BF16 and VNNI");
    }
    for (storage, k, n, branches) in [
        (Format::Int8, 333, 39, 1),
        (Format::Int8, 128, 40, 3),
        (Format::Int4 { group: 32 }, 333, 39, 1),
        (Format::Int4 { group: 48 }, 200, 32, 2),
        (Format::Int4 { group: 128 }, 300, 80, 3),
    ] {
        let mut b = product(k, n, branches, storage);
        let passes: Vec<PassInput> = ROWS.iter().map(|tokens| rows(&mut b, k, *tokens)).collect();
        amx::prepare();
        let [with, without] = [Level::Amx, Level::Avx512Dot].map(|level| {
            let library = Library::new(&b.plan, level);
            let mut session = Session::new(&b.plan, &b.weights, 70, 256, 2);
            passes.iter().map(|pass| session.run(&library, &pass.inputs, pass.tokens, 0)).collect::<Vec<_>>()
        });
        for (tokens, (with, without)) in ROWS.iter().zip(with.iter().zip(&without)) {
            assert!(with == without, "{storage}, k {k}, n {n}, {branches} branches, {tokens} rows");
        }
    }
}

#[test]
fn pairs_at_the_edges_of_tiles() {
    for (k, n, branches) in [(94, 39, 3), (32, 48, 1), (66, 16, 2)] {
        let mut b = product(k, n, branches, Format::Pairs);
        let passes: Vec<PassInput> = ROWS.iter().map(|tokens| rows(&mut b, k, *tokens)).collect();
        check(&b, &passes, 6e-5);
    }
}

#[test]
fn few_rows_do_without_tiles() {
    if !has_dots() || amx::prepare() {
        return eprintln!("needs AVX-512 BF16 and VNNI, and no AMX: instructions that are emulated are counted");
    }
    let mut b = product(64, 32, 1, Format::Int8);
    let [few, many] = [4, 16].map(|tokens| rows(&mut b, 64, tokens));
    let library = Library::new(&b.plan, Level::Amx);
    let mut session = Session::new(&b.plan, &b.weights, 16, 64, 1);
    let mut instructions = |pass: &PassInput| {
        let before = amx::executed();
        session.run(&library, &pass.inputs, pass.tokens, 0);
        amx::executed() - before
    };
    assert_eq!(instructions(&few), 0);
    // Configure, two sums: zeros, one of `a`, two of `b`, two products, two stores; release.
    assert_eq!(instructions(&many), 1 + 2 + 1 + 2 + 2 + 2 + 1);
}
