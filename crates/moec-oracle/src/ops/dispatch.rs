//! Tokens brought to their experts: one row for each slot; zeros where nothing is chosen.

use moec_types::Axis;

use super::Choices;
use crate::tensor::{Tensor, elements};

pub(super) fn eval_dispatch(slots: &Axis, x: &Tensor, route: &Choices) -> Tensor {
    let place = |at: usize| route.expert(at).map(|_| at);
    let places: Vec<Option<usize>> = route.slots().into_iter().map(place).collect();
    if x.size(&route.choices.0).is_none() {
        let places: Vec<_> = places.into_iter().map(|at| at.map(|at| route.position(at))).collect();
        return take_rows(x, &route.tokens.0, &places, slots);
    }
    // Positions and choices as one axis, counted as the places are.
    let rest = x.axes().iter().filter(|axis| ![&route.tokens, &route.choices].contains(axis));
    let axes = [&route.tokens, &route.choices].into_iter().chain(rest.clone()).cloned().collect::<Vec<_>>();
    let pairs = [(route.tokens.0.clone(), route.indices.len())].into_iter().chain(rest.cloned()).collect();
    take_rows(&Tensor::new(pairs, x.broadcast(&axes).f32().to_vec()), &route.tokens.0, &places, slots)
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
