//! A routing decision as a value.

use moec_ir::Node;
use moec_ir::ops::Route;
use moec_types::Axis;

use super::Pass;
use crate::tensor::Tensor;
use crate::trace::RouteRecord;

/// Each position's choices.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    /// The axis of the positions, and how many there are.
    pub tokens: (Axis, usize),
    /// The axis of the choices, and how many there are.
    pub choices: (Axis, usize),
    pub experts: u64,
    /// `[positions, choices]`.
    pub indices: Vec<i32>,
    /// `[positions, choices]`.
    pub weights: Vec<f32>,
}

impl Choices {
    /// The expert at one place of `indices`; `None` where nothing is chosen.
    pub fn expert(&self, at: usize) -> Option<u32> {
        u32::try_from(self.indices[at]).ok().filter(|expert| u64::from(*expert) < self.experts)
    }

    /// What goes to one expert, as places in `indices`: by position, then by choice.
    pub fn of_expert(&self, expert: u32) -> Vec<usize> {
        (0..self.indices.len()).filter(|at| self.expert(*at) == Some(expert)).collect()
    }

    /// The places in `indices` in the order of the slots: by expert, then by position. Places where nothing is chosen come last.
    pub fn slots(&self) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.indices.len()).collect();
        places.sort_by_key(|at| self.expert(*at).map_or(u64::MAX, u64::from));
        places
    }

    /// The position to which a place in `indices` belongs.
    pub fn position(&self, at: usize) -> usize {
        at / self.choices.1
    }
}

impl Pass<'_> {
    pub(super) fn choose(&mut self, op: &Route, node: &Node) -> Choices {
        let ty = self.module.ty(node.results[0]).route().expect("a route yields a route");
        let indices = self.tensor(node.operands[0]);
        let sized = |axis: &Axis| (axis.clone(), indices.expect_size(axis));
        let (tokens, choices) = (sized(&ty.tokens.axis), sized(&ty.choices.axis));
        let axes = [tokens.clone(), choices.clone()];
        let read = |x: &Tensor| x.broadcast(&axes).into_owned();
        let indices = read(indices).i32().to_vec();
        let weights = read(self.tensor(node.operands[1])).f32().to_vec();
        let route = Choices { tokens, choices, experts: op.experts, indices, weights };
        // A route that sends nothing to a bank is no more than its weights.
        if self.module.uses(node.results[0]) > 0 {
            self.record(&route, node);
        }
        route
    }

    fn record(&mut self, route: &Choices, node: &Node) {
        let layer = self.layers.last().map(|layer| layer.number);
        let name = self.module.name_of(node.results[0]).unwrap_or("route");
        let label = layer.map_or(name.to_string(), |layer| format!("layers[{layer}].{name}"));
        let Some(trace) = &mut self.trace else { return };
        trace.routes.push(RouteRecord {
            layer,
            label,
            experts: route.experts,
            tokens: route.tokens.0.clone(),
            choices: route.choices.1,
            indices: route.indices.clone(),
            weights: route.weights.clone(),
        });
    }
}
