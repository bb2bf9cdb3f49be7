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
mod helping;
mod kernel;
mod level;
mod math;
mod memory;
mod object;
mod pass;
mod rows;
mod view;

use moec_codegen::{Backend, Image, Object, Unsupported, check_steps};
use moec_plan::Plan;

pub use level::Level;
pub use object::Stage;
pub use pass::{Locate, scratch_bytes};

/// In `--target`.
const NAME: &str = "cpu";

/// The CPU as a target.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// The run time takes the best of these that the machine has. In any order; none for a library that runs on a device alone.
    pub levels: Vec<Level>,
    /// What a device needs of the plan, where the library is for one, too.
    pub image: Option<Image>,
    /// What the code says of itself while it runs.
    pub marks: Marks,
}

/// Whether an observer is told of every step of a pass, and not of routes alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    #[default]
    Routes,
    /// Before every step all threads meet, one calls the observer with [`mark`] of the step as its route and the layer's rank,
    /// no choices and no addresses, and all meet again; [`END`] is told when a pass is over. For measuring only.
    Steps,
}

/// The route that an observer is told of at the end of a pass, where steps are marked.
pub const END: i32 = -1;

/// The route that an observer is told of where step `number` begins. Steps are numbered as they stand in the plan: those of
/// the body, then those of other sequences' passes; a kind's where its layers stand, one kind after the other.
pub fn mark(number: usize) -> i32 {
    END - 1 - number as i32
}

/// The number of the step that a mark stands for.
pub fn marked_step(mark: i32) -> Option<usize> {
    usize::try_from(END - 1 - mark).ok()
}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn emit(&self, plan: &Plan) -> Result<Vec<Object>, Unsupported> {
        let mut levels = self.levels.clone();
        levels.sort();
        levels.dedup();
        let entry = entry::emit(plan, &levels, scratch_bytes(plan), self.image.as_ref())?;
        let passes = std::thread::scope(|scope| {
            let emit = |level| scope.spawn(move || marked(plan, level, self.marks, &|_| None));
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
    marked(plan, level, Marks::Routes, locate)
}

fn marked(plan: &Plan, level: Level, marks: Marks, locate: &Locate) -> Result<Object, Unsupported> {
    check_steps(plan, NAME)?;
    let name = ["pass_", level.name(), ".o"].concat();
    Ok(Object { name, bytes: object::object(plan, level, marks, locate) })
}

/// The code of one level as text, for `--emit`.
pub fn text(plan: &Plan, level: Level, stage: Stage, locate: &Locate) -> Result<String, Unsupported> {
    check_steps(plan, NAME)?;
    Ok(object::text(plan, level, stage, locate))
}
