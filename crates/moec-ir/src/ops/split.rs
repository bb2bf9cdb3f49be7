//! One axis seen as several.

use moec_types::{Axis, Dim};

/// `split %x E as (Group=4, Member=8)`: the last of the new axes runs fastest.
///
/// *Types.*   an axis of fixed size, the product of the new ones -> the axis replaced in place by the new ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    pub axis: Axis,
    pub into: Vec<Dim>,
}
