//! Expert rows weighed and summed back into their tokens.

/// `combine %rows, %route`.
///
/// *Types.*   rows `f32[Slot, ..]`, the route -> `f32[S, ..]`.
/// *Meaning.* The sum over a position's choices, in order of choice, of weight times row.
#[derive(Clone, Debug, PartialEq)]
pub struct Combine;
