//! An axis under another name.

use moec_types::Axis;

/// `rename %x K as K2`.
///
/// *Types.*   x with the axis `from`, without `to` -> the same with `to` in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Rename {
    pub from: Axis,
    pub to: Axis,
}
