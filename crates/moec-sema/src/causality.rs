//! Which operations look across tokens, and whether what they find reaches a route or an expert.
//!
//! In a decoder a choice of experts that depends on other tokens of the pass is not the choice that the same token gets when
//! it is decoded alone, so the two would disagree.

use std::collections::BTreeMap;

use miette::{Diagnostic, LabeledSpan};
use moec_diag::Span;
use moec_ir::{Module, Node, RegionId, ValueId, ops::Op};
use moec_types::{Axis, Size, TensorType};
use thiserror::Error;

use crate::evaluator::Evaluator;

impl Evaluator {
    /// The first operation of a region that works along an axis rather than position by position.
    pub fn looks_across(&self, region: RegionId, axis: &Axis) -> Option<(Span, Axis)> {
        let nodes = &self.module.region(region).nodes;
        let across =
            nodes.iter().map(|at| self.module.node(*at)).find(|node| along(&self.module, node, &|dim| dim == axis));
        across.map(|node| (node.at, axis.clone()))
    }

    /// Reports every route of a decoder that depends on other tokens of the pass.
    pub fn check_causality(&mut self) {
        let decoder = self.module.regions().any(|region| {
            self.module.region(region).nodes.iter().any(|at| matches!(self.module.node(*at).op, Op::Past(_)))
        });
        if !decoder {
            return;
        }
        let mut search = Search { module: &self.module, causes: BTreeMap::new(), found: Vec::new() };
        search.region(self.module.body);
        for route in search.found {
            self.report(route);
        }
    }
}

/// Does a node combine positions along an axis for which `wanted` holds?
fn along(module: &Module, node: &Node, wanted: &dyn Fn(&Axis) -> bool) -> bool {
    let of_slots = match &node.op {
        Op::Past(op) => {
            module.tensor(node.operands[0]).dim(&op.axis).is_some_and(|dim| slots(&dim.size)) && wanted(&op.axis)
        }
        _ => false,
    };
    of_slots || node.op.along().iter().any(wanted)
}

fn slots(size: &Size) -> bool {
    matches!(size, Size::Slots { .. })
}

/// Why a value depends on other tokens: the operation that looked across, and the value before this one on the way from it.
#[derive(Clone, Copy)]
struct Cause {
    node_at: Span,
    from: Option<ValueId>,
}

struct Search<'m> {
    module: &'m Module,
    causes: BTreeMap<ValueId, Cause>,
    found: Vec<NotCausal>,
}

impl Search<'_> {
    fn region(&mut self, region: RegionId) {
        for at in &self.module.region(region).nodes {
            let node = self.module.node(*at);
            let before = node.operands.iter().find(|value| self.causes.contains_key(value)).copied();
            if let Op::Route(_) = &node.op {
                if let Some(before) = before {
                    let chain = self.chain(before);
                    self.found.push(NotCausal { chain, route_at: node.at });
                }
                continue;
            }
            match &node.op {
                Op::Layers(op) => self.layers(node, &op.kinds),
                Op::Scan(op) => self.scan(node, op.states, op.region),
                op => op.regions().into_iter().for_each(|region| self.region(region)),
            }
            let cause = match before {
                Some(_) => Some(Cause { node_at: node.at, from: before }),
                None if self.crosses(node) => Some(Cause { node_at: node.at, from: None }),
                None => None,
            };
            if let Some(cause) = cause {
                for result in &node.results {
                    self.causes.entry(*result).or_insert(cause);
                }
            }
        }
    }

    /// What leaves a layer of any kind may enter the next, of any kind.
    fn layers(&mut self, node: &Node, kinds: &[RegionId]) {
        let mut entering: Vec<Option<ValueId>> =
            node.operands.iter().map(|value| self.causes.contains_key(value).then_some(*value)).collect();
        loop {
            let routes = self.found.len();
            for kind in kinds {
                for (arg, from) in self.module.region(*kind).args.iter().zip(&entering) {
                    if let Some(from) = from {
                        self.causes.entry(*arg).or_insert(Cause { node_at: Span::NONE, from: Some(*from) });
                    }
                }
                self.region(*kind);
            }
            let mut grew = false;
            for kind in kinds {
                for (slot, result) in entering.iter_mut().zip(&self.module.region(*kind).results) {
                    if slot.is_none() && self.causes.contains_key(result) {
                        *slot = Some(*result);
                        grew = true;
                    }
                }
            }
            if !grew {
                break;
            }
            // Seen again in the next round, with all that enters.
            self.found.truncate(routes);
        }
        for (result, from) in node.results.iter().zip(entering) {
            if let Some(from) = from {
                self.causes.entry(*result).or_insert(Cause { node_at: Span::NONE, from: Some(from) });
            }
        }
    }

    /// A scan itself is causal; what it is given, or reads from around it, need not be.
    fn scan(&mut self, node: &Node, states: usize, region: RegionId) {
        let args = &self.module.region(region).args;
        for (arg, operand) in args.iter().zip(&node.operands) {
            if self.causes.contains_key(operand) {
                self.causes.entry(*arg).or_insert(Cause { node_at: Span::NONE, from: Some(*operand) });
            }
        }
        let results = &self.module.region(region).results;
        loop {
            self.region(region);
            // What reaches a state's next value is there at the next position.
            let states = args[node.operands.len() - states..].iter().zip(results);
            let reached: Vec<_> = states
                .filter(|(state, next)| self.causes.contains_key(next) && !self.causes.contains_key(state))
                .collect();
            for (state, next) in &reached {
                self.causes.insert(**state, Cause { node_at: Span::NONE, from: Some(**next) });
            }
            if reached.is_empty() {
                break;
            }
        }
        let from = results.iter().find(|value| self.causes.contains_key(value)).copied();
        for result in node.results.iter().filter(|_| from.is_some()) {
            self.causes.entry(*result).or_insert(Cause { node_at: node.at, from });
        }
    }

    /// Along the tokens of this pass. Sums over `past` are causal under their mask; that is attention.
    fn crosses(&self, node: &Node) -> bool {
        let ty = node.operands.first().and_then(|value| self.module.ty(*value).tensor());
        let symbolic =
            |ty: &TensorType, axis: &Axis| ty.dim(axis).is_some_and(|dim| matches!(dim.size, Size::Input(_)));
        ty.is_some_and(|ty| along(self.module, node, &|axis| symbolic(ty, axis)))
    }

    /// From the operation that looked across to what the route reads.
    fn chain(&self, value: ValueId) -> Vec<Span> {
        let mut chain = Vec::new();
        let mut at = Some(value);
        while let Some(value) = at {
            let Some(cause) = self.causes.get(&value) else { break };
            if cause.node_at != Span::NONE && chain.last() != Some(&cause.node_at) {
                chain.push(cause.node_at);
            }
            at = cause.from;
            if chain.len() > 1000 {
                break;
            }
        }
        chain.reverse();
        chain
    }
}

#[derive(Debug, Error)]
#[error("this route depends on other tokens of the same pass")]
struct NotCausal {
    chain: Vec<Span>,
    route_at: Span,
}

impl Diagnostic for NotCausal {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new("moec::sema::not_causal"))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(
            "a token decoded alone would choose other experts than in a longer pass; choose from each token by itself",
        ))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        const SHOWN: usize = 4;
        // Of operations within each other, the first that the value passes.
        let mut shown: Vec<Span> = Vec::new();
        for at in &self.chain {
            let overlaps = |other: &Span| at.start < other.end && other.start < at.end;
            if shown.len() < SHOWN && !shown.iter().chain([&self.route_at]).any(overlaps) {
                shown.push(*at);
            }
        }
        let steps = shown.into_iter().enumerate().map(|(number, at)| {
            let text = if number == 0 { "looks across tokens" } else { "goes on here" };
            LabeledSpan::new_with_span(Some(text.to_owned()), at)
        });
        let route = LabeledSpan::new_with_span(Some("and reaches this route".to_owned()), self.route_at);
        Some(Box::new(steps.chain([route])))
    }
}
