//! Every position of the sequence up to now.

use std::sync::Arc;

use moec_ir::ops::{Past, Rename};
use moec_ir::{OpId, ValueId};

use super::{Pass, concat::eval_concat, rename::eval_rename};
use crate::error::EvalError;
use crate::tensor::Tensor;

impl Pass<'_> {
    pub(super) fn past(&mut self, id: OpId, op: &Past, x: ValueId) -> Result<Arc<Tensor>, EvalError> {
        let now = eval_rename(&Rename { from: op.axis.clone(), to: op.into.clone() }, self.tensor(x));
        let key = (self.layers.iter().map(|layer| layer.number).collect(), id);
        let whole = match self.before.past.get(&key) {
            Some(before) => {
                same_sizes(op, before, &now)?;
                eval_concat(&op.into, &[before, &now])
            }
            None => now,
        };
        let whole = Arc::new(whole);
        self.after.past.insert(key, Arc::clone(&whole));
        Ok(whole)
    }
}

fn same_sizes(op: &Past, before: &Tensor, now: &Tensor) -> Result<(), EvalError> {
    for (axis, size) in now.axes().iter().filter(|(axis, _)| *axis != op.into) {
        let before = before.expect_size(axis);
        if before != *size {
            return Err(EvalError::SizeChanged { axis: axis.to_string(), before, now: *size });
        }
    }
    Ok(())
}
