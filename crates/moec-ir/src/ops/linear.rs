//! One tensor contracted with several parameters, and an element-wise epilogue.

use moec_types::{Axis, Expr};

/// `linear %x, %gate, %up, %bias over (D) {branches 2, epilogue …}`: what `fuse-activation` makes of contractions.
///
/// *Types.*   x, then `branches` parameters that have the axes of `over` and otherwise the same axes as each other; then
///            extras. -> f32[x's axes without `over`, then the first parameter's axes that x lacks].
/// *Meaning.* `Arg(0 .. branches)` of the epilogue are the sums, the rest the extras, repeated along axes that they lack.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    pub over: Vec<Axis>,
    pub branches: usize,
    pub epilogue: Expr,
}
