//! A bank of experts applied to the rows of a route: one expert after another, each on its own rows.

use moec_ir::Node;
use moec_ir::ops::{Experts, ExpertsInput, ExpertsOutput};
use moec_types::{Axis, Size};

use super::{Pass, Value, dispatch::take_rows};
use crate::error::EvalError;
use crate::tensor::{Tensor, elements};

impl Pass<'_> {
    pub(super) fn experts(&mut self, op: &Experts, node: &Node) -> Result<Tensor, EvalError> {
        let route = self.route(node.operands[1]).clone();
        let input = self.tensor(node.operands[0]).clone();
        let along = match op.input {
            ExpertsInput::Packed => self.slot_axis(node.operands[0]),
            ExpertsInput::FromTokens => route.tokens.0.clone(),
        };
        let slots = route.slots();
        let mut slot_of = vec![0; slots.len()];
        slots.iter().enumerate().for_each(|(slot, at)| slot_of[*at] = slot);

        let row_axes = self.row_axes(op);
        let length = elements(&row_axes);
        // One row for each (position, choice), in that order.
        let mut out = vec![0f32; route.indices.len() * length];
        for member in &op.bank {
            for rank in 0..member.count {
                let places = route.of_expert(member.first + rank);
                if places.is_empty() {
                    continue;
                }
                let rows: Vec<Option<usize>> = places
                    .iter()
                    .map(|at| match op.input {
                        ExpertsInput::Packed => Some(slot_of[*at]),
                        ExpertsInput::FromTokens => Some(route.position(*at)),
                    })
                    .collect();
                let rows = take_rows(&input, &along, &rows, &op.slots);
                let outer = self.expert.replace((rank, places.len()));
                let result = self.call(member.region, vec![rows.into()])?;
                self.expert = outer;
                let [Value::Tensor(result)] = &result[..] else { panic!("an expert yields one tensor") };
                let axes = [vec![(op.slots.clone(), places.len())], row_axes.clone()].concat();
                let result = result.broadcast(&axes);
                for (row, at) in places.iter().enumerate() {
                    out[at * length..][..length].copy_from_slice(&result.f32()[row * length..][..length]);
                }
            }
        }
        Ok(match op.output {
            ExpertsOutput::PerSlot => {
                let name = self.slot_axis(node.results[0]);
                let by_slot = slots.iter().flat_map(|at| &out[at * length..][..length]).copied().collect::<Vec<_>>();
                Tensor::new([vec![(name, slots.len())], row_axes].concat(), by_slot)
            }
            ExpertsOutput::WeighedPerChoice => {
                for (at, row) in out.chunks_exact_mut(length.max(1)).enumerate() {
                    // Rows of nothing stay zero, even where the weight is not a number.
                    let Some(_) = route.expert(at) else { continue };
                    row.iter_mut().for_each(|x| *x *= route.weights[at]);
                }
                Tensor::new([vec![route.tokens.clone(), route.choices.clone()], row_axes].concat(), out)
            }
        })
    }

    /// The axes of one row of the bank's result.
    fn row_axes(&self, op: &Experts) -> Vec<(Axis, usize)> {
        let result = self.module.region(op.bank[0].region).results[0];
        let dims = self.module.tensor(result).dims.iter().filter(|dim| !matches!(dim.size, Size::Slots { .. }));
        dims.map(|dim| (dim.axis.clone(), self.size(&dim.size))).collect()
    }
}
