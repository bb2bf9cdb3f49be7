//! A checkpoint that fits a module.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use moec_checkpoint::{Checkpoint, CheckpointError, StoredType, find, match_checkpoint};
use moec_diag::SourceMap;
use moec_ir::{Module, ParamId};
use moec_sema::WeightMap;
use moec_types::DType;
use thiserror::Error;

use crate::{
    failure::Failure,
    spec::no_problems,
    weights::{self, FromCheckpoint, NonFinite},
};

/// A checkpoint whose every tensor went to its place.
pub struct Matched {
    pub tensors: Checkpoint,
    /// What of the `weights` section holds for it.
    pub map: WeightMap,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the spec has no `weights` section, so nothing says which tensor of {} is which parameter", dir.display())]
#[diagnostic(
    code(moec::weights::no_section),
    help("add `weights NAME {{ path = \"tensor\" as [axes] … }}`; examples/families has whole ones")
)]
struct NoSection {
    dir: PathBuf,
}

/// Whether a folder holds tensors at all.
pub fn is_there(dir: &Path) -> bool {
    !matches!(Checkpoint::open(dir), Err(CheckpointError::NotFound { .. }))
}

/// Opens a checkpoint and reports everything in which it and the module differ.
pub fn open(dir: &Path, map: Option<&WeightMap>, module: &Module, sources: &SourceMap) -> Result<Matched, Failure> {
    let tensors = Checkpoint::open(dir)?;
    let Some(map) = map else { return Err(NoSection { dir: dir.into() }.into()) };
    let map = map.for_tensors(&tensors.names().collect());
    no_problems(match_checkpoint(&tensors, &map, module), sources)?;
    Ok(Matched { tensors, map })
}

impl Matched {
    /// Reads all weights and says which are no numbers.
    pub fn check_numbers(&self, module: &Module, sources: &SourceMap, non_finite: NonFinite) -> Result<(), Failure> {
        let found = FromCheckpoint::new(self, module, non_finite).not_finite();
        match non_finite {
            NonFinite::Refused => no_problems(weights::problems(found), sources),
            NonFinite::Accepted => {
                weights::warn(&found);
                Ok(())
            }
        }
    }

    /// Tensors that rules leave out: each rule as it is written, and the names, of which there is at least one.
    pub fn ignored(&self) -> Vec<(String, Vec<&str>)> {
        let names = |rule| self.tensors.names().filter(move |name| moec_checkpoint::matches(rule, name));
        let each = self.map.ignored.iter().map(|rule| (rule.to_string(), names(rule).collect::<Vec<_>>()));
        each.filter(|(_, names)| !names.is_empty()).collect()
    }

    /// How many tensors are read, and their bytes.
    pub fn used(&self) -> (usize, u64) {
        let ignored: BTreeSet<&str> = self.ignored().into_iter().flat_map(|(_, names)| names).collect();
        let used = self.tensors.names().filter(|name| !ignored.contains(name));
        let sizes = used.filter_map(|name| Some(self.tensors.tensor(name)?.bytes.len() as u64));
        sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
    }

    /// Keeps each parameter as the checkpoint has it: bf16 stays bf16, f16 stays f16, so that nothing is rounded and nothing
    /// grows. A parameter whose instances differ in type is kept as f32.
    pub fn keep_types(&self, module: &mut Module) {
        let mut types: BTreeMap<ParamId, DType> = BTreeMap::new();
        for claim in self.map.claims.iter().filter(|claim| !claim.shared) {
            let tensor = find(&self.tensors, &self.map, &claim.tensor);
            let stored = tensor.and_then(|tensor| tensor.dtype()).map(|dtype| storage(&dtype));
            let dtype = stored.unwrap_or(DType::F32);
            let known = types.entry(claim.param).or_insert(dtype);
            if *known != dtype {
                *known = DType::F32;
            }
        }
        for (id, dtype) in types {
            let param = &mut module.params[id.index()];
            if param.ty.dtype.is_float() {
                param.storage = dtype;
            }
        }
    }
}

fn storage(stored: &StoredType) -> DType {
    match stored {
        StoredType::Bf16 => DType::Bf16,
        StoredType::F16 => DType::F16,
        StoredType::F32
        | StoredType::F64
        | StoredType::F8E4M3
        | StoredType::F8E8M0
        | StoredType::Bool
        | StoredType::U8
        | StoredType::I8
        | StoredType::U16
        | StoredType::I16
        | StoredType::U32
        | StoredType::I32
        | StoredType::U64
        | StoredType::I64
        | StoredType::Other(_) => DType::F32,
    }
}
