//! The `weights` section, expanded: which checkpoint tensor is which instance of which parameter, and how its axes lie.

use moec_diag::Span;
use moec_ir::ParamId;
use moec_types::Axis;

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
