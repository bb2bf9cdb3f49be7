//! The domain models: the oracle and the plan, interpreted, give the reference's choices and numbers, in one pass and in several.

#[path = "../../../tests/domains/domains.rs"]
mod domains;
#[path = "../../../tests/from_oracle.rs"]
mod from_oracle;

use domains::{Domain, Found};
use from_oracle::FromOracle;
use moec_interpreter::{Machine, Packing};
use moec_ir::{Input, Module};
use moec_oracle::{Data, MemoryWeights, Session, Tensor, Trace};
use moec_types::{DType, Dim};

/// The inputs of the module at `tokens` positions from `first` on.
fn tensors<'m>(case: &Domain, module: &'m Module, first: usize, tokens: usize) -> Vec<(&'m str, Tensor)> {
    let tensor = |input: &'m Input| {
        let ty = module.tensor(input.value);
        let size = |dim: &Dim| dim.size.fixed().map_or(tokens, |size| size as usize);
        let axes: Vec<_> = ty.dims.iter().map(|dim| (dim.axis.clone(), size(dim))).collect();
        let values = case.input(&input.name, ty, first, tokens);
        let data = match ty.dtype {
            DType::F32 | DType::Bf16 | DType::F16 => Data::F32(values.iter().map(|value| *value as f32).collect()),
            DType::I32 => Data::I32(values.iter().map(|value| *value as i32).collect()),
            DType::Bool => Data::Bool(values.iter().map(|value| *value != 0.0).collect()),
        };
        (input.name.as_str(), Tensor::new(axes, data))
    };
    module.inputs.iter().map(tensor).collect()
}

fn by_oracle(case: &Domain, module: &Module, weights: &MemoryWeights, passes: &[usize]) {
    let mut session = Session::new(module, weights);
    let (mut all, mut first) = (Found::default(), 0);
    for tokens in passes {
        let mut trace = Trace::default();
        let outputs = session.run(&tensors(case, module, first, *tokens), Some(&mut trace)).expect("the oracle runs");
        let numbers = |tensor: Tensor| tensor.f32().iter().map(|y| f64::from(*y)).collect();
        case.extend(
            &mut all,
            Found {
                routes: trace.routes.into_iter().map(|route| (route.indices, route.weights)).collect(),
                outputs: outputs.into_iter().map(|(_, tensor)| numbers(tensor)).collect(),
            },
        );
        first += tokens;
    }
    case.gave(&format!("oracle, passes of {passes:?}"), &all);
}

fn by_plan(case: &Domain, module: &Module, weights: &MemoryWeights, passes: &[usize]) {
    let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options::default());
    let plan = moec_lower::lower(&fused).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let from_oracle = FromOracle(weights);
    let packing = Packing { plan: &plan, instances: &from_oracle };
    let mut machine = Machine::new(&plan, &packing, case.tokens as u64, case.tokens as u64);
    let (mut all, mut first) = (Found::default(), 0);
    for tokens in passes {
        let input = |input: &Input| case.input(&input.name, module.tensor(input.value), first, *tokens);
        let found = machine.run(module.inputs.iter().map(input).collect(), *tokens as u64, 0);
        case.extend(&mut all, Found { routes: found.routes, outputs: found.outputs });
        first += tokens;
    }
    case.gave(&format!("plan, passes of {passes:?}"), &all);
}

#[test]
fn the_oracle_gives_the_reference() {
    domains::each(|case| {
        let module = case.module();
        let weights = case.weights(&module);
        by_oracle(case, &module, &weights, &[case.tokens]);
        by_oracle(case, &module, &weights, &case.passes);
    });
}

#[test]
fn plans_give_the_reference() {
    domains::each(|case| {
        let module = case.module();
        let weights = case.weights(&module);
        by_plan(case, &module, &weights, &[case.tokens]);
        by_plan(case, &module, &weights, &case.passes);
    });
}
