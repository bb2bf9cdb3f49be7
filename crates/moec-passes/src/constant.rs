//! Scalar expressions over constants, in the arithmetic of the run time: f32 rounded after each operation.

use moec_types::{BinaryOp, DType, Expr, UnaryOp};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    F32(f32),
    I32(i32),
    Bool(bool),
}

impl Scalar {
    /// An element of a literal.
    pub fn from_literal(dtype: DType, value: f64) -> Option<Scalar> {
        match dtype {
            DType::F32 => Some(Scalar::F32(value as f32)),
            DType::I32 => Some(Scalar::I32(value as i32)),
            DType::Bool => Some(Scalar::Bool(value != 0.0)),
            DType::Bf16 | DType::F16 => None,
        }
    }

    pub fn to_literal(self) -> f64 {
        match self {
            Scalar::F32(value) => f64::from(value),
            Scalar::I32(value) => f64::from(value),
            Scalar::Bool(value) => f64::from(u8::from(value)),
        }
    }

    pub fn to_expr(self) -> Expr {
        match self {
            Scalar::F32(value) => Expr::F32(value),
            Scalar::I32(value) => Expr::I32(value),
            Scalar::Bool(value) => Expr::Bool(value),
        }
    }
}

/// The value of an expression; `None` where it is better left to the run time (a division of integers by zero, an
/// overflow, a function that has no exact counterpart here).
pub fn evaluate(expr: &Expr, args: &[Scalar]) -> Option<Scalar> {
    match expr {
        Expr::Arg(at) => args.get(*at).copied(),
        Expr::F32(value) => Some(Scalar::F32(*value)),
        Expr::I32(value) => Some(Scalar::I32(*value)),
        Expr::Bool(value) => Some(Scalar::Bool(*value)),
        Expr::Unary(op, x) => unary(*op, evaluate(x, args)?),
        Expr::Binary(op, a, b) => binary(*op, evaluate(a, args)?, evaluate(b, args)?),
        Expr::Select(condition, yes, no) => match evaluate(condition, args)? {
            Scalar::Bool(true) => evaluate(yes, args),
            Scalar::Bool(false) => evaluate(no, args),
            Scalar::F32(_) | Scalar::I32(_) => None,
        },
        Expr::Cast(dtype, x) => cast(*dtype, evaluate(x, args)?),
    }
}

fn unary(op: UnaryOp, x: Scalar) -> Option<Scalar> {
    match x {
        Scalar::Bool(x) => (op == UnaryOp::Not).then_some(Scalar::Bool(!x)),
        Scalar::I32(x) => match op {
            UnaryOp::Neg => x.checked_neg(),
            UnaryOp::Abs => x.checked_abs(),
            UnaryOp::Sign => Some(x.signum()),
            UnaryOp::Not
            | UnaryOp::Exp
            | UnaryOp::Log
            | UnaryOp::Sqrt
            | UnaryOp::Tanh
            | UnaryOp::Erf
            | UnaryOp::Sin
            | UnaryOp::Cos
            | UnaryOp::Floor
            | UnaryOp::Ceil
            | UnaryOp::Round => None,
        }
        .map(Scalar::I32),
        Scalar::F32(x) => {
            let wide = f64::from(x);
            match op {
                UnaryOp::Neg => Some(-x),
                UnaryOp::Exp => Some(wide.exp() as f32),
                UnaryOp::Log => Some(wide.ln() as f32),
                UnaryOp::Sqrt => Some(x.sqrt()),
                UnaryOp::Tanh => Some(wide.tanh() as f32),
                UnaryOp::Sin => Some(wide.sin() as f32),
                UnaryOp::Cos => Some(wide.cos() as f32),
                UnaryOp::Abs => Some(x.abs()),
                UnaryOp::Sign if x == 0.0 => Some(0.0),
                UnaryOp::Sign => Some(x.signum()),
                UnaryOp::Floor => Some(x.floor()),
                UnaryOp::Ceil => Some(x.ceil()),
                UnaryOp::Round => Some(x.round_ties_even()),
                UnaryOp::Not | UnaryOp::Erf => None,
            }
            .map(Scalar::F32)
        }
    }
}

fn binary(op: BinaryOp, a: Scalar, b: Scalar) -> Option<Scalar> {
    match (a, b) {
        (Scalar::F32(a), Scalar::F32(b)) => match op {
            BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge | BinaryOp::Eq | BinaryOp::Ne => {
                compare(op, a.partial_cmp(&b)).map(Scalar::Bool)
            }
            BinaryOp::Add => Some(Scalar::F32(a + b)),
            BinaryOp::Sub => Some(Scalar::F32(a - b)),
            BinaryOp::Mul => Some(Scalar::F32(a * b)),
            BinaryOp::Div => Some(Scalar::F32(a / b)),
            BinaryOp::Pow => Some(Scalar::F32(f64::from(a).powf(f64::from(b)) as f32)),
            BinaryOp::Mod => None,
            BinaryOp::Min | BinaryOp::Max if a.is_nan() || b.is_nan() => Some(Scalar::F32(f32::NAN)),
            BinaryOp::Min => Some(Scalar::F32(a.min(b))),
            BinaryOp::Max => Some(Scalar::F32(a.max(b))),
            BinaryOp::And
            | BinaryOp::Or
            | BinaryOp::BitXor
            | BinaryOp::BitAnd
            | BinaryOp::ShiftLeft
            | BinaryOp::ShiftRight => None,
        },
        (Scalar::I32(a), Scalar::I32(b)) => match op {
            BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge | BinaryOp::Eq | BinaryOp::Ne => {
                compare(op, Some(a.cmp(&b))).map(Scalar::Bool)
            }
            BinaryOp::Add => a.checked_add(b).map(Scalar::I32),
            BinaryOp::Sub => a.checked_sub(b).map(Scalar::I32),
            BinaryOp::Mul => a.checked_mul(b).map(Scalar::I32),
            BinaryOp::Div => a.checked_div(b).map(Scalar::I32),
            BinaryOp::Mod => floored_remainder(a, b).map(Scalar::I32),
            BinaryOp::Min => Some(Scalar::I32(a.min(b))),
            BinaryOp::Max => Some(Scalar::I32(a.max(b))),
            BinaryOp::BitXor => Some(Scalar::I32(a ^ b)),
            BinaryOp::BitAnd => Some(Scalar::I32(a & b)),
            BinaryOp::ShiftLeft => Some(Scalar::I32(a.wrapping_shl(b as u32))),
            BinaryOp::ShiftRight => Some(Scalar::I32((a as u32).wrapping_shr(b as u32) as i32)),
            BinaryOp::Pow | BinaryOp::And | BinaryOp::Or => None,
        },
        (Scalar::Bool(a), Scalar::Bool(b)) => match op {
            BinaryOp::And => Some(Scalar::Bool(a && b)),
            BinaryOp::Or => Some(Scalar::Bool(a || b)),
            BinaryOp::Eq => Some(Scalar::Bool(a == b)),
            BinaryOp::Ne => Some(Scalar::Bool(a != b)),
            BinaryOp::Add
            | BinaryOp::Sub
            | BinaryOp::Mul
            | BinaryOp::Div
            | BinaryOp::Mod
            | BinaryOp::Pow
            | BinaryOp::Min
            | BinaryOp::Max
            | BinaryOp::Lt
            | BinaryOp::Le
            | BinaryOp::Gt
            | BinaryOp::Ge
            | BinaryOp::BitXor
            | BinaryOp::BitAnd
            | BinaryOp::ShiftLeft
            | BinaryOp::ShiftRight => None,
        },
        (Scalar::F32(_) | Scalar::I32(_) | Scalar::Bool(_), _) => None,
    }
}

/// With the sign of the divisor.
fn floored_remainder(a: i32, b: i32) -> Option<i32> {
    let remainder = a.checked_rem(b)?;
    Some(if remainder != 0 && (remainder < 0) != (b < 0) { remainder + b } else { remainder })
}

/// `None` for an ordering means that one is NaN: all comparisons but `ne` are false.
fn compare(op: BinaryOp, ordering: Option<std::cmp::Ordering>) -> Option<bool> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    match op {
        BinaryOp::Lt => Some(ordering == Some(Less)),
        BinaryOp::Le => Some(matches!(ordering, Some(Less | Equal))),
        BinaryOp::Gt => Some(ordering == Some(Greater)),
        BinaryOp::Ge => Some(matches!(ordering, Some(Greater | Equal))),
        BinaryOp::Eq => Some(ordering == Some(Equal)),
        BinaryOp::Ne => Some(ordering != Some(Equal)),
        BinaryOp::Add
        | BinaryOp::Sub
        | BinaryOp::Mul
        | BinaryOp::Div
        | BinaryOp::Mod
        | BinaryOp::Pow
        | BinaryOp::Min
        | BinaryOp::Max
        | BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::BitXor
        | BinaryOp::BitAnd
        | BinaryOp::ShiftLeft
        | BinaryOp::ShiftRight => None,
    }
}

fn cast(dtype: DType, x: Scalar) -> Option<Scalar> {
    match (dtype, x) {
        (DType::F32, Scalar::F32(_)) | (DType::I32, Scalar::I32(_)) | (DType::Bool, Scalar::Bool(_)) => Some(x),
        (DType::F32, Scalar::I32(x)) => Some(Scalar::F32(x as f32)),
        (DType::F32, Scalar::Bool(x)) => Some(Scalar::F32(f32::from(u8::from(x)))),
        (DType::I32, Scalar::Bool(x)) => Some(Scalar::I32(i32::from(x))),
        // Towards zero; what does not fit is left to the run time.
        (DType::I32, Scalar::F32(x)) => (x.abs() < 2_147_483_648.0).then_some(Scalar::I32(x as i32)),
        (DType::Bool, Scalar::F32(x)) => Some(Scalar::Bool(x != 0.0)),
        (DType::Bool, Scalar::I32(x)) => Some(Scalar::Bool(x != 0)),
        (DType::Bf16 | DType::F16, _) => None,
    }
}

/// The same value, computed with less: constants folded, conversions to the type that is there already and operations
/// that change nothing dropped. `dtypes` are the operands'.
pub fn simplify(expr: &Expr, dtypes: &[DType]) -> Expr {
    let simple = match expr {
        Expr::Arg(_) | Expr::F32(_) | Expr::I32(_) | Expr::Bool(_) => return expr.clone(),
        Expr::Unary(op, x) => Expr::unary(*op, simplify(x, dtypes)),
        Expr::Binary(op, a, b) => Expr::binary(*op, simplify(a, dtypes), simplify(b, dtypes)),
        Expr::Select(condition, yes, no) => {
            Expr::select(simplify(condition, dtypes), simplify(yes, dtypes), simplify(no, dtypes))
        }
        Expr::Cast(dtype, x) => Expr::cast(*dtype, simplify(x, dtypes)),
    };
    fold(simple, dtypes)
}

/// One step of [`simplify`], whose parts are simple already.
fn fold(expr: Expr, dtypes: &[DType]) -> Expr {
    if expr.arity() == 0
        && let Some(value) = evaluate(&expr, &[])
    {
        return value.to_expr();
    }
    let is = |expr: &Expr, value: f32| matches!(expr, Expr::F32(found) if found.to_bits() == value.to_bits());
    match expr {
        Expr::Cast(dtype, x) if x.dtype(dtypes) == Ok(dtype) => *x,
        Expr::Binary(BinaryOp::Mul, a, b) if is(&b, 1.0) => *a,
        Expr::Binary(BinaryOp::Mul, a, b) if is(&a, 1.0) => *b,
        Expr::Binary(BinaryOp::Div, a, b) if is(&b, 1.0) => *a,
        Expr::Binary(BinaryOp::Sub, a, b) if is(&b, 0.0) => *a,
        Expr::Binary(BinaryOp::And, a, b) if *a == Expr::Bool(true) => *b,
        Expr::Binary(BinaryOp::And, a, b) if *b == Expr::Bool(true) => *a,
        Expr::Binary(BinaryOp::Or, a, b) if *a == Expr::Bool(false) => *b,
        Expr::Binary(BinaryOp::Or, a, b) if *b == Expr::Bool(false) => *a,
        Expr::Select(condition, yes, no) => match *condition {
            Expr::Bool(true) => *yes,
            Expr::Bool(false) => *no,
            condition => Expr::select(condition, *yes, *no),
        },
        Expr::Arg(_)
        | Expr::F32(_)
        | Expr::I32(_)
        | Expr::Bool(_)
        | Expr::Unary(..)
        | Expr::Binary(..)
        | Expr::Cast(..) => expr,
    }
}
