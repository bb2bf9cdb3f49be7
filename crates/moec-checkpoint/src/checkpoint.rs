//! A checkpoint: one safetensors file, or several under an index.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::error::CheckpointError;
use crate::stored::StoredTensor;
use crate::tensor_file::TensorFile;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// An index of a million tensors has a third of this.
const INDEX_BYTES: u64 = 256 << 20;

/// All tensors of a model by name.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<TensorFile>,
    /// Which of `files` holds a tensor.
    held_by: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: Places,
}

/// The file of each tensor. A tensor that is listed twice is refused: one of the two entries would be lost without a word.
struct Places(BTreeMap<String, String>);

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
        let unreadable =
            |error: std::io::Error| CheckpointError::Unreadable { file: path.to_path_buf(), reason: error.to_string() };
        let mut text = Vec::new();
        File::open(path).and_then(|file| file.take(INDEX_BYTES + 1).read_to_end(&mut text)).map_err(unreadable)?;
        if text.len() as u64 > INDEX_BYTES {
            return Err(bad(format!("it has more than {INDEX_BYTES} bytes")));
        }
        let index: Index = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        let Places(places) = index.weight_map;
        let mut tensors_of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, name) in &places {
            tensors_of.entry(name).or_default().push(tensor);
        }
        if let Some(outside) = tensors_of.keys().find(|name| !is_plain(name)) {
            return Err(bad(format!("it names the file `{outside}`, which is not beside it")));
        }
        let missing: Vec<_> = tensors_of.iter().filter(|(name, _)| !folder.join(name).exists()).collect();
        if let Some((_, first)) = missing.first() {
            return Err(CheckpointError::MissingFiles {
                index: path.to_path_buf(),
                missing: missing.iter().map(|(name, _)| name.to_string()).collect(),
                tensors: missing.iter().map(|(_, tensors)| tensors.len()).sum(),
                tensor: first[0].to_string(),
            });
        }
        let files =
            tensors_of.keys().map(|name| TensorFile::open(&folder.join(name))).collect::<Result<Vec<_>, _>>()?;

        let mut held_by: BTreeMap<String, usize> = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(other) = held_by.insert(name.to_string(), number) {
                    let (first, second) = (files[other].path().to_path_buf(), file.path().to_path_buf());
                    return Err(CheckpointError::HeldTwice { tensor: name.to_string(), first, second });
                }
            }
        }
        for (tensor, name) in &places {
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

    /// The file that holds a tensor.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        Some(self.files[*self.held_by.get(name)?].path())
    }

    /// Whether a tensor's file still is what it was when it was opened: to be asked before its bytes are read, and after.
    pub fn unchanged(&self, name: &str) -> Result<(), CheckpointError> {
        self.held_by.get(name).map_or(Ok(()), |number| self.files[*number].unchanged())
    }

    /// Lets go of the memory that reading tensors has taken; they are read anew when they are wanted again.
    pub fn release(&self) {
        self.files.iter().for_each(TensorFile::release);
    }

    /// What tells this checkpoint from another, or from itself after a change: names, sizes and times of its files.
    pub fn identity(&self) -> String {
        self.files.iter().map(|file| format!("{}\n", file.identity())).collect()
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

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Places;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object from tensors to files")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Places, A::Error> {
                let mut places = BTreeMap::new();
                while let Some((tensor, file)) = map.next_entry::<String, String>()? {
                    if places.contains_key(&tensor) {
                        return Err(A::Error::custom(format!("it lists `{tensor}` twice")));
                    }
                    places.insert(tensor, file);
                }
                Ok(Places(places))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
