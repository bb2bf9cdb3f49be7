//! Ops that work on each position by itself, as one program over a row.

use crate::RegionId;

/// `rows %a, %b {region}`: what `fuse-rows` and `fuse-router` make of ops that do not look across positions.
///
/// *Types.*   operands to the region's arguments, its results to results; all share one symbolic axis (or have none).
/// *Meaning.* The region's. It holds no `past`, routing, layers, attention or linear.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    pub region: RegionId,
}
