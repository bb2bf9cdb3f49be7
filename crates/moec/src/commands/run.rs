//! `moec run`: text in, text out; or named tensors in, named tensors out.

mod steps;

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use miette::Diagnostic;
use moec_checkpoint::CheckpointWeights;
use moec_oracle::{Data, EvalError, Trace, Weights};
use tempfile::TempDir;
use thiserror::Error;

use crate::{
    artefact::{self, Source},
    checkpoint,
    cli::{self, Computer, Run},
    failure::Failure,
    files,
    manifest::Manifest,
    native::{Model, NamedTensor, NativeError, Options, Routed, Session},
    sampling::{Sampler, Sampling},
    spec, tensors,
    text::Text,
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

#[derive(Debug, Error, Diagnostic)]
#[error("the temperature is {temperature}")]
#[diagnostic(
    code(moec::run::temperature),
    help("a temperature is a number above 0; use `--greedy` for the likeliest token")
)]
struct Temperature {
    temperature: f32,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the prompt's {prompt} tokens and {new} new ones do not fit the model's context of {context}")]
#[diagnostic(code(moec::run::context), help("shorten the prompt, or lower `--max-new`"))]
struct Context {
    prompt: usize,
    new: usize,
    context: usize,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the prompt has token {token}, the model's vocabulary ends at {}", vocabulary - 1)]
#[diagnostic(code(moec::run::foreign_tokenizer), help("is tokenizer.json of another model?"))]
struct ForeignTokenizer {
    token: i32,
    vocabulary: usize,
}

#[derive(Debug, Error, Diagnostic)]
#[error("input `{name}` is missing")]
#[diagnostic(code(moec::run::missing_input), help("{} has {found}", path.display()))]
struct MissingInput {
    name: String,
    path: PathBuf,
    found: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("inputs disagree on the number of positions: {found}")]
#[diagnostic(code(moec::run::positions), help("the first axis of an input with positions runs over them"))]
struct Positions {
    found: String,
}

/// A model that is ready, and the folder that goes away with it if it was built for this run only.
struct Ready {
    manifest: Manifest,
    folder: PathBuf,
    _temporary: Option<TempDir>,
}

impl Ready {
    fn open(&self, threads: Option<usize>) -> Result<std::sync::Arc<Model>, Failure> {
        let options = Options { threads: crate::commands::threads(threads), level: 0 };
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
        let manifest = Manifest::open(&arguments.model)?;
        return Ok(Ready { manifest, folder: arguments.model.clone(), _temporary: None });
    }
    let loaded = spec::load(&arguments.model, &arguments.settings, arguments.weights.as_deref())?;
    let source = match (&arguments.weights, tensors) {
        (Some(dir), _) => Source::Checkpoint(dir, NonFinite::allowed(arguments.allow_non_finite)),
        (None, Some(tensors)) => Source::Tensors(tensors),
        (None, None) => return Err(NoWeights.into()),
    };
    let folder = tempfile::tempdir().map_err(|cause| files::CannotWrite { path: std::env::temp_dir(), cause })?;
    let code = cli::Code { quant: arguments.quant, ..cli::Code::default() };
    let made = artefact::build_for_now(loaded, source, &code, folder.path())?;
    Ok(Ready { manifest: made.manifest, folder: folder.path().into(), _temporary: Some(folder) })
}

fn generate(arguments: &Run, prompt: &str) -> Result<(), Failure> {
    let sampling = sampling(arguments)?;
    let ready = ready(arguments, None)?;
    let vocabulary = ready.manifest.vocabulary.ok_or(NativeError::NoTokens)?;
    let text = Text::open(&ready.folder)?;
    let ids = text.encode(prompt)?;
    if let Some(token) = ids.iter().copied().find(|token| *token as usize >= vocabulary) {
        return Err(ForeignTokenizer { token, vocabulary }.into());
    }
    // Where there is an encoder, it reads the prompt, and the text begins after it.
    let start = ready.manifest.start_token;
    let before = if start.is_some() { 1 } else { ids.len() };
    let total = before.saturating_add(arguments.max_new).max(ids.len());
    if let Some(context) = ready.manifest.context.filter(|context| total > *context) {
        return Err(Context { prompt: ids.len(), new: arguments.max_new, context }.into());
    }
    let model = ready.open(arguments.threads)?;
    let mut session = model.session(total)?;
    if start.is_some() {
        session.encode(&ids)?;
    }
    let mut tokens = Tokens {
        session,
        sampler: Sampler::new(sampling, arguments.seed.unwrap_or(0)),
        logits: vec![0.0; vocabulary],
        next: start.map_or_else(|| ids.clone(), |start| vec![start]),
        left: arguments.max_new,
        ends: &ready.manifest.end_tokens,
        prefill: Duration::ZERO,
        decode: Duration::ZERO,
        steps: 0,
    };
    let mut out = std::io::stdout().lock();
    // A reader that went away is no reason to complain.
    let mut show = |piece: &str| _ = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
    if start.is_none() {
        show(prompt);
    }
    let count = text.stream(&mut tokens, &mut show)?;
    show("\n");
    let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
    eprintln!(
        "prompt {} tokens in {:.1} ms; {count} new tokens, {:.0} tokens/s ({}, {} threads)",
        ids.len(),
        tokens.prefill.as_secs_f64() * 1e3,
        rate(tokens.steps, tokens.decode),
        model.level(),
        model.threads(),
    );
    Ok(())
}

fn sampling(arguments: &Run) -> Result<Sampling, Failure> {
    if arguments.temperature.is_none() && arguments.top_k.is_none() && arguments.seed.is_none() {
        return Ok(Sampling::Greedy);
    }
    let temperature = arguments.temperature.unwrap_or(1.0);
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(Temperature { temperature }.into());
    }
    Ok(Sampling::Random { temperature, top_k: arguments.top_k })
}

/// Tokens as they are drawn.
struct Tokens<'a> {
    session: Session,
    sampler: Sampler,
    logits: Vec<f32>,
    /// What the model has not seen yet.
    next: Vec<i32>,
    left: usize,
    ends: &'a [i32],
    prefill: Duration,
    decode: Duration,
    /// Passes after the prompt's.
    steps: usize,
}

impl Iterator for Tokens<'_> {
    type Item = Result<i32, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let started = Instant::now();
        if let Err(error) = self.session.step(&self.next, &mut self.logits) {
            self.left = 0;
            return Some(Err(error.into()));
        }
        if self.prefill.is_zero() {
            self.prefill = started.elapsed();
        } else {
            self.decode += started.elapsed();
            self.steps += 1;
        }
        let token = self.sampler.next(&self.logits)? as i32;
        if self.ends.contains(&token) {
            return None;
        }
        self.next = vec![token];
        Some(Ok(token))
    }
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
        tensors::write(path, &trace_tensors(routed))?;
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
    let (taken, positions) = chosen_inputs(&ready.manifest, given, inputs)?;
    let empty = |tensor: &crate::manifest::Tensor| {
        let (dtype, shape) = (tensor.dtype(), tensor.shape(positions.first().copied().unwrap_or(1)));
        let bytes = vec![0; shape.iter().product::<usize>() * dtype.bytes() as usize];
        NamedTensor { name: tensor.name.clone(), dtype, shape, bytes }
    };
    let mut results: Vec<NamedTensor> = ready.manifest.outputs.iter().map(empty).collect();
    let model = ready.open(arguments.threads)?;
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
        let tensor = given.get(&input.name).ok_or_else(|| missing(&input.name, given, path))?;
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
        choices: route.choices,
        indices: route.indices,
        weights: route.weights,
    });
    Ok((outputs, trace_tensors(routed.collect())))
}

fn named(name: String, shape: Vec<usize>, data: &Data) -> NamedTensor {
    let bytes = match data {
        Data::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Data::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Data::Bool(values) => values.iter().map(|value| u8::from(*value)).collect(),
    };
    NamedTensor { name, dtype: data.dtype(), shape, bytes }
}

fn missing(name: &str, given: &BTreeMap<String, NamedTensor>, path: &Path) -> MissingInput {
    let names: Vec<String> = given.keys().take(10).map(|name| format!("`{name}`")).collect();
    let found = if names.is_empty() { "no tensors".into() } else { names.join(", ") };
    MissingInput { name: name.into(), path: path.into(), found }
}

/// The model's inputs among the given tensors, and how many positions each sequence has.
fn chosen_inputs(
    manifest: &Manifest,
    given: &BTreeMap<String, NamedTensor>,
    path: &Path,
) -> Result<(Vec<NamedTensor>, Vec<usize>), Failure> {
    let mut taken = Vec::new();
    let mut counts: BTreeMap<u32, Vec<(&str, usize)>> = BTreeMap::new();
    for input in &manifest.inputs {
        let Some(tensor) = given.get(&input.name) else {
            return Err(missing(&input.name, given, path).into());
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
            return Err(Positions { found: found.join(", ") }.into());
        }
        positions.resize(positions.len().max(sequence as usize + 1), 0);
        positions[sequence as usize] = first;
    }
    Ok((taken, positions))
}

/// `route.N.indices` and `.weights` of the `N`-th route that is run, each `[positions, choices]`.
fn trace_tensors(routed: Vec<Routed>) -> Vec<NamedTensor> {
    let each = routed.into_iter().enumerate().flat_map(|(number, route)| {
        let shape = vec![route.indices.len() / route.choices.max(1), route.choices];
        let name = |what: &str| format!("route.{number}.{what}");
        let indices = named(name("indices"), shape.clone(), &Data::I32(route.indices));
        [indices, named(name("weights"), shape, &Data::F32(route.weights))]
    });
    each.collect()
}
