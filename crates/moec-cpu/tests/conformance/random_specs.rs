//! Random specs, compiled, give the oracle's numbers and choices.
//!
//! A few in every run, on one level each; `MOEC_FUZZ_SEEDS=0..100` runs others, with `MOEC_FUZZ_LEVELS=all` on all levels.

#[path = "../../../../tests/random_specs/mod.rs"]
pub mod specs;

use moec_interpreter::{Packing, Weights};
use moec_ir::Module;
use moec_oracle::RandomWeights;
use moec_plan::{ParamId, Plan};

use crate::from_oracle::FromOracle;
use crate::host::{Library, Session, levels};
use specs::{
    across::ACROSS,
    generate,
    random::Random,
    scans::SCANS,
    session::{Found, OnePass, Passes, check, same},
};

/// What sums and functions in f32 may come to, relative to the weights.
pub const ROUNDING: f32 = 5e-6;

const USUAL: std::ops::Range<u64> = 0..15;

/// A plan's parameters as a session takes them: instance by instance.
pub fn packed(plan: &Plan, weights: &RandomWeights) -> Vec<Vec<f64>> {
    let from_oracle = FromOracle(weights);
    let packing = &Packing { plan, instances: &from_oracle };
    let all = |(number, param): (usize, &moec_plan::PackedParam)| {
        let id = ParamId(number as u32);
        let experts = |layer: u32| (0..param.experts).flat_map(move |expert| packing.packed(id, layer, expert));
        (0..param.layers).flat_map(experts).collect()
    };
    plan.params.iter().enumerate().map(all).collect()
}

fn compiled(
    (module, plan): (&Module, &Plan),
    library: &Library,
    weights: &[Vec<f64>],
    passes: &Passes,
    threads: usize,
) -> Vec<Found> {
    let mut session = Session::new(plan, weights, 6, 32, threads);
    let run = |pass: &OnePass| {
        session.traced.clear();
        let outputs = session.run(library, &pass.rows(module), pass.tokens as u64, pass.first as u64);
        let given = |(number, values)| {
            let mut given = pass.given(module, number, values);
            // What was not written is all ones.
            let unwritten = given.values[..given.skipped].iter_mut().filter(|value| [-1.0, 255.0].contains(*value));
            unwritten.for_each(|value| *value = f64::NAN);
            given
        };
        let routes = session.traced.iter().map(|traced| (traced.indices.clone(), traced.weights.clone()));
        Found { outputs: outputs.into_iter().enumerate().map(given).collect(), routes: routes.collect() }
    };
    passes.passes.iter().map(run).collect()
}

/// The levels on which a seed goes wrong, and how.
fn faults(text: &str, seed: u64, everywhere: bool) -> Vec<String> {
    let Ok(module) = check(text) else { return Vec::new() };
    let module = module.without_dead();
    let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options::default());
    let Ok(plan) = moec_lower::lower(&fused) else { return Vec::new() };
    let weights = RandomWeights::new(&module, seed);
    let passes = Passes::random(&mut Random::new(seed ^ 0xabcd), &module);
    let expected = passes.oracle(&module, &weights).expect("the oracle runs");
    let packed = packed(&plan, &weights);
    let mut faults = Vec::new();
    let all = levels();
    let some = if everywhere { &all[..] } else { &all[seed as usize % all.len()..][..1] };
    for level in some {
        let library = Library::new(&plan, *level);
        let mut alone = None;
        for threads in [1, 3] {
            let found = compiled((&module, &plan), &library, &packed, &passes, threads);
            let text = format!("{found:?}");
            if alone.get_or_insert_with(|| text.clone()) != &text {
                faults.push(format!("{level:?}: {threads} threads differ from one"));
            }
            if let Err(what) = same(&expected, &found)
                && !passes.unsteady(&module, &weights, &expected, ROUNDING)
            {
                faults.push(format!("{level:?}, {threads} threads: {what}"));
            }
        }
    }
    faults
}

#[test]
fn random_specs_give_the_oracles_numbers() {
    let asked = std::env::var("MOEC_FUZZ_SEEDS").ok();
    let range = asked.as_ref().map(|asked| {
        let range = asked.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
        range.unwrap_or_else(|| panic!("MOEC_FUZZ_SEEDS is `{asked}`, not like `0..100`"))
    });
    let everywhere = std::env::var("MOEC_FUZZ_LEVELS").is_ok_and(|levels| levels == "all");
    let mut failed = Vec::new();
    for seed in range.unwrap_or(USUAL) {
        let text = generate(seed);
        let faults = faults(&text, seed, everywhere);
        if !faults.is_empty() {
            println!("seed {seed}: {}\n{text}", faults.join("\n"));
            failed.push(seed);
        }
    }
    assert_eq!(failed, [0u64; 0], "seeds that failed");
}

#[test]
fn from_token_to_token_the_code_gives_the_oracles_numbers() {
    for (seed, (name, text)) in (0..).zip(SCANS) {
        let faults = faults(text, seed, true);
        assert!(faults.is_empty(), "{name}: {}", faults.join("\n"));
    }
}

#[test]
fn across_tokens_the_code_gives_the_oracles_numbers() {
    for (seed, (name, text)) in (0..).zip(ACROSS) {
        let faults = faults(text, seed, true);
        assert!(faults.is_empty(), "{name}: {}", faults.join("\n"));
    }
}
