//! Every tensor goes to its place: what a module claims against what a checkpoint holds.

use std::collections::{BTreeMap, BTreeSet};

use miette::Diagnostic;
use moec_diag::{Problems, Span};
use moec_ir::Module;
use moec_sema::{Claim, WeightMap};
use moec_types::DType;
use thiserror::Error;

use crate::checkpoint::Checkpoint;
use crate::claimed::{self, Tensor};
use crate::pattern;
use crate::stored::StoredType;

#[derive(Debug, Error, Diagnostic)]
#[error("the checkpoint has no tensor `{tensor}`{}", and_others(*.others))]
#[diagnostic(code(moec::checkpoint::missing_tensor), help("{help}"))]
pub struct MissingTensors {
    pub tensor: String,
    /// How many more tensors of the same rule are missing.
    pub others: usize,
    pub help: String,
    #[label("claims it for `{path}`")]
    pub at: Span,
    pub path: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("no rule claims {count} of the checkpoint's tensors: {}", list(.names, *.count))]
#[diagnostic(
    code(moec::checkpoint::unclaimed_tensor),
    help("bind them in the `weights` section, or say that they are not needed: ignore \"{}\"", .names[0])
)]
pub struct UnclaimedTensors {
    pub count: usize,
    /// The first ten.
    pub names: Vec<String>,
}

#[derive(Debug, Error, Diagnostic)]
#[error("tensor `{tensor}` is claimed twice")]
#[diagnostic(
    code(moec::checkpoint::doubly_claimed),
    help("each tensor belongs to one parameter; drop one of the two rules")
)]
pub struct DoublyClaimed {
    pub tensor: String,
    pub first: String,
    #[label("for `{first}`")]
    pub first_at: Span,
    pub second: String,
    #[label("and for `{second}`")]
    pub second_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("tensor `{tensor}` is {found:?} in the checkpoint{}, {wants} here", and_others(*.others))]
#[diagnostic(code(moec::checkpoint::wrong_shape), help("{help}"))]
pub struct WrongShape {
    pub tensor: String,
    /// How many more tensors of the same rule have another shape than the rule says.
    pub others: usize,
    pub found: Vec<u64>,
    /// `[E=8, D=64]`.
    pub wants: String,
    pub help: String,
    #[label("claims it for `{path}`")]
    pub at: Span,
    pub path: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("tensor `{tensor}` holds {found}{}; `{path}` is {wants}", and_others(*.others))]
#[diagnostic(code(moec::checkpoint::unsupported_elements), help("convert the checkpoint to {convert}"))]
pub struct UnsupportedElements {
    pub tensor: String,
    /// How many more tensors of the same rule do.
    pub others: usize,
    pub found: StoredType,
    pub path: String,
    pub wants: DType,
    pub convert: &'static str,
    #[label("claimed here")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("no rule says where `{path}` comes from")]
#[diagnostic(
    code(moec::checkpoint::unbound_param),
    help("bind it in the `weights` section: {param} = \"name of its tensor\"")
)]
pub struct UnboundParam {
    /// Of the first instance that has no rule.
    pub path: String,
    pub param: String,
    #[label("declared here")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("tensor `{tensor}` cannot be scaled as the rule says: {reason}{}", and_others(*.others))]
#[diagnostic(
    code(moec::checkpoint::unscalable),
    help("`scaled \"…\" as FORMAT by \"…\" as FORMAT in [BLOCK, …]`: sizes of blocks are those of the last axes")
)]
pub struct Unscalable {
    pub tensor: String,
    /// How many more tensors of the same rule are so.
    pub others: usize,
    pub reason: String,
    #[label("claimed here")]
    pub at: Span,
}

fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        others => format!(" (and {others} more of this rule)"),
    }
}

fn list(names: &[String], count: usize) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    let more = if count > names.len() { format!(" and {} more", count - names.len()) } else { String::new() };
    names.join(", ") + &more
}

/// Says everything that keeps a checkpoint from filling a module: nothing is reported exactly if each claimed tensor is there
/// with the right shape and elements, each instance of each parameter is claimed once, and each tensor is claimed or ignored.
/// One problem stands for all tensors of a rule that fail alike. The labels are spans of the file with the `weights` section.
pub fn match_checkpoint(checkpoint: &Checkpoint, weights: &WeightMap, module: &Module) -> Problems {
    let mut problems = Problems::default();
    unbound_params(weights, module, &mut problems);
    let claimed = doubly_claimed(weights, module, &mut problems);
    let needed = || weights.claims.iter().filter(|claim| !claim.shared);

    let (found, missing): (Vec<_>, Vec<_>) = needed().partition(|claim| checkpoint.tensor(&claim.tensor).is_some());
    let scales: BTreeSet<String> = weights
        .claims
        .iter()
        .filter_map(|claim| claimed::scales_of(checkpoint, weights, &claim.tensor))
        .map(|(_, scales)| scales)
        .collect();
    let extra: Vec<&str> = checkpoint
        .names()
        .filter(|name| !claimed.contains(name) && !scales.contains(*name))
        .filter(|name| !weights.ignored.iter().any(|ignored| pattern::matches(ignored, name)))
        .collect();

    for (claim, others) in by_rule(missing) {
        let path = instance_path(module, claim);
        let help = match nearest(&claim.tensor, &extra, checkpoint) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "is this the checkpoint of another model?".to_string(),
        };
        problems.report(MissingTensors { tensor: claim.tensor.clone(), others, help, at: claim.at, path });
    }
    let wrong = |wrong: &dyn Fn(&Claim, &Tensor) -> bool| {
        let found = found.iter().copied();
        let is_wrong = |claim: &&Claim| {
            claimed::find(checkpoint, weights, &claim.tensor).is_some_and(|tensor| wrong(claim, &tensor))
        };
        by_rule(found.filter(is_wrong).collect())
    };
    let tensor_of = |claim: &Claim| {
        claimed::find(checkpoint, weights, &claim.tensor).expect("only tensors that are there are wrong")
    };
    for (claim, others) in wrong(&|_, tensor| matches!(tensor, Tensor::Unscalable(_))) {
        let Tensor::Unscalable(reason) = tensor_of(claim) else { continue };
        problems.report(Unscalable { tensor: claim.tensor.clone(), others, reason, at: claim.at });
    }
    for (claim, others) in wrong(&|claim, tensor| tensor.shape().is_some_and(|shape| shape != wanted_shape(claim))) {
        let shape = tensor_of(claim).shape().unwrap_or_default();
        problems.report(wrong_shape(module, claim, &shape, others));
    }
    let converts = |claim: &Claim, tensor: &Tensor| {
        tensor.dtype().is_none_or(|dtype| converts(&dtype, module.param(claim.param).ty.dtype))
    };
    for (claim, others) in wrong(&|claim, tensor| !converts(claim, tensor)) {
        let Some(found) = tensor_of(claim).dtype() else { continue };
        let wants = module.param(claim.param).ty.dtype;
        problems.report(UnsupportedElements {
            tensor: claim.tensor.clone(),
            others,
            found,
            path: instance_path(module, claim),
            wants,
            convert: if wants.is_float() { "bf16, f16 or f32" } else { "integers of 32 bits" },
            at: claim.at,
        });
    }
    if !extra.is_empty() {
        let names = extra.iter().take(10).map(|name| name.to_string()).collect();
        problems.report(UnclaimedTensors { count: extra.len(), names });
    }
    problems
}

fn unbound_params(weights: &WeightMap, module: &Module, problems: &mut Problems) {
    let bound: BTreeSet<_> = weights.claims.iter().map(|claim| (claim.param, claim.layer, claim.expert)).collect();
    for (number, param) in module.params.iter().enumerate().filter(|(_, param)| param.initial().is_none()) {
        let id = moec_ir::ParamId(number as u32);
        let layers = param.layers.as_ref().map_or(1, |layers| layers.len() as u32);
        let experts = param.experts.map_or(1, |experts| experts.count);
        let mut instances = (0..layers).flat_map(|layer| (0..experts).map(move |expert| (layer, expert)));
        if let Some((layer, expert)) = instances.find(|(layer, expert)| !bound.contains(&(id, *layer, *expert))) {
            let path = param.instance_path(layer, expert);
            problems.report(UnboundParam { path, param: param.path.clone(), at: param.at });
        }
    }
}

/// Reports tensors with two claims and returns all names that are claimed.
fn doubly_claimed<'w>(weights: &'w WeightMap, module: &Module, problems: &mut Problems) -> BTreeSet<&'w str> {
    let mut first_of: BTreeMap<&str, &Claim> = BTreeMap::new();
    let mut reported = BTreeSet::new();
    for claim in &weights.claims {
        let Some(first) = first_of.insert(&claim.tensor, claim) else { continue };
        let rules = (first.at, claim.at);
        if first.lies_beside(claim) {
            continue;
        }
        if first.shared || claim.shared || !reported.insert(rules) {
            continue;
        }
        problems.report(DoublyClaimed {
            tensor: claim.tensor.clone(),
            first: instance_path(module, first),
            first_at: first.at,
            second: instance_path(module, claim),
            second_at: claim.at,
        });
    }
    first_of.into_keys().collect()
}

/// The first claim of each rule, and how many more there are of it.
fn by_rule(claims: Vec<&Claim>) -> Vec<(&Claim, usize)> {
    let mut rules: BTreeMap<Span, (&Claim, usize)> = BTreeMap::new();
    for claim in claims {
        rules.entry(claim.at).and_modify(|(_, others)| *others += 1).or_insert((claim, 0));
    }
    rules.into_values().collect()
}

/// The sizes of the tensor's axes as its claim has them, slowest first.
fn wanted_shape(claim: &Claim) -> Vec<u64> {
    claim.view.shape.iter().map(|(_, size)| *size).collect()
}

fn wrong_shape(module: &Module, claim: &Claim, found: &[u64], others: usize) -> WrongShape {
    let shape = wanted_shape(claim);
    let names: Vec<&str> = claim.view.shape.iter().map(|(name, _)| name.as_str()).collect();
    let turned = shape.len() == 2 && shape.iter().rev().eq(found);
    let help = if turned {
        format!("the checkpoint holds it transposed; write `as [{}, {}]`", names[1], names[0])
    } else {
        "sizes come from the `config` section: is this the checkpoint's own config.json?".to_string()
    };
    let wants: Vec<_> = names.iter().zip(&shape).map(|(name, size)| format!("{name}={size}")).collect();
    WrongShape {
        tensor: claim.tensor.clone(),
        others,
        found: found.to_vec(),
        wants: format!("[{}]", wants.join(", ")),
        help,
        at: claim.at,
        path: instance_path(module, claim),
    }
}

/// Whether elements can be taken for a parameter's.
pub(crate) fn converts(from: &StoredType, to: DType) -> bool {
    match to {
        DType::F32 | DType::Bf16 | DType::F16 => {
            matches!(
                from,
                StoredType::F32
                    | StoredType::Bf16
                    | StoredType::F16
                    | StoredType::F64
                    | StoredType::F8E4M3
                    | StoredType::F8E8M0
            )
        }
        DType::I32 => matches!(
            from,
            StoredType::I8
                | StoredType::U8
                | StoredType::I16
                | StoredType::U16
                | StoredType::I32
                | StoredType::U32
                | StoredType::I64
                | StoredType::U64
        ),
        DType::Bool => *from == StoredType::Bool,
    }
}

/// `layers[3].ffn.experts[1].up`.
fn instance_path(module: &Module, claim: &Claim) -> String {
    module.param(claim.param).instance_path(claim.layer, claim.expert)
}

/// The name most like a missing one: among tensors that nobody claims if any is close, else among all.
fn nearest<'n>(missing: &str, extra: &[&'n str], checkpoint: &'n Checkpoint) -> Option<&'n str> {
    // A few hundred thousand names are compared at most: large checkpoints have tens of thousands.
    let closest = |names: &mut dyn Iterator<Item = &'n str>| {
        let close = names.map(|name| (strsim::normalized_levenshtein(missing, name), name));
        close.filter(|(likeness, _)| *likeness > 0.6).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
    };
    closest(&mut extra.iter().copied()).or_else(|| closest(&mut checkpoint.names()))
}
