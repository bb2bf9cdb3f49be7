//! Reference results: an `oracle.safetensors` beside a checkpoint.

use std::path::{Path, PathBuf};

use miette::Diagnostic;
use moec_checkpoint::{CheckpointError, StoredTensor, TensorFile};
use thiserror::Error;

use crate::routes::{self, ReferenceRoute};

/// Why a file is no reference.
#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
pub enum ReferenceError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] CheckpointError),

    #[error("{} has no tensor `{tensor}`", file.display())]
    #[diagnostic(
        code(moec::verify::incomplete_reference),
        help("a reference holds at least `forward.input_ids` and `logits`")
    )]
    Missing { file: PathBuf, tensor: &'static str },

    #[error("tensor `{tensor}` of {} is {found}, it should be {wants}", file.display())]
    #[diagnostic(code(moec::verify::bad_reference))]
    Wrong { file: PathBuf, tensor: String, found: String, wants: String },

    #[error("the metadata `oracle` of {} is not JSON: {reason}", file.display())]
    #[diagnostic(code(moec::verify::bad_reference))]
    BadMetadata { file: PathBuf, reason: String },
}

/// What a model should compute.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// Sequences of one length.
    pub ids: Vec<Vec<i32>>,
    /// Of a model that has an encoder: what that reads for each sequence, of one length.
    pub sources: Option<Vec<Vec<i32>>>,
    pub vocabulary: usize,
    /// `[sequences, positions, vocabulary]`.
    pub logits: Vec<f32>,
    /// In the order of the layers.
    pub routes: Vec<ReferenceRoute>,
    pub generation: Option<Generation>,
    /// What its maker says of it: dtype, margins, rounding floor.
    pub about: serde_json::Map<String, serde_json::Value>,
}

/// Greedy decoding with a cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Of a model that has an encoder: what that reads for each prompt.
    pub sources: Option<Vec<Vec<i32>>>,
    pub prompts: Vec<Vec<i32>>,
    /// What follows each prompt, of one length.
    pub continuations: Vec<Vec<i32>>,
    /// `[sequences, steps, vocabulary]`: the logits that each token of the continuations is the largest of.
    pub step_logits: Vec<f32>,
}

impl Reference {
    pub fn open(path: &Path) -> Result<Self, ReferenceError> {
        let file = TensorFile::open(path)?;
        let first = rows(&file, "forward.input_ids")?;
        let (ids, sources) = match file.tensor(DECODED) {
            Some(_) => (rows(&file, DECODED)?, Some(first)),
            None => (first, None),
        };
        if sources.as_ref().is_some_and(|sources| sources.len() != ids.len()) {
            return Err(wrong(&file, DECODED, "as many rows as `forward.input_ids`"));
        }
        let (shape, logits) = floats(&file, "logits")?;
        let positions = ids.first().map_or(0, Vec::len);
        let [.., vocabulary] = shape[..] else { return Err(wrong(&file, "logits", "f32 of 3 axes")) };
        if shape != [ids.len(), positions, vocabulary] {
            return Err(wrong(&file, "logits", &format!("f32 of shape [{}, {positions}, vocabulary]", ids.len())));
        }
        let about = match file.metadata("oracle").map(serde_json::from_str).transpose() {
            Ok(about) => about.unwrap_or_default(),
            Err(error) => {
                let (file, reason) = (path.to_path_buf(), error.to_string());
                return Err(ReferenceError::BadMetadata { file, reason });
            }
        };
        let read = sources.as_ref().and_then(|sources| sources.first()).map(Vec::len);
        let lengths: Vec<usize> = [positions].into_iter().chain(read.filter(|read| *read != positions)).collect();
        let routes = routes::read(&file, ids.len(), &lengths)?;
        let generation = generation(&file, vocabulary, sources.is_some())?;
        Ok(Reference { ids, sources, vocabulary, logits, routes, generation, about })
    }

    /// Positions of each sequence.
    pub fn positions(&self) -> usize {
        self.ids.first().map_or(0, Vec::len)
    }

    /// The longest sequence of any kind that a session must have room for.
    pub fn longest(&self) -> usize {
        let generated = self.generation.iter().flat_map(|found| found.prompts.iter().zip(&found.continuations));
        let generated = generated.map(|(prompt, more)| prompt.len() + more.len());
        let sources =
            self.generation.iter().flat_map(|found| &found.sources).chain(&self.sources).flatten().map(Vec::len);
        generated.chain(sources).chain([self.positions()]).max().unwrap_or(1)
    }
}

/// The ids of an encoder-decoder's decoder; `forward.input_ids` are then its encoder's.
const DECODED: &str = "forward.decoder_input_ids";

fn generation(file: &TensorFile, vocabulary: usize, encodes: bool) -> Result<Option<Generation>, ReferenceError> {
    if file.tensor("generate.sequences").is_none() {
        return Ok(None);
    }
    let given = rows(file, "generate.input_ids")?;
    let sequences = rows(file, "generate.sequences")?;
    // A decoder that has an encoder starts with one token of its own.
    let (sources, prompts) = match encodes {
        true => (Some(given), sequences.iter().map(|sequence| sequence[..1].to_vec()).collect()),
        false => (None, given),
    };
    if sources.as_ref().is_some_and(|sources| sources.len() != sequences.len()) {
        return Err(wrong(file, "generate.sequences", "as many rows as `generate.input_ids`"));
    }
    let prompt = prompts.first().map_or(0, Vec::len);
    let goes_on = |(sequence, prompt): (&Vec<i32>, &Vec<i32>)| sequence.starts_with(prompt);
    if prompt == 0 || sequences.len() != prompts.len() || !sequences.iter().zip(&prompts).all(goes_on) {
        return Err(wrong(
            file,
            "generate.sequences",
            "the rows of `generate.input_ids`, which are not empty, gone on with",
        ));
    }
    let continuations: Vec<Vec<i32>> = sequences.into_iter().map(|mut sequence| sequence.split_off(prompt)).collect();
    let steps = continuations.first().map_or(0, Vec::len);
    let (shape, step_logits) = floats(file, "generate.step_logits")?;
    if shape != [prompts.len(), steps, vocabulary] {
        let wants = format!("f32 of shape [{}, {steps}, {vocabulary}]", prompts.len());
        return Err(wrong(file, "generate.step_logits", &wants));
    }
    Ok(Some(Generation { sources, prompts, continuations, step_logits }))
}

/// Token ids, `[rows, columns]`.
fn rows(file: &TensorFile, name: &'static str) -> Result<Vec<Vec<i32>>, ReferenceError> {
    let stored = stored(file, name)?;
    let (Some(ids), [count, length]) = (stored.to_i32(), stored.shape) else {
        return Err(wrong(file, name, "integers of 2 axes that fit 32 bits"));
    };
    // The shape was checked against the number of bytes, so both fit.
    let (count, length) = (*count as usize, *length as usize);
    if count == 0 || length == 0 {
        return Err(wrong(file, name, "not empty"));
    }
    Ok(ids.chunks_exact(length).map(<[i32]>::to_vec).collect())
}

fn floats(file: &TensorFile, name: &'static str) -> Result<(Vec<usize>, Vec<f32>), ReferenceError> {
    let stored = stored(file, name)?;
    let Some(values) = stored.to_f32() else { return Err(wrong(file, name, "floats")) };
    let shape = stored.shape.iter().map(|size| *size as usize).collect();
    Ok((shape, values))
}

fn stored<'f>(file: &'f TensorFile, name: &'static str) -> Result<StoredTensor<'f>, ReferenceError> {
    file.tensor(name).ok_or_else(|| ReferenceError::Missing { file: file.path().to_path_buf(), tensor: name })
}

/// # Panics
/// When the file has no such tensor.
pub(crate) fn wrong(file: &TensorFile, name: &str, wants: &str) -> ReferenceError {
    let stored = file.tensor(name).expect("a tensor that is there is wrong");
    let found = format!("{} of shape {:?}", stored.dtype, stored.shape);
    ReferenceError::Wrong { file: file.path().to_path_buf(), tensor: name.to_string(), found, wants: wants.to_string() }
}
