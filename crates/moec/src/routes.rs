//! The routes of a model, and what reaches them across tokens.

use std::collections::BTreeSet;

use moec_diag::Span;
use moec_ir::{Module, OpId, ValueId, ops::Op};
use moec_types::Axis;

use crate::count;

/// One route in the text. Layers of one kind share it.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteShape {
    pub at: Span,
    /// Layers that run it; 1 outside layers.
    pub layers: u64,
    pub choices: u64,
    pub experts: u64,
    /// Operations between the gate's input and the choice in which tokens of one pass meet, in the text's order. None:
    /// what a token chooses depends on that token's row alone.
    pub crossings: Vec<Crossing>,
}

impl RouteShape {
    /// A token's choice does not depend on the tokens after it.
    pub fn is_causal(&self) -> bool {
        !self.crossings.iter().any(|crossing| crossing.looks_ahead)
    }

    /// A token's choice is the same whatever else is in the pass.
    pub fn is_batch_invariant(&self) -> bool {
        self.crossings.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Crossing {
    /// The operation, as the IR calls it.
    pub operation: &'static str,
    pub axis: Axis,
    /// At later tokens of the pass as well as at earlier ones.
    pub looks_ahead: bool,
    pub at: Span,
}

pub fn all(module: &Module) -> Vec<RouteShape> {
    let mut routes = Vec::new();
    count::walk(module, &mut |at, place| {
        let node = module.node(at);
        let Op::Route(route) = &node.op else { return };
        let ty = node.results.first().and_then(|value| module.ty(*value).route());
        routes.push(RouteShape {
            at: node.at,
            layers: place.executions,
            choices: ty.and_then(|ty| ty.choices.size.fixed()).unwrap_or(0),
            experts: route.experts,
            crossings: crossings(module, at),
        });
    });
    routes
}

/// Walks back from a route's operands to what came in from outside its gate: other layers, a sum that carries the tokens'
/// rows, anything under `past`.
fn crossings(module: &Module, route: OpId) -> Vec<Crossing> {
    let mut seen: BTreeSet<OpId> = BTreeSet::new();
    let mut found: Vec<(OpId, Crossing)> = Vec::new();
    let mut left: Vec<ValueId> = module.node(route).operands.clone();
    while let Some(value) = left.pop() {
        let Some(at) = module.producer_id(value) else { continue };
        let node = module.node(at);
        // What was cached is of this token and of earlier ones: a decoder's own, ordered way of looking back.
        if matches!(node.op, Op::Past(_)) || !seen.insert(at) {
            continue;
        }
        if let Some(axis) = module.meets(at) {
            let looks_ahead = !matches!(node.op, Op::Cumsum(_));
            found.push((at, Crossing { operation: node.op.mnemonic(), axis: axis.clone(), looks_ahead, at: node.at }));
        }
        left.extend(module.reads(at));
    }
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, crossing)| crossing).collect()
}
