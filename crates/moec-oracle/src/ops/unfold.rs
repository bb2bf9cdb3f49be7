//! Windows along an axis.

use moec_ir::ops::Unfold;

use crate::strided::{self, Step};
use crate::tensor::{Tensor, map_data};

pub(super) fn eval_unfold(op: &Unfold, x: &Tensor) -> Tensor {
    let along = x.axes().iter().position(|(axis, _)| *axis == op.axis).expect("the axis was verified");
    let window = op.window.size.fixed().expect("the size of a window was verified") as usize;
    let step = op.step as usize;
    let places = (x.axes()[along].1 - window) / step + 1;
    let mut axes = x.axes().to_vec();
    axes.splice(along..=along, [(op.place.clone(), places), (op.window.axis.clone(), window)]);
    let mut walk = x.walk(x.axes());
    let stride = walk[along].stride;
    let both = [Step { count: places, stride: stride * step }, Step { count: window, stride }];
    walk.splice(along..=along, both);
    Tensor::new(axes, map_data!(x.data(), values => strided::read(values, 0, &walk)))
}
