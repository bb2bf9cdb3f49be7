//! Look-up by index.

use moec_ir::ValueId;
use moec_ir::ops::Gather;
use moec_types::Axis;

use super::{Pass, bounded};
use crate::error::EvalError;
use crate::strided;
use crate::tensor::{Tensor, map_data};

impl Pass<'_> {
    pub(super) fn gather(&self, op: &Gather, x: ValueId, indices: ValueId) -> Result<Tensor, EvalError> {
        let name = || match self.module.inputs.iter().find(|input| input.value == indices) {
            Some(input) => format!("input `{}`", input.name),
            None => self.module.name_of(indices).map_or("an index".to_string(), |name| format!("`{name}`")),
        };
        eval_gather(&op.over, self.tensor(x), self.tensor(indices), &name)
    }
}

pub(super) fn eval_gather(
    over: &Axis,
    x: &Tensor,
    indices: &Tensor,
    name: &dyn Fn() -> String,
) -> Result<Tensor, EvalError> {
    let limit = x.expect_size(over);
    let kept: Vec<_> =
        x.axes().iter().filter(|(axis, _)| axis != over && indices.size(axis).is_none()).cloned().collect();
    let axes = [indices.axes().to_vec(), kept.clone()].concat();
    bounded(&axes)?;

    // Each index picks one run of `kept`; axes that both have move along in `x`.
    let bases = strided::offsets(&x.walk(indices.axes()));
    let stride = x.walk(&[(over.clone(), limit)])[0].stride;
    let run = x.walk(&kept);
    let mut starts = Vec::with_capacity(bases.len());
    for (at, (index, base)) in indices.i32().iter().zip(bases).enumerate() {
        let Some(index) = usize::try_from(*index).ok().filter(|index| *index < limit) else {
            let (source_name, position) = (name(), position(indices, at));
            return Err(EvalError::IndexOutOfRange {
                source_name,
                position,
                value: *index,
                axis: over.to_string(),
                limit,
            });
        };
        starts.push(base + index * stride);
    }
    let data = map_data!(x.data(), values => {
        starts.iter().flat_map(|start| strided::read(values, *start, &run)).collect()
    });
    Ok(Tensor::new(axes, data))
}

/// `` at S = 3, K = 0``.
fn position(tensor: &Tensor, element: usize) -> String {
    let mut text = String::new();
    for ((axis, size), stride) in tensor.axes().iter().zip(strided::strides(&tensor.sizes())) {
        text += if text.is_empty() { " at " } else { ", " };
        text += &format!("{axis} = {}", element / stride % size);
    }
    text
}
