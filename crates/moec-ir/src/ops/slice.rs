//! A part of an axis.

use moec_types::Axis;

/// `slice %x Half 0..1 {drop}`: positions `start .. start + len` of an axis of fixed size.
///
/// *Types.*   -> the axis with size `len`, or without the axis when `drop` (then `len` is 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    pub axis: Axis,
    pub start: u64,
    pub len: u64,
    pub drop: bool,
}
