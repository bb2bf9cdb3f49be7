//! A plan executed the obvious way, one element at a time: what backends are compared with, and how lowering is tested
//! without one.
//!
//! Buffers stand where the plan puts them, so two that share a place too early spoil each other here as they would in a
//! backend; the workspace starts as NaN. Numbers are held as f64 and rounded to f32 wherever they are stored.

mod assign;
mod machine;
mod memory;
mod rows;
mod scalar;
mod steps;

pub use machine::{Instances, Machine, Packing, Pass, Weights};
