//! Element-wise arithmetic over the union of the operands' axes.

use moec_types::{Axis, Expr};

use super::bounded;
use crate::error::EvalError;
use crate::scalar;
use crate::tensor::Tensor;

pub(super) fn eval_map(expr: &Expr, operands: &[&Tensor]) -> Result<Tensor, EvalError> {
    let axes = union(operands);
    let count = bounded(&axes)?;
    let repeated: Vec<_> = operands.iter().map(|operand| operand.broadcast(&axes)).collect();
    let args: Vec<_> = repeated.iter().map(|operand| operand.data()).collect();
    Ok(Tensor::new(axes, scalar::evaluate(expr, &args, count)))
}

/// All axes, in the order of first appearance.
fn union(operands: &[&Tensor]) -> Vec<(Axis, usize)> {
    let mut axes: Vec<(Axis, usize)> = Vec::new();
    for own in operands.iter().flat_map(|operand| operand.axes()) {
        if !axes.contains(own) {
            axes.push(own.clone());
        }
    }
    axes
}
