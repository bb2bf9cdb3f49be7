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

    #[error("{} is the reference of an encoder and decoder", file.display())]
    #[diagnostic(code(moec::verify::unsupported_reference), help("`verify` compares decoders only"))]
    EncoderDecoder { file: PathBuf },
}

/// What a model should compute.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// Sequences of one length.
    pub ids: Vec<Vec<i32>>,
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
    pub prompts: Vec<Vec<i32>>,
    /// What follows each prompt, of one length.
    pub continuations: Vec<Vec<i32>>,
    /// `[sequences, steps, vocabulary]`: the logits that each token of the continuations is the largest of.
    pub step_logits: Vec<f32>,
}

impl Reference {
    pub fn open(path: &Path) -> Result<Self, ReferenceError> {
        let file = TensorFile::open(path)?;
        if file.tensor("forward.decoder_input_ids").is_some() {
            return Err(ReferenceError::EncoderDecoder { file: path.to_path_buf() });
        }
        let ids = rows(&file, "forward.input_ids")?;
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
        let routes = routes::read(&file, ids.len() * positions)?;
        let generation = generation(&file, vocabulary)?;
        Ok(Reference { ids, vocabulary, logits, routes, generation, about })
    }

    /// Positions of each sequence.
    pub fn positions(&self) -> usize {
        self.ids.first().map_or(0, Vec::len)
    }
}

fn generation(file: &TensorFile, vocabulary: usize) -> Result<Option<Generation>, ReferenceError> {
    if file.tensor("generate.sequences").is_none() {
        return Ok(None);
    }
    let prompts = rows(file, "generate.input_ids")?;
    let sequences = rows(file, "generate.sequences")?;
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
    Ok(Some(Generation { prompts, continuations, step_logits }))
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
