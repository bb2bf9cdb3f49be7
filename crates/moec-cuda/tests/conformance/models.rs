//! Whole models with random weights and inputs, and what the oracle makes of them: for machines with a GPU as for this one.
//!
//! On this one a few; with `MOEC_CUDA_MODELS=all`, or the beginning of names, others. For machines with a GPU, every family, and of
//! the others as many as it takes to say everything once that their plans say; or all.

use std::{
    collections::BTreeSet,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use moec_diag::SourceMap;
use moec_ir::Module;
use moec_oracle::{Data, RandomWeights, Tensor};
use moec_plan::Plan;
use moec_sema::Settings;

use crate::{
    domains, goldens,
    gpu::Bundle,
    pack::{self, Case, PackedPass, Weights},
    random_specs::{
        ROUNDING, packed,
        specs::{
            across::ACROSS,
            generate,
            random::Random,
            scans::SCANS,
            session::{Found, Given, Passes, check},
        },
    },
};

/// What sums in f32 may come to over a whole model.
const TOLERANCE: f64 = 2e-4;

/// Passes have at most six positions, of which there are three.
const CHUNK: u64 = 6;
const CAPACITY: u64 = 32;

/// How often numbers are drawn for a model; from the half on with low indices.
const ATTEMPTS: u64 = 8;

/// Random specs that travel.
const SPECS: std::ops::Range<u64> = 0..24;

/// Which models run here, unless others are asked for: between them they have every kind of step, and a cache each.
const USUAL: [&str; 4] =
    ["family-gpt_oss", "family-deepseek_v3-noq", "family-switch_transformers", "gate-grouped_softplus"];

/// Says which run here: all, or those whose names begin so.
const MODELS_VARIABLE: &str = "MOEC_CUDA_MODELS";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn listed(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).expect("the folder is there");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    found.sort();
    found
}

fn named(path: &Path) -> String {
    path.file_stem().expect("a file has a name").to_string_lossy().into_owned()
}

pub fn module(path: &Path, settings: &Settings) -> Module {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut sources = SourceMap::default();
    let (tree, problems) = moec_syntax::parse(&mut sources, &name, &text);
    assert!(problems.is_empty(), "{name}: {problems:?}");
    let (checked, problems) = moec_sema::check(&mut sources, &tree.expect("no problems"), settings);
    assert!(problems.is_empty(), "{name}: {problems:?}");
    checked.expect("no problems").module
}

/// The families, each with the sizes of every tiny checkpoint that it serves.
fn families() -> Vec<(String, Module)> {
    let specs: Vec<(PathBuf, String)> = listed("examples/families")
        .into_iter()
        .map(|path| (path.clone(), std::fs::read_to_string(path).expect("an example can be read")))
        .collect();
    let mut found = Vec::new();
    for folder in listed("tests/data/oracles").into_iter().filter(|path| path.join("config.json").is_file()) {
        let text = std::fs::read_to_string(folder.join("config.json")).expect("it can be read");
        let config: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let serves = format!("serves \"{}\"", config["architectures"][0].as_str().unwrap_or_default());
        for (path, _) in specs.iter().filter(|(_, text)| text.contains(&serves)) {
            let settings = Settings { config: Some(config.clone()), ..Settings::default() };
            found.push((format!("family-{}", named(&folder)), module(path, &settings)));
        }
    }
    found
}

fn gates() -> Vec<(String, Module)> {
    let files = listed("examples/gates").into_iter().filter(|path| path.extension().is_some_and(|end| end == "moe"));
    files.map(|path| (format!("gate-{}", named(&path)), module(&path, &Settings::default()))).collect()
}

fn specs() -> Vec<(String, Module)> {
    let random = SPECS.map(|number| (format!("spec-{number}"), generate(number)));
    let written = SCANS.iter().chain(ACROSS).map(|(name, text)| (format!("spec-{name}"), (*text).to_owned()));
    let named = |(name, text): (String, String)| {
        Some((name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "-"), check(&text).ok()?))
    };
    random.chain(written).filter_map(named).collect()
}

/// All models, by name.
fn all() -> Vec<(String, Module)> {
    [families(), gates(), goldens::modules(), domains::modules(), specs()].concat()
}

fn lowered(module: &Module) -> Result<Plan, String> {
    let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options::default());
    moec_lower::lower(&fused).map_err(|error| error.to_string())
}

/// A model with its numbers: weights and passes whose results rounding does not change, and the oracle's results.
struct Judged {
    module: Module,
    plan: Plan,
    weights: Vec<Vec<f64>>,
    passes: Passes,
    expected: Vec<Found>,
}

/// Integers of at most 1, which name something wherever there is more than one.
fn lower_indices(tensor: &mut Tensor) {
    if let Data::I32(values) = tensor.data() {
        let values = values.iter().map(|value| *value.min(&1)).collect();
        *tensor = Tensor::new(tensor.axes().to_vec(), Data::I32(values));
    }
}

/// `Err`: why there are none.
fn judged(module: Module, seed: u64) -> Result<Judged, String> {
    let module = module.without_dead();
    let plan = lowered(&module)?;
    moec_cuda::program(&plan).map_err(|unsupported| unsupported.to_string())?;
    let mut reason = String::new();
    for attempt in 0..ATTEMPTS {
        let weights = RandomWeights::new(&module, seed + 1000 * attempt);
        let mut passes = Passes::random(&mut Random::new(seed.wrapping_add(attempt) ^ 0x6e75), &module);
        // What other sequences read is there at once.
        if plan.passes().count() > 1 {
            passes.passes.truncate(1);
        }
        if attempt >= ATTEMPTS / 2 {
            passes.passes.iter_mut().flat_map(|pass| &mut pass.inputs).for_each(|(_, tensor)| lower_indices(tensor));
        }
        match passes.oracle(&module, &weights) {
            Ok(expected) if !passes.unsteady(&module, &weights, &expected, ROUNDING) => {
                let weights = packed(&plan, &weights);
                return Ok(Judged { module, plan, weights, passes, expected });
            }
            Ok(_) => reason = "rounding changes what it gives".to_owned(),
            Err(error) => reason = error,
        }
    }
    Err(reason)
}

impl Judged {
    /// The passes as a device runs them: other sequences first.
    fn packed_passes(&self) -> Vec<PackedPass> {
        let program = moec_cuda::program(&self.plan).expect("seen before");
        let traced = |sequence: usize| {
            let runs = program.passes[sequence].iter();
            runs.filter(|run| program.launches[run.launch].traced.is_some()).count()
        };
        let mut packed = Vec::new();
        for (pass, expected) in self.passes.passes.iter().zip(&self.expected) {
            let mut routes = expected.routes.iter();
            let given = |(number, output): (usize, &Given)| {
                let mut given = pass.given(&self.module, number, output.values.clone());
                given.values[..given.skipped].fill(f64::NAN);
                given.values
            };
            for sequence in (0..program.passes.len()).rev() {
                let outputs = expected.outputs.iter().enumerate().filter(|_| sequence == 0).map(given);
                packed.push(PackedPass {
                    sequence,
                    tokens: pass.tokens as u64,
                    first_output: if sequence == 0 { pass.first as u64 } else { 0 },
                    inputs: pass.rows(&self.module),
                    outputs: outputs.collect(),
                    routes: routes.by_ref().take(traced(sequence)).cloned().collect(),
                });
            }
        }
        packed
    }

    /// Into the folder, for a GPU or for the double.
    fn write(&self, folder: &Path, name: &str, here: bool) {
        let weights = Weights::Values(&self.weights);
        let (plan, passes) = (&self.plan, self.packed_passes());
        let case =
            Case { name, plan, weights, chunk: CHUNK, capacity: CAPACITY, tolerance: TOLERANCE, passes: &passes };
        if here { pack::write_for_double(folder, &case) } else { pack::write(folder, &case) }
    }
}

/// Which words stand in which lines of a plan: steps, what they run along, operations, where they read, functions.
fn said_by(plan: &Plan) -> BTreeSet<(String, String)> {
    let text = plan.to_string();
    let line = |line: &str| -> Vec<(String, String)> {
        // Names stand between quotes.
        let unnamed = line.split('"').step_by(2).collect::<String>();
        let mut words = unnamed.split(|c: char| !c.is_ascii_alphabetic() && c != '_').filter(|word| !word.is_empty());
        let Some(first) = words.next() else { return Vec::new() };
        words.map(|word| (first.to_owned(), word.to_owned())).collect()
    };
    text.lines().flat_map(line).collect()
}

/// The models that are wanted here.
fn wanted(name: &str) -> bool {
    match env::var(MODELS_VARIABLE) {
        Ok(all) if all == "all" => true,
        Ok(start) => name.starts_with(&start),
        Err(_) => USUAL.contains(&name),
    }
}

#[test]
fn models_with_random_weights_give_the_oracles_numbers() {
    let asked = pack::asked();
    let here = tempfile::tempdir().expect("a folder");
    let folder = asked.as_deref().unwrap_or(here.path());
    let seed = pack::seed();
    let everything = env::var(MODELS_VARIABLE).is_ok_and(|which| which == "all");
    let (mut failed, mut plans, mut said) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for (name, module) in all() {
        if asked.is_none() && !wanted(&name) {
            continue;
        }
        let judged = match judged(module, seed) {
            Ok(judged) => judged,
            Err(reason) => {
                println!("{name} is left out: {reason}");
                continue;
            }
        };
        // Several cases may have one plan.
        if !plans.insert(judged.plan.to_string()) {
            continue;
        }
        // Of what travels, families come first, and then what says anything that none before it has said.
        let before = said.len();
        said.extend(said_by(&judged.plan));
        if said.len() == before && asked.is_some() && !everything && !name.starts_with("family-") {
            continue;
        }
        if asked.is_some() {
            println!("{name} travels");
        }
        let write = || judged.write(folder, &format!("{name}-seed{seed}"), asked.is_none());
        if catch_unwind(AssertUnwindSafe(write)).is_err() {
            failed.push(name);
        }
    }
    assert!(plans.len() >= USUAL.len() || env::var_os(MODELS_VARIABLE).is_some(), "{} models", plans.len());
    assert!(failed.is_empty(), "these fail: {failed:#?}");
    if asked.is_none() {
        Bundle::at(here.path()).check();
    }
}
