//! The `weights` section, expanded: which checkpoint tensor is which instance of which parameter, and how its axes lie.

mod choices;
mod layout;
mod problems;
mod scaling;

use std::collections::{BTreeMap, BTreeSet};

use moec_diag::Span;
use moec_ir::{Experts, ParamId};
use moec_syntax::tree::{
    Binding, Lane, Model, Name, ParamSegment, PatternPiece, Statement, StatementKind, TensorPattern, WeightRule,
    Weights,
};
use moec_types::{Axis, TensorType};

use crate::{
    evaluator::{Evaluator, limits},
    spelling::{closest, listed},
    value::Value,
};
use choices::{Choice, Piece};
use problems::*;

pub use layout::View;
pub use scaling::{Encoding, Scaling};

/// All tensors that the module expects from a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct WeightMap {
    pub claims: Vec<Claim>,
    /// Patterns of tensors that are known and not needed. Every bound in them is a number.
    pub ignored: Vec<TensorPattern>,
    pub scaled: Vec<Scaling>,
    /// What names begin with in checkpoints that nest this model in another.
    pub inside: Option<String>,
}

/// One instance of one parameter comes from one tensor, or from a part of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub tensor: String,
    pub param: ParamId,
    /// Which instance: the rank among the parameter's `layers` (0 outside layers).
    pub layer: u32,
    /// Which instance: the rank among the parameter's `experts` (0 outside banks).
    pub expert: u32,
    pub view: View,
    /// The rule in the `weights` section, and which of its sources this is: of each rule one source holds.
    pub at: Span,
    pub source: u32,
    /// The parameter shares another's tensor (tied): the checkpoint may carry it as well, and it is not read.
    pub shared: bool,
}

impl Claim {
    /// Two parts of one tensor.
    pub fn lies_beside(&self, other: &Claim) -> bool {
        self.at == other.at && self.view.offset != other.view.offset
    }
}

impl WeightMap {
    /// What holds for a checkpoint with these tensors: of each rule the first source of which it has any tensor (else the
    /// first), under the names of a nested model if it has such.
    pub fn for_tensors(&self, names: &BTreeSet<&str>) -> WeightMap {
        let inside = self.inside.as_deref().filter(|inside| names.iter().any(|name| name.starts_with(inside)));
        let prefix = inside.unwrap_or_default();
        let mut chosen: BTreeMap<Span, u32> = BTreeMap::new();
        for claim in &self.claims {
            let there = names.contains(format!("{prefix}{}", claim.tensor).as_str());
            let source = if there { claim.source } else { u32::MAX };
            chosen.entry(claim.at).and_modify(|first| *first = source.min(*first)).or_insert(source);
        }
        let holds = |claim: &&Claim| match chosen[&claim.at] {
            u32::MAX => claim.source == 0,
            source => claim.source == source,
        };
        let claims = self.claims.iter().filter(holds).cloned();
        let nested = |pattern: &TensorPattern| {
            let pieces = [PatternPiece::Text(prefix.to_owned())].into_iter().chain(pattern.pieces.iter().cloned());
            TensorPattern { pieces: pieces.collect(), at: pattern.at }
        };
        let mut ignored = self.ignored.clone();
        if inside.is_some() {
            ignored.extend(self.ignored.iter().map(nested));
        }
        WeightMap {
            claims: claims.map(|claim| Claim { tensor: format!("{prefix}{}", claim.tensor), ..claim }).collect(),
            ignored,
            scaled: self.scaled.clone(),
            inside: None,
        }
    }
}

/// What a path can name: a parameter, or a second name of one.
struct Target {
    path: String,
    param: ParamId,
    layers: Option<Vec<u32>>,
    experts: Option<Experts>,
    shared: bool,
}

/// What rules are matched with.
struct Known {
    /// Every word that a path may be made of, in this configuration or another.
    segments: BTreeSet<String>,
    /// The targets that broken rules were meant for: they are not missing as well.
    meant: BTreeSet<usize>,
}

impl Evaluator {
    pub fn weights(&mut self, section: &Weights, model: &Model) -> WeightMap {
        let targets = self.targets();
        let mut known = Known { segments: self.known_segments(model), meant: BTreeSet::new() };
        let inside = section.inside.as_ref().map(|inside| inside.text.clone());
        let mut map = WeightMap { inside, ..WeightMap::default() };
        let mut bound: BTreeMap<usize, Span> = BTreeMap::new();
        for rule in &section.rules {
            match rule {
                WeightRule::Ignore(pattern) => map.ignored.extend(self.with_numbers(pattern)),
                WeightRule::Scaled(scaled) => map.scaled.extend(self.scaling(scaled)),
                WeightRule::Bind(binding) => self.rule(binding, &targets, &mut known, &mut bound, &mut map),
            }
            if self.stopped {
                return map;
            }
        }
        for (number, target) in targets.iter().enumerate() {
            let needed = !target.shared && self.module.param(target.param).initial().is_none();
            if needed && !bound.contains_key(&number) && !known.meant.contains(&number) {
                let (path, at) = (target.path.clone(), self.module.param(target.param).at);
                self.report(Unbound { path, at, section_at: section.name.at });
            }
        }
        let mut claimed: BTreeMap<&str, &Claim> = BTreeMap::new();
        let mut twice = Vec::new();
        for claim in map.claims.iter().filter(|claim| claim.source == 0) {
            let Some(first) = claimed.insert(&claim.tensor, claim) else { continue };
            if !first.lies_beside(claim) {
                twice.push(ClaimedTwice {
                    tensor: claim.tensor.clone(),
                    first: self.module.param(first.param).path.clone(),
                    second: self.module.param(claim.param).path.clone(),
                    first_at: (first.at != claim.at).then_some(first.at),
                    at: claim.at,
                });
            }
        }
        twice.into_iter().for_each(|problem| self.report(problem));
        map
    }

    /// `{l >= L}` with the number that L is.
    fn with_numbers(&mut self, pattern: &TensorPattern) -> Option<TensorPattern> {
        let mut pattern = pattern.clone();
        for piece in &mut pattern.pieces {
            let PatternPiece::AtLeast { least, .. } = piece else { continue };
            if least.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let entry = self.config.iter().find(|entry| entry.name == *least).map(|entry| &entry.value);
            let Some(Value::Int(number)) = entry else {
                let numbers = self.config.iter().filter(|entry| matches!(entry.value, Value::Int(_)));
                let help = format!("the numbers of `config` are {}", listed(numbers.map(|entry| entry.name.as_str())));
                self.report(NoBound { name: least.clone(), at: pattern.at, help });
                return None;
            };
            *least = number.max(&0).to_string();
        }
        Some(pattern)
    }

    fn targets(&self) -> Vec<Target> {
        let params = self.module.params.iter().enumerate().map(|(at, param)| Target {
            path: param.path.clone(),
            param: ParamId(at as u32),
            layers: param.layers.clone(),
            experts: param.experts,
            shared: false,
        });
        let mut targets: Vec<Target> = params.collect();
        for shared in &self.shared {
            let known = targets
                .iter_mut()
                .find(|target| target.shared && target.path == shared.path && target.param == shared.param);
            match (known, shared.layer) {
                (Some(Target { layers: Some(layers), .. }), Some(layer)) => layers.push(layer),
                (Some(_), _) => {}
                (None, layer) => targets.push(Target {
                    path: shared.path.clone(),
                    param: shared.param,
                    layers: layer.map(|layer| vec![layer]),
                    experts: None,
                    shared: true,
                }),
            }
        }
        targets
    }

    /// Every word that a path may be made of, in this configuration or another.
    fn known_segments(&self, model: &Model) -> BTreeSet<String> {
        fn add(statements: &[Statement], known: &mut BTreeSet<String>) {
            for statement in statements {
                match &statement.kind {
                    StatementKind::Param { name, .. }
                    | StatementKind::Buffer { name, .. }
                    | StatementKind::State { name, .. }
                    | StatementKind::Part { name, .. } => {
                        known.insert(name.text.clone());
                    }
                    StatementKind::Layers { body, .. } => add(body, known),
                    StatementKind::Let { .. }
                    | StatementKind::Assign { .. }
                    | StatementKind::Route { .. }
                    | StatementKind::Out { .. }
                    | StatementKind::Aux { .. }
                    | StatementKind::Trace { .. } => {}
                }
            }
        }
        let mut known: BTreeSet<String> =
            [LAYERS, "gate", "experts", "always"].into_iter().map(str::to_owned).collect();
        known.extend((0..16).map(|number| format!("always{number}")));
        add(&model.body, &mut known);
        for definition in self.definitions.all() {
            add(&definition.body, &mut known);
        }
        known
    }

    fn rule(
        &mut self,
        binding: &Binding,
        targets: &[Target],
        known: &mut Known,
        bound: &mut BTreeMap<usize, Span>,
        map: &mut WeightMap,
    ) {
        let Some(choices) = self.choices(binding) else {
            let meant = targets.iter().enumerate().filter(|(_, target)| resembles(binding, &target.path));
            known.meant.extend(meant.map(|(number, _)| number));
            return;
        };
        let stacks: BTreeSet<&str> = targets.iter().flat_map(|target| stacks_of(&target.path)).collect();
        for choice in choices {
            let parts: Vec<Vec<usize>> = choice
                .parts
                .iter()
                .map(|path| (0..targets.len()).filter(|at| matches(path, &targets[*at].path, &stacks)).collect())
                .collect();
            if parts.iter().all(Vec::is_empty) {
                if let Some(meant) = self.explain_no_match(&choice, binding, targets, &known.segments) {
                    known.meant.insert(meant);
                }
                continue;
            }
            if let Some(lacking) = parts.iter().position(Vec::is_empty) {
                let path = path_of(&choice.parts[lacking]);
                self.report(PartLacking { path, at: binding.target.at });
                known.meant.extend(parts.iter().flatten());
                continue;
            }
            for (part, matching) in parts.iter().enumerate() {
                for number in matching {
                    let target = &targets[*number];
                    if let Some(first_at) = bound.insert(*number, binding.at) {
                        self.report(BoundTwice { path: target.path.clone(), at: binding.target.at, first_at });
                        continue;
                    }
                    let of_part: Vec<Vec<&Target>> =
                        parts.iter().map(|numbers| numbers.iter().map(|at| &targets[*at]).collect()).collect();
                    let side = Side { choice: &choice, part, target, parts: of_part };
                    for source in 0..binding.sources.len() {
                        if !self.claim(binding, &side, source, map) {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// One claim for each instance of a parameter; `false` once there were too many.
    fn claim(&mut self, binding: &Binding, side: &Side, source: usize, map: &mut WeightMap) -> bool {
        let Side { choice, part, target, .. } = *side;
        let (name, layout) = (&choice.sources[source][part], &binding.sources[source].layout);
        let named: Vec<&str> = choice.parts[part].iter().filter_map(|(_, index)| index.as_deref()).collect();
        let layers: Vec<Option<u32>> =
            target.layers.as_ref().map_or(vec![None], |layers| layers.iter().copied().map(Some).collect());
        let experts: Vec<Option<u32>> = target
            .experts
            .map_or(vec![None], |experts| (experts.first..experts.first + experts.count).map(Some).collect());
        // The indices of a path, in order: the layer if it has one, then the expert.
        let name_of = |at: usize, there: bool| there.then(|| named.get(at).copied()).flatten();
        let layer_name = name_of(0, target.layers.is_some());
        let expert_name = name_of(usize::from(target.layers.is_some()), target.experts.is_some());
        for (index, count) in [(layer_name, layers.len()), (expert_name, experts.len())] {
            let used = name.iter().any(|piece| matches!(piece, Piece::Index(piece) if Some(piece.as_str()) == index))
                || layout.iter().flatten().any(|lane| index.is_some_and(|index| layout::names(lane, index)));
            if let Some(index) = index.filter(|_| !used && count > 1) {
                let (path, name, at) = (target.path.clone(), index.to_owned(), binding.sources[source].tensor.at);
                self.report(IndexUnused { path, name, count, at });
                return true;
            }
        }
        if (map.claims.len() + layers.len() * experts.len()) as u64 > limits::CLAIMS {
            self.report(TooManyTensors { at: binding.at });
            self.stopped = true;
            return false;
        }
        if !self.is_layout(binding, side, layout.as_deref(), &named) {
            return true;
        }
        for (layer_rank, layer) in layers.iter().enumerate() {
            for (expert_rank, expert) in experts.iter().enumerate() {
                let tensor = name.iter().map(|piece| match piece {
                    Piece::Text(text) => text.clone(),
                    Piece::Index(name) => {
                        let value = if Some(name.as_str()) == layer_name { layer } else { expert };
                        value.map(|value| value.to_string()).unwrap_or_default()
                    }
                });
                let types: Option<Vec<&TensorType>> =
                    side.parts.iter().map(|targets| self.type_at(targets, *layer, *expert)).collect();
                let Some(types) = types else {
                    self.report(PartElsewhere { path: target.path.clone(), at: binding.target.at });
                    return true;
                };
                let indices = [(layer_name, layer_rank, layers.len()), (expert_name, expert_rank, experts.len())];
                let indices: Vec<layout::Index> = indices
                    .into_iter()
                    .filter_map(|(name, rank, count)| Some((name?, rank as u64, count as u64)))
                    .collect();
                let view = match layout {
                    None => View::whole(types[part]),
                    Some(lanes) => View::of(lanes, part, &types, &indices),
                };
                map.claims.push(Claim {
                    tensor: tensor.collect(),
                    param: target.param,
                    layer: layer_rank as u32,
                    expert: expert_rank as u32,
                    view,
                    at: binding.at,
                    source: source as u32,
                    shared: target.shared,
                });
            }
        }
        true
    }

    /// The type of the parameter among these that has this layer and expert.
    fn type_at(&self, targets: &[&Target], layer: Option<u32>, expert: Option<u32>) -> Option<&TensorType> {
        let has = |target: &&&Target| {
            let has_layer = layer.is_none_or(|layer| target.layers.as_ref().is_some_and(|them| them.contains(&layer)));
            let has_expert = expert.is_none_or(|expert| {
                target.experts.is_some_and(|them| (them.first..them.first + them.count).contains(&expert))
            });
            has_layer && has_expert
        };
        targets.iter().find(has).map(|target| &self.module.param(target.param).ty)
    }

    /// Whether a tensor's axes, as written or as the parameter has them, are those of the parameter, each once.
    fn is_layout(&mut self, binding: &Binding, side: &Side, layout: Option<&[Lane]>, indices: &[&str]) -> bool {
        let param = self.module.param(side.target.param).clone();
        let Some(lanes) = layout else {
            if let Some((first, second)) = alike(&param.ty) {
                let (path, size) = (param.path.clone(), first.1);
                let help = format!(
                    "say which comes first in the file: `as {}`, or `as {}`",
                    spelled(&param.ty, false),
                    spelled(&param.ty, true)
                );
                self.report(OrientationUnsaid { path, first: first.0, second: second.0, size, at: binding.at, help });
                return false;
            }
            return true;
        };
        let written: Vec<&Name> = lanes.iter().flat_map(|lane| layout::names_of(lane, side.part)).collect();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for name in written.iter().filter(|name| !indices.contains(&name.text.as_str())) {
            let stranger = !param.ty.has(&Axis::new(&name.text));
            if stranger || !seen.insert(&name.text) {
                let (path, ty) = (param.path.clone(), param.ty.to_string());
                let what = if stranger { "is no axis of it" } else { "is named twice" };
                self.report(LayoutAxis { path, ty, axis: name.text.clone(), what, at: name.at, param_at: param.at });
                return false;
            }
        }
        let missing: Vec<&str> = param.ty.axes().map(Axis::name).filter(|axis| !seen.contains(axis)).collect();
        if !missing.is_empty() {
            let (path, ty, missing) = (param.path.clone(), param.ty.to_string(), listed(missing));
            self.report(LayoutIncomplete { path, ty, missing, at: binding.at, param_at: param.at });
            return false;
        }
        true
    }

    /// A rule may be for another configuration (a dense layer, a bias that is off), but not for a path that no file of this
    /// text could have.
    ///
    /// Gives the target that was probably meant.
    fn explain_no_match(
        &mut self,
        choice: &Choice,
        binding: &Binding,
        targets: &[Target],
        known: &BTreeSet<String>,
    ) -> Option<usize> {
        let path = path_of(&choice.parts[0]);
        if let Some(meant) = targets
            .iter()
            .position(|target| names(&target.path).eq(choice.parts[0].iter().map(|(text, _)| text.as_str())))
        {
            let near = targets[meant].path.clone();
            self.report(OtherIndices { path, near, at: binding.target.at });
            return Some(meant);
        }
        let (stranger, _) = choice.parts[0].iter().find(|(text, _)| !known.contains(text))?;
        let near = closest(&path, targets.iter().map(|target| target.path.as_str()));
        let meant = near.and_then(|near| targets.iter().position(|target| target.path == near));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => match closest(stranger, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}` for `{stranger}`?"),
                None => format!("the parameters are {}", listed(targets.iter().map(|target| target.path.as_str()))),
            },
        };
        self.report(NoSuchParam { path, stranger: stranger.clone(), at: binding.target.at, help });
        meant
    }
}

/// A parameter that a rule binds, and those that the rule binds beside it.
struct Side<'a> {
    choice: &'a Choice,
    part: usize,
    target: &'a Target,
    /// Of each part all parameters, this one among them: layers may differ.
    parts: Vec<Vec<&'a Target>>,
}

/// Whatever an index is called on either side, unless it is what one of the `stacks` counts with: then that one is meant.
fn matches(wanted: &[(String, Option<String>)], path: &str, stacks: &BTreeSet<&str>) -> bool {
    let mut segments = path.split('.');
    let all = wanted.iter().all(|(text, index)| {
        segments.next().is_some_and(|segment| match (segment.split_once('['), index) {
            (Some((name, own)), Some(index)) => {
                let is_other = name == LAYERS && stacks.contains(index.as_str()) && own.trim_end_matches(']') != index;
                name == text && !is_other
            }
            (None, None) => segment == text,
            (Some(_), None) | (None, Some(_)) => false,
        })
    });
    all && segments.next().is_none()
}

const LAYERS: &str = "layers";

/// What the stacks of layers in a path count with.
fn stacks_of(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter_map(|segment| segment.strip_prefix(LAYERS)?.strip_prefix('[')?.strip_suffix(']'))
}

/// Could a rule be for this path, but for its indices?
fn resembles(binding: &Binding, path: &str) -> bool {
    let segments = &binding.target.segments;
    let could_be = |(segment, name): (&ParamSegment, &str)| match &segment.pieces[..] {
        [PatternPiece::Text(text)] => text == name,
        [PatternPiece::Alternatives(words) | PatternPiece::Several(words)] => words.iter().any(|word| word == name),
        _ => false,
    };
    names(path).count() == segments.len() && segments.iter().zip(names(path)).all(could_be)
}

/// The segments of a path without their indices.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').map(|segment| segment.split('[').next().unwrap_or(segment))
}

fn path_of(segments: &[(String, Option<String>)]) -> String {
    let segments = segments.iter().map(|(text, index)| match index {
        Some(index) => format!("{text}[{index}]"),
        None => text.clone(),
    });
    segments.collect::<Vec<_>>().join(".")
}

/// Two axes of equal size: a tensor that could be taken either way round.
fn alike(ty: &TensorType) -> Option<((Axis, u64), (Axis, u64))> {
    let sized: Vec<(Axis, u64)> =
        ty.dims.iter().filter_map(|dim| Some((dim.axis.clone(), dim.size.fixed()?))).collect();
    let pairs =
        sized.iter().enumerate().flat_map(|(at, first)| sized[at + 1..].iter().map(move |second| (first, second)));
    pairs.filter(|(first, second)| first.1 == second.1 && first.1 > 1).map(|(a, b)| (a.clone(), b.clone())).next()
}

fn spelled(ty: &TensorType, reversed: bool) -> String {
    let mut axes: Vec<&str> = ty.axes().map(Axis::name).collect();
    if reversed {
        axes.reverse();
    }
    format!("[{}]", axes.join(", "))
}
