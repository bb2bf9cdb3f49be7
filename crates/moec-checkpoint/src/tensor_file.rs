//! One safetensors file, mapped into memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memmap2::{Mmap, UncheckedAdvice};

use crate::error::CheckpointError;
use crate::header::{self, Header};
use crate::stored::StoredTensor;

/// A sound safetensors file. Opening reads the header only.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    /// Its length and the time of its last change when it was opened.
    state: (u64, Option<SystemTime>),
    map: Mmap,
    header: Header,
}

impl TensorFile {
    /// The file must not be cut short while it is open: that faults the process at the next read ([`Self::unchanged`]).
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let unreadable = |reason: String| CheckpointError::Unreadable { file: path.to_path_buf(), reason };
        let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
        let about = file.metadata().map_err(|error| unreadable(error.to_string()))?;
        if !about.is_file() {
            return Err(unreadable("it is not a file".to_string()));
        }
        if about.len() == 0 {
            return Err(CheckpointError::BadFile { file: path.to_path_buf(), reason: "it is empty".to_string() });
        }
        // SAFETY: the map is read-only, and the bytes are only ever read as bytes.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| unreadable(error.to_string()))?;
        let header = header::read(&map).map_err(|fault| match fault.tensor {
            Some(tensor) => CheckpointError::BadTensor { file: path.to_path_buf(), tensor, reason: fault.reason },
            None => CheckpointError::BadFile { file: path.to_path_buf(), reason: fault.reason },
        })?;
        let state = (about.len(), about.modified().ok());
        Ok(TensorFile { path: path.to_path_buf(), file, state, map, header })
    }

    /// Whether the file has still the length and the time of when it was opened.
    pub fn unchanged(&self) -> Result<(), CheckpointError> {
        let about = self
            .file
            .metadata()
            .map_err(|error| CheckpointError::Unreadable { file: self.path.clone(), reason: error.to_string() })?;
        let same = (about.len(), about.modified().ok()) == self.state;
        if same { Ok(()) } else { Err(CheckpointError::Changed { file: self.path.clone() }) }
    }

    /// Lets go of the pages that were read.
    pub fn release(&self) {
        // SAFETY: the map is of a file and never written to, so pages that are dropped come back as they were.
        let released = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
        // It is about memory only: where the system will not, nothing is wrong.
        released.unwrap_or(());
    }

    /// Its path, length and time of its last change.
    pub fn identity(&self) -> String {
        let (length, modified) = self.state;
        format!("{:?} {length} {modified:?}", self.path)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// In alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    pub fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        let entry = self.header.tensors.get(name)?;
        Some(StoredTensor { dtype: &entry.dtype, shape: &entry.shape, bytes: &self.map[entry.range.clone()] })
    }

    /// Free text that the file's maker left.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata.get(key).map(String::as_str)
    }
}
