//! Tokens brought to their experts: one row for each slot; zeros where nothing is chosen.

use moec_types::Axis;

use super::Choices;
use crate::tensor::{Tensor, elements};

pub(super) fn eval_dispatch(slots: &Axis, x: &Tensor, route: &Choices) -> Tensor {
    let places: Vec<Option<usize>> =
        route.slots().into_iter().map(|at| route.expert(at).map(|_| route.position(at))).collect();
    take_rows(x, &route.tokens.0, &places, slots)
}

/// Rows of `x` along `axis`, in the order given, zeros for `None`; they lie along `into`, which stands first.
pub(super) fn take_rows(x: &Tensor, axis: &Axis, places: &[Option<usize>], into: &Axis) -> Tensor {
    let kept: Vec<_> = x.axes().iter().filter(|(other, _)| other != axis).cloned().collect();
    let length = elements(&kept);
    let from = [vec![(axis.clone(), x.expect_size(axis))], kept.clone()].concat();
    let x = x.broadcast(&from);
    let mut rows = vec![0f32; places.len() * length];
    for (row, place) in places.iter().enumerate() {
        let Some(place) = place else { continue };
        rows[row * length..][..length].copy_from_slice(&x.f32()[place * length..][..length]);
    }
    Tensor::new([vec![(into.clone(), places.len())], kept].concat(), rows)
}
