//! A part of an axis.

use moec_ir::ops::Slice;

use crate::strided;
use crate::tensor::{Tensor, map_data};

pub(super) fn eval_slice(op: &Slice, x: &Tensor) -> Tensor {
    let shorter = |(axis, size): &(_, usize)| if *axis == op.axis { op.len as usize } else { *size };
    let axes: Vec<_> = x.axes().iter().map(|own| (own.0.clone(), shorter(own))).collect();
    let walk = x.walk(&axes);
    let along = x.axes().iter().position(|(axis, _)| *axis == op.axis).expect("the axis was verified");
    let start = op.start as usize * walk[along].stride;
    let data = map_data!(x.data(), values => strided::read(values, start, &walk));
    let kept = axes.into_iter().filter(|(axis, _)| !op.drop || *axis != op.axis);
    Tensor::new(kept.collect(), data)
}
