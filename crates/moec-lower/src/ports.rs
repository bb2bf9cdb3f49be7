//! Inputs and outputs of the plan.

use moec_diag::Span;
use moec_ir::{Module, Op, ValueId};
use moec_plan::{Buffer, BufferId, Home, Port};

use crate::{
    Unsupported,
    access::elements,
    context::{Lowering, Place},
};

pub fn inputs(lowering: &mut Lowering) -> Result<Vec<Port>, Unsupported> {
    let module = lowering.module;
    module
        .inputs
        .iter()
        .enumerate()
        .map(|(at, input)| {
            let index_limit = index_limit(module, input.value);
            let port = port(lowering, &input.name, input.value, Home::Input(at as u32), index_limit)?;
            Ok(port)
        })
        .collect()
}

/// Where each pass finds its inputs.
pub fn place_inputs(lowering: &mut Lowering, ports: &[Port]) {
    for (input, port) in lowering.module.inputs.iter().zip(ports) {
        lowering.places.insert(input.value, Place::Buffer(port.buffer));
    }
}

/// Buffers for the outputs, before anything is lowered, so that steps write them directly.
pub fn declare_outputs(lowering: &mut Lowering) -> Result<Vec<Port>, Unsupported> {
    let module = lowering.module;
    let outputs = module.outputs.iter().enumerate();
    outputs.map(|(at, output)| port(lowering, &output.name, output.value, Home::Output(at as u32), None)).collect()
}

/// Copies what no step wrote directly.
pub fn finish_outputs(lowering: &mut Lowering, ports: Vec<Port>) -> Result<Vec<Port>, Unsupported> {
    let module = lowering.module;
    for (output, port) in module.outputs.iter().zip(&ports) {
        lowering.copy_into(output.value, port.buffer, Span::NONE)?;
    }
    Ok(ports)
}

fn port(
    lowering: &mut Lowering,
    name: &str,
    value: ValueId,
    home: Home,
    index_limit: Option<u64>,
) -> Result<Port, Unsupported> {
    let (rows, dims) = lowering.shape(value, Span::NONE)?;
    let ty = lowering.module.tensor(value);
    if let Some(dim) = ty.dims.iter().skip(1).find(|dim| dim.size.fixed().is_none()) {
        let mut dims = ty.dims.clone();
        dims.sort_by_key(|dim| dim.size.fixed().is_some());
        return Err(Unsupported {
            op: format!("`{name}`, which is {ty},"),
            reason: format!(
                "at the boundary of a model memory goes position by position, so `{}` comes first",
                dim.axis
            ),
            way_round: format!("declare it as {}", moec_types::TensorType::new(ty.dtype, dims)),
            at: Span::NONE,
        });
    }
    let dtype = lowering.module.tensor(value).dtype;
    let row = elements(&dims);
    lowering.buffers.push(Buffer { name: name.to_owned(), dtype, rows, row, home });
    let buffer = BufferId(lowering.buffers.len() as u32 - 1);
    let sizes = dims.into_iter().filter_map(|(axis, extent)| Some((axis.name().to_owned(), extent.fixed()?)));
    let axes = sizes.collect();
    let sequence = lowering.sequences.number_of(lowering.module.tensor(value));
    Ok(Port { name: name.to_owned(), buffer, sequence, axes, index_limit })
}

/// The smallest axis that an input is used as an index of, directly or as an argument of a row program or layer.
fn index_limit(module: &Module, input: ValueId) -> Option<u64> {
    let mut limit: Option<u64> = None;
    let mut aliases = vec![input];
    while let Some(value) = aliases.pop() {
        for node in module.regions().flat_map(|region| &module.region(region).nodes).map(|at| module.node(*at)) {
            for at in (0..node.operands.len()).filter(|at| node.operands[*at] == value) {
                match &node.op {
                    Op::Gather(op) if at == 1 => {
                        let size = module.tensor(node.operands[0]).dim(&op.over).and_then(|dim| dim.size.fixed());
                        limit = [limit, size].into_iter().flatten().min();
                    }
                    op @ (Op::Rows(_) | Op::Layers(_)) => {
                        aliases.extend(op.regions().iter().map(|region| module.region(*region).args[at]));
                    }
                    Op::Split(_) | Op::Merge(_) | Op::Rename(_) | Op::Slice(_) | Op::Unfold(_) => {
                        aliases.push(node.results[0]);
                    }
                    _ => {}
                }
            }
        }
    }
    limit
}
