//! A constant tensor.

use moec_types::TensorType;

/// `literal f32[Pair=2] [1.0, 0.5]`: values in the order of the type's axes. Integers and bools (0, 1) are held exactly.
///
/// *Types.*   any with fixed sizes, or a scalar.
#[derive(Clone, Debug, PartialEq)]
pub struct Literal {
    pub ty: TensorType,
    pub data: Vec<f64>,
}
