//! An axis under another name.

use moec_ir::ops::Rename;

use crate::tensor::Tensor;

pub(super) fn eval_rename(op: &Rename, x: &Tensor) -> Tensor {
    let axes = x.axes().iter().map(|(axis, size)| {
        let axis = if *axis == op.from { &op.to } else { axis };
        (axis.clone(), *size)
    });
    x.clone().reshaped(axes.collect())
}
