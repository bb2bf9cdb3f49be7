//! What the oracle says of a module: its outputs over one sequence, and the experts that were chosen.

use moec_ir::Module;
use moec_oracle::{Data, RandomWeights, Session, Tensor, Trace};
use moec_types::{DType, Size};

/// One sequence in two passes, so that what `past` keeps counts too.
const LENGTHS: [usize; 2] = [5, 2];

fn inputs(module: &Module, pass: usize) -> Vec<(String, Tensor)> {
    let tensor = |ty: &moec_types::TensorType| {
        let size = |size: &Size| size.fixed().map_or(LENGTHS[pass], |size| size as usize);
        let axes: Vec<_> = ty.dims.iter().map(|dim| (dim.axis.clone(), size(&dim.size))).collect();
        let count: usize = axes.iter().map(|(_, size)| size).product();
        let number = |at: usize| ((at * 7919 + pass * 104_729 + 13) % 1009) as f32 / 504.0 - 1.0;
        let data = match ty.dtype {
            DType::F32 | DType::Bf16 | DType::F16 => Data::F32((0..count).map(number).collect()),
            DType::I32 => Data::I32((0..count).map(|at| ((at * 5 + pass) % 4) as i32).collect()),
            DType::Bool => Data::Bool((0..count).map(|at| at % 3 == 0).collect()),
        };
        Tensor::new(axes, data)
    };
    module.inputs.iter().map(|input| (input.name.clone(), tensor(module.tensor(input.value)))).collect()
}

/// Outputs of both passes, and which experts were chosen.
fn evaluate(name: &str, module: &Module) -> (Vec<(String, Tensor)>, Vec<String>) {
    let weights = RandomWeights::new(module, 1);
    let mut session = Session::new(module, &weights);
    let mut outputs = Vec::new();
    let mut routes = Vec::new();
    for pass in 0..LENGTHS.len() {
        let inputs = inputs(module, pass);
        let inputs: Vec<(&str, Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        let mut trace = Trace::default();
        outputs.extend(session.run(&inputs, Some(&mut trace)).unwrap_or_else(|error| panic!("{name}: {error}")));
        routes.extend(trace.routes.iter().map(|route| format!("{:?}", route.indices)));
    }
    (outputs, routes)
}

/// The same experts, and numbers as near as summing in another order allows.
pub fn assert_same(name: &str, before: &Module, after: &Module) {
    let ((wanted, wanted_routes), (found, found_routes)) = (evaluate(name, before), evaluate(name, after));
    assert_eq!(wanted_routes, found_routes, "{name}: chosen experts");
    assert_eq!(wanted.len(), found.len(), "{name}");
    for ((output, wanted), (_, found)) in wanted.iter().zip(&found) {
        assert_eq!(wanted.axes(), found.axes(), "{name}: {output}");
        match (wanted.data(), found.data()) {
            (Data::F32(wanted), Data::F32(found)) => {
                for (wanted, found) in wanted.iter().zip(found) {
                    let close =
                        (wanted - found).abs() <= 1e-5 * wanted.abs().max(1.0) || wanted.is_nan() && found.is_nan();
                    assert!(close || wanted == found, "{name}: {output}: {wanted} became {found}");
                }
            }
            (wanted, found) => assert_eq!(format!("{wanted:?}"), format!("{found:?}"), "{name}: {output}"),
        }
    }
}
