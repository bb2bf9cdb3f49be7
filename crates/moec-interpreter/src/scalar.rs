//! Scalar expressions over f64 cells. Bools are 0 and 1.

use half::{bf16, f16};
use moec_types::{BinaryOp, DType, Expr, UnaryOp};

/// A number with the type that decides how it is rounded.
#[derive(Clone, Copy, Debug)]
pub struct Scalar {
    pub value: f64,
    pub dtype: DType,
}

impl Scalar {
    pub fn new(value: f64, dtype: DType) -> Self {
        let value = match dtype {
            DType::F32 => f64::from(value as f32),
            DType::Bf16 => bf16::from_f32(value as f32).to_f64(),
            DType::F16 => f16::from_f32(value as f32).to_f64(),
            // Sums and products wrap; they are exact in f64.
            DType::I32 => f64::from(value as i64 as i32),
            DType::Bool => f64::from(u8::from(value != 0.0)),
        };
        Scalar { value, dtype }
    }
}

pub fn evaluate(expr: &Expr, args: &[Scalar]) -> Scalar {
    match expr {
        Expr::Arg(at) => args[*at],
        Expr::F32(value) => Scalar::new(f64::from(*value), DType::F32),
        Expr::I32(value) => Scalar::new(f64::from(*value), DType::I32),
        Expr::Bool(value) => Scalar::new(f64::from(u8::from(*value)), DType::Bool),
        Expr::Unary(op, x) => {
            let x = evaluate(x, args);
            Scalar::new(unary(*op, x.value), x.dtype)
        }
        Expr::Binary(op, a, b) => binary(*op, evaluate(a, args), evaluate(b, args)),
        Expr::Select(condition, yes, no) => {
            evaluate(if evaluate(condition, args).value != 0.0 { yes } else { no }, args)
        }
        Expr::Cast(DType::I32, x) => Scalar::new(f64::from(evaluate(x, args).value as i32), DType::I32),
        Expr::Cast(dtype @ (DType::Bf16 | DType::F16), x) => {
            Scalar { dtype: DType::F32, ..Scalar::new(evaluate(x, args).value, *dtype) }
        }
        Expr::Cast(dtype, x) => Scalar::new(evaluate(x, args).value, *dtype),
    }
}

fn unary(op: UnaryOp, x: f64) -> f64 {
    match op {
        UnaryOp::Neg => -x,
        UnaryOp::Not => f64::from(u8::from(x == 0.0)),
        UnaryOp::Exp => x.exp(),
        UnaryOp::Log => x.ln(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Erf => erf(x),
        UnaryOp::Sin => x.sin(),
        UnaryOp::Cos => x.cos(),
        UnaryOp::Abs => x.abs(),
        UnaryOp::Sign if x == 0.0 || x.is_nan() => x,
        UnaryOp::Sign => x.signum(),
        UnaryOp::Floor => x.floor(),
        UnaryOp::Ceil => x.ceil(),
        UnaryOp::Round => x.round_ties_even(),
    }
}

fn binary(op: BinaryOp, a: Scalar, b: Scalar) -> Scalar {
    let (x, y) = (a.value, b.value);
    let truth = |yes: bool| Scalar::new(f64::from(u8::from(yes)), DType::Bool);
    let number = |value: f64| Scalar::new(value, a.dtype);
    let nan_if_either = |value: f64| number(if x.is_nan() || y.is_nan() { f64::NAN } else { value });
    let whole = a.dtype == DType::I32;
    let wrapped = |of: fn(i32, i32) -> i32| number(f64::from(of(x as i32, y as i32)));
    match op {
        BinaryOp::Add if whole => wrapped(i32::wrapping_add),
        BinaryOp::Add => number(x + y),
        BinaryOp::Sub if whole => wrapped(i32::wrapping_sub),
        BinaryOp::Sub => number(x - y),
        BinaryOp::Mul if whole => wrapped(i32::wrapping_mul),
        BinaryOp::Mul => number(x * y),
        BinaryOp::Div | BinaryOp::Mod if whole && y == 0.0 => number(0.0),
        BinaryOp::Div if whole => number((x / y).trunc()),
        BinaryOp::Div => number(x / y),
        BinaryOp::Mod => {
            let rest = x % y;
            number(if rest != 0.0 && (rest < 0.0) != (y < 0.0) { rest + y } else { rest })
        }
        BinaryOp::Pow => number(x.powf(y)),
        BinaryOp::Min => nan_if_either(x.min(y)),
        BinaryOp::Max => nan_if_either(x.max(y)),
        BinaryOp::Lt => truth(x < y),
        BinaryOp::Le => truth(x <= y),
        BinaryOp::Gt => truth(x > y),
        BinaryOp::Ge => truth(x >= y),
        BinaryOp::Eq => truth(x == y),
        BinaryOp::Ne => truth(x != y),
        BinaryOp::And => truth(x != 0.0 && y != 0.0),
        BinaryOp::Or => truth(x != 0.0 || y != 0.0),
        BinaryOp::BitXor => wrapped(|a, b| a ^ b),
        BinaryOp::BitAnd => wrapped(|a, b| a & b),
        BinaryOp::ShiftLeft => wrapped(|a, b| a.wrapping_shl(b as u32)),
        BinaryOp::ShiftRight => wrapped(|a, b| (a as u32).wrapping_shr(b as u32) as i32),
    }
}

/// By its series, or for large x by the continued fraction of its complement.
fn erf(x: f64) -> f64 {
    let size = x.abs();
    if x.is_nan() {
        return x;
    }
    if size < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..80 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let tail = (1..60).rev().fold(0.0, |below, n| f64::from(n) / 2.0 / (size + below));
    x.signum() * (1.0 - (-x * x).exp() / std::f64::consts::PI.sqrt() / (size + tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_is_the_tabled_function() {
        // Abramowitz and Stegun, table 7.1, and scipy beyond it.
        let table = [(0.5, 0.5204998778130465), (2.0, 0.9953222650189527), (3.0, 0.9999779095030014), (5.5, 1.0)];
        for (x, wanted) in table {
            assert!((erf(x) - wanted).abs() < 1e-13, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!((erf(2.9999999) - erf(3.0)).abs() < 1e-10, "the two formulas meet");
    }

    #[test]
    fn whole_numbers_divide_as_the_language_says() {
        let of = |op, x: i32, y: i32| {
            let [x, y] = [x, y].map(|value| Scalar::new(f64::from(value), DType::I32));
            binary(op, x, y).value
        };
        assert_eq!([of(BinaryOp::Div, 7, 0), of(BinaryOp::Mod, 5, 0)], [0.0, 0.0]);
        assert_eq!([of(BinaryOp::Div, -7, 2), of(BinaryOp::Mod, -7, 3), of(BinaryOp::Mod, 7, -3)], [-3.0, 2.0, -2.0]);
        let whole = |x: f32| evaluate(&Expr::cast(DType::I32, Expr::F32(x)), &[]).value;
        assert_eq!([whole(1e20), whole(-2.7), whole(f32::NAN)], [f64::from(i32::MAX), -2.0, 0.0]);
    }
}
