//! A session: passes over one module, with what `past` and `scan` keep between them.

use std::collections::BTreeMap;
use std::sync::Arc;

use moec_ir::{Module, OpId};
use moec_types::{Axis, DType, Size, TensorType};

use crate::error::EvalError;
use crate::ops::{Extent, Kept, Pass, Value};
use crate::shake::Shake;
use crate::tensor::Tensor;
use crate::trace::Trace;
use crate::weights::Weights;

/// One sequence: each pass goes on where the last one ended.
pub struct Session<'a> {
    module: &'a Module,
    weights: &'a dyn Weights,
    kept: Kept,
    /// Positions of earlier passes along each input axis.
    positions: BTreeMap<Axis, usize>,
    shake: Option<Shake>,
}

impl<'a> Session<'a> {
    /// The module must have been verified: an ill-typed one is a bug and panics.
    pub fn new(module: &'a Module, weights: &'a dyn Weights) -> Self {
        Session { module, weights, kept: Kept::default(), positions: BTreeMap::new(), shake: None }
    }

    /// One in which whatever is rounded has an error: it tells whether a result hangs on how sums are rounded.
    pub fn shaken(module: &'a Module, weights: &'a dyn Weights, shake: Shake) -> Self {
        Session { shake: Some(shake), ..Session::new(module, weights) }
    }

    /// Evaluates one pass and returns the outputs in the module's order. Routes are appended to `trace`. A pass that fails
    /// leaves the session as it was.
    pub fn run(
        &mut self,
        inputs: &[(&str, Tensor)],
        trace: Option<&mut Trace>,
    ) -> Result<Vec<(String, Tensor)>, EvalError> {
        let given = by_name(self.module, inputs)?;
        let extents = extents(self.module, &given, &self.positions)?;
        let mut pass = Pass::new(self.module, self.weights, &self.kept, extents, trace);
        pass.shake = self.shake;
        for input in &self.module.inputs {
            let value = given[input.name.as_str()].arranged(self.module.tensor(input.value).axes()).into_owned();
            pass.set(input.value, Value::Tensor(Arc::new(value)));
        }
        pass.region(self.module.body)?;
        let outputs = self.module.outputs.iter().map(|output| {
            let declared = self.module.tensor(output.value);
            (output.name.clone(), pass.tensor(output.value).arranged(declared.axes()).into_owned())
        });
        let outputs = outputs.collect();
        let (kept, extents) = pass.finish();
        self.kept = kept;
        self.positions = extents.into_iter().map(|(axis, extent)| (axis, extent.before + extent.now)).collect();
        Ok(outputs)
    }
}

/// A node that keeps something, under the layers (outermost first) in which it was met.
pub(crate) type NodeKey = (Vec<u32>, OpId);

fn by_name<'t>(module: &Module, inputs: &'t [(&str, Tensor)]) -> Result<BTreeMap<&'t str, &'t Tensor>, EvalError> {
    let mut given = BTreeMap::new();
    for (name, value) in inputs {
        if !module.inputs.iter().any(|input| input.name == *name) {
            let known: Vec<_> = module.inputs.iter().map(|input| format!("`{}`", input.name)).collect();
            return Err(EvalError::UnknownInput { name: name.to_string(), known: known.join(", ") });
        }
        if given.insert(*name, value).is_some() {
            return Err(EvalError::RepeatedInput { name: name.to_string() });
        }
    }
    for input in &module.inputs {
        let wants = module.tensor(input.value);
        let Some(value) = given.get(input.name.as_str()) else {
            return Err(EvalError::MissingInput { name: input.name.clone(), wants: wants.to_string() });
        };
        if !fits(value, wants) {
            let (name, found, wants) = (input.name.clone(), value.to_string(), wants.to_string());
            return Err(EvalError::InputType { name, found, wants });
        }
    }
    Ok(given)
}

/// Element type, axes and fixed sizes agree; the order of the axes does not matter.
pub(crate) fn fits(value: &Tensor, wants: &TensorType) -> bool {
    value.dtype() == arithmetic_dtype(wants.dtype)
        && value.axes().len() == wants.dims.len()
        && wants.dims.iter().all(|dim| match (value.size(&dim.axis), dim.size.fixed()) {
            (Some(size), Some(fixed)) => size as u64 == fixed,
            (Some(_), None) => true,
            (None, _) => false,
        })
}

fn arithmetic_dtype(dtype: DType) -> DType {
    match dtype {
        DType::F32 | DType::Bf16 | DType::F16 => DType::F32,
        DType::I32 => DType::I32,
        DType::Bool => DType::Bool,
    }
}

/// How long each symbolic axis of the inputs is in this pass.
fn extents(
    module: &Module,
    given: &BTreeMap<&str, &Tensor>,
    positions: &BTreeMap<Axis, usize>,
) -> Result<BTreeMap<Axis, Extent>, EvalError> {
    let mut found: BTreeMap<Axis, (&str, Extent)> = BTreeMap::new();
    for input in &module.inputs {
        for dim in &module.tensor(input.value).dims {
            let Size::Input(symbol) = &dim.size else { continue };
            let now = given[input.name.as_str()].expect_size(&dim.axis);
            let before = positions.get(symbol).copied().unwrap_or(0);
            let (first_input, first) = *found.entry(symbol.clone()).or_insert((&input.name, Extent { before, now }));
            if first.now != now {
                return Err(EvalError::SizesDisagree {
                    axis: symbol.to_string(),
                    first_input: first_input.to_string(),
                    first: first.now,
                    second_input: input.name.clone(),
                    second: now,
                });
            }
        }
    }
    Ok(found.into_iter().map(|(axis, (_, extent))| (axis, extent)).collect())
}
