//! Element types, named axes, sizes, and the scalar expressions that both IRs share.

mod dtype;
mod expr;
mod reader;
mod tensor;

pub use dtype::DType;
pub use expr::{BinaryOp, Expr, ExprError, UnaryOp};
pub use reader::{ParseError, Reader, is_word};
pub use tensor::{Axis, Dim, Size, TensorType};
