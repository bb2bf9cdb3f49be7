//! The oracle as a backend.

use miette::Diagnostic;
use moec_diag::Problem;
use moec_ir::Module;
use moec_oracle::{RouteRecord, Session, Tensor, Trace, Weights};
use moec_types::{Axis, DType, Dim, Size};
use thiserror::Error;

use crate::backend::{Backend, Chosen, Scored, Sequence};

/// Only models that take token ids and give logits can be verified.
#[derive(Clone, Debug, PartialEq, Eq, Error, Diagnostic)]
#[error("`{model}` is not a decoder: it has {found}")]
#[diagnostic(
    code(moec::verify::not_a_decoder),
    help(
        "`verify` takes models with an input i32[S] and an output f32[S, V], and at most one more input i32[Source]; use \
         `run --inputs` for others"
    )
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
    ids: Ids,
    /// What an encoder reads.
    source: Option<Ids>,
    /// Which of the module's outputs holds the logits.
    logits: usize,
}

/// An input of token ids, and its axis.
struct Ids {
    input: String,
    positions: Axis,
}

impl Ids {
    fn tensor(&self, ids: &[i32]) -> (&str, Tensor) {
        (&self.input, Tensor::new(vec![(self.positions.clone(), ids.len())], ids.to_vec()))
    }
}

fn inputs<'i>(source: Option<&'i Ids>, ids: &'i Ids, sequence: Sequence) -> Vec<(&'i str, Tensor)> {
    let source = source.map(|source| source.tensor(sequence.source.unwrap_or(&[])));
    source.into_iter().chain([ids.tensor(sequence.ids)]).collect()
}

impl<'a> OracleBackend<'a> {
    pub fn new(module: &'a Module, weights: &'a dyn Weights) -> Result<Self, NotADecoder> {
        let wrong = |found: String| NotADecoder { model: module.name.clone(), found };
        let mut inputs = Vec::new();
        for input in &module.inputs {
            let ty = module.tensor(input.value);
            match &ty.dims[..] {
                [dim] if ty.dtype == DType::I32 && matches!(dim.size, Size::Input(_)) => {
                    inputs.push((dim, Ids { input: input.name.clone(), positions: dim.axis.clone() }));
                }
                _ => return Err(wrong(format!("the input {ty}"))),
            }
        }
        if !(1..=2).contains(&inputs.len()) {
            return Err(wrong(format!("{} inputs", inputs.len())));
        }
        // The logits are of one of the inputs; the other, if there is one, is what an encoder reads.
        let scores = |value, dim: &Dim| {
            let ty = module.tensor(value);
            ty.dtype == DType::F32 && matches!(&ty.dims[..], [a, b] if a.size == dim.size && b.size.fixed().is_some())
        };
        let found =
            module.outputs.iter().enumerate().find_map(|(logits, output)| {
                Some((logits, inputs.iter().position(|(dim, _)| scores(output.value, dim))?))
            });
        let Some((logits, decoded)) = found else {
            return Err(wrong("no output with a score for each position and token".to_string()));
        };
        let (_, ids) = inputs.remove(decoded);
        let source = inputs.pop().map(|(_, source)| source);
        Ok(OracleBackend { module, weights, session: Session::new(module, weights), ids, source, logits })
    }
}

impl Backend for OracleBackend<'_> {
    fn name(&self) -> String {
        "oracle".to_string()
    }

    fn encodes(&self) -> bool {
        self.source.is_some()
    }

    fn forward(&mut self, sequence: Sequence) -> Result<Scored, Problem> {
        let mut trace = Trace::default();
        let mut session = Session::new(self.module, self.weights);
        let mut outputs = session
            .run(&inputs(self.source.as_ref(), &self.ids, sequence), Some(&mut trace))
            .map_err(|error| -> Problem { Box::new(error) })?;
        let (_, logits) = outputs.swap_remove(self.logits);
        let routes = trace.routes.into_iter().map(chosen);
        Ok(Scored { logits: logits.f32().to_vec(), routes: Some(routes.collect()) })
    }

    fn begin(&mut self, source: Option<&[i32]>) -> Result<(), Problem> {
        let mut session = Session::new(self.module, self.weights);
        if source.is_some() {
            let inputs = inputs(self.source.as_ref(), &self.ids, Sequence { source, ids: &[] });
            session.run(&inputs, None).map_err(|error| -> Problem { Box::new(error) })?;
        }
        self.session = session;
        Ok(())
    }

    fn step(&mut self, ids: &[i32]) -> Result<Vec<f32>, Problem> {
        let inputs = inputs(self.source.as_ref(), &self.ids, Sequence { source: None, ids });
        let outputs = self.session.run(&inputs, None).map_err(|error| -> Problem { Box::new(error) })?;
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
