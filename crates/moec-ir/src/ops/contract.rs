//! A product of two tensors, summed over shared axes.

use moec_types::Axis;

/// `contract %a, %b over (D)`.
///
/// *Types.*   two f32 tensors that both have every axis of `over` -> f32[a's axes without `over`, then b's axes that a lacks].
/// *Meaning.* Shared axes that are not summed are aligned (a batch).
#[derive(Clone, Debug, PartialEq)]
pub struct Contract {
    pub over: Vec<Axis>,
}
