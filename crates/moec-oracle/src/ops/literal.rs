//! A constant tensor.

use moec_ir::ops::Literal;
use moec_types::DType;

use crate::tensor::{Data, Tensor};

pub(super) fn eval_literal(op: &Literal) -> Tensor {
    let size = |dim: &moec_types::Dim| dim.size.fixed().expect("literals have fixed sizes") as usize;
    let axes = op.ty.dims.iter().map(|dim| (dim.axis.clone(), size(dim))).collect();
    let data = match op.ty.dtype {
        DType::F32 | DType::Bf16 | DType::F16 => Data::F32(op.data.iter().map(|value| *value as f32).collect()),
        DType::I32 => Data::I32(op.data.iter().map(|value| *value as i32).collect()),
        DType::Bool => Data::Bool(op.data.iter().map(|value| *value != 0.0).collect()),
    };
    Tensor::new(axes, data)
}
