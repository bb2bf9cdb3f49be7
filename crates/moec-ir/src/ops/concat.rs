//! Tensors laid end to end.

use moec_types::Axis;

/// `concat %a, %b over Half`.
///
/// *Types.*   one or more tensors of one element type with the same axes (in any order), sizes equal but for the fixed
///            sizes along `over`, which add up -> the first's axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Concat {
    pub over: Axis,
}
