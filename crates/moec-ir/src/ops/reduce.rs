//! Sums and extremes along axes.

use moec_types::Axis;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    Sum,
    Mean,
    Prod,
    /// NaN if any is NaN.
    Max,
    Min,
    /// Of bools.
    Any,
    All,
}

/// `reduce sum %x over (E)`.
///
/// *Types.*   x with every axis of `over`; f32 or i32 (bool for `any` and `all`; f32 for `mean`) -> x's axes without `over`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduce {
    pub op: ReduceOp,
    pub over: Vec<Axis>,
}
