//! A checkpoint: one safetensors file, or several under an index.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::error::CheckpointError;
use crate::stored::StoredTensor;
use crate::tensor_file::TensorFile;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// All tensors of a model by name.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<TensorFile>,
    /// Which of `files` holds a tensor.
    held_by: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a folder with `model.safetensors` or an index and its files (the index wins where both are there), or one
    /// safetensors file.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        if path.is_file() {
            return Self::of_one(path);
        }
        let (single, index) = (path.join(SINGLE), path.join(INDEX));
        if index.is_file() {
            Self::of_index(path, &index)
        } else if single.is_file() {
            Self::of_one(&single)
        } else {
            Err(CheckpointError::NotFound { folder: path.to_path_buf() })
        }
    }

    fn of_one(path: &Path) -> Result<Self, CheckpointError> {
        let file = TensorFile::open(path)?;
        let held_by = file.names().map(|name| (name.to_string(), 0)).collect();
        Ok(Checkpoint { files: vec![file], held_by })
    }

    fn of_index(folder: &Path, path: &Path) -> Result<Self, CheckpointError> {
        let bad = |reason: String| CheckpointError::BadIndex { file: path.to_path_buf(), reason };
        let text = std::fs::read(path)
            .map_err(|error| CheckpointError::Unreadable { file: path.to_path_buf(), reason: error.to_string() })?;
        let index: Index = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        let names: BTreeSet<&String> = index.weight_map.values().collect();
        if let Some(outside) = names.iter().find(|name| !is_plain(name)) {
            return Err(bad(format!("it names the file `{outside}`, which is not beside it")));
        }
        let files = names.iter().map(|name| TensorFile::open(&folder.join(name))).collect::<Result<Vec<_>, _>>()?;

        let mut held_by: BTreeMap<String, usize> = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(other) = held_by.insert(name.to_string(), number) {
                    let reason = format!("{} holds it too", files[other].path().display());
                    let (file, tensor) = (file.path().to_path_buf(), name.to_string());
                    return Err(CheckpointError::BadTensor { file, tensor, reason });
                }
            }
        }
        for (tensor, name) in &index.weight_map {
            let file = folder.join(name);
            if held_by.get(tensor).is_none_or(|number| files[*number].path() != file) {
                return Err(CheckpointError::IndexDisagrees { file, tensor: tensor.clone() });
            }
        }
        Ok(Checkpoint { files, held_by })
    }

    /// In alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.held_by.keys().map(String::as_str)
    }

    pub fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.files[*self.held_by.get(name)?].tensor(name)
    }

    /// The files behind it.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(TensorFile::path)
    }

    /// All tensors together.
    pub fn bytes(&self) -> u64 {
        self.names().filter_map(|name| self.tensor(name)).map(|tensor| tensor.bytes.len() as u64).sum()
    }
}

/// The name of a file in the same folder, and not a way out of it.
fn is_plain(name: &str) -> bool {
    let path = PathBuf::from(name);
    let mut components = path.components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) && !name.contains('\\')
}
