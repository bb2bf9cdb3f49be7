//! `build.json`: what a build's folder holds, for whoever runs it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use moec_types::DType;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{native::NamedTensor, products::Product};

/// Changes when an older `moec` could not read it.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub version: u32,
    /// The prefix of the library's symbols and of the files' names.
    pub model: String,
    /// The compiler.
    pub moec: String,
    pub levels: Vec<String>,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
    /// Floats in a row of logits, for models from tokens to logits.
    pub vocabulary: Option<usize>,
    /// Positions that the model was made for, where the checkpoint says so.
    pub context: Option<usize>,
    /// Where there is an encoder: the token that every text of the decoder begins with.
    #[serde(default)]
    pub start_token: Option<i32>,
    /// Tokens that end a text.
    pub end_tokens: Vec<i32>,
    /// Of each route, by its number in the model's text: how many experts there are to choose from.
    #[serde(default)]
    pub experts: BTreeMap<i32, u64>,
    /// Whether the folder holds the weights.
    pub weights: bool,
    /// For `moec bench` to find the roof.
    #[serde(default)]
    pub products: Vec<Product>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    pub name: String,
    pub dtype: String,
    /// Whether it has a row for each position; else it is one row.
    pub positions: bool,
    /// Whose positions these are: 0 is the sequence of the outputs.
    #[serde(default)]
    pub sequence: u32,
    /// Names and sizes of the axes of a row.
    pub axes: Vec<(String, u64)>,
}

impl Manifest {
    pub fn library(&self, folder: &Path) -> PathBuf {
        folder.join(format!("lib{}.so", self.model))
    }

    pub fn weights(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.weights", self.model))
    }
}

impl Tensor {
    /// The element type; f32 where a foreign hand wrote nonsense, which the library then refuses.
    pub fn dtype(&self) -> DType {
        self.dtype.parse().unwrap_or(DType::F32)
    }

    /// With so many positions.
    pub fn shape(&self, positions: usize) -> Vec<usize> {
        let first = self.positions.then_some(positions);
        first.into_iter().chain(self.axes.iter().map(|(_, size)| *size as usize)).collect()
    }

    /// Zeros, with so many positions.
    pub fn zeros(&self, positions: usize) -> NamedTensor {
        let (dtype, shape) = (self.dtype(), self.shape(positions));
        let bytes = vec![0; shape.iter().product::<usize>() * dtype.bytes() as usize];
        NamedTensor { name: self.name.clone(), dtype, shape, bytes }
    }
}

#[derive(Debug, Error, Diagnostic)]
pub enum InputProblem {
    #[error("input `{name}` is missing")]
    #[diagnostic(code(moec::run::missing_input), help("{from} has {found}"))]
    Missing { name: String, from: String, found: String },

    #[error("inputs disagree on the number of positions: {found}")]
    #[diagnostic(code(moec::run::positions), help("the first axis of an input with positions runs over them"))]
    Positions { found: String },
}

impl InputProblem {
    /// `from` says where the given tensors came from.
    pub fn missing(name: &str, given: &BTreeMap<String, NamedTensor>, from: &str) -> InputProblem {
        let names: Vec<String> = given.keys().take(10).map(|name| format!("`{name}`")).collect();
        let found = if names.is_empty() { "no tensors".into() } else { names.join(", ") };
        InputProblem::Missing { name: name.into(), from: from.into(), found }
    }
}

/// The model's inputs among the given tensors, and how many positions each sequence has.
pub fn chosen_inputs(
    manifest: &Manifest,
    given: &BTreeMap<String, NamedTensor>,
    from: &str,
) -> Result<(Vec<NamedTensor>, Vec<usize>), InputProblem> {
    let mut taken = Vec::new();
    let mut counts: BTreeMap<u32, Vec<(&str, usize)>> = BTreeMap::new();
    for input in &manifest.inputs {
        let Some(tensor) = given.get(&input.name) else {
            return Err(InputProblem::missing(&input.name, given, from));
        };
        if input.positions {
            let count = tensor.shape.first().copied().unwrap_or(0);
            counts.entry(input.sequence).or_default().push((&input.name, count));
        }
        taken.push(tensor.clone());
    }
    let mut positions = vec![if counts.contains_key(&0) { 0 } else { 1 }];
    for (sequence, counts) in counts {
        let (_, first) = counts[0];
        if counts.iter().any(|(_, count)| *count != first) {
            let found: Vec<String> = counts.iter().map(|(name, count)| format!("`{name}` has {count}")).collect();
            return Err(InputProblem::Positions { found: found.join(", ") });
        }
        positions.resize(positions.len().max(sequence as usize + 1), 0);
        positions[sequence as usize] = first;
    }
    Ok((taken, positions))
}
