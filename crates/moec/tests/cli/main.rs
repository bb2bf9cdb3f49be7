//! The command line from outside: every test runs the built `moec` as a user would.

mod artefact;
mod bad_input;
mod command;
mod cuda;
mod demos;
mod doctor;
mod domains;
mod explain;
mod explain_error;
mod families;
mod flat;
mod fmt;
mod guides;
mod lsp;
mod mutations;
mod own_files;
mod placement;
mod programs;
mod python;
mod quant;
mod rust;
mod serve;
mod tensors;
mod text;
mod trace;
mod verify;
