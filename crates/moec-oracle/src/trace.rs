//! Which experts were chosen: what `--trace` prints and what `verify` compares.

use moec_types::Axis;

/// Every route of one pass by which rows go to experts, in the order of execution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    pub routes: Vec<RouteRecord>,
}

/// One route: each position's choices.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteRecord {
    /// The layer it stands in, from 0; `None` outside layers.
    pub layer: Option<u32>,
    /// `layers[3].route`, with the author's name for the route where there is one.
    pub label: String,
    pub experts: u64,
    /// The axis that chooses.
    pub tokens: Axis,
    /// Choices for each position.
    pub choices: usize,
    /// `[positions, choices]`; outside `0 .. experts` means no choice.
    pub indices: Vec<i32>,
    /// `[positions, choices]`.
    pub weights: Vec<f32>,
}

impl RouteRecord {
    pub fn positions(&self) -> usize {
        self.indices.len() / self.choices.max(1)
    }
}
