//! `moec run … --steps N`: what a model's states become is handed in again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use miette::Diagnostic;
use moec_ir::Module;
use moec_sema::{Extra, ExtraKind};
use thiserror::Error;

use super::{NoSpec, by_library, by_oracle, ready};
use crate::{
    artefact,
    cli::{Also, Computer, Run},
    failure::Failure,
    native::NamedTensor,
    spec,
};

#[derive(Debug, Error, Diagnostic)]
#[error("the model has no state that changes")]
#[diagnostic(
    code(moec::run::no_state),
    help("leave out `--steps`: each step would be like the first; a state is `state b[E] = 0.0 on step …`")
)]
struct NoState;

/// The outputs of the last step. What the model adds up as its losses is told of each.
pub fn run(
    arguments: &Run,
    mut given: BTreeMap<String, NamedTensor>,
    inputs: &Path,
    count: usize,
) -> Result<Vec<NamedTensor>, Failure> {
    if arguments.model.is_dir() {
        return Err(NoSpec { path: arguments.model.clone() }.into());
    }
    let mut arguments = arguments.clone();
    arguments.settings.also.push(Also::State);
    let load = || spec::load(&arguments.model, &arguments.settings, None);
    let loaded = load()?;
    let states: Vec<&Extra> = loaded.checked.extras.iter().filter(|extra| extra.kind == ExtraKind::State).collect();
    if states.is_empty() {
        return Err(NoState.into());
    }
    let library = match arguments.backend {
        Computer::Oracle => None,
        Computer::Cpu => Some(ready(&arguments, Some(&given))?),
    };
    let mut results = Vec::new();
    for step in 0..count {
        results = match &library {
            None => by_oracle(&arguments, &given, inputs)?.0,
            Some(ready) => {
                if step > 0 {
                    artefact::pack_again(load()?, &given, &ready.folder)?;
                }
                by_library(&arguments, ready, &given, inputs)?.0
            }
        };
        tell(step, &results);
        for state in &states {
            let next = results.iter().find(|result| result.name == state.output);
            given.extend(next.into_iter().flat_map(|next| instances(&loaded.checked.module, state, next)));
        }
    }
    Ok(results)
}

/// The next value of a state as tensors by their paths: one, or one for each layer that has it.
fn instances(module: &Module, state: &Extra, next: &NamedTensor) -> Vec<(String, NamedTensor)> {
    let params = module.params.iter().filter(|param| param.path == state.path);
    let Some(layers) = &state.layers else {
        let named = |path: String| (path.clone(), NamedTensor { name: path, ..next.clone() });
        return params.map(|param| named(param.instance_path(0, 0))).collect();
    };
    let bytes = next.bytes.len() / layers.len().max(1);
    let instance = |path: String, at: usize| {
        let shape = next.shape[1..].to_vec();
        let bytes = next.bytes[at * bytes..][..bytes].to_vec();
        (path.clone(), NamedTensor { name: path, dtype: next.dtype, shape, bytes })
    };
    let all = params.flat_map(|param| {
        let own: BTreeSet<u32> = param.layers.iter().flatten().copied().collect();
        let ranked = own.into_iter().enumerate();
        ranked.filter_map(|(rank, layer)| {
            let at = layers.iter().position(|known| *known == layer)?;
            Some(instance(param.instance_path(rank as u32, 0), at))
        })
    });
    all.collect()
}

fn tell(step: usize, results: &[NamedTensor]) {
    let aux = results.iter().find(|result| result.name == "aux" && result.shape.is_empty());
    if let Some(four) = aux.and_then(|aux| aux.bytes.first_chunk::<4>()) {
        eprintln!("step {}: aux {}", step + 1, f32::from_le_bytes(*four));
    }
}
