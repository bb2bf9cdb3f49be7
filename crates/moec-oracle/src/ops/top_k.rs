//! The largest few along an axis.

use std::cmp::Ordering;

use moec_ir::ops::TopK;

use crate::error::EvalError;
use crate::tensor::{Tensor, elements};

/// Values and indices, largest first; equal values by ascending index, NaN after everything else.
pub(super) fn eval_top_k(op: &TopK, choices: usize, x: &Tensor) -> Result<(Tensor, Tensor), EvalError> {
    let size = x.expect_size(&op.over);
    if choices > size {
        return Err(EvalError::TooFewToChooseFrom { axis: op.over.to_string(), size, choices });
    }
    let kept: Vec<_> = x.axes().iter().filter(|(axis, _)| *axis != op.over).cloned().collect();
    let rows = elements(&kept);
    let x = x.broadcast(&[kept.clone(), vec![(op.over.clone(), size)]].concat()).into_owned();
    let x = x.f32();

    let (mut values, mut indices) = (Vec::with_capacity(rows * choices), Vec::with_capacity(rows * choices));
    for row in (0..rows).map(|row| &x[row * size..][..size]) {
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|a, b| descending(row[*a], row[*b]).then(a.cmp(b)));
        order.truncate(choices);
        values.extend(order.iter().map(|at| row[*at]));
        indices.extend(order.iter().map(|at| *at as i32));
    }
    let axes = [kept, vec![(op.choices.axis.clone(), choices)]].concat();
    Ok((Tensor::new(axes.clone(), values), Tensor::new(axes, indices)))
}

fn descending(a: f32, b: f32) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => b.partial_cmp(&a).expect("neither is NaN"),
        (a, b) => a.cmp(&b),
    }
}
