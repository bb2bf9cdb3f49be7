//! Plain GEMMs: odd sizes, branches, storage types, extras.

use moec_plan::{Format, Gemm, Layout, Rows, Source, StepKind};
use moec_types::DType;

use crate::{
    PassInput,
    build::{Building, add, arg, mul, row, silu, view},
    check,
};

fn one(k: u64, n: u64, branches: u32, storage: DType, tokens: &[u64]) {
    one_within(k, n, branches, storage.into(), tokens, 1e-5);
}

fn one_within(k: u64, n: u64, branches: u32, storage: Format, tokens: &[u64], tolerance: f64) {
    let mut b = Building::new(k * 31 + n);
    let x = b.input(DType::F32, Rows::Tokens, k);
    let residual = b.input(DType::F32, Rows::Tokens, n);
    let weights = b.param(Layout::Panels { k, n, branches }, storage, 1, 1);
    let bias = b.param(Layout::Plain { elements: n }, DType::F32, 1, 1);
    let out = b.output(DType::F32, Rows::Tokens, n);
    let product = (1..branches as usize).fold(silu(arg(0)), |product, at| mul(product, arg(at)));
    let extra = branches as usize;
    b.step(StepKind::Gemm(Gemm {
        rows: Rows::Outputs,
        batch: 1,
        a: x,
        weights,
        epilogue: add(add(product, arg(extra)), arg(extra + 1)),
        extras: vec![view(Source::Param(bias), 0, &[1]), row(residual, &[1])],
        out,
        group: None,
    }));
    let passes: Vec<PassInput> = tokens
        .iter()
        .map(|tokens| PassInput {
            tokens: *tokens,
            first_output: tokens / 3,
            inputs: vec![b.values(tokens * k), b.values(tokens * n)],
        })
        .collect();
    check(&b, &passes, tolerance);
}

#[test]
fn sizes_and_storage() {
    one(64, 64, 1, DType::F32, &[1, 2, 3, 7, 23]);
    one(33, 23, 1, DType::F32, &[1, 5]);
    one(7, 1, 1, DType::Bf16, &[1, 9]);
    one(1, 16, 1, DType::F32, &[2]);
    one(48, 80, 2, DType::Bf16, &[1, 4, 130]);
    one(19, 40, 2, DType::F32, &[1, 13]);
    one(40, 33, 3, DType::F16, &[1, 6]);
    one(257, 49, 1, DType::F16, &[1, 16]);
}

/// Every format gives what the interpreter gives, which multiplies in f64 the numbers that the codes stand for. Products of
/// codes are exact in f32 or i32; what is left is the rounding of f32 sums, and of the two scales: for k products of at
/// most 1, of 1/4 on average, about sqrt(k) * 2^-24 * k / 4, which the product of two branches doubles. That is 6e-5 for k = 333.
#[test]
fn packed_formats() {
    for format in Format::ALL {
        one_within(333, 39, 1, format, &[1, 2, 7], 6e-5);
        one_within(160, 144, 2, format, &[1, 4, 300], 6e-5);
    }
}

#[test]
fn in_place_and_from_scratch() {
    let mut b = Building::new(5);
    let x = b.input(DType::F32, Rows::Tokens, 24);
    let first = b.param(Layout::Panels { k: 24, n: 40, branches: 1 }, DType::F32, 1, 1);
    let second = b.param(Layout::Panels { k: 40, n: 40, branches: 1 }, DType::F32, 1, 1);
    let hidden = b.workspace(DType::F32, Rows::Tokens, 40);
    let out = b.output(DType::F32, Rows::Tokens, 40);
    let gemm = |a, weights, out, extras, epilogue| {
        StepKind::Gemm(Gemm { rows: Rows::Tokens, batch: 1, a, weights, epilogue, extras, out, group: None })
    };
    b.step(gemm(x, first, hidden, vec![], silu(arg(0))));
    b.step(gemm(hidden, second, out, vec![], arg(0)));
    b.step(gemm(hidden, second, out, vec![row(out, &[1])], add(arg(0), arg(1))));
    let pass = PassInput { tokens: 11, first_output: 0, inputs: vec![b.values(11 * 24)] };
    check(&b, &[pass], 1e-5);
}

#[test]
fn several_matrix_rows_in_a_row() {
    let (batch, k, n) = (3, 10, 21);
    for rows in [Rows::Outputs, Rows::ONE] {
        let of = if rows == Rows::ONE { Rows::ONE } else { Rows::Tokens };
        let mut b = Building::new(17);
        let x = b.input(DType::F32, of, batch * k);
        let residual = b.input(DType::F32, of, batch * n);
        let weights = b.param(Layout::Panels { k, n, branches: 2 }, DType::F32, 1, 1);
        let bias = b.param(Layout::Plain { elements: n }, DType::F32, 1, 1);
        let out = b.output(DType::F32, of, batch * n);
        b.step(StepKind::Gemm(Gemm {
            rows,
            batch,
            a: x,
            weights,
            epilogue: add(mul(arg(0), arg(1)), add(arg(2), arg(3))),
            extras: vec![
                view(Source::Param(bias), 0, &[1]),
                moec_plan::View { row: n, ..view(Source::Whole(residual), 0, &[1]) },
            ],
            out,
            group: None,
        }));
        let pass = |b: &mut Building, tokens: u64, first_output: u64| {
            let rows = if rows == Rows::ONE { 1 } else { tokens };
            PassInput { tokens, first_output, inputs: vec![b.values(rows * batch * k), b.values(rows * batch * n)] }
        };
        let passes = [pass(&mut b, 7, 2), pass(&mut b, 1, 0)];
        check(&b, &passes, 1e-5);
    }
}
