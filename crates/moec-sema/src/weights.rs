//! The `weights` section, expanded: which checkpoint tensor is which instance of which parameter, and how its axes lie.

use std::collections::{BTreeMap, BTreeSet};

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{Experts, Param, ParamId};
use moec_syntax::tree::{
    Binding, Model, Name, ParamPattern, ParamSegment, PatternPiece, Statement, StatementKind, TensorPattern,
    WeightRule, Weights,
};
use moec_types::{Axis, TensorType};
use thiserror::Error;

use crate::{
    evaluator::{Evaluator, limits},
    spelling::{closest, listed},
};

/// All tensors that the module expects from a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct WeightMap {
    pub claims: Vec<Claim>,
    /// Patterns of tensors that are known and not needed.
    pub ignored: Vec<moec_syntax::tree::TensorPattern>,
}

/// One instance of one parameter comes from one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub tensor: String,
    pub param: ParamId,
    /// Which instance: the rank among the parameter's `layers` (0 outside layers).
    pub layer: u32,
    /// Which instance: the rank among the parameter's `experts` (0 outside banks).
    pub expert: u32,
    /// For each axis of the tensor, slowest first, the parameter's axes that it runs over (their product is its size).
    pub layout: Vec<Vec<Axis>>,
    /// The rule in the `weights` section.
    pub at: Span,
    /// The parameter shares another's tensor (tied): the checkpoint may carry it as well, and it is not read.
    pub shared: bool,
}

/// What a path can name: a parameter, or a second name of one.
struct Target {
    path: String,
    param: ParamId,
    layers: Option<Vec<u32>>,
    experts: Option<Experts>,
    shared: bool,
}

/// A rule with its alternatives chosen: `{gate,up}` read as `gate`.
struct Choice {
    /// Text and index name of each segment of the path.
    segments: Vec<(String, Option<String>)>,
    /// Text or index name.
    tensor: Vec<Piece>,
}

/// What rules are matched with.
struct Known {
    /// Every word that a path may be made of, in this configuration or another.
    segments: BTreeSet<String>,
    /// The targets that broken rules were meant for: they are not missing as well.
    meant: BTreeSet<usize>,
}

#[derive(Clone)]
enum Piece {
    Text(String),
    Index(String),
}

impl Evaluator {
    pub fn weights(&mut self, section: &Weights, model: &Model) -> WeightMap {
        let targets = self.targets();
        let mut known = Known { segments: self.known_segments(model), meant: BTreeSet::new() };
        let mut map = WeightMap::default();
        let mut bound: BTreeMap<usize, Span> = BTreeMap::new();
        for rule in &section.rules {
            match rule {
                WeightRule::Ignore(pattern) => map.ignored.push(pattern.clone()),
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
        for claim in &map.claims {
            if let Some(first) = claimed.insert(&claim.tensor, claim) {
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
            ["layers", "gate", "experts", "always"].into_iter().map(str::to_owned).collect();
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
        for choice in choices {
            let matching: Vec<usize> = (0..targets.len()).filter(|at| matches(&choice, &targets[*at].path)).collect();
            if matching.is_empty() {
                if let Some(meant) = self.explain_no_match(&choice, binding, targets, &known.segments) {
                    known.meant.insert(meant);
                }
                continue;
            }
            for number in matching {
                let target = &targets[number];
                if let Some(first_at) = bound.insert(number, binding.at) {
                    self.report(BoundTwice { path: target.path.clone(), at: binding.target.at, first_at });
                    continue;
                }
                let param = self.module.param(target.param).clone();
                let Some(layout) = self.layout(binding, &param) else { continue };
                if !self.claim(binding, &choice, target, layout, map) {
                    return;
                }
            }
        }
    }

    /// One claim for each instance of a parameter; `false` once there were too many.
    fn claim(
        &mut self,
        binding: &Binding,
        choice: &Choice,
        target: &Target,
        layout: Vec<Vec<Axis>>,
        map: &mut WeightMap,
    ) -> bool {
        let named: Vec<&str> = choice.segments.iter().filter_map(|(_, index)| index.as_deref()).collect();
        let layers: Vec<Option<u32>> =
            target.layers.as_ref().map_or(vec![None], |layers| layers.iter().copied().map(Some).collect());
        let experts: Vec<Option<u32>> = target
            .experts
            .map_or(vec![None], |experts| (experts.first..experts.first + experts.count).map(Some).collect());
        // The indices of a path, in order: the layer if it has one, then the expert.
        let name_of = |at: usize, there: bool| there.then(|| named.get(at).copied()).flatten();
        let layer_name = name_of(0, target.layers.is_some());
        let expert_name = name_of(usize::from(target.layers.is_some()), target.experts.is_some());
        for (name, count) in [(layer_name, layers.len()), (expert_name, experts.len())] {
            let used =
                choice.tensor.iter().any(|piece| matches!(piece, Piece::Index(index) if Some(index.as_str()) == name));
            if let Some(name) = name.filter(|_| !used && count > 1) {
                let (path, name) = (target.path.clone(), name.to_owned());
                self.report(IndexUnused { path, name, count, at: binding.tensor.at });
                return true;
            }
        }
        if (map.claims.len() + layers.len() * experts.len()) as u64 > limits::CLAIMS {
            self.report(TooManyTensors { at: binding.at });
            self.stopped = true;
            return false;
        }
        for (layer_rank, layer) in layers.iter().enumerate() {
            for (expert_rank, expert) in experts.iter().enumerate() {
                let tensor = choice.tensor.iter().map(|piece| match piece {
                    Piece::Text(text) => text.clone(),
                    Piece::Index(name) => {
                        let value = if Some(name.as_str()) == layer_name { layer } else { expert };
                        value.map(|value| value.to_string()).unwrap_or_default()
                    }
                });
                map.claims.push(Claim {
                    tensor: tensor.collect(),
                    param: target.param,
                    layer: layer_rank as u32,
                    expert: expert_rank as u32,
                    layout: layout.clone(),
                    at: binding.at,
                    shared: target.shared,
                });
            }
        }
        true
    }

    /// Chooses alternatives: the n-th of one side with the n-th of the other.
    fn choices(&mut self, binding: &Binding) -> Option<Vec<Choice>> {
        let left: Vec<&Vec<String>> =
            binding.target.segments.iter().flat_map(|segment| &segment.pieces).filter_map(alternatives).collect();
        let right: Vec<&Vec<String>> = binding.tensor.pieces.iter().filter_map(alternatives).collect();
        let paired =
            left.len() == right.len() && left.iter().zip(&right).all(|(left, right)| left.len() == right.len());
        if !paired {
            let (left, right) = (counts(&left), counts(&right));
            self.report(AlternativesDiffer { left, right, target_at: binding.target.at, tensor_at: binding.tensor.at });
            return None;
        }
        let indices: BTreeSet<&str> = binding
            .target
            .segments
            .iter()
            .filter_map(|segment| segment.index.as_ref())
            .map(|name| name.text.as_str())
            .collect();
        for piece in &binding.tensor.pieces {
            match piece {
                PatternPiece::Index(name) if !indices.contains(name.as_str()) => {
                    let help = match indices.len() {
                        0 => "a path has indices where it has `layers[l]` or `experts[e]`".to_owned(),
                        _ => format!("the path has {}", listed(indices.iter().copied())),
                    };
                    self.report(UnknownIndex {
                        name: name.clone(),
                        at: binding.tensor.at,
                        target_at: binding.target.at,
                        help,
                    });
                    return None;
                }
                // Reading the text said so.
                PatternPiece::Any => return None,
                PatternPiece::Index(_) | PatternPiece::Text(_) | PatternPiece::Alternatives(_) => {}
            }
        }
        let mut picks: Vec<Vec<usize>> = vec![Vec::new()];
        for group in &left {
            picks = picks.iter().flat_map(|pick| (0..group.len()).map(|at| [&pick[..], &[at]].concat())).collect();
            if picks.len() > 4096 {
                self.report(TooManyTensors { at: binding.at });
                return None;
            }
        }
        Some(picks.iter().map(|pick| choose(&binding.target, &binding.tensor, pick)).collect())
    }

    /// How the tensor's axes lie, as written or as the parameter has them.
    fn layout(&mut self, binding: &Binding, param: &Param) -> Option<Vec<Vec<Axis>>> {
        let Some(layout) = &binding.layout else {
            if let Some((first, second)) = alike(&param.ty) {
                let (path, size) = (param.path.clone(), first.1);
                let help = format!(
                    "say which comes first in the file: `as {}`, or `as {}`",
                    spelled(&param.ty, false),
                    spelled(&param.ty, true)
                );
                self.report(OrientationUnsaid { path, first: first.0, second: second.0, size, at: binding.at, help });
                return None;
            }
            return Some(param.ty.axes().map(|axis| vec![axis.clone()]).collect());
        };
        let written: Vec<&Name> = layout.iter().flatten().collect();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for name in &written {
            let stranger = !param.ty.has(&Axis::new(&name.text));
            if stranger || !seen.insert(&name.text) {
                let (path, ty) = (param.path.clone(), param.ty.to_string());
                let what = if stranger { "is no axis of it" } else { "is named twice" };
                self.report(LayoutAxis { path, ty, axis: name.text.clone(), what, at: name.at, param_at: param.at });
                return None;
            }
        }
        let missing: Vec<&str> = param.ty.axes().map(Axis::name).filter(|axis| !seen.contains(axis)).collect();
        if !missing.is_empty() {
            let (path, ty, missing) = (param.path.clone(), param.ty.to_string(), listed(missing));
            self.report(LayoutIncomplete { path, ty, missing, at: binding.at, param_at: param.at });
            return None;
        }
        Some(layout.iter().map(|group| group.iter().map(|name| Axis::new(&name.text)).collect()).collect())
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
        let path = path_of(choice);
        if let Some(meant) = targets
            .iter()
            .position(|target| names(&target.path).eq(choice.segments.iter().map(|(text, _)| text.as_str())))
        {
            let near = targets[meant].path.clone();
            self.report(OtherIndices { path, near, at: binding.target.at });
            return Some(meant);
        }
        let (stranger, _) = choice.segments.iter().find(|(text, _)| !known.contains(text))?;
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

fn alternatives(piece: &PatternPiece) -> Option<&Vec<String>> {
    match piece {
        PatternPiece::Alternatives(words) => Some(words),
        PatternPiece::Text(_) | PatternPiece::Index(_) | PatternPiece::Any => None,
    }
}

fn counts(groups: &[&Vec<String>]) -> String {
    match groups {
        [] => "none".to_owned(),
        groups => groups.iter().map(|group| group.len().to_string()).collect::<Vec<_>>().join(" and "),
    }
}

fn choose(target: &ParamPattern, tensor: &TensorPattern, pick: &[usize]) -> Choice {
    let mut picks = pick.iter();
    let mut pick_of = |words: &Vec<String>| picks.next().and_then(|at| words.get(*at)).cloned().unwrap_or_default();
    let segments = target.segments.iter().map(|segment| {
        let text = segment.pieces.iter().map(|piece| match piece {
            PatternPiece::Text(text) | PatternPiece::Index(text) => text.clone(),
            PatternPiece::Alternatives(words) => pick_of(words),
            PatternPiece::Any => String::new(),
        });
        (text.collect::<String>(), segment.index.as_ref().map(|name| name.text.clone()))
    });
    let segments = segments.collect();
    let mut picks = pick.iter();
    let tensor = tensor.pieces.iter().map(|piece| match piece {
        PatternPiece::Text(text) => Piece::Text(text.clone()),
        PatternPiece::Index(name) => Piece::Index(name.clone()),
        PatternPiece::Alternatives(words) => {
            Piece::Text(picks.next().and_then(|at| words.get(*at)).cloned().unwrap_or_default())
        }
        PatternPiece::Any => Piece::Text(String::new()),
    });
    Choice { segments, tensor: tensor.collect() }
}

/// Whatever an index is called on either side.
fn matches(choice: &Choice, path: &str) -> bool {
    let mut segments = path.split('.');
    let all = choice.segments.iter().all(|(text, index)| {
        segments.next().is_some_and(|segment| match segment.split_once('[') {
            Some((name, _)) => index.is_some() && name == text,
            None => index.is_none() && segment == text,
        })
    });
    all && segments.next().is_none()
}

/// Could a rule be for this path, but for its indices?
fn resembles(binding: &Binding, path: &str) -> bool {
    let segments = &binding.target.segments;
    let could_be = |(segment, name): (&ParamSegment, &str)| match &segment.pieces[..] {
        [PatternPiece::Text(text)] => text == name,
        [PatternPiece::Alternatives(words)] => words.iter().any(|word| word == name),
        _ => false,
    };
    names(path).count() == segments.len() && segments.iter().zip(names(path)).all(could_be)
}

/// The segments of a path without their indices.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').map(|segment| segment.split('[').next().unwrap_or(segment))
}

fn path_of(choice: &Choice) -> String {
    let segments = choice.segments.iter().map(|(text, index)| match index {
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

#[derive(Debug, Error, Diagnostic)]
#[error("no weights for `{path}`")]
#[diagnostic(code(moec::sema::unbound), help("add a rule: `{path} = \"name.in.the.checkpoint\"`"))]
struct Unbound {
    path: String,
    #[label("this parameter")]
    at: Span,
    #[label("has no rule here")]
    section_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("two rules for `{path}`")]
#[diagnostic(code(moec::sema::bound_twice), help("each parameter comes from one place: drop one"))]
struct BoundTwice {
    path: String,
    #[label("again")]
    at: Span,
    #[label("first")]
    first_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the tensor `{tensor}` is claimed by `{first}` and by `{second}`")]
#[diagnostic(
    code(moec::sema::claimed_twice),
    help("to use one tensor for two parameters, share the parameter: `param b[…] = a`")
)]
struct ClaimedTwice {
    tensor: String,
    first: String,
    second: String,
    #[label("claimed here")]
    first_at: Option<Span>,
    #[label("and here")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{path}` has {count} instances, and the name of the tensor is the same for all")]
#[diagnostic(code(moec::sema::index_unused), help("put `{{{name}}}` where the number stands in the name"))]
struct IndexUnused {
    path: String,
    name: String,
    count: usize,
    #[label("`{{{name}}}` is not used")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("more than {} tensors", limits::CLAIMS)]
#[diagnostic(code(moec::sema::too_many_tensors), help("make fewer layers, experts or alternatives"))]
struct TooManyTensors {
    #[label("given up here")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("alternatives must pair up: {left} in the path, {right} in the tensor's name")]
#[diagnostic(
    code(moec::sema::alternatives_differ),
    help("the n-th of one side goes with the n-th of the other: `{{gate,up}} = \"{{w1,w3}}\"`")
)]
struct AlternativesDiffer {
    left: String,
    right: String,
    #[label("{left}")]
    target_at: Span,
    #[label("{right}")]
    tensor_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{{{name}}}` is no index of the path")]
#[diagnostic(code(moec::sema::unknown_index), help("{help}"))]
struct UnknownIndex {
    name: String,
    #[label("`{{{name}}}` is used here")]
    at: Span,
    #[label("not an index here")]
    target_at: Span,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{path}` is square: `{first}` and `{second}` are both {size}")]
#[diagnostic(code(moec::sema::orientation_unsaid), help("{help}"))]
struct OrientationUnsaid {
    path: String,
    first: Axis,
    second: Axis,
    size: u64,
    #[label("could be taken either way round")]
    at: Span,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{axis}` in the layout of `{path}` {what}")]
#[diagnostic(code(moec::sema::layout_axis), help("the parameter is {ty}: each of its axes appears once"))]
struct LayoutAxis {
    path: String,
    ty: String,
    axis: String,
    what: &'static str,
    #[label("{what}")]
    at: Span,
    #[label("this is {ty}")]
    param_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the layout of `{path}` lacks {missing}")]
#[diagnostic(
    code(moec::sema::layout_incomplete),
    help("axes that lie together in one of the tensor's are written `(A, B)`")
)]
struct LayoutIncomplete {
    path: String,
    ty: String,
    missing: String,
    #[label("lacks {missing}")]
    at: Span,
    #[label("this is {ty}")]
    param_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the path `{path}` has other indices than the parameter")]
#[diagnostic(code(moec::sema::other_indices), help("write `{near}`"))]
struct OtherIndices {
    path: String,
    near: String,
    #[label("the parameter is `{near}`")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("no parameter is called `{path}`")]
#[diagnostic(code(moec::sema::no_such_param), help("{help}"))]
struct NoSuchParam {
    path: String,
    stranger: String,
    #[label("nothing is called `{stranger}`")]
    at: Span,
    help: String,
}
