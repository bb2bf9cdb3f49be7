//! Arithmetic on what is known when the file is checked.

use moec_types::{BinaryOp, UnaryOp};

use crate::value::{Value, equal};

/// A number known now.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    pub fn of(value: &Value) -> Option<Number> {
        match value {
            Value::Int(value) => Some(Number::Int(*value)),
            Value::Float(value) => Some(Number::Float(*value)),
            _ => None,
        }
    }

    pub fn float(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        }
    }
}

/// Why two values have no result.
pub(crate) enum Unfolded {
    Kind,
    Overflow,
    ByZero,
    NotWhole(i64, i64),
}

/// Numbers known now, in 64 bits: what tensors meet is rounded once, to their type.
pub(crate) fn fold(op: BinaryOp, a: &Value, b: &Value) -> Result<Value, Unfolded> {
    let numbers = Number::of(a).zip(Number::of(b));
    let compare = |holds: fn(std::cmp::Ordering) -> bool| {
        let (a, b) = numbers.ok_or(Unfolded::Kind)?;
        let order = match (a, b) {
            (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
            (a, b) => a.float().partial_cmp(&b.float()),
        };
        Ok(Value::Bool(order.is_some_and(holds)))
    };
    // Of the low 32 bits, as tensors have them: a product that is too large has lost nothing of those.
    let bits = |of: fn(i32, i32) -> i32| match numbers {
        Some((Number::Int(a), Number::Int(b))) => Ok(Value::Int(i64::from(of(a as i32, b as i32)))),
        Some(_) | None => Err(Unfolded::Kind),
    };
    match op {
        BinaryOp::Lt => compare(|order| order.is_lt()),
        BinaryOp::Le => compare(|order| order.is_le()),
        BinaryOp::Gt => compare(|order| order.is_gt()),
        BinaryOp::Ge => compare(|order| order.is_ge()),
        BinaryOp::Eq | BinaryOp::Ne => {
            let alike = numbers.is_some()
                || matches!(
                    (a, b),
                    (Value::Bool(_), Value::Bool(_))
                        | (Value::Text(_), Value::Text(_))
                        | (Value::List(_), Value::List(_))
                );
            let same = alike.then(|| equal(a, b)).ok_or(Unfolded::Kind)?;
            Ok(Value::Bool(same == (op == BinaryOp::Eq)))
        }
        BinaryOp::And | BinaryOp::Or => match (a, b) {
            (Value::Bool(a), Value::Bool(b)) => Ok(Value::Bool(if op == BinaryOp::And { *a && *b } else { *a || *b })),
            _ => Err(Unfolded::Kind),
        },
        BinaryOp::BitXor => bits(|a, b| a ^ b),
        BinaryOp::BitAnd => bits(|a, b| a & b),
        BinaryOp::ShiftLeft => bits(|a, b| a.wrapping_shl(b as u32)),
        BinaryOp::ShiftRight => bits(|a, b| (a as u32).wrapping_shr(b as u32) as i32),
        BinaryOp::Add
        | BinaryOp::Sub
        | BinaryOp::Mul
        | BinaryOp::Div
        | BinaryOp::Mod
        | BinaryOp::Pow
        | BinaryOp::Min
        | BinaryOp::Max => match numbers.ok_or(Unfolded::Kind)? {
            (Number::Int(a), Number::Int(b)) => fold_ints(op, a, b),
            (a, b) => Ok(Value::Float(fold_floats(op, a.float(), b.float()))),
        },
    }
}

fn fold_ints(op: BinaryOp, a: i64, b: i64) -> Result<Value, Unfolded> {
    let value = match op {
        BinaryOp::Add => a.checked_add(b),
        BinaryOp::Sub => a.checked_sub(b),
        BinaryOp::Mul => a.checked_mul(b),
        BinaryOp::Div | BinaryOp::Mod if b == 0 => return Err(Unfolded::ByZero),
        BinaryOp::Div if a.checked_rem(b).is_some_and(|rest| rest != 0) => return Err(Unfolded::NotWhole(a, b)),
        BinaryOp::Div => a.checked_div(b),
        BinaryOp::Mod => a.checked_rem(b).map(|rest| if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }),
        BinaryOp::Pow if b < 0 => return Ok(Value::Float((a as f64).powf(b as f64))),
        BinaryOp::Pow => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        BinaryOp::Min => Some(a.min(b)),
        BinaryOp::Max => Some(a.max(b)),
        BinaryOp::Lt
        | BinaryOp::Le
        | BinaryOp::Gt
        | BinaryOp::Ge
        | BinaryOp::Eq
        | BinaryOp::Ne
        | BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::BitXor
        | BinaryOp::BitAnd
        | BinaryOp::ShiftLeft
        | BinaryOp::ShiftRight => None,
    };
    value.map(Value::Int).ok_or(Unfolded::Overflow)
}

fn fold_floats(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a - b * (a / b).floor(),
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Min => {
            if a.is_nan() || b.is_nan() {
                f64::NAN
            } else {
                a.min(b)
            }
        }
        BinaryOp::Max => {
            if a.is_nan() || b.is_nan() {
                f64::NAN
            } else {
                a.max(b)
            }
        }
        BinaryOp::Lt
        | BinaryOp::Le
        | BinaryOp::Gt
        | BinaryOp::Ge
        | BinaryOp::Eq
        | BinaryOp::Ne
        | BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::BitXor
        | BinaryOp::BitAnd
        | BinaryOp::ShiftLeft
        | BinaryOp::ShiftRight => f64::NAN,
    }
}

pub(crate) fn fold_unary(op: UnaryOp, x: &Value) -> Option<Value> {
    let float = |f: fn(f64) -> f64| Number::of(x).map(|x| Value::Float(f(x.float())));
    match (op, x) {
        (UnaryOp::Neg, Value::Int(x)) => x.checked_neg().map(Value::Int),
        (UnaryOp::Abs, Value::Int(x)) => x.checked_abs().map(Value::Int),
        (UnaryOp::Sign, Value::Int(x)) => Some(Value::Int(x.signum())),
        (UnaryOp::Not, Value::Bool(x)) => Some(Value::Bool(!x)),
        (UnaryOp::Not, _) => None,
        (UnaryOp::Neg, _) => float(|x| -x),
        (UnaryOp::Abs, _) => float(f64::abs),
        (UnaryOp::Sign, _) => float(|x| if x == 0.0 || x.is_nan() { x } else { x.signum() }),
        (UnaryOp::Exp, _) => float(f64::exp),
        (UnaryOp::Log, _) => float(f64::ln),
        (UnaryOp::Sqrt, _) => float(f64::sqrt),
        (UnaryOp::Tanh, _) => float(f64::tanh),
        (UnaryOp::Erf, _) => float(erf),
        (UnaryOp::Sin, _) => float(f64::sin),
        (UnaryOp::Cos, _) => float(f64::cos),
        (UnaryOp::Floor, _) => float(f64::floor),
        (UnaryOp::Ceil, _) => float(f64::ceil),
        (UnaryOp::Round, _) => float(f64::round_ties_even),
    }
}

/// By the series of `erf` near zero and the continued fraction of `erfc` beyond; good to 1e-14.
fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let size = x.abs();
    let value = if size < 2.5 {
        let (mut term, mut sum) = (size, size);
        for n in 1..80 {
            term *= -size * size / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let fraction = (1..=80).rev().fold(size, |rest, n| size + f64::from(n) / 2.0 / rest);
        1.0 - (-size * size).exp() / (fraction * std::f64::consts::PI.sqrt())
    };
    value.copysign(x)
}

#[cfg(test)]
mod tests {
    #[test]
    fn erf_is_right_on_both_sides_of_the_switch() {
        for (x, value) in
            [(0.0, 0.0), (0.5, 0.520_499_877_813_046_5), (2.4, 0.999_311_486_103_355), (3.0, 0.999_977_909_503_001_4)]
        {
            assert!((super::erf(x) - value).abs() < 1e-12, "erf({x})");
            assert!((super::erf(-x) + value).abs() < 1e-12, "erf(-{x})");
        }
    }
}
