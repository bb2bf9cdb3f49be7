//! Errors as large as rounding, put where rounding happens.
//!
//! A backend sums in another order than the oracle. Where that may change a choice (a tie, a comparison of what should be
//! equal), the results of both are right; a pass in which everything rounded is a little off shows it.

use std::sync::Arc;

use moec_ir::{Op, ops::ReduceOp};
use moec_types::{BinaryOp, Expr, UnaryOp};

use crate::tensor::{Data, Tensor};

/// How large an error is, relative to the value, and which errors of that size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shake {
    pub error: f32,
    pub seed: u64,
}

impl Shake {
    /// Each element of f32 times `1 + error * r`, r in -1 .. 1 drawn by the place of the value and of the element.
    pub(crate) fn applied(self, tensor: Arc<Tensor>, place: impl Iterator<Item = u64>) -> Arc<Tensor> {
        let Data::F32(values) = tensor.data() else { return tensor };
        let place = place.fold(self.seed, |place, number| mixed(place ^ number));
        let shaken = |(at, value): (usize, &f32)| {
            let drawn = mixed(place ^ at as u64) >> 40;
            value * (1.0 + self.error * (drawn as f32 / (1 << 23) as f32 - 1.0))
        };
        let values: Vec<f32> = values.iter().enumerate().map(shaken).collect();
        Arc::new(Tensor::new(tensor.axes().to_vec(), values))
    }
}

/// The step of splitmix64.
fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Whether backends may round the results of an op in different ways; the others copy, compare or count.
pub(crate) fn rounds(op: &Op) -> bool {
    match op {
        Op::Map(op) => computes(&op.expr),
        Op::Reduce(op) => match op.op {
            ReduceOp::Sum | ReduceOp::Mean | ReduceOp::Prod => true,
            ReduceOp::Max | ReduceOp::Min | ReduceOp::Any | ReduceOp::All => false,
        },
        Op::Contract(_)
        | Op::Linear(_)
        | Op::Cumsum(_)
        | Op::ScatterAdd(_)
        | Op::Attention(_)
        | Op::Combine(_)
        | Op::Stack(_) => true,
        Op::ParamRef(_)
        | Op::Literal(_)
        | Op::Iota(_)
        | Op::Count(_)
        | Op::TopK(_)
        | Op::Assign(_)
        | Op::Gather(_)
        | Op::Split(_)
        | Op::Merge(_)
        | Op::Rename(_)
        | Op::Slice(_)
        | Op::Unfold(_)
        | Op::Concat(_)
        | Op::Past(_)
        | Op::Scan(_)
        | Op::Route(_)
        | Op::Dispatch(_)
        | Op::Experts(_)
        | Op::Each(_)
        | Op::Layers(_)
        | Op::Rows(_) => false,
    }
}

/// Whether an expression does more than choose among its operands, or change a sign.
fn computes(expr: &Expr) -> bool {
    match expr {
        Expr::Arg(_) | Expr::F32(_) | Expr::I32(_) | Expr::Bool(_) => false,
        Expr::Unary(op, x) => match op {
            UnaryOp::Exp
            | UnaryOp::Log
            | UnaryOp::Sqrt
            | UnaryOp::Tanh
            | UnaryOp::Erf
            | UnaryOp::Sin
            | UnaryOp::Cos => true,
            UnaryOp::Neg
            | UnaryOp::Not
            | UnaryOp::Abs
            | UnaryOp::Sign
            | UnaryOp::Floor
            | UnaryOp::Ceil
            | UnaryOp::Round => computes(x),
        },
        Expr::Binary(op, x, y) => match op {
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Pow => true,
            BinaryOp::Min
            | BinaryOp::Max
            | BinaryOp::Lt
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
            | BinaryOp::ShiftRight => computes(x) || computes(y),
        },
        Expr::Select(condition, x, y) => computes(condition) || computes(x) || computes(y),
        // Of a truncated number, the number.
        Expr::Cast(_, x) => computes(x),
    }
}
