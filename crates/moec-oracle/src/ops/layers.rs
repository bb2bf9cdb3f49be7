//! The stack: a loop over layers of a few kinds.

use moec_ir::Node;
use moec_ir::ops::Layers;

use super::{Layer, Pass, Value};
use crate::error::EvalError;

impl Pass<'_> {
    pub(super) fn layers(&mut self, op: &Layers, node: &Node) -> Result<Vec<Value>, EvalError> {
        let mut values: Vec<Value> = node.operands.iter().map(|operand| self.value(*operand).clone()).collect();
        let mut executions = vec![0; op.kinds.len()];
        for (number, kind) in op.order.iter().enumerate() {
            let kind = *kind as usize;
            self.layers.push(Layer { number: number as u32, execution: executions[kind] });
            executions[kind] += 1;
            let result = self.call(op.kinds[kind], values);
            self.layers.pop();
            values = result?;
        }
        Ok(values)
    }
}
