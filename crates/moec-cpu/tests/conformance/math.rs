//! Scalar functions over many values, special ones among them.

use moec_plan::{RowOp, Rows};
use moec_types::{BinaryOp, DType, Expr, UnaryOp};

use crate::{
    PassInput,
    build::{Building, arg, fixed, row, rows},
    check,
};

const SPECIAL: [f64; 21] = [
    0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 88.0, 88.7, 89.5, -87.0, -87.5, -103.0, -200.0, 1e-8, 6e-8, 65504.0,
    65520.0, 1e-40, 0.625,
];

/// Lanes and scalars: 67 elements are 4 vectors of 16 and three more.
fn check_all(exprs: &[(Expr, DType)], inputs: &[(DType, Vec<f64>)], tolerance: f64) {
    let mut b = Building::new(1);
    let count = inputs[0].1.len() as u64;
    let ids: Vec<_> = inputs.iter().map(|(dtype, _)| b.input(*dtype, Rows::ONE, count)).collect();
    for (expr, dtype) in exprs {
        let out = b.output(*dtype, Rows::ONE, count);
        let args = ids.iter().map(|id| row(*id, &[1])).collect();
        b.step(rows(
            Rows::ONE,
            vec![RowOp::Map { extents: fixed(&[count]), expr: expr.clone(), args, into: row(out, &[1]) }],
        ));
    }
    let inputs = inputs.iter().map(|(_, values)| values.clone()).collect();
    check(&b, &[PassInput { tokens: 1, first_output: 0, inputs }], tolerance);
}

/// Values over a range, and special ones, as f32.
fn sweep(from: f64, to: f64) -> Vec<f64> {
    let even = (0..400).map(|at| from + (to - from) * f64::from(at) / 399.0);
    let mut all: Vec<f64> = even.chain(SPECIAL).chain([f64::INFINITY, f64::NEG_INFINITY, f64::NAN]).collect();
    all.truncate(all.len() / 16 * 16 + 3);
    all.into_iter().map(|value| f64::from(value as f32)).collect()
}

#[test]
fn unary_functions_of_floats() {
    let of = |op| (Expr::unary(op, arg(0)), DType::F32);
    let all =
        [UnaryOp::Neg, UnaryOp::Tanh, UnaryOp::Erf, UnaryOp::Sin, UnaryOp::Cos, UnaryOp::Abs, UnaryOp::Sign].map(of);
    check_all(&all, &[(DType::F32, sweep(-10.0, 10.0))], 2e-7);
    let waves = [UnaryOp::Sin, UnaryOp::Cos].map(of);
    check_all(&waves, &[(DType::F32, sweep(-3e5, 131072.0))], 2e-7);
    check_all(&waves, &[(DType::F32, sweep(-7.0, 1e9))], 2e-7);
    let exact = [UnaryOp::Floor, UnaryOp::Ceil, UnaryOp::Round, UnaryOp::Abs, UnaryOp::Neg].map(of);
    check_all(&exact, &[(DType::F32, sweep(-5.0, 5.0))], 0.0);
    check_all(&[of(UnaryOp::Log), of(UnaryOp::Sqrt)], &[(DType::F32, sweep(0.0, 50.0))], 2e-7);
    check_all(&[of(UnaryOp::Log)], &[(DType::F32, sweep(0.0, 1.5))], 1.5e-7);
    check_all(&[of(UnaryOp::Erf)], &[(DType::F32, sweep(-1.0, 1.0))], 1.2e-7);
}

#[test]
fn exp_is_within_two_units_in_the_last_place() {
    // The tolerance of `check` is absolute below 1, so the quotient by the true value is compared there.
    let values = sweep(-86.0, 88.0);
    let exp = Expr::unary(UnaryOp::Exp, arg(0));
    check_all(&[(exp.clone(), DType::F32)], &[(DType::F32, values.clone())], 2.4e-7);
    let inverse: Vec<f64> = values.iter().map(|x| f64::from((-x).exp() as f32)).collect();
    let product = Expr::binary(BinaryOp::Mul, exp, arg(1));
    let small: Vec<bool> = values.iter().map(|x| x.abs() < 80.0).collect();
    let keep = |all: &[f64]| all.iter().zip(&small).filter(|(_, small)| **small).map(|(x, _)| *x).collect::<Vec<f64>>();
    let inputs = [(DType::F32, keep(&values)), (DType::F32, keep(&inverse))];
    check_all(&[(product, DType::F32)], &inputs, 3.0e-7);
}

#[test]
fn integers_divide_like_python_and_c() {
    let [mut x, mut y] = [Vec::new(), Vec::new()];
    for a in [-7.0, -6.0, -1.0, 0.0, 1.0, 5.0, 2147483647.0, -2147483648.0] {
        for b in [-3.0, -1.0, 0.0, 1.0, 4.0, 2147483647.0, -2147483648.0] {
            x.push(a);
            y.push(b);
        }
    }
    let of = |op| (Expr::binary(op, arg(0), arg(1)), DType::I32);
    let all = [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Div, BinaryOp::Mod, BinaryOp::Min, BinaryOp::Max].map(of);
    check_all(&all, &[(DType::I32, x), (DType::I32, y)], 0.0);
}

#[test]
fn binary_functions_of_floats() {
    let x = sweep(-4.0, 4.0);
    let y: Vec<f64> = x.iter().rev().copied().collect();
    let inputs = [(DType::F32, x), (DType::F32, y)];
    let of = |op, dtype| (Expr::binary(op, arg(0), arg(1)), dtype);
    let arithmetic = [BinaryOp::Div, BinaryOp::Mod, BinaryOp::Min, BinaryOp::Max, BinaryOp::Pow];
    check_all(&arithmetic.map(|op| of(op, DType::F32)), &inputs, 1e-6);
    let comparisons = [BinaryOp::Lt, BinaryOp::Le, BinaryOp::Gt, BinaryOp::Ge, BinaryOp::Eq, BinaryOp::Ne]
        .map(|op| of(op, DType::Bool));
    check_all(&comparisons, &inputs, 0.0);
}

#[test]
fn casts() {
    let through = |dtype| (Expr::cast(DType::F32, Expr::cast(dtype, arg(0))), DType::F32);
    let mut values = sweep(-3.0, 3.0);
    values.extend([1e-7, 3e-8, 2.9e-8, 5.97e-8, 6.1e-5, 6.09e-5, 65519.9, 1.00048828125, 1.0014648, -1e20, 3e9, -3e9]);
    let exprs = [
        through(DType::Bf16),
        through(DType::F16),
        through(DType::I32),
        through(DType::Bool),
        (Expr::cast(DType::I32, arg(0)), DType::I32),
        (Expr::cast(DType::F32, arg(0)), DType::Bf16),
        (Expr::cast(DType::F32, arg(0)), DType::F16),
    ];
    check_all(&exprs, &[(DType::F32, values)], 0.0);
}

#[test]
fn the_same_plan_gives_the_same_bytes() {
    let mut b = Building::new(1);
    let x = b.input(DType::F32, Rows::Tokens, 40);
    let out = b.output(DType::F32, Rows::Tokens, 40);
    let expr = Expr::unary(UnaryOp::Exp, arg(0));
    b.step(rows(
        Rows::Tokens,
        vec![RowOp::Map { extents: fixed(&[40]), expr, args: vec![row(x, &[1])], into: row(out, &[1]) }],
    ));
    let [one, other] = [0, 1].map(|_| moec_cpu::object(&b.plan, moec_cpu::Level::Avx2, &|_| None).expect("supported"));
    assert_eq!(one.bytes, other.bytes);
}
