//! `moec verify`: a model on some backend against a reference computed elsewhere.
//!
//! A [`Reference`] is a file of inputs and results; a [`Backend`] is anything that can run the model; [`verify`] compares
//! logits within a tolerance, chosen experts and greedy tokens exactly, and its [`Verdict`] is a row of a table.

mod backend;
mod oracle_backend;
mod reference;
mod routes;
mod verdict;
mod verify;

pub use backend::{Backend, Chosen, Scored, Sequence};
pub use oracle_backend::{NotADecoder, OracleBackend};
pub use reference::{Generation, Reference, ReferenceError};
pub use routes::ReferenceRoute;
pub use verdict::{Agreement, LogitError, RouteMismatch, TokenMismatch, Verdict, render_table};
pub use verify::{BackendFault, NoEncoder, NoSource, Tolerances, verify};
