//! Which operations look across tokens, and whether what they find reaches a route, an expert or an output.
//!
//! In a decoder a choice of experts that depends on other tokens of the pass is not the choice that the same token gets when
//! it is decoded alone, so the two would disagree. A model may say that it accepts this: `model m(ids: i32[S]) across S`.

use std::collections::{BTreeMap, BTreeSet};

use miette::{Diagnostic, LabeledSpan};
use moec_diag::Span;
use moec_ir::{Module, Node, OpId, RegionId, ValueId, ops::Op};
use moec_syntax::tree;
use moec_types::{Axis, Size};
use thiserror::Error;

use crate::{evaluator::Evaluator, spelling::did_you_mean};

impl Evaluator {
    /// The first operation of a region that works along an axis rather than position by position.
    pub fn looks_across(&self, region: RegionId, axis: &Axis) -> Option<(Span, Axis)> {
        let nodes = &self.module.region(region).nodes;
        let across =
            nodes.iter().map(|at| self.module.node(*at)).find(|node| along(&self.module, node, &|dim| dim == axis));
        across.map(|node| (node.at, axis.clone()))
    }

    /// Reports what a decoder chooses or gives that depends on other tokens of the pass, unless the model says that it may
    /// (`across S`); and an `across` along which nothing does.
    pub fn check_causality(&mut self, model: &tree::Model) {
        let accepted: Vec<(Axis, Span)> = model.across.iter().map(|name| (Axis::new(&name.text), name.at)).collect();
        if let Some((axis, at)) = accepted.iter().find(|(axis, _)| !self.is_sequence(axis)) {
            let sequences: Vec<&Axis> = self.sequences().collect();
            let help = match &sequences[..] {
                [] => "every axis of its inputs has a size: leave `across` out".to_owned(),
                [first, ..] => did_you_mean(axis.name(), sequences.iter().map(|axis| axis.name()))
                    .unwrap_or_else(|| format!("write `across {first}`")),
            };
            return self.report(AcrossNoSequence { axis: axis.clone(), at: *at, help });
        }
        let mut axes = self.kept_sequences();
        axes.extend(accepted.iter().map(|(axis, _)| axis.clone()));
        for axis in axes {
            let found = self.crossings(&axis, model);
            match accepted.iter().find(|(accepted, _)| *accepted == axis) {
                Some((_, at)) if found.is_empty() => self.report(AcrossNothing { axis, at: *at }),
                Some(_) => {}
                None => {
                    let routes = found.iter().any(|found| found.output.is_none());
                    let reported = found.into_iter().filter(|found| !routes || found.output.is_none());
                    reported.for_each(|found| self.report(found));
                }
            }
        }
    }

    /// The routes and outputs that depend on other tokens along an axis.
    fn crossings(&self, axis: &Axis, model: &tree::Model) -> Vec<NotCausal> {
        let mut search = Search { module: &self.module, axis, causes: BTreeMap::new(), found: Vec::new() };
        search.region(self.module.body);
        search.outputs(&self.outputs_at, model.name.at);
        search.found
    }

    /// Axes of the inputs that are as long as the input.
    fn sequences(&self) -> impl Iterator<Item = &Axis> {
        let dims = self.module.inputs.iter().filter_map(|input| self.module.ty(input.value).tensor());
        dims.flat_map(|ty| &ty.dims).filter_map(|dim| dim.size.of_pass())
    }

    fn is_sequence(&self, axis: &Axis) -> bool {
        self.sequences().any(|sequence| sequence == axis)
    }

    /// Sequences of which something is kept from pass to pass: those of a decoder.
    fn kept_sequences(&self) -> BTreeSet<Axis> {
        let regions = self.module.live_regions();
        let nodes = regions.iter().flat_map(|region| &self.module.region(*region).nodes);
        let of = |node: &Node| match &node.op {
            Op::Past(op) => self.module.tensor(node.operands[0]).dim(&op.axis)?.size.of_pass().cloned(),
            Op::Scan(op) => op.over.size.of_pass().cloned(),
            _ => None,
        };
        nodes.filter_map(|at| of(self.module.node(*at))).collect()
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
#[derive(Clone)]
struct Cause {
    node_at: Span,
    from: Option<ValueId>,
}

struct Search<'m> {
    module: &'m Module,
    /// The sequence that matters.
    axis: &'m Axis,
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
                    self.found.push(NotCausal { chain, axis: self.axis.clone(), output: None, reached_at: node.at });
                    // The route is a value on the way to an output.
                    let cause = Cause { node_at: node.at, from: Some(before) };
                    node.results.iter().for_each(|result| {
                        self.causes.entry(*result).or_insert_with(|| cause.clone());
                    });
                }
                continue;
            }
            match &node.op {
                Op::Layers(op) => self.layers(node, &op.kinds),
                Op::Scan(op) => self.scan(node, op.states, op.region),
                op => op.regions().into_iter().for_each(|region| self.region(region)),
            }
            let cause = match before {
                Some(before) => Some(Cause { node_at: node.at, from: Some(before) }),
                None => self.crosses(*at).then_some(Cause { node_at: node.at, from: None }),
            };
            if let Some(cause) = cause {
                for result in &node.results {
                    self.causes.entry(*result).or_insert_with(|| cause.clone());
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
                        self.passes_on(*from, *arg);
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
                self.passes_on(from, *result);
            }
        }
    }

    /// A scan itself is causal; what it is given, or reads from around it, need not be.
    fn scan(&mut self, node: &Node, states: usize, region: RegionId) {
        let args = &self.module.region(region).args;
        for (arg, operand) in args.iter().zip(&node.operands) {
            if self.causes.contains_key(operand) {
                self.passes_on(*operand, *arg);
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
                self.passes_on(**next, **state);
            }
            if reached.is_empty() {
                break;
            }
        }
        let Some(from) = results.iter().find(|value| self.causes.contains_key(value)).copied() else { return };
        let cause = Cause { node_at: node.at, from: Some(from) };
        for result in &node.results {
            self.causes.entry(*result).or_insert_with(|| cause.clone());
        }
    }

    /// Reports the outputs that depend on other tokens; those that no text stands for, at the model.
    fn outputs(&mut self, outputs_at: &[(String, Span)], model_at: Span) {
        for output in &self.module.outputs {
            if self.causes.contains_key(&output.value) {
                let chain = self.chain(output.value);
                let known = outputs_at.iter().find(|(name, _)| *name == output.name);
                let reached_at = known.map_or(model_at, |(_, at)| *at);
                let (axis, output) = (self.axis.clone(), Some(output.name.clone()));
                self.found.push(NotCausal { chain, axis, output, reached_at });
            }
        }
    }

    /// The same value under another name.
    fn passes_on(&mut self, from: ValueId, to: ValueId) {
        let cause = Cause { node_at: Span::NONE, from: Some(from) };
        self.causes.entry(to).or_insert(cause);
    }

    /// Along the tokens of this pass. Sums over `past` are causal under their mask; that is attention.
    fn crosses(&self, at: OpId) -> bool {
        self.module.meets(at) == Some(self.axis)
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

/// A route, or else an output, that depends on other tokens.
#[derive(Debug, Error)]
#[error("{} depends on other tokens of the same pass", self.what())]
struct NotCausal {
    chain: Vec<Span>,
    axis: Axis,
    output: Option<String>,
    /// The route, or the model's name.
    reached_at: Span,
}

impl NotCausal {
    fn what(&self) -> String {
        self.output.as_ref().map_or("this route".to_owned(), |name| format!("the output `{name}`"))
    }
}

impl Diagnostic for NotCausal {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new("moec::sema::not_causal"))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        let would = match self.output {
            None => {
                "a token decoded alone would choose other experts than in a longer pass; choose from each token by itself"
            }
            Some(_) => {
                "a token decoded alone would give something else than in a longer pass; look back by `past` or `scan`"
            }
        };
        Some(Box::new(format!("{would}, or accept it: `model …(…) across {} {{`", self.axis)))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        const SHOWN: usize = 4;
        // Of operations within each other, the first that the value passes.
        let mut shown: Vec<Span> = Vec::new();
        for at in &self.chain {
            let overlaps = |other: &Span| at.start < other.end && other.start < at.end;
            if shown.len() < SHOWN && !shown.iter().chain([&self.reached_at]).any(overlaps) {
                shown.push(*at);
            }
        }
        let steps = shown.into_iter().enumerate().map(|(number, at)| {
            let text = if number == 0 { "looks across tokens" } else { "goes on here" };
            LabeledSpan::new_with_span(Some(text.to_owned()), at)
        });
        let text = match &self.output {
            None => "and reaches this route".to_owned(),
            Some(name) => format!("and reaches `{name}`"),
        };
        let reached = LabeledSpan::new_with_span(Some(text), self.reached_at);
        Some(Box::new(steps.chain([reached])))
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("nothing in this model crosses `{axis}`")]
#[diagnostic(
    code(moec::sema::across_nothing),
    help("each token's experts and outputs depend on what came before it alone: leave `across {axis}` out")
)]
struct AcrossNothing {
    axis: Axis,
    #[label("says that tokens depend on each other")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{axis}` is not a sequence of this model's inputs")]
#[diagnostic(code(moec::sema::across_no_sequence), help("{help}"))]
struct AcrossNoSequence {
    axis: Axis,
    #[label("not as long as the input")]
    at: Span,
    help: String,
}
