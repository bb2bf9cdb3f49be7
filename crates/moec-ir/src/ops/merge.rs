//! Several axes seen as one.

use moec_types::Axis;

/// `merge %x (Group, Member) as E`: the last of the merged axes runs fastest.
///
/// *Types.*   axes of fixed size, in any place -> the new axis stands where the first of them stood; the others are gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Merge {
    pub axes: Vec<Axis>,
    pub into: Axis,
}
