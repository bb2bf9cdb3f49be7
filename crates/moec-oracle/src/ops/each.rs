//! Expert rows brought back to their tokens, one for each choice; zeros where nothing is chosen.

use moec_types::Axis;

use super::{Choices, dispatch::take_rows};
use crate::tensor::Tensor;

pub(super) fn eval_each(slots: &Axis, rows: &Tensor, route: &Choices) -> Tensor {
    let mut row_of = vec![None; route.indices.len()];
    for (row, at) in route.slots().into_iter().enumerate() {
        row_of[at] = route.expert(at).map(|_| row);
    }
    let found = take_rows(rows, slots, &row_of, slots);
    let rest = found.axes().iter().filter(|(axis, _)| axis != slots).cloned();
    let axes = [route.tokens.clone(), route.choices.clone()].into_iter().chain(rest).collect();
    Tensor::new(axes, found.f32().to_vec())
}
