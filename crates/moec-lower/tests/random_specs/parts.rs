//! A sequence in parts gives what it gives at once, where a model looks back and no further than that.

use moec_ir::{Input, Module, Op};
use moec_oracle::{Data, RandomWeights, Tensor};

use crate::specs::session::{Found, Given, OnePass, Passes, same};

/// `in_parts` is what the passes gave, one after the other.
pub fn agree_with_the_whole(
    text: &str,
    module: &Module,
    passes: &Passes,
    weights: &RandomWeights,
    in_parts: &[Found],
) -> Result<(), String> {
    let looks_back = |(_, at)| matches!(module.node(at).op, Op::Past(_) | Op::Scan(_));
    if !module.walk().into_iter().any(looks_back) || text.contains("across S") {
        return Ok(());
    }
    let Some(at_once) = at_once(passes, module) else { return Ok(()) };
    let found = at_once.oracle(module, weights)?;
    same(&[joined(module, &found)], &[joined(module, in_parts)])
}

/// All of the sequence as one pass, where every input has a row for each position.
fn at_once(passes: &Passes, module: &Module) -> Option<Passes> {
    let by_position =
        |input: &Input| module.tensor(input.value).dims.first().is_some_and(|dim| dim.size.fixed().is_none());
    if !module.inputs.iter().all(by_position) {
        return None;
    }
    let tokens = passes.passes.iter().map(|pass| pass.tokens).sum();
    let joined = |(number, input): (usize, &Input)| {
        let parts = passes.passes.iter().map(|pass| &pass.inputs[number].1);
        let mut axes =
            module.tensor(input.value).dims.iter().map(|dim| dim.axis.clone()).zip([tokens]).collect::<Vec<_>>();
        axes.extend_from_slice(&passes.passes[0].inputs[number].1.axes()[1..]);
        let data = parts.map(|part| part.data().clone()).reduce(|all, part| match (all, part) {
            (Data::F32(all), Data::F32(part)) => Data::F32([all, part].concat()),
            (Data::I32(all), Data::I32(part)) => Data::I32([all, part].concat()),
            (Data::Bool(all), Data::Bool(part)) => Data::Bool([all, part].concat()),
            (all, part) => panic!("an input is {all:?} in one pass and {part:?} in another"),
        });
        (input.name.clone(), Tensor::new(axes, data.expect("a pass at least")))
    };
    let inputs = module.inputs.iter().enumerate().map(joined).collect();
    Some(Passes { passes: vec![OnePass { tokens, first: 0, inputs }] })
}

/// Passes as the one pass that they are parts of: routes, and outputs with a row for each position.
fn joined(module: &Module, found: &[Found]) -> Found {
    let output = |(number, output): (usize, &moec_ir::Output)| {
        let by_position = module.tensor(output.value).elements().is_none();
        let parts = found.iter().filter(|_| by_position).flat_map(|found| found.outputs[number].values.iter().copied());
        Given { name: output.name.clone(), values: parts.collect(), skipped: 0 }
    };
    let route = |number: usize| {
        let parts = found.iter().map(|found| found.routes[number].clone());
        parts.reduce(|(i, w), (j, v)| ([i, j].concat(), [w, v].concat())).expect("a pass at least")
    };
    Found {
        outputs: module.outputs.iter().enumerate().map(output).collect(),
        routes: (0..found[0].routes.len()).map(route).collect(),
    }
}
