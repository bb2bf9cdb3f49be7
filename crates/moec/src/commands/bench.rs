//! `moec bench`: how long prefill and decode of a build take, beside what the machine can do in the same minute.

use std::{sync::Arc, time::Instant};

use moec_program::products::{Product, Size};
use serde_json::{Value, json};

use crate::{
    cli::Bench,
    failure::Failure,
    manifest,
    native::{Device, Model, NativeError, Options},
    roof::{self, Bound, Machine},
};

/// Seconds of several runs of one thing.
struct Times {
    what: String,
    passes: usize,
    tokens_of_pass: usize,
    seconds: Vec<f64>,
}

pub fn run(arguments: &Bench) -> Result<(), Failure> {
    let manifest = manifest::open(&arguments.build)?;
    let vocabulary = manifest.vocabulary.ok_or(NativeError::NoTokens)?;
    // The roof is that of this processor, too.
    let options =
        Options { threads: crate::commands::threads(arguments.threads), device: Device::Cpu, ..Options::default() };
    let (library, weights) = (manifest.library(&arguments.build), manifest.weights(&arguments.build));
    let model = Model::open(&library, &manifest.model, &weights, options)?;
    let threads = usize::try_from(model.threads()).unwrap_or(1).max(1);
    let mut machine = Machine::probe(threads);
    let mut all = Vec::new();
    for tokens in arguments.tokens.iter().map(|tokens| (*tokens).max(1)) {
        all.push(prefill(&model, tokens, vocabulary, arguments.rounds.max(1))?);
    }
    all.push(decode(&model, arguments.steps.max(1), vocabulary, arguments.rounds.max(1))?);
    machine = machine.best(Machine::probe(threads));
    let roofs: Vec<Roof> = all.iter().map(|times| Roof::of(&manifest.products, times, &machine)).collect();
    if arguments.json {
        println!("{:#}", Value::Array(all.iter().zip(&roofs).map(|(times, roof)| times.json(roof)).collect()));
        return Ok(());
    }
    println!("{}, {}, {} threads, {} rounds", manifest.model, model.level(), model.threads(), arguments.rounds.max(1));
    let Machine { read, f32, bf16, int8, .. } = machine;
    println!(
        "roof of this minute: reads {:.1} GB/s; f32 {:.2}, bf16 {:.2}, int8 {:.2} T/s",
        read / 1e9,
        f32 / 1e12,
        bf16 / 1e12,
        int8 / 1e12
    );
    for (times, roof) in all.iter().zip(&roofs) {
        println!("{}", times.text(roof));
    }
    Ok(())
}

/// The least that a pass can take: its matrices of weights, those of experts as many as uniform routing is expected to
/// reach, read once or multiplied by at the fastest rate.
struct Roof {
    seconds: f64,
    bound: Bound,
}

impl Roof {
    fn of(products: &[Product], times: &Times, machine: &Machine) -> Roof {
        let size = Size { tokens: times.tokens_of_pass as u64, past: 0, outputs: 1 };
        let (seconds, bound) = roof::products_roof(products, size, machine);
        Roof { seconds: seconds * times.passes as f64, bound }
    }
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
    Ok(Times { what: format!("prefill {tokens}"), passes: 1, tokens_of_pass: tokens, seconds })
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
    Ok(Times { what: format!("decode {steps} × 1"), passes: steps, tokens_of_pass: 1, seconds })
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

    fn tokens(&self) -> usize {
        self.passes * self.tokens_of_pass
    }

    fn text(&self, roof: &Roof) -> String {
        let (best, median) = self.best_and_median();
        let rate = self.tokens() as f64 / best;
        format!(
            "{:<14} best {:>9.3} ms   median {:>9.3} ms   {rate:>9.1} tokens/s   {:.2} of the roof ({})",
            self.what,
            best * 1e3,
            median * 1e3,
            roof.seconds / best,
            roof.bound.name()
        )
    }

    fn json(&self, roof: &Roof) -> Value {
        let (best, median) = self.best_and_median();
        json!({
            "what": self.what,
            "tokens": self.tokens(),
            "best_seconds": best,
            "median_seconds": median,
            "roof_seconds": roof.seconds,
            "bound": roof.bound.name(),
        })
    }
}
