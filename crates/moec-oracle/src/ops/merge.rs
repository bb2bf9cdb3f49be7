//! Several axes seen as one.

use moec_ir::ops::Merge;

use crate::tensor::{Tensor, elements};

pub(super) fn eval_merge(op: &Merge, x: &Tensor) -> Tensor {
    let merged: Vec<_> = op.axes.iter().map(|axis| (axis.clone(), x.expect_size(axis))).collect();
    let kept: Vec<_> = x.axes().iter().filter(|(axis, _)| !op.axes.contains(axis)).cloned().collect();
    let size = elements(&merged);
    let x = x.broadcast(&[kept.clone(), merged].concat()).into_owned();
    x.reshaped([kept, vec![(op.into.clone(), size)]].concat())
}
