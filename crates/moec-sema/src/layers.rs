//! `layers l in a..b`: the body is evaluated once for each layer, and layers that come out alike become one kind.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    rc::Rc,
};

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    Module, Param, ParamId, RegionId, ValueId, ValueType,
    ops::{Layers, Op},
};
use moec_syntax::tree::{Expr, Name, Pattern, Statement, StatementKind};
use thiserror::Error;

use crate::{
    evaluator::{Evaluator, limits},
    extra::Found,
    scope::{BodyKind, Bound, Frame, Origin},
    value::{Part, PartOf, Value},
};

/// A value that goes from layer to layer.
struct Carried {
    name: String,
    value: ValueId,
    ty: ValueType,
    at: Span,
}

/// Layers that are alike: the region of the first of them, and the parameters made for it.
struct Kind {
    region: RegionId,
    params: Vec<ParamId>,
    found: Vec<Found>,
}

impl Evaluator {
    pub fn layers(&mut self, frame: &mut Frame, index: &Name, from: &Expr, to: &Expr, body: &[Statement], at: Span) {
        let Some((from, to)) = self.range(frame, from, to) else { return };
        let mut sound = !self.already_named(frame, index);
        let Some(carried) = self.carried(frame, body) else { return };
        if carried.is_empty() {
            self.report(CarriesNothing { at });
            sound = false;
        }
        if !sound || from == to {
            return;
        }
        let mut kinds: Vec<Kind> = Vec::new();
        let mut alike: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut order = Vec::new();
        for layer in from..to {
            let mark = self.module.mark();
            let (shared, found) = (self.shared.len(), self.found.len());
            let Some(kind) = self.layer(frame, index, layer, &carried, body, at) else {
                if self.stopped {
                    return;
                }
                sound = false;
                continue;
            };
            self.found.truncate(found);
            let fingerprint = fingerprint(&self.module, kind.region);
            let candidates = alike.entry(fingerprint).or_default();
            match candidates.iter().find(|known| same_kind(&self.module, &kinds[**known], &kind)) {
                Some(known) => {
                    for param in &kinds[*known].params {
                        // Nothing outside layers has `layers`, and these were made by a layer.
                        self.module.params[param.index()].layers.get_or_insert_default().push(layer);
                    }
                    order.push(*known as u32);
                    let params: Vec<(ParamId, ParamId)> =
                        kind.params.iter().copied().zip(kinds[*known].params.iter().copied()).collect();
                    for alias in &mut self.shared[shared..] {
                        if let Some((_, kept)) = params.iter().find(|(dropped, _)| *dropped == alias.param) {
                            alias.param = *kept;
                        }
                    }
                    if let Some(first) = self.module.region(kind.region).args.first() {
                        self.chosen_from.split_off(first);
                    }
                    self.module.forget_since(mark);
                }
                None => {
                    candidates.push(kinds.len());
                    order.push(kinds.len() as u32);
                    kinds.push(kind);
                }
            }
        }
        if !sound {
            for carried in &carried {
                give(frame, &carried.name, Value::Error);
            }
            return;
        }
        let mut operands: Vec<(ValueId, Span)> = carried.iter().map(|carried| (carried.value, carried.at)).collect();
        let found: Vec<(RegionId, Vec<Found>)> = kinds.iter().map(|kind| (kind.region, kind.found.clone())).collect();
        let numbered: Vec<(u32, usize)> = (from..).zip(order.iter().map(|kind| *kind as usize)).collect();
        let collected = self.collect(frame, &found, &numbered, &mut operands);
        let op = Layers { kinds: kinds.iter().map(|kind| kind.region).collect(), order };
        let results = self.emit(frame, op, &operands, at);
        for (number, carried) in carried.iter().enumerate() {
            let value = results
                .as_ref()
                .and_then(|results| results.get(number))
                .map_or(Value::Error, |value| Value::Tensor(*value));
            if let Value::Tensor(value) = value {
                self.module.set_name(value, &carried.name);
            }
            give(frame, &carried.name, value);
        }
        for (result, found) in collected {
            if let Some(value) = results.as_ref().and_then(|results| results.get(result)) {
                self.found.push(Found { value: *value, ..found });
            }
        }
    }

    fn range(&mut self, frame: &mut Frame, from: &Expr, to: &Expr) -> Option<(u32, u32)> {
        let (from, to) = (self.operand(frame, from), self.operand(frame, to));
        let (first, end) = (self.int(&from, "the first layer")?, self.int(&to, "the number of layers")?);
        if first < 0 || end < first {
            self.report(NotARange { first, end, at: from.at.to(to.at) });
            return None;
        }
        if end as u64 > limits::LAYERS {
            self.report(TooManyLayers { end, at: to.at });
            return None;
        }
        Some((first as u32, end as u32))
    }

    /// The names of around that the body gives new values, in the order in which it does.
    fn carried(&mut self, frame: &Frame, body: &[Statement]) -> Option<Vec<Carried>> {
        let mut own: Vec<&str> = Vec::new();
        let mut carried: Vec<Carried> = Vec::new();
        let mut sound = true;
        for statement in body {
            match &statement.kind {
                StatementKind::Let { pattern: Pattern::Name(name), .. } => own.push(&name.text),
                StatementKind::Let { pattern: Pattern::Tuple(names, _), .. } => {
                    own.extend(names.iter().flatten().map(|name| name.text.as_str()));
                }
                StatementKind::Assign { name, .. } => {
                    let known =
                        own.contains(&name.text.as_str()) || carried.iter().any(|carried| carried.name == name.text);
                    let bound = frame.bound(&name.text).filter(|bound| !known && bound.origin == Origin::Let);
                    match bound.map(|bound| &bound.value) {
                        Some(Value::Tensor(value)) => {
                            let ty = self.module.ty(*value).clone();
                            carried.push(Carried { name: name.text.clone(), value: *value, ty, at: name.at });
                        }
                        Some(Value::Error) => sound = false,
                        Some(other) => {
                            let found = other.describe(&self.module);
                            let named_at = bound.map_or(name.at, |bound| bound.at);
                            self.report(CarriedKind {
                                name: name.text.clone(),
                                found,
                                at: named_at,
                                changes_at: name.at,
                            });
                            sound = false;
                        }
                        // Evaluating the body says what is wrong with the assignment.
                        None => {}
                    }
                }
                StatementKind::Param { .. }
                | StatementKind::Buffer { .. }
                | StatementKind::State { .. }
                | StatementKind::Aux { .. }
                | StatementKind::Trace { .. }
                | StatementKind::Part { .. }
                | StatementKind::Route { .. }
                | StatementKind::Out { .. }
                | StatementKind::Layers { .. } => {}
            }
        }
        sound.then_some(carried)
    }

    /// One layer in a region of its own.
    fn layer(
        &mut self,
        frame: &Frame,
        index: &Name,
        layer: u32,
        carried: &[Carried],
        body: &[Statement],
        at: Span,
    ) -> Option<Kind> {
        let region = self.module.add_region();
        let first_param = self.module.params.len();
        let (before, first_found) = (self.problems.len(), self.found.len());
        let mut inside = frame.clone();
        inside.kind = BodyKind::Layer;
        inside.region = region;
        inside.part = Rc::new(Part::new(format!("layers[{}]", index.text), Some(layer), None, PartOf::Body));
        for carried in carried {
            let arg = self.module.add_arg(region, carried.ty.clone());
            self.module.set_name(arg, &carried.name);
            give(&mut inside, &carried.name, Value::Tensor(arg));
        }
        inside.bind(index, Value::Int(i64::from(layer)), Origin::Index);
        self.body(&mut inside, body, at);

        let mut results = Vec::new();
        for carried in carried {
            let Some(Bound { value: Value::Tensor(value), .. }) = inside.bound(&carried.name).cloned() else {
                if let Some(Bound { value, .. }) = inside.bound(&carried.name).filter(|bound| !bound.value.is_error()) {
                    let found = value.describe(&self.module);
                    self.report(CarriedKind {
                        name: carried.name.clone(),
                        found,
                        at: carried.at,
                        changes_at: carried.at,
                    });
                }
                return None;
            };
            let (enters, leaves) = (carried.ty.tensor()?, self.module.tensor(value));
            let same = enters.dtype == leaves.dtype
                && enters.dims.len() == leaves.dims.len()
                && enters.dims.iter().all(|dim| leaves.dims.contains(dim));
            if !same {
                let (enters, leaves) = (enters.to_string(), leaves.to_string());
                self.report(CarriedChanges { name: carried.name.clone(), enters, leaves, at: carried.at });
                return None;
            }
            let dims = enters.dims.clone();
            match self.reorder(&mut inside, value, &dims, carried.at) {
                Value::Tensor(value) => results.push(value),
                _ => return None,
            }
        }
        let found = self.found_since(first_found, region);
        results.extend(found.iter().map(|found| found.value));
        self.module.region_mut(region).results = results;
        let made = (first_param..self.module.params.len()).map(|at| ParamId(at as u32));
        let params = made.filter(|param| self.module.param(*param).layers.is_some()).collect();
        (self.problems.len() == before).then_some(Kind { region, params, found })
    }
}

fn give(frame: &mut Frame, name: &str, value: Value) {
    if let Some(bound) = frame.names.iter_mut().rfind(|bound| bound.name == name) {
        bound.value = value;
    }
}

/// Equal for regions that are alike; cheap, so that comparing in full is rare.
fn fingerprint(module: &Module, region: RegionId) -> u64 {
    fn add(module: &Module, region: RegionId, hasher: &mut DefaultHasher) {
        for node in &module.region(region).nodes {
            let node = module.node(*node);
            node.op.mnemonic().hash(hasher);
            node.operands.len().hash(hasher);
            // Numbers made of the layer's own are where layers that look alike mostly differ.
            if let Op::Map(map) = &node.op {
                map.expr.to_string().hash(hasher);
            }
            for result in &node.results {
                if let Some(ty) = module.ty(*result).tensor() {
                    ty.hash(hasher);
                }
            }
            for region in node.op.regions() {
                add(module, region, hasher);
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    add(module, region, &mut hasher);
    hasher.finish()
}

fn same_kind(module: &Module, a: &Kind, b: &Kind) -> bool {
    let params_alike = a.params.len() == b.params.len()
        && a.params.iter().zip(&b.params).all(|(a, b)| same_param(module.param(*a), module.param(*b)));
    let params: HashMap<ParamId, ParamId> = b.params.iter().copied().zip(a.params.iter().copied()).collect();
    let found_alike = a.found.len() == b.found.len()
        && a.found.iter().zip(&b.found).all(|(a, b)| a.kind == b.kind && a.path == b.path);
    params_alike && found_alike && Comparison { module, params, values: HashMap::new() }.regions(a.region, b.region)
}

/// Alike but for the layers that they belong to.
fn same_param(a: &Param, b: &Param) -> bool {
    a.path == b.path && a.ty == b.ty && a.experts == b.experts && a.storage == b.storage
}

/// Do two regions do the same? Parameters and values of the second are known by those of the first.
struct Comparison<'m> {
    module: &'m Module,
    params: HashMap<ParamId, ParamId>,
    values: HashMap<ValueId, ValueId>,
}

impl Comparison<'_> {
    fn regions(&mut self, a: RegionId, b: RegionId) -> bool {
        let (a, b) = (self.module.region(a), self.module.region(b));
        if a.args.len() != b.args.len() || a.nodes.len() != b.nodes.len() {
            return false;
        }
        for (a, b) in a.args.iter().zip(&b.args) {
            if self.module.ty(*a) != self.module.ty(*b) {
                return false;
            }
            self.values.insert(*b, *a);
        }
        for (a, b) in a.nodes.iter().zip(&b.nodes) {
            let (a, b) = (self.module.node(*a), self.module.node(*b));
            if !self.same(&a.operands, &b.operands) || !self.ops(&a.op, &b.op) {
                return false;
            }
            self.values.extend(b.results.iter().copied().zip(a.results.iter().copied()));
        }
        self.same(&a.results, &b.results)
    }

    fn same(&self, a: &[ValueId], b: &[ValueId]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.values.get(b).unwrap_or(b) == a)
    }

    fn ops(&mut self, a: &Op, b: &Op) -> bool {
        match (a, b) {
            (Op::ParamRef(a), Op::ParamRef(b)) => self.params.get(&b.param).unwrap_or(&b.param) == &a.param,
            (Op::Stack(a), Op::Stack(b)) => {
                a.axis == b.axis && self.params.get(&b.param).unwrap_or(&b.param) == &a.param
            }
            (Op::Experts(a), Op::Experts(b)) => {
                let members = |one: &moec_ir::ops::Experts| {
                    one.bank.iter().map(|member| (member.first, member.count)).collect::<Vec<_>>()
                };
                (&a.slots, a.input, a.output) == (&b.slots, b.input, b.output)
                    && members(a) == members(b)
                    && a.bank.iter().zip(&b.bank).all(|(a, b)| self.regions(a.region, b.region))
            }
            (Op::Scan(a), Op::Scan(b)) => {
                (&a.over, a.states) == (&b.over, b.states) && self.regions(a.region, b.region)
            }
            (a, b) => a == b,
        }
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("layers from {first} to {end}")]
#[diagnostic(code(moec::sema::not_a_range), help("a range counts up from 0 or more: `layers l in 0..L`"))]
struct NotARange {
    first: i64,
    end: i64,
    #[label("this is {first}..{end}")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{end} layers")]
#[diagnostic(code(moec::sema::too_many_layers), help("there are at most {}", limits::LAYERS))]
struct TooManyLayers {
    end: i64,
    #[label("this is {end}")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("these layers hand nothing on")]
#[diagnostic(
    code(moec::sema::carries_nothing),
    help("give a name from before the layers a new value in them: `h = h + attn(h)`")
)]
struct CarriesNothing {
    #[label("assigns no name of outside")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` goes from layer to layer, so it must be a tensor")]
#[diagnostic(
    code(moec::sema::carried_kind),
    help("a number that differs from layer to layer follows from the layer's own: `let scale = 0.5 * l`")
)]
struct CarriedKind {
    name: String,
    found: String,
    #[label("this is {found}")]
    at: Span,
    #[label("given a new value in each layer")]
    changes_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` enters a layer as {enters} and leaves it as {leaves}")]
#[diagnostic(code(moec::sema::carried_changes), help("what goes from layer to layer keeps its type"))]
struct CarriedChanges {
    name: String,
    enters: String,
    leaves: String,
    #[label("{leaves} after this layer")]
    at: Span,
}
