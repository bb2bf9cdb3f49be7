//! The CPU backend: a plan as x86-64 code for several instruction-set levels, through MLIR's upstream dialects and LLVM.
//!
//! Each level is one object with one public function, `moec_pass_<level>` (kernels/runtime/moec_pass.h says how it is
//! called). Undefined symbols are `moec_barrier`, `moec_assign`, functions of libm, and `memcpy` and `memset`.

mod assign;
mod attention;
mod bin;
mod builder;
mod entry;
mod expr;
mod frame;
mod gemm;
mod kernel;
mod level;
mod math;
mod memory;
mod object;
mod pass;
mod rows;
mod view;

use moec_codegen::{Backend, Object, Unsupported, check_steps};
use moec_plan::Plan;

pub use level::Level;
pub use object::Stage;
pub use pass::{Locate, scratch_bytes};

/// In `--target`.
const NAME: &str = "cpu";

/// The CPU as a target.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// The run time takes the best of these that the machine has. In any order; not empty.
    pub levels: Vec<Level>,
}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn emit(&self, plan: &Plan) -> Result<Vec<Object>, Unsupported> {
        let mut levels = self.levels.clone();
        levels.sort();
        levels.dedup();
        let entry = entry::emit(plan, &levels, scratch_bytes(plan))?;
        let passes = std::thread::scope(|scope| {
            let emit = |level| scope.spawn(move || object(plan, level, &|_| None));
            let emitting: Vec<_> = levels.into_iter().map(emit).collect();
            let join = |thread: std::thread::ScopedJoinHandle<_>| {
                thread.join().unwrap_or_else(|bug| std::panic::resume_unwind(bug))
            };
            emitting.into_iter().map(join).collect::<Result<Vec<_>, _>>()
        })?;
        Ok(std::iter::once(entry).chain(passes).collect())
    }
}

/// The object of one level.
pub fn object(plan: &Plan, level: Level, locate: &Locate) -> Result<Object, Unsupported> {
    check_steps(plan, NAME)?;
    let name = ["pass_", level.name(), ".o"].concat();
    Ok(Object { name, bytes: object::object(plan, level, locate) })
}

/// The code of one level as text, for `--emit`.
pub fn text(plan: &Plan, level: Level, stage: Stage, locate: &Locate) -> Result<String, Unsupported> {
    check_steps(plan, NAME)?;
    Ok(object::text(plan, level, stage, locate))
}
