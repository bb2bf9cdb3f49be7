//! What can be wrong with the rules of a `weights` section.

use miette::Diagnostic;
use moec_diag::Span;
use moec_types::Axis;
use thiserror::Error;

use crate::evaluator::limits;

#[derive(Debug, Error, Diagnostic)]
#[error("no weights for `{path}`")]
#[diagnostic(code(moec::sema::unbound), help("add a rule: `{path} = \"name.in.the.checkpoint\"`"))]
pub(super) struct Unbound {
    pub path: String,
    #[label("this parameter")]
    pub at: Span,
    #[label("has no rule here")]
    pub section_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("two rules for `{path}`")]
#[diagnostic(code(moec::sema::bound_twice), help("each parameter comes from one place: drop one"))]
pub(super) struct BoundTwice {
    pub path: String,
    #[label("again")]
    pub at: Span,
    #[label("first")]
    pub first_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the tensor `{tensor}` is claimed by `{first}` and by `{second}`")]
#[diagnostic(
    code(moec::sema::claimed_twice),
    help("to use one tensor for two parameters, share the parameter: `param b[…] = a`")
)]
pub(super) struct ClaimedTwice {
    pub tensor: String,
    pub first: String,
    pub second: String,
    #[label("claimed here")]
    pub first_at: Option<Span>,
    #[label("and here")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{path}` has {count} instances, and the name of the tensor is the same for all")]
#[diagnostic(code(moec::sema::index_unused), help("put `{{{name}}}` where the number stands in the name"))]
pub(super) struct IndexUnused {
    pub path: String,
    pub name: String,
    pub count: usize,
    #[label("`{{{name}}}` is not used")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("more than {} tensors", limits::CLAIMS)]
#[diagnostic(code(moec::sema::too_many_tensors), help("make fewer layers, experts or alternatives"))]
pub(super) struct TooManyTensors {
    #[label("given up here")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("alternatives must pair up: {left} in the path, {right} in the tensor's name")]
#[diagnostic(
    code(moec::sema::alternatives_differ),
    help("the n-th of one side goes with the n-th of the other: `{{gate,up}} = \"{{w1,w3}}\"`")
)]
pub(super) struct AlternativesDiffer {
    pub left: String,
    pub right: String,
    #[label("{left}")]
    pub target_at: Span,
    #[label("{right}")]
    pub tensor_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{{{name}}}` is no index of the path")]
#[diagnostic(code(moec::sema::unknown_index), help("{help}"))]
pub(super) struct UnknownIndex {
    pub name: String,
    #[label("`{{{name}}}` is used here")]
    pub at: Span,
    #[label("not an index here")]
    pub target_at: Span,
    pub help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{path}` is square: `{first}` and `{second}` are both {size}")]
#[diagnostic(code(moec::sema::orientation_unsaid), help("{help}"))]
pub(super) struct OrientationUnsaid {
    pub path: String,
    pub first: Axis,
    pub second: Axis,
    pub size: u64,
    #[label("could be taken either way round")]
    pub at: Span,
    pub help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{axis}` in the layout of `{path}` {what}")]
#[diagnostic(code(moec::sema::layout_axis), help("the parameter is {ty}: each of its axes appears once"))]
pub(super) struct LayoutAxis {
    pub path: String,
    pub ty: String,
    pub axis: String,
    pub what: &'static str,
    #[label("{what}")]
    pub at: Span,
    #[label("this is {ty}")]
    pub param_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the layout of `{path}` lacks {missing}")]
#[diagnostic(
    code(moec::sema::layout_incomplete),
    help("axes that lie together in one of the tensor's are written `(A, B)`")
)]
pub(super) struct LayoutIncomplete {
    pub path: String,
    pub ty: String,
    pub missing: String,
    #[label("lacks {missing}")]
    pub at: Span,
    #[label("this is {ty}")]
    pub param_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the path `{path}` has other indices than the parameter")]
#[diagnostic(code(moec::sema::other_indices), help("write `{near}`"))]
pub(super) struct OtherIndices {
    pub path: String,
    pub near: String,
    #[label("the parameter is `{near}`")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("no parameter is called `{path}`")]
#[diagnostic(code(moec::sema::no_such_param), help("{help}"))]
pub(super) struct NoSuchParam {
    pub path: String,
    pub stranger: String,
    #[label("nothing is called `{stranger}`")]
    pub at: Span,
    pub help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("two groups `(…, …)` in one path")]
#[diagnostic(code(moec::sema::several_twice), help("write a rule for each of one group"))]
pub(super) struct SeveralTwice {
    #[label("names two groups")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{found} side by side in the tensor, {parts} in the path")]
#[diagnostic(
    code(moec::sema::beside_differs),
    help("`(q, k) = \"…\" as [(A | B), D]`: the n-th of the path lies at the n-th place of the tensor")
)]
pub(super) struct BesideDiffers {
    pub found: usize,
    pub parts: usize,
    #[label("{found} here")]
    pub at: Span,
    #[label("{parts} here")]
    pub target_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("parameters lie side by side along two axes")]
#[diagnostic(code(moec::sema::beside_twice), help("along one axis they lie side by side, all others they share"))]
pub(super) struct BesideTwice {
    #[label("the second `(… | …)`")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the model has no `{path}`, which is to lie beside the others")]
#[diagnostic(
    code(moec::sema::part_lacking),
    help("write a rule for the others alone, or declare the parameter in every configuration that has them")
)]
pub(super) struct PartLacking {
    pub path: String,
    #[label("binds it")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("what lies beside `{path}` is not in the same layers")]
#[diagnostic(
    code(moec::sema::part_elsewhere),
    help("parameters that share tensors belong to the same layers and experts")
)]
pub(super) struct PartElsewhere {
    pub path: String,
    #[label("binds it together with others")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` is no whole number of `config`")]
#[diagnostic(code(moec::sema::no_bound), help("{help}"))]
pub(super) struct NoBound {
    pub name: String,
    #[label("`{name}` stands in this name")]
    pub at: Span,
    pub help: String,
}
