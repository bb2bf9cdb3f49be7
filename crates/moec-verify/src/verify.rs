//! The comparison.

use std::time::{Duration, Instant};

use miette::Diagnostic;
use moec_diag::Problem;
use thiserror::Error;

use crate::backend::{Backend, Chosen, Sequence};
use crate::reference::{Generation, Reference};
use crate::verdict::{Agreement, LogitError, RouteMismatch, TokenMismatch, Verdict};

/// How far results may be from the reference. Experts and greedy tokens are always compared exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// Largest distance between two logits.
    pub logits: f32,
}

impl Default for Tolerances {
    /// What f32 arithmetic reaches on small models.
    fn default() -> Self {
        Tolerances { logits: 1e-4 }
    }
}

/// A backend that answers with something else than it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
#[error("{backend} gave {found} logits for {positions} positions, the reference has {vocabulary} for each")]
#[diagnostic(code(moec::verify::wrong_vocabulary), help("is this the reference of another model?"))]
pub struct BackendFault {
    pub backend: String,
    pub found: usize,
    pub positions: usize,
    pub vocabulary: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
#[error("the reference is of an encoder and a decoder, and `{model}` has one input")]
#[diagnostic(code(moec::verify::no_encoder), help("is this the reference of another model?"))]
pub struct NoEncoder {
    pub model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
#[error("`{model}` has an encoder, and the reference has nothing for it to read")]
#[diagnostic(
    code(moec::verify::no_source),
    help("such a reference holds `forward.decoder_input_ids`; `forward.input_ids` is then what the encoder reads")
)]
pub struct NoSource {
    pub model: String,
}

/// Runs the reference's inputs on a backend. The problem, if there is one, is the backend's own; what it computes wrongly is
/// in the verdict.
pub fn verify(
    name: &str,
    reference: &Reference,
    backend: &mut dyn Backend,
    tolerances: Tolerances,
) -> Result<Verdict, Problem> {
    let mut verdict = Verdict {
        name: name.to_string(),
        backend: backend.name(),
        tolerances,
        logits: LogitError::default(),
        experts: None,
        first_route: None,
        routed_layers: None,
        tokens: None,
        first_token: None,
        steps: LogitError::default(),
        time: Duration::ZERO,
    };
    match (reference.sources.is_some(), backend.encodes()) {
        (true, false) => return Err(Box::new(NoEncoder { model: name.to_string() })),
        (false, true) => return Err(Box::new(NoSource { model: name.to_string() })),
        (true, true) | (false, false) => {}
    }
    score(reference, backend, &mut verdict)?;
    if let Some(generation) = &reference.generation {
        generate(reference, generation, backend, &mut verdict)?;
    }
    Ok(verdict)
}

/// The scored pass: each sequence by itself.
fn score(reference: &Reference, backend: &mut dyn Backend, verdict: &mut Verdict) -> Result<(), Problem> {
    let row = reference.positions() * reference.vocabulary;
    for (sequence, ids) in reference.ids.iter().enumerate() {
        let source = reference.sources.as_ref().map(|sources| &sources[sequence][..]);
        let scored = timed(&mut verdict.time, || backend.forward(Sequence { source, ids }))?;
        as_many(backend, reference, scored.logits.len(), ids.len())?;
        let wanted = &reference.logits[sequence * row..][..row];
        worst(&mut verdict.logits, wanted, &scored.logits, |at| {
            (sequence, at / reference.vocabulary, at % reference.vocabulary)
        });
        // A reference may hold logits only.
        if let Some(routes) = scored.routes.filter(|_| !reference.routes.is_empty()) {
            compare_routes(reference, sequence, &routes, verdict);
        }
    }
    Ok(())
}

fn compare_routes(reference: &Reference, sequence: usize, found: &[Chosen], verdict: &mut Verdict) {
    if found.len() != reference.routes.len() {
        verdict.routed_layers = Some((reference.routes.len(), found.len()));
    }
    let agreement = verdict.experts.get_or_insert_default();
    for (wanted, found) in reference.routes.iter().zip(found) {
        for position in 0..wanted.positions {
            let wanted_here = set(&wanted.experts, wanted.choices, sequence * wanted.positions + position);
            let found_here = set(&found.experts, found.choices, position);
            agreement.count(wanted_here == found_here);
            if wanted_here != found_here && verdict.first_route.is_none() {
                verdict.first_route = Some(RouteMismatch {
                    route: wanted.path.clone(),
                    sequence,
                    position,
                    wanted: wanted_here,
                    found: found_here,
                });
            }
        }
    }
}

/// The experts of one position, ascending, each once; without what means no choice.
fn set(experts: &[i32], choices: usize, position: usize) -> Vec<i32> {
    let mut set: Vec<i32> =
        experts.iter().skip(position * choices).take(choices).copied().filter(|e| *e >= 0).collect();
    set.sort_unstable();
    set.dedup();
    set
}

/// Greedy decoding with the cache. After a wrong token it goes on with the right one, so that each step is judged by itself.
fn generate(
    reference: &Reference,
    generation: &Generation,
    backend: &mut dyn Backend,
    verdict: &mut Verdict,
) -> Result<(), Problem> {
    let mut agreement = Agreement::default();
    let vocabulary = reference.vocabulary;
    for (sequence, (prompt, continuation)) in generation.prompts.iter().zip(&generation.continuations).enumerate() {
        let source = generation.sources.as_ref().map(|sources| &sources[sequence][..]);
        timed(&mut verdict.time, || backend.begin(source))?;
        let mut next = prompt.clone();
        for (step, token) in continuation.iter().enumerate() {
            let logits = timed(&mut verdict.time, || backend.step(&next))?;
            as_many(backend, reference, logits.len(), 1)?;
            let wanted = &generation.step_logits[(sequence * continuation.len() + step) * vocabulary..][..vocabulary];
            worst(&mut verdict.steps, wanted, &logits, |at| (sequence, step, at));
            let found = largest(&logits);
            agreement.count(found == *token);
            if found != *token && verdict.first_token.is_none() {
                verdict.first_token = Some(TokenMismatch { sequence, step, wanted: *token, found });
            }
            next = vec![*token];
        }
    }
    verdict.tokens = Some(agreement);
    Ok(())
}

fn timed<T>(total: &mut Duration, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = f();
    *total += start.elapsed();
    result
}

fn as_many(backend: &dyn Backend, reference: &Reference, found: usize, positions: usize) -> Result<(), Problem> {
    if found == positions * reference.vocabulary {
        return Ok(());
    }
    Err(Box::new(BackendFault { backend: backend.name(), found, positions, vocabulary: reference.vocabulary }))
}

fn worst(error: &mut LogitError, wanted: &[f32], found: &[f32], place: impl Fn(usize) -> (usize, usize, usize)) {
    for (at, (wanted, found)) in wanted.iter().zip(found).enumerate() {
        // Equal infinities are equal; anything else that has no distance is infinitely far.
        let distance = if wanted == found { 0.0 } else { (wanted - found).abs() };
        let distance = if distance.is_nan() { f32::INFINITY } else { distance };
        error.sum += f64::from(distance);
        error.count += 1;
        if distance > error.largest {
            let (sequence, position, token) = place(at);
            *error = LogitError { largest: distance, sequence, position, token, ..*error };
        }
    }
}

/// The token with the largest logit, the first of equals; NaN is never the largest.
fn largest(logits: &[f32]) -> i32 {
    let best = logits
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (token, logit)| if *logit > best.1 { (token, *logit) } else { best });
    best.0 as i32
}
