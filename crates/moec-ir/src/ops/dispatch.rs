//! Tokens brought to their experts.

use moec_types::Axis;

/// `dispatch %x, %route as Slot`: one row for each (position, choice), ordered by expert, then by position.
///
/// *Types.*   x `f32[S, ..]`, a route over S -> `f32[Slot=slots(S, K), ..]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    pub slots: Axis,
}
