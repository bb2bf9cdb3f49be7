//! Launches: the kernels that can make a step, and what their blocks are counted from.
//!
//! Threads, rows of a block and shared memory are a kernel's own business: its module tells them, as `NAME_shape`
//! (kernels/cuda/pass.cuh), and whoever launches asks. Which of a step's ways a pass takes is decided by its numbers of rows, which
//! the host knows, so that nothing is asked of the device.

use std::fmt::Write;

use moec_plan::{BufferId, Rows};

/// What a launch's blocks are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub rows: Rows,
    /// So many matrices' rows in each row of the step.
    pub each: u64,
    pub sessions: Sessions,
}

/// What it is to a step that a pass may have rows of several sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// A row is a row.
    Alike,
    /// Blocks have rows of one session: each session's begin a new one.
    Apart,
    /// The rows are there once for each session.
    Each,
}

impl From<Rows> for Counted {
    fn from(rows: Rows) -> Self {
        Counted { rows, each: 1, sessions: Sessions::Alike }
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

/// One way to make a step: kernels that are launched one behind the other, each of the pass and a layer's rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    pub kernels: Vec<String>,
    pub taken: Taken,
    /// Its kernels are in machine code for sm_90a only.
    pub hopper: bool,
}

/// When a way is taken: from `least` to `most` rows, in all or on average of a session (rounded up).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub least: u64,
    pub most: u64,
    pub of_session: bool,
}

impl Taken {
    pub const ALWAYS: Taken = Taken { least: 0, most: u64::MAX, of_session: false };

    pub fn up_to(most: u64) -> Self {
        Taken { most, ..Taken::ALWAYS }
    }

    pub fn from(least: u64) -> Self {
        Taken { least, ..Taken::ALWAYS }
    }
}

/// Which ways are printed of steps that have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    All,
    /// The one that is for any number of rows, and any part.
    Last,
}

/// One step. The first of its ways is taken that the pass's rows and the part allow; the last is for any.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    pub ways: Vec<Way>,
    pub counted: Counted,
    pub traced: Option<Traced>,
}

/// A printed step.
pub struct Kernel {
    pub text: String,
    pub launch: Launch,
    /// Of the pass's scratch, for all blocks together.
    pub scratch_bytes: u64,
}

/// A way that templates of kernels/cuda make, before its kernels have names: each with what it is given behind the step.
pub struct Instances {
    pub chain: Vec<(&'static str, Vec<u64>)>,
    pub taken: Taken,
    pub hopper: bool,
}

impl Instances {
    /// One kernel.
    pub fn one(template: &'static str, sizes: &[u64], taken: Taken) -> Self {
        Instances { chain: vec![(template, sizes.to_vec())], taken, hopper: false }
    }
}

/// The step `name` in several ways by templates with `members`, what the spec says of the step. The last way's kernel, which is
/// for any rows, has the step's name.
pub fn instances(name: &str, members: &str, counted: impl Into<Counted>, ways: Vec<Instances>) -> Kernel {
    let mut text = format!("struct Spec_{name} {{\n{members}}};\n");
    let last = ways.len() - 1;
    let mut made = Vec::new();
    for (at, Instances { chain, taken, hopper }) in ways.into_iter().enumerate() {
        let mut kernels = Vec::new();
        let mut of_way = String::new();
        for (part, (template, sizes)) in chain.iter().enumerate() {
            let kernel = if at == last { name.to_owned() } else { format!("{name}_{at}_{part}") };
            of_way.push_str(&print(&kernel, name, template, sizes));
            kernels.push(kernel);
        }
        text.push_str(&if hopper { format!("#if MOEC_HOPPER\n{of_way}#endif\n") } else { of_way });
        made.push(Way { kernels, taken, hopper });
    }
    Kernel { text, launch: Launch { ways: made, counted: counted.into(), traced: None }, scratch_bytes: 0 }
}

/// The same in one way.
pub fn instance(template: &'static str, name: &str, members: &str, counted: impl Into<Counted>) -> Kernel {
    instances(name, members, counted, vec![Instances::one(template, &[], Taken::ALWAYS)])
}

fn print(kernel: &str, step: &str, template: &str, sizes: &[u64]) -> String {
    let sizes: String = sizes.iter().map(|size| format!(", {size}")).collect();
    let mut text = format!("typedef {template}<Spec_{step}{sizes}> Step_{kernel};\n");
    let _ = writeln!(text, "MOEC_KERNEL(Step_{kernel}::THREADS) {kernel}(const Pass *pass, int rank) {{");
    let _ = writeln!(text, "  Step_{kernel}::run(*pass, rank);\n}}");
    let shape = ["THREADS", "ROWS", "MORE", "TIMES", "SHARED_BYTES"].map(|member| format!("Step_{kernel}::{member}"));
    let _ = writeln!(text, "MOEC_SHAPE {kernel}_shape[] = {{{}, 0}};", shape.join(", "));
    text
}
