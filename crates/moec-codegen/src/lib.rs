//! What every backend shares: the artefact's header, the packed weight file, and linking objects into libraries.

mod backend;
mod check;
mod checksum;
mod finite;
mod header;
mod interface;
mod link;
mod pack;
mod package;
mod panels;
mod partial;
mod rust;
mod weight_file;

pub use backend::{Backend, Image, Object, Unsupported};
pub use check::check_steps;
pub use checksum::Checksum;
pub use finite::NotFinite;
pub use header::header;
pub use interface::{
    BadName, CType, Function, PortRows, check_name, functions, port_rows, sees_later_positions, source_port,
    token_ports,
};
pub use link::{Artefact, LinkError, TOOLS, Tool, cuda_runtime, link};
pub use pack::{CodeKind, Coded, Instance, Instances, Misfit, Packed, Values, pack};
pub use package::package;
pub use partial::Place;
pub use rust::rust_crate;
pub use weight_file::{WriteError, fingerprint, resume_weights, write_weights};
