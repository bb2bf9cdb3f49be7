//! The catalogue's techniques, compiled, give the reference's choices and numbers: all of them on the best level, and on the
//! others as many as it takes to say everything once that their plans say.

#[path = "../../../../tests/goldens/cases.rs"]
pub mod cases;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use crate::from_oracle::FromOracle;
use moec_cpu::Level;
use moec_interpreter::{Packing, Weights};
use moec_oracle::MemoryWeights;
use moec_plan::{ParamId, Plan};

use crate::host::{Library, Session, levels};

/// A plan's parameters as a session takes them: instance by instance.
pub fn packed(plan: &Plan, weights: &MemoryWeights) -> Vec<Vec<f64>> {
    let from_oracle = FromOracle(weights);
    let packing = &Packing { plan, instances: &from_oracle };
    let all = |(number, param): (usize, &moec_plan::PackedParam)| {
        let id = ParamId(number as u32);
        let experts = |layer: u32| (0..param.experts).flat_map(move |expert| packing.packed(id, layer, expert));
        (0..param.layers).flat_map(experts).collect()
    };
    plan.params.iter().enumerate().map(all).collect()
}

/// Which words stand in which lines of a plan: steps, what they run along, operations, where they read, functions.
fn said_by(plan: &Plan) -> BTreeSet<(String, String)> {
    let text = plan.to_string();
    let line = |line: &str| -> Vec<(String, String)> {
        // Names stand between quotes.
        let unnamed = line.split('"').step_by(2).collect::<String>();
        let mut words = unnamed.split(|c: char| !c.is_ascii_alphabetic() && c != '_').filter(|word| !word.is_empty());
        let Some(first) = words.next() else { return Vec::new() };
        [first].into_iter().chain(words).map(|word| (first.to_owned(), word.to_owned())).collect()
    };
    text.lines().flat_map(line).collect()
}

fn at_level(level: Level) {
    if !levels().contains(&level) {
        eprintln!("{level:?} cannot run here");
        return;
    }
    // What is above multiplies pairs and fours, which f32 weights have none of.
    let best = levels().into_iter().rfind(|level| *level <= Level::Avx512) == Some(level);
    // Cases that differ in their inputs alone share the code.
    let libraries = RefCell::new(BTreeMap::new());
    let said = RefCell::new(BTreeSet::new());
    cases::each(|case| {
        for module in case.modules() {
            let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options::default());
            let plan = moec_lower::lower(&fused).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let new = said_by(&plan).difference(&said.borrow()).cloned().collect::<Vec<_>>();
            if !best && new.is_empty() {
                continue;
            }
            said.borrow_mut().extend(new);
            let mut libraries = libraries.borrow_mut();
            let library = libraries.entry(plan.to_string()).or_insert_with(|| Library::new(&plan, level));
            let weights = packed(&plan, &case.weights(&module));
            let tokens = case.tokens as u64;
            for threads in [1, 3] {
                let mut session = Session::new(&plan, &weights, tokens, tokens.next_multiple_of(16), threads);
                let outputs = session.run(library, &case.rows(&plan), tokens, 0);
                let who = format!("{level:?}, {threads} threads");
                case.routed(&who, session.traced.iter().map(|traced| (&traced.indices[..], &traced.weights[..])));
                case.gave_all(&who, plan.outputs.iter().map(|port| port.name.as_str()).zip(outputs));
                let mut session = Session::new(&plan, &weights, tokens, tokens.next_multiple_of(16), threads);
                let mut y = Vec::new();
                for positions in case.parts() {
                    let rows = case.rows_at(&plan, &positions);
                    y.extend_from_slice(&session.run(library, &rows, positions.len() as u64, 0)[0]);
                }
                if !y.is_empty() {
                    case.gave(&format!("{who}, in parts"), &y);
                }
            }
        }
    });
}

#[test]
fn scalar_code_gives_the_reference() {
    at_level(Level::Scalar);
}

#[test]
fn avx2_code_gives_the_reference() {
    at_level(Level::Avx2);
}

#[test]
fn avx512_code_gives_the_reference() {
    at_level(Level::Avx512);
}
