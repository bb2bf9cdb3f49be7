//! Every position of the sequence up to now.

use moec_types::Axis;

/// `past %x S as T`: in a session, what this value was at all earlier positions, then at those of this pass. The only
/// thing in a model that is kept between passes; caches follow from it.
///
/// *Types.*   x `f32[.., S, ..]` with S an input axis -> the same with `T` of size `past(S)` in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    pub axis: Axis,
    pub into: Axis,
}
