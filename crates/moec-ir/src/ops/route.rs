//! A routing decision as a value.

/// `route tokens(%indices, %weights)`: each position's chosen experts and how much each counts.
///
/// *Types.*   indices `i32[S, K]`, weights `f32[S, K]` (or `f32[K]`, `f32[]`, repeated), S symbolic -> a route. `experts` is
///            the size of the axis that the indices were chosen from.
/// *Meaning.* An index outside `0 .. experts` means: not this choice (nothing is computed, nothing is added).
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub experts: u64,
}
