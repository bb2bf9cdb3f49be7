//! One axis seen as several.

use moec_ir::ops::Split;

use super::Pass;
use crate::tensor::Tensor;

impl Pass<'_> {
    pub(super) fn split(&self, op: &Split, x: &Tensor) -> Tensor {
        let parts = || op.into.iter().map(|dim| (dim.axis.clone(), self.size(&dim.size)));
        let axes = x.axes().iter().flat_map(|own| if own.0 == op.axis { parts().collect() } else { vec![own.clone()] });
        x.clone().reshaped(axes.collect())
    }
}
