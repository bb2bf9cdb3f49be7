//! Where things stand in the source text, and the problems found there.
//!
//! All files of one run share one offset space (a [`SourceMap`]), so a [`Span`] is two numbers and a problem may point
//! into the user's file and into the standard library at once.

pub mod pages;
mod problems;
mod source_map;
pub mod spelling;

pub use problems::{Problem, Problems};
pub use source_map::{SourceMap, Span};
