//! `moec lsp`: the language server, until the editor ends it.

use miette::Diagnostic;
use moec_lsp::ServerStopped;
use thiserror::Error;

use crate::failure::Failure;

pub fn run() -> Result<(), Failure> {
    Ok(moec_lsp::serve_standard_streams().map_err(Stopped)?)
}

#[derive(Debug, Error, Diagnostic)]
#[error("{0}")]
#[diagnostic(code(moec::lsp::stopped), help("an editor starts this; `moec check FILE` reports the same problems"))]
struct Stopped(ServerStopped);
