//! The model IR: tokens, experts and routing in SSA form over named axes.
//!
//! Layers are a loop over a few layer kinds, experts a region applied to every member of a bank, so the size of a module
//! depends neither on the number of layers nor of experts. A module prints, parses back, and is verified after every pass.

mod module;
pub mod ops;
mod parse;
mod print;
mod reader;
mod verify;

pub use module::{Experts, Input, Mark, Module, Node, Output, Param, Readers, Region, Role, RouteType, ValueType};
pub use module::{OpId, ParamId, RegionId, ValueId};
pub use moec_types::ParseError;
pub use ops::{Op, OpDef, Reach, TypeError};
pub use parse::parse;
pub use print::print;
pub use reader::Reader;
pub use verify::{VerifyError, verify};
