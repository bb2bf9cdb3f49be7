//! `moec bench`: how long prefill and decode of a build take.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};

use crate::{
    cli::Bench,
    failure::Failure,
    manifest,
    native::{Model, NativeError, Options},
};

/// Seconds of several runs of one thing.
struct Times {
    what: String,
    tokens: usize,
    seconds: Vec<f64>,
}

pub fn run(arguments: &Bench) -> Result<(), Failure> {
    let manifest = manifest::open(&arguments.build)?;
    let vocabulary = manifest.vocabulary.ok_or(NativeError::NoTokens)?;
    let options = Options { threads: crate::commands::threads(arguments.threads), level: 0 };
    let (library, weights) = (manifest.library(&arguments.build), manifest.weights(&arguments.build));
    let model = Model::open(&library, &manifest.model, &weights, options)?;
    let mut all = Vec::new();
    for tokens in arguments.tokens.iter().map(|tokens| (*tokens).max(1)) {
        all.push(prefill(&model, tokens, vocabulary, arguments.rounds.max(1))?);
    }
    all.push(decode(&model, arguments.steps.max(1), vocabulary, arguments.rounds.max(1))?);
    if arguments.json {
        println!("{:#}", Value::Array(all.iter().map(|times| times.json()).collect()));
        return Ok(());
    }
    println!("{}, {}, {} threads, {} rounds", manifest.model, model.level(), model.threads(), arguments.rounds.max(1));
    for times in &all {
        println!("{}", times.text());
    }
    Ok(())
}

fn prefill(model: &Arc<Model>, tokens: usize, vocabulary: usize, rounds: usize) -> Result<Times, Failure> {
    let mut session = model.session(tokens)?;
    let ids = ids(tokens, vocabulary);
    let mut logits = vec![0.0; vocabulary];
    let mut seconds = Vec::new();
    // The first round, unmeasured, touches the weights.
    for round in 0..=rounds {
        session.reset();
        let started = Instant::now();
        session.step(&ids, &mut logits)?;
        if round > 0 {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    Ok(Times { what: format!("prefill {tokens}"), tokens, seconds })
}

fn decode(model: &Arc<Model>, steps: usize, vocabulary: usize, rounds: usize) -> Result<Times, Failure> {
    let mut session = model.session(steps)?;
    let ids = ids(steps, vocabulary);
    let mut logits = vec![0.0; vocabulary];
    let mut seconds = Vec::new();
    for round in 0..=rounds {
        session.reset();
        let started = Instant::now();
        for id in &ids {
            session.step(std::slice::from_ref(id), &mut logits)?;
        }
        if round > 0 {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    Ok(Times { what: format!("decode {steps} × 1"), tokens: steps, seconds })
}

/// Tokens that spread over the vocabulary, so that routes spread over the experts.
fn ids(count: usize, vocabulary: usize) -> Vec<i32> {
    (0..count).map(|at| ((at * 7919 + 13) % vocabulary.max(1)) as i32).collect()
}

impl Times {
    fn best_and_median(&self) -> (f64, f64) {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        (sorted[0], sorted[sorted.len() / 2])
    }

    fn text(&self) -> String {
        let (best, median) = self.best_and_median();
        let rate = self.tokens as f64 / best;
        format!(
            "{:<14} best {:>9.3} ms   median {:>9.3} ms   {rate:>9.0} tokens/s",
            self.what,
            best * 1e3,
            median * 1e3
        )
    }

    fn json(&self) -> Value {
        let (best, median) = self.best_and_median();
        json!({ "what": self.what, "tokens": self.tokens, "best_seconds": best, "median_seconds": median })
    }
}
