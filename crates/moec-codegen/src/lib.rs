//! What every backend shares: the artefact's header, the packed weight file, and linking objects into libraries.

mod backend;

pub use backend::{Backend, Object, Unsupported};
