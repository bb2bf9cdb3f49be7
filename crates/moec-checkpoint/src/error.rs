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
    #[diagnostic(code(moec::checkpoint::unreadable), help("is it there, a file, and may this user read it?"))]
    Unreadable { file: PathBuf, reason: String },

    #[error("{} is not a safetensors file: {reason}", file.display())]
    #[diagnostic(code(moec::checkpoint::bad_file), help("was it downloaded or written completely?"))]
    BadFile { file: PathBuf, reason: String },

    #[error("tensor `{tensor}` of {}: {reason}", file.display())]
    #[diagnostic(code(moec::checkpoint::bad_tensor), help("was the file downloaded or written completely?"))]
    BadTensor { file: PathBuf, tensor: String, reason: String },

    #[error("{} is not an index of safetensors files: {reason}", file.display())]
    #[diagnostic(
        code(moec::checkpoint::bad_index),
        help("an index is `{{\"weight_map\": {{\"tensor\": \"file beside it\", …}}}}`: take the checkpoint's own")
    )]
    BadIndex { file: PathBuf, reason: String },

    #[error("{} files that {} names are not there: {}", missing.len(), index.display(), missing.join(", "))]
    #[diagnostic(
        code(moec::checkpoint::missing_file),
        help("they hold {tensors} of its tensors, `{tensor}` among them: put them into the same folder")
    )]
    MissingFiles {
        index: PathBuf,
        /// In alphabetical order, never empty.
        missing: Vec<String>,
        tensors: usize,
        /// The first of these.
        tensor: String,
    },

    #[error("the index says that `{tensor}` is in {}, which does not hold it", file.display())]
    #[diagnostic(code(moec::checkpoint::index_disagrees), help("are all files of one download?"))]
    IndexDisagrees { file: PathBuf, tensor: String },

    #[error("tensor `{tensor}` is in two files, {} and {}", first.display(), second.display())]
    #[diagnostic(
        code(moec::checkpoint::held_twice),
        help("which of them belongs to this checkpoint? Name only that one in the index")
    )]
    HeldTwice { tensor: String, first: PathBuf, second: PathBuf },

    #[error("{} was changed while it was read", file.display())]
    #[diagnostic(
        code(moec::checkpoint::changed),
        help("is it still being downloaded? Run this again when nothing writes to it")
    )]
    Changed { file: PathBuf },
}
