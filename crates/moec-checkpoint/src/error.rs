//! Files that are not what they should be.

use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

/// Why a checkpoint or tensor file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
pub enum CheckpointError {
    #[error("no checkpoint in {}", folder.display())]
    #[diagnostic(
        code(moec::checkpoint::not_found),
        help("a checkpoint is `model.safetensors`, or `model.safetensors.index.json` beside the files it names")
    )]
    NotFound { folder: PathBuf },

    #[error("cannot read {}: {reason}", file.display())]
    #[diagnostic(code(moec::checkpoint::unreadable))]
    Unreadable { file: PathBuf, reason: String },

    #[error("{} is not a safetensors file: {reason}", file.display())]
    #[diagnostic(code(moec::checkpoint::bad_file), help("was it downloaded or written completely?"))]
    BadFile { file: PathBuf, reason: String },

    #[error("tensor `{tensor}` of {}: {reason}", file.display())]
    #[diagnostic(code(moec::checkpoint::bad_tensor), help("was the file downloaded or written completely?"))]
    BadTensor { file: PathBuf, tensor: String, reason: String },

    #[error("{} is not an index of safetensors files: {reason}", file.display())]
    #[diagnostic(code(moec::checkpoint::bad_index))]
    BadIndex { file: PathBuf, reason: String },

    #[error("the index says that `{tensor}` is in {}, which does not hold it", file.display())]
    #[diagnostic(code(moec::checkpoint::index_disagrees), help("are all files of one download?"))]
    IndexDisagrees { file: PathBuf, tensor: String },
}
