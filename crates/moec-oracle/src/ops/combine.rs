//! Expert rows weighed and summed back into their tokens.

use moec_types::Axis;

use super::Choices;
use crate::tensor::{Tensor, elements};

/// Sums in f64, in the order of choice.
pub(super) fn eval_combine(slots: &Axis, rows: &Tensor, route: &Choices) -> Tensor {
    let kept: Vec<_> = rows.axes().iter().filter(|(axis, _)| axis != slots).cloned().collect();
    let length = elements(&kept);
    let from = [vec![(slots.clone(), rows.expect_size(slots))], kept.clone()].concat();
    let rows = rows.broadcast(&from);
    let mut row_of = vec![0; route.indices.len()];
    route.slots().into_iter().enumerate().for_each(|(row, at)| row_of[at] = row);

    let mut out = Vec::with_capacity(route.tokens.1 * length);
    for position in 0..route.tokens.1 {
        let mut sums = vec![0f64; length];
        for at in (position * route.choices.1..).take(route.choices.1).filter(|at| route.expert(*at).is_some()) {
            let (weight, row) = (f64::from(route.weights[at]), &rows.f32()[row_of[at] * length..][..length]);
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * f64::from(*x));
        }
        out.extend(sums.into_iter().map(|sum| sum as f32));
    }
    Tensor::new([vec![route.tokens.clone()], kept].concat(), out)
}
