//! Launches: a kernel's text, and what its number of blocks is counted from.
//!
//! Threads, rows of a block and shared memory are the kernel's own business: its module tells them, as `NAME_shape`
//! (kernels/cuda/pass.cuh), and whoever launches asks.

use std::fmt::Write;

use moec_plan::{BufferId, Rows};

/// What a launch's blocks are counted from: so many matrices' rows in each row of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub rows: Rows,
    pub each: u64,
}

impl From<Rows> for Counted {
    fn from(rows: Rows) -> Self {
        Counted { rows, each: 1 }
    }
}

/// What a bin tells an observer.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    pub route: u32,
    pub indices: BufferId,
    pub weights: BufferId,
    pub choices: u64,
}

/// One step: the kernel `name`, of the pass and a layer's rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    pub name: String,
    pub counted: Counted,
    pub traced: Option<Traced>,
}

/// A printed kernel.
pub struct Kernel {
    pub text: String,
    pub launch: Launch,
    /// Of the pass's scratch, for all blocks together.
    pub scratch_bytes: u64,
}

/// The kernel `name` that runs a template of kernels/cuda with `members`, what its spec says of the step.
pub fn instance(template: &str, name: &str, members: &str, counted: impl Into<Counted>) -> Kernel {
    let mut text = format!("struct Spec_{name} {{\n{members}}};\ntypedef {template}<Spec_{name}> Step_{name};\n");
    let _ = writeln!(text, "MOEC_KERNEL(Step_{name}::THREADS) {name}(const Pass *pass, int rank) {{");
    let _ = writeln!(text, "  Step_{name}::run(*pass, rank);\n}}");
    let shape = ["THREADS", "ROWS", "MORE", "TIMES", "SHARED_BYTES"].map(|member| format!("Step_{name}::{member}"));
    let _ = writeln!(text, "MOEC_SHAPE {name}_shape[] = {{{}, 0}};", shape.join(", "));
    let launch = Launch { name: name.to_owned(), counted: counted.into(), traced: None };
    Kernel { text, launch, scratch_bytes: 0 }
}
