//! Scalar expressions on lanes.

use moec_types::{BinaryOp, DType, Expr, UnaryOp};

use crate::{
    builder::{Builder, Cmp, Elem, Val},
    level::Level,
    math,
};

/// The value of `expr`; all operands have `lanes` lanes (0: scalars), and so has the result. Values of the storage types
/// are f32 that such a type can hold; bools are `I1`.
pub fn evaluate(b: &Builder, level: Level, expr: &Expr, args: &[Val], lanes: u32) -> Val {
    let of = |expr: &Expr| evaluate(b, level, expr, args, lanes);
    let ty = |elem| crate::builder::Ty { elem, lanes };
    match expr {
        Expr::Arg(at) => args[*at],
        Expr::F32(value) => b.float(ty(Elem::F32), *value),
        Expr::I32(value) => b.int(ty(Elem::I32), i64::from(*value)),
        Expr::Bool(value) => b.bool(ty(Elem::I1), *value),
        Expr::Unary(op, x) => unary(b, *op, of(x)),
        Expr::Binary(op, x, y) => binary(b, *op, of(x), of(y)),
        Expr::Select(condition, yes, no) => b.select(of(condition), of(yes), of(no)),
        Expr::Cast(dtype, x) => cast(b, level, *dtype, of(x)),
    }
}

fn unary(b: &Builder, op: UnaryOp, x: Val) -> Val {
    let is_float = x.ty.elem == Elem::F32;
    match op {
        UnaryOp::Neg => b.neg(x),
        UnaryOp::Not => b.xor(x, b.bool(x.ty, true)),
        UnaryOp::Exp => math::exp(b, x),
        UnaryOp::Log => math::log(b, x),
        UnaryOp::Sqrt => b.intrinsic("sqrt", &[x]),
        UnaryOp::Tanh => math::tanh(b, x),
        UnaryOp::Erf => math::erf(b, x),
        UnaryOp::Sin => math::sin(b, x),
        UnaryOp::Cos => math::cos(b, x),
        UnaryOp::Abs if is_float => b.intrinsic("fabs", &[x]),
        UnaryOp::Abs => b.max(x, b.neg(x)),
        UnaryOp::Sign => {
            let number = |value: i8| {
                if is_float { b.float(x.ty, f32::from(value)) } else { b.int(x.ty, i64::from(value)) }
            };
            // Zero and NaN are their own sign.
            let negative = b.select(b.cmp(Cmp::Lt, x, number(0)), number(-1), x);
            b.select(b.cmp(Cmp::Gt, x, number(0)), number(1), negative)
        }
        UnaryOp::Floor => b.intrinsic("floor", &[x]),
        UnaryOp::Ceil => b.intrinsic("ceil", &[x]),
        UnaryOp::Round => b.intrinsic("rint", &[x]),
    }
}

fn binary(b: &Builder, op: BinaryOp, x: Val, y: Val) -> Val {
    let is_float = x.ty.elem == Elem::F32;
    match op {
        BinaryOp::Add => b.add(x, y),
        BinaryOp::Sub => b.sub(x, y),
        BinaryOp::Mul => b.mul(x, y),
        BinaryOp::Div if is_float => b.div(x, y),
        BinaryOp::Div => math::divide_integers(b, x, y),
        BinaryOp::Mod if is_float => math::modulo_floats(b, x, y),
        BinaryOp::Mod => math::modulo_integers(b, x, y),
        BinaryOp::Pow => b.intrinsic("pow", &[x, y]),
        BinaryOp::Min => b.min(x, y),
        BinaryOp::Max => b.max(x, y),
        BinaryOp::Lt => b.cmp(Cmp::Lt, x, y),
        BinaryOp::Le => b.cmp(Cmp::Le, x, y),
        BinaryOp::Gt => b.cmp(Cmp::Gt, x, y),
        BinaryOp::Ge => b.cmp(Cmp::Ge, x, y),
        BinaryOp::Eq => b.cmp(Cmp::Eq, x, y),
        BinaryOp::Ne => b.cmp(Cmp::Ne, x, y),
        BinaryOp::And => b.and(x, y),
        BinaryOp::Or => b.or(x, y),
        BinaryOp::BitXor => b.xor(x, y),
        BinaryOp::BitAnd => b.and(x, y),
        BinaryOp::ShiftLeft => b.shl_by(x, b.and(y, b.int(y.ty, 31))),
        BinaryOp::ShiftRight => b.shr_unsigned_by(x, b.and(y, b.int(y.ty, 31))),
    }
}

/// `x` as `dtype`; floats become integers towards zero, saturating.
fn cast(b: &Builder, level: Level, dtype: DType, x: Val) -> Val {
    let float = match x.ty.elem {
        Elem::F32 => x,
        Elem::I32 if dtype.is_float() => b.int_to_float(x),
        Elem::I1 if dtype.is_float() => {
            let ty = x.ty.of(Elem::F32);
            b.select(x, b.float(ty, 1.0), b.float(ty, 0.0))
        }
        _ => x,
    };
    match (dtype, x.ty.elem) {
        (DType::F32, _) => float,
        (DType::Bf16, _) => math::from_bf16(b, math::to_bf16(b, float)),
        (DType::F16, _) => math::from_f16(b, level, math::to_f16(b, level, float)),
        (DType::I32, Elem::F32) => b.float_to_int(x),
        (DType::I32, Elem::I1) => b.widen(x, Elem::I32),
        (DType::Bool, Elem::F32) => b.cmp(Cmp::Ne, x, b.float(x.ty, 0.0)),
        (DType::Bool, Elem::I32) => b.cmp(Cmp::Ne, x, b.int(x.ty, 0)),
        (DType::I32 | DType::Bool, _) => x,
    }
}
