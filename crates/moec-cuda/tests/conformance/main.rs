//! Every step of the plan as the CUDA text says it, run on this machine's CPU, against the plan's interpreter.
//!
//! The printed text is compiled with a shim in the place of the hardware (kernels/cuda/tests/shim.h) and launched by the run time
//! on a stand-in for the driver. The plans are those that the CPU backend is tested with. Memory is NaN when it is allocated, so
//! what is read before it is written shows.

#[path = "../../../moec-cpu/tests/conformance/across.rs"]
mod across;
#[path = "../../../moec-cpu/tests/conformance/attention.rs"]
mod attention;
mod bench;
#[path = "../../../moec-cpu/tests/conformance/build.rs"]
mod build;
mod domains;
mod failures;
#[path = "../../../../tests/from_oracle.rs"]
mod from_oracle;
#[path = "../../../moec-cpu/tests/conformance/gemm.rs"]
mod gemm;
mod goldens;
mod gpu;
#[path = "../../../moec-cpu/tests/conformance/grouped.rs"]
mod grouped;
mod host;
#[path = "../../../moec-cpu/tests/conformance/layers.rs"]
mod layers;
#[path = "../../../moec-cpu/tests/conformance/memory.rs"]
mod memory;
mod models;
mod pack;
#[path = "../../../moec-cpu/tests/conformance/random_specs.rs"]
mod random_specs;
#[path = "../../../moec-cpu/tests/conformance/row_programs.rs"]
mod row_programs;
#[path = "../../../moec-cpu/tests/conformance/together.rs"]
mod together;
mod ways;

use build::Building;
use host::{Level, Library, Session};
use moec_interpreter::Machine;
use pack::PackedPass;

/// One pass: positions, the first whose output is wanted, and the inputs.
pub struct PassInput {
    pub tokens: u64,
    pub first_output: u64,
    pub inputs: Vec<Vec<f64>>,
}

/// Runs the passes one after the other in one session, and compares all outputs; or writes them down for a GPU.
pub fn check(building: &Building, passes: &[PassInput], tolerance: f64) {
    let plan = &building.plan;
    moec_plan::verify(plan).unwrap_or_else(|error| panic!("{error}"));
    let chunk = passes.iter().map(|pass| pass.tokens).max().expect("a pass");
    let positions: u64 = passes.iter().map(|pass| pass.tokens).sum();
    let capacity = positions.next_multiple_of(16);
    let mut machine = Machine::new(plan, building, chunk, capacity);
    if let Some(folder) = pack::asked() {
        let expected = |pass: &PassInput| {
            let given = machine.run(pass.inputs.clone(), pass.tokens, pass.first_output);
            PackedPass {
                sequence: 0,
                tokens: pass.tokens,
                first_output: pass.first_output,
                inputs: pass.inputs.clone(),
                outputs: given.outputs,
                routes: given.routes,
            }
        };
        let passes: Vec<PackedPass> = passes.iter().map(expected).collect();
        let (name, weights) = (pack::next_name(), pack::Weights::Values(&building.weights));
        let case = pack::Case { name: &name, plan, weights, chunk, capacity, tolerance, passes: &passes };
        return pack::write(&folder, &case);
    }
    let library = Library::new(plan, Level::Shim);
    let mut session = Session::new(plan, &building.weights, chunk, capacity, 1);
    for (at, pass) in passes.iter().enumerate() {
        let expected = machine.run(pass.inputs.clone(), pass.tokens, pass.first_output).outputs;
        let found = session.run(&library, &pass.inputs, pass.tokens, pass.first_output);
        for (output, (found, expected)) in found.iter().zip(&expected).enumerate() {
            compare(found, expected, tolerance, &format!("pass {at}, output {output}"));
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
