//! The catalogue's techniques give the reference's choices and numbers: some, or with `MOEC_CUDA_GOLDENS=all` each of them.

#[path = "../../../../tests/goldens/cases.rs"]
mod cases;

use std::{cell::RefCell, collections::BTreeMap, env};

use moec_interpreter::{Packing, Weights};
use moec_ir::Module;
use moec_oracle::MemoryWeights;
use moec_plan::{ParamId, Plan};

use crate::{
    from_oracle::FromOracle,
    host::{Level, Library, Session},
};

/// Every so many of the catalogue's plans are compiled here, unless all are asked for: a plan takes seconds.
const EVERY: usize = 20;

const ALL_VARIABLE: &str = "MOEC_CUDA_GOLDENS";

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

/// The catalogue's models by name, with all that they give on request.
pub fn modules() -> Vec<(String, Module)> {
    let found = RefCell::new(Vec::new());
    cases::each(|case| {
        let name =
            |at: usize| format!("catalogue-{}-{at}", case.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        found.borrow_mut().extend(case.modules().into_iter().enumerate().map(|(at, module)| (name(at), module)));
    });
    found.into_inner()
}

#[test]
fn catalogue_models_give_the_reference() {
    let all = env::var(ALL_VARIABLE).is_ok_and(|which| which == "all") || env::var_os("MOEC_CASES").is_some();
    // Cases that differ in their inputs alone share the code.
    let libraries: RefCell<BTreeMap<String, Option<Library>>> = RefCell::default();
    cases::each(|case| {
        for module in case.modules() {
            let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options::default());
            let plan = moec_lower::lower(&fused).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let mut libraries = libraries.borrow_mut();
            let number = libraries.len();
            let compile = || (all || number.is_multiple_of(EVERY)).then(|| Library::new(&plan, Level::Shim));
            let Some(library) = libraries.entry(plan.to_string()).or_insert_with(compile) else { continue };
            let weights = packed(&plan, &case.weights(&module));
            let tokens = case.tokens as u64;
            let mut session = Session::new(&plan, &weights, tokens, tokens, 1);
            let outputs = session.run(library, &case.rows(&plan), tokens, 0);
            case.routed("at once", session.traced.iter().map(|traced| (&traced.indices[..], &traced.weights[..])));
            case.gave_all("at once", plan.outputs.iter().map(|port| port.name.as_str()).zip(outputs));
            let mut session = Session::new(&plan, &weights, tokens, tokens, 1);
            let mut y = Vec::new();
            for positions in case.parts() {
                let rows = case.rows_at(&plan, &positions);
                y.extend_from_slice(&session.run(library, &rows, positions.len() as u64, 0)[0]);
            }
            if !y.is_empty() {
                case.gave("in parts", &y);
            }
        }
    });
}
