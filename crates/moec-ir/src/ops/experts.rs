//! A bank of experts applied to the rows of a route.

use moec_types::Axis;

use crate::RegionId;

/// `experts %rows, %route {bank}`.
///
/// *Types.*   rows (`Packed`: the result of a dispatch; `FromTokens`: x itself, gathered on the way in), and the route. Each
///            member's region takes `f32[Slot=slots(S, K), D]` and gives `f32[Slot, ..]` of one type for all members.
///            -> `PerSlot`: that type; `WeighedPerChoice`: `f32[S, K, ..]`.
/// *Meaning.* Expert `e` of the route is an instance of the member whose range `first .. first + count` holds `e`; each row is
///            what its expert makes of it. `WeighedPerChoice` puts each row, times its weight, at its position and
///            choice (zero where nothing was chosen); its sum over K is what `combine` gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    pub bank: Vec<Member>,
    /// The axis of the rows within the members' regions.
    pub slots: Axis,
    pub input: ExpertsInput,
    pub output: ExpertsOutput,
}

/// `count` experts of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub region: RegionId,
    pub first: u32,
    pub count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertsInput {
    Packed,
    FromTokens,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertsOutput {
    PerSlot,
    WeighedPerChoice,
}
