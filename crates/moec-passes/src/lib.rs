//! Model IR to model IR: each pass finds structure, never names, and leaves the meaning as it was.
//!
//! [`run`] applies the [`pipeline`] and verifies the module after every pass. What the passes did, and what kept them from
//! doing more, is in the [`Report`].

mod compose;
mod constant;
mod literal;
mod outline;
mod passes;
mod pipeline;
mod report;
mod row_wise;

use std::collections::BTreeSet;

use moec_ir::Module;

pub use pipeline::pipeline;
pub use report::{Entry, Report, Saves, bytes};

/// One step of the pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// As in `--without NAME` and in the report.
    pub name: &'static str,
    /// One line for a list of passes.
    pub summary: &'static str,
    pub run: fn(Module, &mut Report) -> Module,
}

/// What to leave out.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names of passes; names that no pass has mean nothing, so the driver checks them against [`pipeline`].
    pub disabled: BTreeSet<String>,
}

/// The module after all passes that are not disabled.
///
/// # Panics
/// When a pass leaves a module that does not verify: a bug, and the message names the pass.
pub fn run(module: Module, options: &Options) -> (Module, Report) {
    let mut report = Report::default();
    let enabled = pipeline().iter().filter(|pass| !options.disabled.contains(pass.name));
    let module = enabled.fold(module, |module, pass| apply(pass, module, &mut report));
    (module, report)
}

/// One pass, verified.
///
/// # Panics
/// As [`run`].
pub fn apply(pass: &Pass, module: Module, report: &mut Report) -> Module {
    let module = (pass.run)(module, report).without_dead();
    if let Err(error) = moec_ir::verify(&module) {
        panic!("pass {} broke the module: {error}\n{}", pass.name, moec_ir::print(&module));
    }
    module
}
