//! Model IR to plan: values become buffers, ops become steps.
//!
//! Expects what `moec-passes` leaves: row-wise ops in `rows` regions, GEMMs as `linear`, attention recognised. Row-wise ops
//! that stand alone (a pass was switched off) become programs of one op.

mod access;
mod assign;
mod attention;
mod context;
mod experts;
mod gemm;
mod mask;
mod parallel;
mod params;
mod ports;
mod program;
mod scan;
mod sequences;
mod workspace;

use moec_diag::Span;
use moec_ir::Module;
use moec_plan::Plan;
use thiserror::Error;

/// What no step of the plan can do yet.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{op} cannot be lowered: {reason}")]
pub struct Unsupported {
    pub op: String,
    pub reason: String,
    pub way_round: String,
    pub at: Span,
}

/// Lowers a verified module.
pub fn lower(module: &Module) -> Result<Plan, Unsupported> {
    context::Lowering::new(module).run()
}
