//! Element types, named axes, sizes, and the scalar expressions that both IRs share.

mod dtype;
mod expr;
mod tensor;

pub use dtype::DType;
pub use expr::{BinaryOp, Expr, ExprError, UnaryOp};
pub use tensor::{Axis, Dim, Size, TensorType};
