//! The catalogue's techniques: the oracle and the plan, interpreted, give the reference's choices and numbers.

#[path = "../../../tests/goldens/cases.rs"]
mod cases;

use std::collections::BTreeSet;

use cases::Case;
use moec_interpreter::{Instances, Machine, Packing};
use moec_ir::{Module, ParamId};
use moec_oracle::{MemoryWeights, Session, Trace, Weights};

struct FromOracle<'w>(&'w MemoryWeights);

impl Instances for FromOracle<'_> {
    fn instance(&self, param: u32, layer: u32, expert: u32) -> (Vec<(String, u64)>, Vec<f32>) {
        let tensor = self.0.instance(ParamId(param), layer, expert).expect("a case knows every parameter");
        let axes = tensor.axes().iter().map(|(axis, size)| (axis.name().to_owned(), *size as u64)).collect();
        (axes, tensor.f32().to_vec())
    }
}

fn by_oracle(case: &Case, module: &Module, weights: &MemoryWeights) {
    let mut trace = Trace::default();
    let outputs = Session::new(module, weights).run(&case.inputs(module), Some(&mut trace)).expect("the oracle runs");
    case.routed("oracle", trace.routes.iter().map(|route| (&route.indices[..], &route.weights[..])));
    let y: Vec<f64> = outputs[0].1.f32().iter().map(|y| f64::from(*y)).collect();
    case.gave("oracle", &y);
}

fn by_plan(case: &Case, module: &Module, weights: &MemoryWeights, disabled: BTreeSet<String>) {
    let who = format!("plan without {disabled:?}");
    let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options { disabled });
    let plan = moec_lower::lower(&fused).unwrap_or_else(|error| panic!("{}, {who}: {error}", case.name));
    let from_oracle = FromOracle(weights);
    let packing = Packing { plan: &plan, instances: &from_oracle };
    let inputs = plan.inputs.iter().map(|port| {
        let fixed: u64 = plan.buffer(port.buffer).row;
        case.input(&port.name, case.tokens * fixed as usize)
    });
    let tokens = case.tokens as u64;
    let found = Machine::new(&plan, &packing, tokens, tokens).run(inputs.collect(), tokens, 0);
    case.routed(&who, found.routes.iter().map(|(indices, weights)| (&indices[..], &weights[..])));
    case.gave(&who, &found.outputs[0]);
}

#[test]
fn the_oracle_gives_the_reference() {
    cases::each(|case| {
        let module = case.module();
        by_oracle(case, &module, &case.weights(&module));
    });
}

#[test]
fn plans_give_the_reference_fused_and_unfused() {
    cases::each(|case| {
        let module = case.module();
        let weights = case.weights(&module);
        by_plan(case, &module, &weights, BTreeSet::new());
        let all = moec_passes::pipeline().iter().map(|pass| pass.name.to_owned()).collect();
        by_plan(case, &module, &weights, all);
    });
}
