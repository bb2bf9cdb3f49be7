//! One safetensors file, mapped into memory.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::CheckpointError;
use crate::header::{self, Header};
use crate::stored::StoredTensor;

/// A sound safetensors file. Opening reads the header only.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl TensorFile {
    /// The file must not be cut short while it is open: that faults the process at the next read.
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
        Ok(TensorFile { path: path.to_path_buf(), map, header })
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
