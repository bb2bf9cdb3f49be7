//! The largest few along an axis.

use moec_types::{Axis, Dim};

/// `(values, indices) = top_k(x, k over axis)`: the k largest along an axis, largest first.
///
/// *Types.*   x `f32[.., axis, ..]` -> values `f32[.., choices, ..]`, indices `i32[.., choices, ..]`: the axis is replaced in
///            place by `choices` (of fixed size k), which x must not have.
/// *Meaning.* Equal values prefer the lower index; NaN sorts last (below -inf), so no index is chosen twice.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    pub over: Axis,
    pub choices: Dim,
}
