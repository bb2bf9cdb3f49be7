//! The CUDA backend: a plan as one translation unit of CUDA C++, and the launches that make a pass.
//!
//! Fixed text is in kernels/cuda: loops of row programs, GEMM, attention and the sorting of routes as templates. Printed are row
//! programs, epilogues and scores (`expr.rs` is the only printer of expressions), and where things lie. Every kernel takes the
//! address of the pass and the layer's rank, so that a captured pass can be launched again with other numbers.

mod assign;
mod attention;
mod bin;
mod cache;
mod expr;
mod gemm;
mod image;
mod launch;
mod nvrtc;
mod place;
mod places;
mod program;
mod rows;

pub use cache::Cache;
pub use image::image;
pub use launch::{Counted, Launch, Sessions, Taken, Traced, Way, Ways};
pub use nvrtc::{Compiled, Compiler, FOLDER_VARIABLE, NvrtcError};
pub use program::{Execution, Program, program, program_in};
