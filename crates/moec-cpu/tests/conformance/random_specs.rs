//! Random specs, compiled, give the oracle's numbers and choices.
//!
//! A few in every run, on one level each; `MOEC_FUZZ_SEEDS=0..100` runs others, on all levels.

#[path = "../../../../tests/random_specs/mod.rs"]
mod specs;

use moec_interpreter::{Packing, Weights};
use moec_oracle::RandomWeights;
use moec_plan::{ParamId, Plan};

use crate::host::{Library, Session, levels};
use specs::{
    generate,
    random::Random,
    session::{Found, FromOracle, Passes, cells, check, same},
};

const USUAL: std::ops::Range<u64> = 0..15;

/// A plan's parameters as a session takes them: instance by instance.
fn packed(plan: &Plan, weights: &RandomWeights) -> Vec<Vec<f64>> {
    let from_oracle = FromOracle(weights);
    let packing = &Packing { plan, instances: &from_oracle };
    let all = |(number, param): (usize, &moec_plan::PackedParam)| {
        let id = ParamId(number as u32);
        let experts = |layer: u32| (0..param.experts).flat_map(move |expert| packing.packed(id, layer, expert));
        (0..param.layers).flat_map(experts).collect()
    };
    plan.params.iter().enumerate().map(all).collect()
}

fn compiled(plan: &Plan, library: &Library, weights: &[Vec<f64>], passes: &Passes, threads: usize) -> Vec<Found> {
    let mut session = Session::new(plan, weights, 6, 32, threads);
    let run = |pass: &specs::session::OnePass| {
        let inputs = pass.inputs.iter().map(|(_, tensor)| cells(tensor)).collect();
        session.traced.clear();
        let outputs = session.run(library, &inputs, pass.tokens as u64, pass.first as u64);
        let routes = session.traced.iter().map(|traced| (traced.indices.clone(), traced.weights.clone())).collect();
        let named = |(port, mut rows): (&moec_plan::Port, Vec<f64>)| {
            // What was not written is all ones.
            let skipped = pass.first * rows.len() / pass.tokens;
            rows[..skipped].iter_mut().filter(|value| **value == -1.0).for_each(|value| *value = f64::NAN);
            (port.name.clone(), rows)
        };
        let outputs = plan.outputs.iter().zip(outputs).map(named).collect();
        Found { outputs, routes, first: pass.first as f64 / pass.tokens as f64 }
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
        for threads in [1, 3] {
            let found = compiled(&plan, &library, &packed, &passes, threads);
            if let Err(what) = same(&expected, &found)
                && !passes.unsteady(&module, &weights, &expected)
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
    let mut failed = Vec::new();
    for seed in range.unwrap_or(USUAL) {
        let text = generate(seed);
        let faults = faults(&text, seed, asked.is_some());
        if !faults.is_empty() {
            println!("seed {seed}: {}\n{text}", faults.join("\n"));
            failed.push(seed);
        }
    }
    assert_eq!(failed, [0u64; 0], "seeds that failed");
}
