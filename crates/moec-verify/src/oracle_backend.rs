//! The oracle as a backend.

use miette::Diagnostic;
use moec_diag::Problem;
use moec_ir::Module;
use moec_oracle::{RouteRecord, Session, Tensor, Trace, Weights};
use moec_types::{Axis, DType, Size};
use thiserror::Error;

use crate::backend::{Backend, Chosen, Scored};

/// Only models that take token ids and give logits can be verified.
#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
#[error("`{model}` is not a decoder: it has {found}")]
#[diagnostic(
    code(moec::verify::not_a_decoder),
    help("`verify` takes models with one input i32[S] and an output f32[S, V]; use `run --inputs` for others")
)]
pub struct NotADecoder {
    pub model: String,
    pub found: String,
}

/// Evaluates a module with [`moec_oracle`].
pub struct OracleBackend<'a> {
    module: &'a Module,
    weights: &'a dyn Weights,
    session: Session<'a>,
    input: String,
    positions: Axis,
    /// Which of the module's outputs holds the logits.
    logits: usize,
}

impl<'a> OracleBackend<'a> {
    pub fn new(module: &'a Module, weights: &'a dyn Weights) -> Result<Self, NotADecoder> {
        let symbolic = |size: &Size| matches!(size, Size::Input(_));
        let wrong = |found: String| NotADecoder { model: module.name.clone(), found };
        let [input] = &module.inputs[..] else { return Err(wrong(format!("{} inputs", module.inputs.len()))) };
        let ty = module.tensor(input.value);
        let [dim] = &ty.dims[..] else { return Err(wrong(format!("the input {ty}"))) };
        if ty.dtype != DType::I32 || !symbolic(&dim.size) {
            return Err(wrong(format!("the input {ty}")));
        }
        let scores = |value| {
            let ty = module.tensor(value);
            ty.dtype == DType::F32 && matches!(&ty.dims[..], [a, b] if a.size == dim.size && b.size.fixed().is_some())
        };
        let Some(logits) = module.outputs.iter().position(|output| scores(output.value)) else {
            return Err(wrong("no output with a score for each position and token".to_string()));
        };
        Ok(OracleBackend {
            module,
            weights,
            session: Session::new(module, weights),
            input: input.name.clone(),
            positions: dim.axis.clone(),
            logits,
        })
    }

    fn ids(&self, ids: &[i32]) -> Tensor {
        Tensor::new(vec![(self.positions.clone(), ids.len())], ids.to_vec())
    }
}

impl Backend for OracleBackend<'_> {
    fn name(&self) -> String {
        "oracle".to_string()
    }

    fn forward(&mut self, ids: &[i32]) -> Result<Scored, Problem> {
        let mut trace = Trace::default();
        let mut session = Session::new(self.module, self.weights);
        let mut outputs = session
            .run(&[(&self.input, self.ids(ids))], Some(&mut trace))
            .map_err(|error| -> Problem { Box::new(error) })?;
        let (_, logits) = outputs.swap_remove(self.logits);
        let routes = trace.routes.into_iter().map(chosen);
        Ok(Scored { logits: logits.f32().to_vec(), routes: Some(routes.collect()) })
    }

    fn begin(&mut self) -> Result<(), Problem> {
        self.session = Session::new(self.module, self.weights);
        Ok(())
    }

    fn step(&mut self, ids: &[i32]) -> Result<Vec<f32>, Problem> {
        let input = self.ids(ids);
        let outputs =
            self.session.run(&[(&self.input, input)], None).map_err(|error| -> Problem { Box::new(error) })?;
        let (_, logits) = &outputs[self.logits];
        let vocabulary = logits.data().len() / ids.len().max(1);
        Ok(logits.f32()[logits.data().len() - vocabulary..].to_vec())
    }
}

/// Any index outside the bank means no choice.
fn chosen(route: RouteRecord) -> Chosen {
    let inside = |index: &i32| u64::try_from(*index).is_ok_and(|index| index < route.experts);
    let experts = route.indices.iter().map(|index| if inside(index) { *index } else { -1 });
    Chosen { choices: route.choices, experts: experts.collect() }
}
