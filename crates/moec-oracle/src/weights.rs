//! Where parameters come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use moec_ir::{Module, Param, ParamId};
use moec_types::{Axis, DType};

use crate::tensor::{Data, Tensor};

/// Parameter values, one instance at a time, so that a model larger than memory can be evaluated.
pub trait Weights {
    /// The instance for the `layer`-th execution of its layer kind (the rank among [`Param::layers`]; 0 outside layers) and the
    /// `expert`-th expert of its bank member (0 outside banks). Its axes are the parameter's, in any order; its elements f32
    /// for every float type. `None` where nothing is known of it.
    fn instance(&self, param: ParamId, layer: u32, expert: u32) -> Option<Arc<Tensor>>;
}

/// Weights held in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryWeights {
    instances: BTreeMap<(ParamId, u32, u32), Arc<Tensor>>,
}

impl MemoryWeights {
    pub fn insert(&mut self, param: ParamId, layer: u32, expert: u32, value: Tensor) {
        self.instances.insert((param, layer, expert), Arc::new(value));
    }
}

impl Weights for MemoryWeights {
    fn instance(&self, param: ParamId, layer: u32, expert: u32) -> Option<Arc<Tensor>> {
        self.instances.get(&(param, layer, expert)).cloned()
    }
}

/// Reproducible weights for tests: a function of seed, path, layer and expert only, so they outlive every pass.
///
/// Parameters with one axis (norms, biases) lie in `0.5 .. 1.5`, scalars too; others in `-r .. r` with `r = sqrt(3 / size of the
/// last axis)`, which keeps the size of activations wherever that axis is the one summed over. Integers are 0, bools false.
#[derive(Clone, Debug)]
pub struct RandomWeights {
    params: Vec<Param>,
    seed: u64,
}

impl RandomWeights {
    pub fn new(module: &Module, seed: u64) -> Self {
        RandomWeights { params: module.params.clone(), seed }
    }
}

impl Weights for RandomWeights {
    fn instance(&self, param: ParamId, layer: u32, expert: u32) -> Option<Arc<Tensor>> {
        let param = self.params.get(param.index())?;
        let axes: Option<Vec<(Axis, usize)>> = param
            .ty
            .dims
            .iter()
            .map(|dim| Some((dim.axis.clone(), usize::try_from(dim.size.fixed()?).ok()?)))
            .collect();
        let axes = axes?;
        let count = usize::try_from(param.ty.elements()?).ok()?;
        let (middle, reach) = match axes.as_slice() {
            [] | [_] => (1.0, 0.5),
            [.., (_, last)] => (0.0, (3.0 / (*last).max(1) as f64).sqrt()),
        };
        let mut state =
            [&self.seed.to_le_bytes()[..], param.path.as_bytes(), &layer.to_le_bytes(), &expert.to_le_bytes()]
                .iter()
                .fold(FNV_OFFSET, |hash, bytes| fnv1a(hash, bytes));
        let mut next = || (middle + reach * uniform(&mut state)) as f32;
        let data = match param.ty.dtype {
            DType::F32 | DType::Bf16 | DType::F16 => Data::F32((0..count).map(|_| next()).collect()),
            DType::I32 => Data::I32(vec![0; count]),
            DType::Bool => Data::Bool(vec![false; count]),
        };
        Some(Arc::new(Tensor::new(axes, data)))
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits.
fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The next number in `-1 .. 1` (splitmix64).
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}
