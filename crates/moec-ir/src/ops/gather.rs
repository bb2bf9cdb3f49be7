//! Look-up by index.

use moec_types::Axis;

/// `gather %x, %i over E`.
///
/// *Types.*   x `T[.., over, ..]`, i `i32[..]` -> `T[i's axes, then x's axes that i lacks, without over]`.
/// *Meaning.* Axes that both have are aligned. An index outside the axis is a fault of the caller; inputs are checked
///            against it at the boundary of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    pub over: Axis,
}
