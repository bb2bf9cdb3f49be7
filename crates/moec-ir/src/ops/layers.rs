//! The stack: a loop over layers of a few kinds.

use crate::RegionId;

/// `layers %h {order [0, 1, 1, 1]}`.
///
/// *Types.*   the values that go from layer to layer; each kind's region takes and gives values of the same types.
/// *Meaning.* `order[l]` is the kind of layer `l`. The n-th execution of a kind uses the n-th instance of its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Layers {
    pub kinds: Vec<RegionId>,
    pub order: Vec<u32>,
}
