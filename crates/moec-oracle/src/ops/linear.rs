//! One tensor contracted with several parameters, and an element-wise epilogue.

use moec_ir::ops::Linear;

use super::{contract::eval_contract, map::eval_map};
use crate::error::EvalError;
use crate::tensor::Tensor;

pub(super) fn eval_linear(op: &Linear, operands: &[&Tensor]) -> Result<Tensor, EvalError> {
    let (params, extras) = operands[1..].split_at(op.branches);
    let sums = params.iter().map(|param| eval_contract(operands[0], param, &op.over)).collect::<Result<Vec<_>, _>>()?;
    let args: Vec<&Tensor> = sums.iter().chain(extras.iter().copied()).collect();
    eval_map(&op.epilogue, &args)
}
