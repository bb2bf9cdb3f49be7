//! The oracle's weights as a plan's packing asks for them.

use moec_interpreter::Instances;
use moec_ir::ParamId;
use moec_oracle::{MemoryWeights, Weights};

pub struct FromOracle<'w>(pub &'w MemoryWeights);

impl Instances for FromOracle<'_> {
    fn instance(&self, param: u32, layer: u32, expert: u32) -> (Vec<(String, u64)>, Vec<f32>) {
        let tensor = self.0.instance(ParamId(param), layer, expert).expect("a case knows every parameter");
        let axes = tensor.axes().iter().map(|(axis, size)| (axis.name().to_owned(), *size as u64)).collect();
        (axes, tensor.f32().to_vec())
    }
}
