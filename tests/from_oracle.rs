//! The oracle's weights as a plan's packing asks for them.

use moec_interpreter::Instances;
use moec_ir::ParamId;
use moec_oracle::Weights;

pub struct FromOracle<'w, W>(pub &'w W);

impl<W: Weights> Instances for FromOracle<'_, W> {
    fn instance(&self, param: u32, layer: u32, expert: u32) -> (Vec<(String, u64)>, Vec<f32>) {
        let tensor = self.0.instance(ParamId(param), layer, expert).expect("every parameter has its numbers");
        let axes = tensor.axes().iter().map(|(axis, size)| (axis.name().to_owned(), *size as u64)).collect();
        (axes, tensor.f32().to_vec())
    }
}
