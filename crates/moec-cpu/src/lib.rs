//! The CPU backend: a plan as x86-64 code for several instruction-set levels, through MLIR's upstream dialects and LLVM.
//!
//! Each level is one object with one public function, `moec_pass_<level>` (kernels/runtime/moec_pass.h says how it is
//! called). Undefined symbols are `moec_barrier`, functions of libm, and `memcpy` and `memset`.

mod attention;
mod bin;
mod builder;
mod check;
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

use moec_codegen::{Object, Unsupported};
use moec_plan::Plan;

pub use level::Level;
pub use object::Stage;
pub use pass::{Locate, scratch_bytes};

/// The object of one level.
pub fn object(plan: &Plan, level: Level, locate: &Locate) -> Result<Object, Unsupported> {
    check::check(plan)?;
    let name = ["pass_", level.name(), ".o"].concat();
    Ok(Object { name, bytes: object::object(plan, level, locate) })
}

/// The code of one level as text, for `--emit`.
pub fn text(plan: &Plan, level: Level, stage: Stage, locate: &Locate) -> Result<String, Unsupported> {
    check::check(plan)?;
    Ok(object::text(plan, level, stage, locate))
}
