//! Scores, softmax and weighted sum over all keys.

use moec_ir::ops::Attention;
use moec_types::Axis;

use super::{contract::eval_contract, map::eval_map};
use crate::error::EvalError;
use crate::scalar::max_f32;
use crate::tensor::{Tensor, elements};

pub(super) fn eval_attention(op: &Attention, operands: &[&Tensor]) -> Result<Tensor, EvalError> {
    let [q, k, v, extras @ ..] = operands else { unreachable!("attention has q, k and v") };
    let scores = eval_contract(q, k, &op.over)?;
    let args: Vec<&Tensor> = [&scores].into_iter().chain(extras.iter().copied()).collect();
    let shares = softmax(&eval_map(&op.score, &args)?, &op.keys);
    eval_contract(&shares, v, std::slice::from_ref(&op.keys))
}

/// A row whose scores are all -inf is NaN, as the quotient it stands for.
fn softmax(x: &Tensor, over: &Axis) -> Tensor {
    let size = x.expect_size(over);
    let kept: Vec<_> = x.axes().iter().filter(|(axis, _)| axis != over).cloned().collect();
    let rows = elements(&kept);
    let axes = [kept, vec![(over.clone(), size)]].concat();
    let x = x.broadcast(&axes);
    let x = x.f32();
    let mut out = Vec::with_capacity(x.len());
    for row in (0..rows).map(|row| &x[row * size..][..size]) {
        let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, max_f32));
        let powers: Vec<f64> = row.iter().map(|x| (f64::from(*x) - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        out.extend(powers.iter().map(|power| (power / sum) as f32));
    }
    Tensor::new(axes, out)
}
