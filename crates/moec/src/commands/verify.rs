//! `moec verify`: logits, chosen experts and greedy tokens against a reference, by every backend.

use moec_checkpoint::CheckpointWeights;
use moec_diag::Problem;
use moec_verify::{
    Backend, Chosen, OracleBackend, Reference, Scored, Sequence, Tolerances, Verdict, render_table, verify,
};
use serde_json::{Value, json};

use crate::{
    artefact::{self, Source},
    checkpoint,
    cli::{Computer, Target, Verify},
    failure::Failure,
    native, spec,
    weights::NonFinite,
};

pub fn run(arguments: &Verify) -> Result<(), Failure> {
    let backends = match &arguments.backend[..] {
        [] => vec![Computer::Oracle, Computer::Cpu],
        asked => asked.to_vec(),
    };
    let reference = Reference::open(&arguments.oracle)?;
    let tolerances = Tolerances { logits: arguments.tolerance };
    let mut verdicts = Vec::new();
    for backend in backends {
        verdicts.push(match backend {
            Computer::Oracle => by_oracle(arguments, &reference, tolerances)?,
            Computer::Cpu => by_library(arguments, &reference, tolerances)?,
        });
    }
    if arguments.json {
        println!("{:#}", Value::Array(verdicts.iter().map(verdict_json).collect()));
    } else {
        print!("{}", render_table(&verdicts));
        for verdict in &verdicts {
            for failure in verdict.failures() {
                eprintln!("{}: {failure}", verdict.backend);
            }
        }
    }
    if verdicts.iter().all(Verdict::passes) { Ok(()) } else { Err(Failure::verdict()) }
}

fn by_oracle(arguments: &Verify, reference: &Reference, tolerances: Tolerances) -> Result<Verdict, Failure> {
    let loaded = spec::load(&arguments.spec.file, &arguments.spec.settings, Some(&arguments.weights))?;
    let (module, map) = (&loaded.checked.module, loaded.checked.weights.as_ref());
    let matched = checkpoint::open(&arguments.weights, map, module, &loaded.sources)?;
    matched.check_numbers(module, &loaded.sources, NonFinite::allowed(arguments.allow_non_finite))?;
    let weights = CheckpointWeights::new(&matched.tensors, &matched.map, module);
    let mut backend = OracleBackend::new(module, &weights)?;
    verify(&module.name, reference, &mut backend, tolerances).map_err(Failure::one)
}

fn by_library(arguments: &Verify, reference: &Reference, tolerances: Tolerances) -> Result<Verdict, Failure> {
    let loaded = spec::load(&arguments.spec.file, &arguments.spec.settings, Some(&arguments.weights))?;
    let folder =
        tempfile::tempdir().map_err(|cause| crate::files::CannotWrite { path: std::env::temp_dir(), cause })?;
    let source = Source::Checkpoint(&arguments.weights, NonFinite::allowed(arguments.allow_non_finite));
    let made = artefact::build_for_now(loaded, source, &arguments.code, folder.path())?;
    let vocabulary = made.manifest.vocabulary.ok_or(native::NativeError::NoTokens)?;
    let options = native::Options { threads: crate::commands::threads(arguments.threads), ..Default::default() };
    let (library, weights) = (made.manifest.library(folder.path()), made.manifest.weights(folder.path()));
    let model = native::Model::open(&library, &made.manifest.model, &weights, options)?;
    // Its own test first: if a level of this machine is miscompiled, that says more than a wrong logit.
    model.selftest()?;
    let session = model.session(reference.longest().max(1))?;
    let on_gpu = arguments.code.target == [Target::Cuda];
    let name = if on_gpu { model.level() } else { format!("cpu {}", model.level()) };
    let mut backend = Library { name, session, vocabulary };
    verify(&made.manifest.model, reference, &mut backend, tolerances).map_err(Failure::one)
}

/// A compiled library as something to compare.
struct Library {
    name: String,
    session: native::Session,
    vocabulary: usize,
}

impl Backend for Library {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn encodes(&self) -> bool {
        self.session.encodes()
    }

    fn forward(&mut self, Sequence { source, ids }: Sequence) -> Result<Scored, Problem> {
        self.session.reset();
        let vocabulary = self.vocabulary;
        let (logits, routed) = self.session.traced(|session| {
            source.map_or(Ok(()), |source| session.encode(source))?;
            session.forward(ids, vocabulary)
        });
        let logits = logits.map_err(|error| -> Problem { Box::new(error) })?;
        let routes = routed.into_iter().map(|route| Chosen { choices: route.choices, experts: route.indices });
        Ok(Scored { logits, routes: Some(routes.collect()) })
    }

    fn begin(&mut self, source: Option<&[i32]>) -> Result<(), Problem> {
        self.session.reset();
        let encoded = source.map_or(Ok(()), |source| self.session.encode(source));
        encoded.map_err(|error| -> Problem { Box::new(error) })
    }

    fn step(&mut self, ids: &[i32]) -> Result<Vec<f32>, Problem> {
        let mut logits = vec![0.0; self.vocabulary];
        self.session.step(ids, &mut logits).map_err(|error| -> Problem { Box::new(error) })?;
        Ok(logits)
    }
}

fn verdict_json(verdict: &Verdict) -> Value {
    let agreement = |agreement: Option<moec_verify::Agreement>| {
        agreement.map(|agreement| json!({ "equal": agreement.equal, "total": agreement.total }))
    };
    json!({
        "model": verdict.name,
        "backend": verdict.backend,
        "passes": verdict.passes(),
        "logits_max_error": verdict.logits.largest,
        "logits_mean_error": verdict.logits.mean(),
        "step_logits_max_error": verdict.steps.largest,
        "tolerance": verdict.tolerances.logits,
        "experts": agreement(verdict.experts),
        "tokens": agreement(verdict.tokens),
        "seconds": verdict.time.as_secs_f64(),
        "failures": verdict.failures(),
    })
}
