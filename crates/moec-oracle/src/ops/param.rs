//! A parameter's value: the instance of the layer and the expert in which it stands.

use std::sync::Arc;

use moec_ir::{ParamId, ops::Stack};
use moec_types::Dim;

use super::Pass;
use crate::error::EvalError;
use crate::session::fits;
use crate::tensor::{Data, Tensor};

impl Pass<'_> {
    pub(super) fn param(&self, id: ParamId) -> Result<Arc<Tensor>, EvalError> {
        let expert = self.module.param(id).experts.and(self.expert).map_or(0, |(rank, _)| rank);
        self.instance(id, expert)
    }

    /// All experts' instances, one after the other.
    pub(super) fn stack(&self, op: &Stack) -> Result<Tensor, EvalError> {
        let param = self.module.param(op.param);
        let experts = param.experts.map_or(1, |experts| experts.count);
        let mut all = Vec::new();
        for expert in 0..experts {
            all.extend_from_slice(self.instance(op.param, expert)?.arranged(param.ty.axes()).f32());
        }
        let size = |dim: &Dim| dim.size.fixed().expect("parameters have fixed sizes") as usize;
        let axes = param.ty.dims.iter().map(|dim| (dim.axis.clone(), size(dim)));
        Ok(Tensor::new(std::iter::once((op.axis.clone(), experts as usize)).chain(axes).collect(), all))
    }

    fn instance(&self, id: ParamId, expert: u32) -> Result<Arc<Tensor>, EvalError> {
        let param = self.module.param(id);
        let layer = param.layers.as_ref().and(self.layers.last()).map_or(0, |layer| layer.execution);
        let path = || param.instance_path(layer, expert);
        let Some(value) = self.weights.instance(id, layer, expert) else {
            let Some((initial, count)) = param.initial().zip(param.ty.elements()) else {
                return Err(EvalError::MissingWeights { path: path() });
            };
            let size = |dim: &Dim| dim.size.fixed().expect("parameters have fixed sizes") as usize;
            let axes = param.ty.dims.iter().map(|dim| (dim.axis.clone(), size(dim))).collect();
            return Ok(Arc::new(Tensor::new(axes, Data::F32(vec![initial; count as usize]))));
        };
        if !fits(&value, &param.ty) {
            let (found, wants) = (value.to_string(), param.ty.to_string());
            return Err(EvalError::WeightsType { path: path(), found, wants });
        }
        Ok(value)
    }
}
