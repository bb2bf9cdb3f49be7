//! Positions one after the other, with states that go from each to the next, and from pass to pass.

use std::sync::Arc;

use moec_ir::ops::{Scan, Slice};
use moec_ir::{Node, OpId, ValueId};
use moec_types::{Axis, DType};

use super::{Pass, Value, bounded, concat::eval_concat, slice::eval_slice};
use crate::error::EvalError;
use crate::tensor::{Data, Tensor};

impl Pass<'_> {
    pub(super) fn scan(&mut self, id: OpId, op: &Scan, node: &Node) -> Result<Vec<Value>, EvalError> {
        let axis = &op.over.axis;
        let count = self.size(&op.over.size);
        let args = self.module.region(op.region).args.clone();
        let (sequences, initial) = node.operands.split_at(op.sequences(node.operands.len()));
        let key = (self.layers.iter().map(|layer| layer.number).collect(), id);
        let mut states: Vec<Value> = match self.before.states.get(&key) {
            Some(states) => states.iter().map(|state| Value::Tensor(Arc::clone(state))).collect(),
            None => {
                let args = &args[sequences.len()..];
                initial.iter().zip(args).map(|(initial, state)| self.repeated(*initial, *state)).collect()
            }
        };
        let mut given: Vec<Vec<Value>> = Vec::with_capacity(count);
        for position in 0..count {
            let at = Slice { axis: axis.clone(), start: position as u64, len: 1, drop: true };
            let seen = sequences.iter().map(|value| eval_slice(&at, self.tensor(*value)).into());
            let values = seen.collect::<Vec<Value>>().into_iter().chain(states).collect();
            let mut results = self.call(op.region, values)?;
            given.push(results.split_off(op.states));
            states = results;
        }
        let kept = states.into_iter().map(|state| match state {
            Value::Tensor(state) => state,
            Value::Route(_) => unreachable!("verified: states are tensors"),
        });
        let kept = kept.collect();
        self.after.states.insert(key, kept);
        (0..node.results.len()).map(|at| self.stacked(node.results[at], axis, &given, at)).collect()
    }

    /// An initial value with all axes of its state.
    fn repeated(&self, initial: ValueId, state: ValueId) -> Value {
        let axes = self.axes_of(state);
        self.tensor(initial).broadcast(&axes).into_owned().into()
    }

    fn axes_of(&self, value: ValueId) -> Vec<(Axis, usize)> {
        let dims = &self.module.tensor(value).dims;
        dims.iter().map(|dim| (dim.axis.clone(), self.size(&dim.size))).collect()
    }

    /// What was given at each position, one after the other along an axis in front.
    fn stacked(&self, result: ValueId, over: &Axis, given: &[Vec<Value>], number: usize) -> Result<Value, EvalError> {
        let axes = self.axes_of(result);
        bounded(&axes)?;
        let one = &axes[1..];
        let part = |results: &Vec<Value>| match &results[number] {
            Value::Tensor(part) => {
                let axes = [vec![(over.clone(), 1)], one.to_vec()].concat();
                part.broadcast(one).into_owned().reshaped(axes)
            }
            Value::Route(_) => unreachable!("verified: a scan gives tensors"),
        };
        let parts: Vec<Tensor> = given.iter().map(part).collect();
        if parts.is_empty() {
            return Ok(Tensor::new(axes, empty(self.module.tensor(result).dtype)).into());
        }
        Ok(eval_concat(over, &parts.iter().collect::<Vec<_>>()).into())
    }
}

fn empty(dtype: DType) -> Data {
    match dtype {
        DType::F32 | DType::Bf16 | DType::F16 => Data::F32(Vec::new()),
        DType::I32 => Data::I32(Vec::new()),
        DType::Bool => Data::Bool(Vec::new()),
    }
}
