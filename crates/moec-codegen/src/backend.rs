//! The contract of a backend.

use moec_diag::Span;
use moec_plan::Plan;
use thiserror::Error;

/// A relocatable object file, in memory.
#[derive(Clone, Debug)]
pub struct Object {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// What a device needs of a plan, as bytes inside the library, for the run time's code of that device.
#[derive(Clone, Debug)]
pub struct Image {
    /// The symbol of its calls (`moec_device_calls` of kernels/runtime/device.h).
    pub calls: &'static str,
    pub bytes: Vec<u8>,
}

/// A step that a target cannot do: named, with a way round.
#[derive(Clone, Debug, Error)]
#[error("{step} is not supported on {target}: {reason}")]
pub struct Unsupported {
    pub step: String,
    pub target: &'static str,
    pub reason: String,
    pub way_round: String,
    pub at: Span,
}

pub trait Backend {
    /// The name in `--target`.
    fn name(&self) -> &'static str;

    /// The plan as objects that, with the run time, make a library.
    fn emit(&self, plan: &Plan) -> Result<Vec<Object>, Unsupported>;
}
