//! Scores, softmax and weighted sum over all keys, without the scores ever being stored.

use moec_types::{Axis, Expr};

/// `attention %q, %k, %v, extras… over (Dh) keys T {score}`: what `fuse-attention` makes of a contraction, element-wise
/// arithmetic, a softmax over the keys and a second contraction.
///
/// *Types.*   q `f32[S, heads.., Dh]`, k `f32[T, some of the heads.., Dh]`, v `f32[T, some of the heads.., values..]`; extras
///            with any of the axes S, T, heads -> `f32[q's axes without over, then v's axes that q lacks, without T]`.
/// *Meaning.* `p = softmax(score(q · k over Dh, extras) over T)`, result `p · v over T`. In `score`, `Arg(0)` is the dot
///            product and `Arg(1 ..)` are the extras.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    pub over: Vec<Axis>,
    pub keys: Axis,
    pub score: Expr,
}
