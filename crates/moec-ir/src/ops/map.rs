//! Element-wise arithmetic.

use moec_types::Expr;

/// `map %a, %b {add($0, $1)}`.
///
/// *Types.*   operands of any axes; one name has one size throughout -> the union of the axes, in the order of first
///            appearance; the expression's type. Storage types are not operands: parameters are read as f32.
/// *Meaning.* Each operand is repeated along the axes that it lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    pub expr: Expr,
}
