//! Every step of the plan on every level that this machine runs, with one to three threads, against the plan's interpreter.
//!
//! Memory is NaN before a pass, so what is read before it is written shows.

mod across;
mod amx;
mod artefact;
mod attention;
mod build;
mod cuts;
mod domains;
#[path = "../../../../tests/from_oracle.rs"]
mod from_oracle;
mod gemm;
mod goldens;
mod grouped;
mod host;
mod layers;
mod math;
mod memory;
mod own_gate;
mod random_specs;
mod row_programs;
mod speed;
mod symbols;
mod tiles;
mod together;

use build::Building;
use host::{Library, Session, levels_of};
use moec_interpreter::Machine;

/// One pass: positions, the first whose output is wanted, and the inputs.
pub struct PassInput {
    pub tokens: u64,
    pub first_output: u64,
    pub inputs: Vec<Vec<f64>>,
}

/// Runs the passes one after the other in one session, everywhere, and compares all outputs.
pub fn check(building: &Building, passes: &[PassInput], tolerance: f64) {
    let plan = &building.plan;
    moec_plan::verify(plan).unwrap_or_else(|error| panic!("{error}"));
    let chunk = passes.iter().map(|pass| pass.tokens).max().expect("a pass");
    let positions: u64 = passes.iter().map(|pass| pass.tokens).sum();
    let capacity = positions.next_multiple_of(16);
    let mut machine = Machine::new(plan, building, chunk, capacity);
    let expected: Vec<_> =
        passes.iter().map(|pass| machine.run(pass.inputs.clone(), pass.tokens, pass.first_output).outputs).collect();
    for level in levels_of(plan) {
        let library = Library::new(plan, level);
        let mut one_thread: Option<Vec<Vec<Vec<f64>>>> = None;
        for threads in [1, 2, 3] {
            let mut session = Session::new(plan, &building.weights, chunk, capacity, threads);
            let found: Vec<_> =
                passes.iter().map(|pass| session.run(&library, &pass.inputs, pass.tokens, pass.first_output)).collect();
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                for (output, (found, expected)) in found.iter().zip(expected).enumerate() {
                    compare(
                        found,
                        expected,
                        tolerance,
                        &format!("{level:?} {threads} threads, pass {at}, output {output}"),
                    );
                }
            }
            match &one_thread {
                None => one_thread = Some(found),
                Some(one) => {
                    let same = format!("{one:?}") == format!("{found:?}");
                    assert!(same, "{level:?}: {threads} threads differ from one");
                }
            }
        }
    }
}

fn compare(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        // Untouched integers and bools are all ones.
        let poison = found.is_nan() || *found == -1.0 || *found == 255.0;
        let close = found == expected
            || poison && expected.is_nan()
            || (found - expected).abs() <= tolerance * expected.abs().max(1.0);
        assert!(close, "{what}, element {at}: {found}, not {expected}");
    }
}
