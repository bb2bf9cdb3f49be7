//! Positions along an axis; along an input axis they go on where the last pass ended.

use moec_ir::ops::Iota;
use moec_types::Size;

use super::Pass;
use crate::tensor::Tensor;

impl Pass<'_> {
    pub(super) fn iota(&self, op: &Iota) -> Tensor {
        let count = self.size(&op.dim.size);
        let first = match &op.dim.size {
            Size::Input(axis) => self.extents[axis].before,
            Size::Fixed(_) | Size::Past(_) | Size::Slots { .. } | Size::Share { .. } => 0,
        };
        let positions: Vec<i32> = (first..first + count).map(|position| position as i32).collect();
        Tensor::new(vec![(op.dim.axis.clone(), count)], positions)
    }
}
