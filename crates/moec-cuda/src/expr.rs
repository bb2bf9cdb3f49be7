//! Scalar expressions as CUDA C++: the plan's own names with `op_` before them (kernels/cuda/scalar.cuh).

use moec_types::{DType, Expr};

/// The type of an element once it is read.
pub fn read_as(dtype: DType) -> DType {
    match dtype {
        DType::F32 | DType::Bf16 | DType::F16 => DType::F32,
        DType::I32 => DType::I32,
        DType::Bool => DType::Bool,
    }
}

/// What C++ calls a value that is computed with.
pub fn value_type(dtype: DType) -> &'static str {
    match read_as(dtype) {
        DType::F32 | DType::Bf16 | DType::F16 => "float",
        DType::I32 => "int",
        DType::Bool => "bool",
    }
}

/// What C++ calls an element in memory.
pub fn storage_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::Bf16 => "moec::Bf16",
        DType::F16 => "moec::F16",
        DType::I32 => "int",
        DType::Bool => "moec::Bool",
    }
}

/// An expression of operands that are there under the names `args`.
pub fn print(expr: &Expr, args: &[String]) -> String {
    let of = |expr: &Expr| print(expr, args);
    match expr {
        Expr::Arg(at) => args[*at].clone(),
        Expr::F32(value) => float(*value),
        Expr::I32(i32::MIN) => "(-2147483647 - 1)".to_owned(),
        Expr::I32(value) => value.to_string(),
        Expr::Bool(value) => value.to_string(),
        Expr::Unary(op, x) => format!("op_{}({})", op.name(), of(x)),
        Expr::Binary(op, x, y) => format!("op_{}({}, {})", op.name(), of(x), of(y)),
        Expr::Select(condition, yes, no) => format!("op_where({}, {}, {})", of(condition), of(yes), of(no)),
        Expr::Cast(dtype, x) => format!("op_{}({})", dtype.name(), of(x)),
    }
}

/// A literal that is this number, exactly.
pub fn float(value: f32) -> String {
    if value.is_finite() { format!("{value:?}f") } else { format!("float_of({:#010x}u)", value.to_bits()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact() {
        let printed = [0.1, -0.0, 1e-30, 3.0, f32::NEG_INFINITY, f32::MIN_POSITIVE].map(float);
        assert_eq!(printed, ["0.1f", "-0.0f", "1e-30f", "3.0f", "float_of(0xff800000u)", "1.1754944e-38f"]);
        assert_eq!(print(&Expr::I32(i32::MIN), &[]), "(-2147483647 - 1)");
    }
}
