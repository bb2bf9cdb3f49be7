//! `moec run`: text in, text out; or named tensors in, named tensors out.

mod steps;

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use miette::Diagnostic;
use moec_checkpoint::CheckpointWeights;
use moec_oracle::{Data, EvalError, Trace, Weights};
use moec_program::{
    generate::{Prompt, Request},
    manifest::{InputProblem, chosen_inputs},
    text::Text,
};
use tempfile::TempDir;
use thiserror::Error;

use crate::{
    artefact::{self, Source},
    checkpoint,
    cli::{self, Computer, Run},
    failure::Failure,
    files, generate,
    manifest::{self, Manifest},
    native::{Device, Model, NamedTensor, Options, Routed},
    spec, tensors,
    weights::{FromTensors, NonFinite, oracle_tensor},
};

#[derive(Debug, Error, Diagnostic)]
#[error("nothing to run on")]
#[diagnostic(
    code(moec::run::nothing),
    help("give `--prompt TEXT`, or `--inputs IN.safetensors --outputs OUT.safetensors`")
)]
struct Nothing;

#[derive(Debug, Error, Diagnostic)]
#[error("a .moe file has no weights of its own")]
#[diagnostic(code(moec::run::no_weights), help("give `--weights DIR`, the checkpoint's folder"))]
struct NoWeights;

#[derive(Debug, Error, Diagnostic)]
#[error("{} is a build, and the oracle reads specs", path.display())]
#[diagnostic(code(moec::run::no_spec), help("give the .moe file that it was built from"))]
struct NoSpec {
    path: PathBuf,
}

/// A model that is ready, and the folder that goes away with it if it was built for this run only.
struct Ready {
    manifest: Manifest,
    folder: PathBuf,
    _temporary: Option<TempDir>,
}

impl Ready {
    fn open(&self, threads: Option<usize>, device: cli::Device) -> Result<std::sync::Arc<Model>, Failure> {
        let device = match device {
            cli::Device::Auto => Device::Auto,
            cli::Device::Cpu => Device::Cpu,
            cli::Device::Cuda => Device::Cuda,
        };
        let options = Options { threads: crate::commands::threads(threads), device, ..Options::default() };
        let (library, weights) = (self.manifest.library(&self.folder), self.manifest.weights(&self.folder));
        Ok(Model::open(&library, &self.manifest.model, &weights, options)?)
    }
}

pub fn run(arguments: &Run) -> Result<(), Failure> {
    match (&arguments.prompt, &arguments.inputs, &arguments.outputs) {
        (Some(prompt), _, _) => generate(arguments, prompt),
        (None, Some(inputs), Some(outputs)) => run_tensors(arguments, inputs, outputs),
        (None, _, _) => Err(Nothing.into()),
    }
}

/// A build's folder as it is; a spec is built first.
fn ready(arguments: &Run, tensors: Option<&BTreeMap<String, NamedTensor>>) -> Result<Ready, Failure> {
    if arguments.model.is_dir() {
        let manifest = manifest::open(&arguments.model)?;
        return Ok(Ready { manifest, folder: arguments.model.clone(), _temporary: None });
    }
    let loaded = spec::load(&arguments.model, &arguments.settings, arguments.weights.as_deref())?;
    let source = match (&arguments.weights, tensors) {
        (Some(dir), _) => Source::Checkpoint(dir, NonFinite::allowed(arguments.allow_non_finite)),
        (None, Some(tensors)) => Source::Tensors(tensors),
        (None, None) => return Err(NoWeights.into()),
    };
    let folder = tempfile::tempdir().map_err(|cause| files::CannotWrite { path: std::env::temp_dir(), cause })?;
    let target = match arguments.device {
        cli::Device::Auto | cli::Device::Cpu => cli::Target::Cpu,
        cli::Device::Cuda => cli::Target::Cuda,
    };
    let code = cli::Code { target: vec![target], quant: arguments.quant, ..cli::Code::default() };
    let made = artefact::build_for_now(loaded, source, &code, folder.path())?;
    Ok(Ready { manifest: made.manifest, folder: folder.path().into(), _temporary: Some(folder) })
}

fn generate(arguments: &Run, prompt: &str) -> Result<(), Failure> {
    let (seed, max_new) = (arguments.seed.unwrap_or(0), arguments.max_new);
    let sampling = generate::sampling(arguments.temperature, arguments.top_k, arguments.seed)?;
    let request = Request { prompt, max_new, sampling, seed, traced: arguments.trace.is_some() };
    let ready = ready(arguments, None)?;
    let text = Text::open(&ready.folder)?;
    let tokens = Prompt::new(&ready.manifest, &text, &request)?;
    let model = ready.open(arguments.threads, arguments.device)?;
    let mut out = std::io::stdout().lock();
    // A reader that went away is no reason to complain.
    let mut show = |piece: &str| _ = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
    let told = generate::generate(&model, &ready.manifest, &text, tokens, &request, &mut show)?;
    show("\n");
    let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
    eprintln!(
        "prompt {} tokens in {:.1} ms; {} new tokens, {:.0} tokens/s ({}, {} threads)",
        told.prompt_tokens,
        told.prefill.as_secs_f64() * 1e3,
        told.new_tokens,
        rate(told.steps, told.decode),
        model.level(),
        model.threads(),
    );
    if let Some(path) = &arguments.trace {
        let mut trace = trace_tensors(told.routed, &ready.manifest);
        trace.extend(traced_text(&told.seen, &text.pieces(&told.seen)?));
        tensors::write(path, &trace)?;
    }
    Ok(())
}

/// `tokens`, and their text: `text.utf8`, all bytes one after the other, and `text.ends`, where each token's end.
fn traced_text(seen: &[i32], pieces: &[String]) -> [NamedTensor; 3] {
    let bytes: Vec<i32> = pieces.iter().flat_map(|piece| piece.bytes()).map(i32::from).collect();
    let ends = pieces.iter().scan(0, |end, piece| {
        *end += piece.len() as i32;
        Some(*end)
    });
    let list = |name: &str, values: Vec<i32>| named(name.into(), vec![values.len()], &Data::I32(values));
    [list("tokens", seen.to_vec()), list("text.utf8", bytes), list("text.ends", ends.collect())]
}

fn run_tensors(arguments: &Run, inputs: &Path, outputs: &Path) -> Result<(), Failure> {
    let given = tensors::read(inputs)?;
    if let Some(count) = arguments.steps {
        let results = steps::run(arguments, given, inputs, count.get())?;
        return tensors::write(outputs, &results);
    }
    if arguments.backend == Computer::Oracle {
        let (results, trace) = by_oracle(arguments, &given, inputs)?;
        tensors::write(outputs, &results)?;
        return arguments.trace.as_ref().map_or(Ok(()), |path| tensors::write(path, &trace));
    }
    let ready = ready(arguments, Some(&given))?;
    let (results, routed) = by_library(arguments, &ready, &given, inputs)?;
    tensors::write(outputs, &results)?;
    if let Some(path) = &arguments.trace {
        tensors::write(path, &trace_tensors(routed, &ready.manifest))?;
    }
    Ok(())
}

/// The outputs, and where a trace is wanted what the routes chose, by compiled code.
fn by_library(
    arguments: &Run,
    ready: &Ready,
    given: &BTreeMap<String, NamedTensor>,
    inputs: &Path,
) -> Result<(Vec<NamedTensor>, Vec<Routed>), Failure> {
    let (taken, positions) = chosen_inputs(&ready.manifest, given, &inputs.display().to_string())?;
    let rows = positions.first().copied().unwrap_or(1);
    let mut results: Vec<NamedTensor> = ready.manifest.outputs.iter().map(|output| output.zeros(rows)).collect();
    let model = ready.open(arguments.threads, arguments.device)?;
    let mut session = model.session(positions.iter().copied().max().unwrap_or(1).max(1))?;
    let routed = match &arguments.trace {
        Some(_) => {
            let (result, routed) = session.traced(|session| session.run(&taken, &mut results));
            result?;
            routed
        }
        None => {
            session.run(&taken, &mut results)?;
            Vec::new()
        }
    };
    Ok((results, routed))
}

/// The outputs, and what the routes chose, by the slow, obvious evaluator.
fn by_oracle(
    arguments: &Run,
    given: &BTreeMap<String, NamedTensor>,
    path: &Path,
) -> Result<(Vec<NamedTensor>, Vec<NamedTensor>), Failure> {
    if arguments.model.is_dir() {
        return Err(NoSpec { path: arguments.model.clone() }.into());
    }
    let loaded = spec::load(&arguments.model, &arguments.settings, arguments.weights.as_deref())?;
    let (module, map) = (&loaded.checked.module, loaded.checked.weights.as_ref());
    let matched = match &arguments.weights {
        Some(dir) => Some(checkpoint::open(dir, map, module, &loaded.sources)?),
        None => None,
    };
    if let Some(matched) = &matched {
        matched.check_numbers(module, &loaded.sources, NonFinite::allowed(arguments.allow_non_finite))?;
    }
    let weights: Box<dyn Weights> = match &matched {
        Some(matched) => Box::new(CheckpointWeights::new(&matched.tensors, &matched.map, module)),
        None => {
            let fail = |problems| Failure::problems(problems, &loaded.sources);
            Box::new(FromTensors::new(module, given).map_err(fail)?)
        }
    };
    let mut inputs = Vec::new();
    for input in &module.inputs {
        let tensor = given
            .get(&input.name)
            .ok_or_else(|| InputProblem::missing(&input.name, given, &path.display().to_string()))?;
        let ty = module.tensor(input.value);
        let tensor = oracle_tensor(tensor, &ty.dims).ok_or_else(|| {
            let found = format!("{}{:?}", tensor.dtype, tensor.shape);
            EvalError::InputType { name: input.name.clone(), found, wants: ty.to_string() }
        })?;
        inputs.push((input.name.as_str(), tensor));
    }
    let mut trace = Trace::default();
    let results = moec_oracle::Session::new(module, &*weights).run(&inputs, Some(&mut trace))?;
    let outputs = results.into_iter().map(|(name, tensor)| named(name, tensor.sizes(), tensor.data())).collect();
    let routed = trace.routes.into_iter().map(|route| Routed {
        place: None,
        choices: route.choices,
        indices: route.indices,
        weights: route.weights,
    });
    Ok((outputs, choices(routed.collect())))
}

fn named(name: String, shape: Vec<usize>, data: &Data) -> NamedTensor {
    let bytes = match data {
        Data::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Data::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Data::Bool(values) => values.iter().map(|value| u8::from(*value)).collect(),
    };
    NamedTensor { name, dtype: data.dtype(), shape, bytes }
}

/// `route.N.indices` and `.weights` of the `N`-th route that is run, each `[positions, choices]`; by the library also
/// `route.N.place`: its number in the model's text, which execution of its kind of layer it is, and how many experts there are.
fn trace_tensors(routed: Vec<Routed>, manifest: &Manifest) -> Vec<NamedTensor> {
    let places: Vec<NamedTensor> = routed
        .iter()
        .enumerate()
        .filter_map(|(number, route)| {
            let (text, rank) = route.place?;
            let experts = i32::try_from(*manifest.experts.get(&text)?).ok()?;
            Some(named(format!("route.{number}.place"), vec![3], &Data::I32(vec![text, rank, experts])))
        })
        .collect();
    let mut all = choices(routed);
    all.extend(places);
    all
}

fn choices(routed: Vec<Routed>) -> Vec<NamedTensor> {
    let each = routed.into_iter().enumerate().flat_map(|(number, route)| {
        let shape = vec![route.indices.len() / route.choices.max(1), route.choices];
        let name = |what: &str| format!("route.{number}.{what}");
        let indices = named(name("indices"), shape.clone(), &Data::I32(route.indices));
        [indices, named(name("weights"), shape, &Data::F32(route.weights))]
    });
    each.collect()
}
