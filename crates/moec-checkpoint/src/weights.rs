//! A checkpoint as the oracle's weights.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use moec_ir::{Module, ParamId};
use moec_oracle::{Data, Tensor, Weights};
use moec_sema::{Claim, WeightMap};
use moec_types::{Axis, DType};

use crate::checkpoint::Checkpoint;
use crate::claimed;
use crate::stored::StoredTensor;

/// Instances converted so far are kept until they fill this; after that each is converted anew.
const KEPT_BYTES: usize = 2 << 30;

type Instance = (ParamId, u32, u32);

/// Parameters read from a checkpoint when they are asked for, with the parameter's order of axes, as f32 (or i32, bool).
pub struct CheckpointWeights<'a> {
    checkpoint: &'a Checkpoint,
    weights: &'a WeightMap,
    module: &'a Module,
    claims: BTreeMap<Instance, &'a Claim>,
    kept: RefCell<Kept>,
}

#[derive(Default)]
struct Kept {
    instances: BTreeMap<Instance, Arc<Tensor>>,
    bytes: usize,
}

impl<'a> CheckpointWeights<'a> {
    /// [`match_checkpoint`](crate::match_checkpoint) should have found no problem; an instance with one is `None`.
    pub fn new(checkpoint: &'a Checkpoint, weights: &'a WeightMap, module: &'a Module) -> Self {
        let own = weights.claims.iter().filter(|claim| !claim.shared);
        let claims = own.map(|claim| ((claim.param, claim.layer, claim.expert), claim)).collect();
        CheckpointWeights { checkpoint, weights, module, claims, kept: RefCell::default() }
    }

    fn read(&self, instance: Instance) -> Option<Tensor> {
        let claim = self.claims.get(&instance)?;
        let part = claimed::find(self.checkpoint, self.weights, &claim.tensor)?.part(&claim.view)?;
        let ty = &self.module.param(claim.param).ty;
        let sized = |(axis, size): &(Axis, u64)| Some((axis.clone(), usize::try_from(*size).ok()?));
        let axes = part.axes.iter().map(sized).collect::<Option<Vec<_>>>()?;
        let stored = StoredTensor { dtype: &part.dtype, shape: &[], bytes: &part.bytes };
        let data = match ty.dtype {
            DType::F32 | DType::Bf16 | DType::F16 => Data::F32(stored.to_f32()?),
            DType::I32 => Data::I32(stored.to_i32()?),
            DType::Bool => Data::Bool(stored.to_bool()?),
        };
        let whole = axes.len() == ty.dims.len() && ty.axes().all(|axis| axes.iter().any(|(own, _)| own == axis));
        if !whole || axes.iter().map(|(_, size)| size).product::<usize>() != data.len() {
            return None;
        }
        Some(Tensor::new(axes, data).arranged(ty.axes()).into_owned())
    }
}

impl Weights for CheckpointWeights<'_> {
    fn instance(&self, param: ParamId, layer: u32, expert: u32) -> Option<Arc<Tensor>> {
        let instance = (param, layer, expert);
        if let Some(tensor) = self.kept.borrow().instances.get(&instance) {
            return Some(Arc::clone(tensor));
        }
        let tensor = Arc::new(self.read(instance)?);
        let mut kept = self.kept.borrow_mut();
        let bytes = 4 * tensor.data().len();
        if kept.bytes + bytes <= KEPT_BYTES {
            kept.bytes += bytes;
            kept.instances.insert(instance, Arc::clone(&tensor));
        }
        Some(tensor)
    }
}
