//! The model: its inputs, its body, its outputs, and what must hold of the whole.

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::Input;
use moec_syntax::tree::{Model, TypeExpr};
use moec_types::{Axis, Dim, Size, TensorType};
use thiserror::Error;

use crate::{
    body::Reported,
    definitions::FileId,
    evaluator::Evaluator,
    param::{AxisTwice, ParamTooLarge},
    scope::{BodyKind, Frame, Origin, Parameters},
    value::{Operand, Part, Value},
};

impl Evaluator {
    pub fn model(&mut self, model: &Model) {
        let region = self.module.body;
        let mut frame = Frame {
            file: FileId::USER,
            kind: BodyKind::Model,
            names: Vec::new(),
            aliases: Vec::new(),
            dims: Default::default(),
            declared: Default::default(),
            unsure: Default::default(),
            declares: Default::default(),
            region,
            part: Part::model(),
            bank: None,
            params: Parameters::Own,
            x: None,
        };
        for input in &model.inputs {
            if self.already_named(&frame, &input.name) {
                continue;
            }
            let value = match self.input_type(&mut frame, &input.ty) {
                Ok(ty) => {
                    frame.note(&ty);
                    for dim in &ty.dims {
                        frame.declared.entry(dim.axis.clone()).or_insert_with(|| dim.clone());
                    }
                    let value = self.module.add_arg(region, ty);
                    self.module.set_name(value, &input.name.text);
                    self.module.inputs.push(Input { name: input.name.text.clone(), value });
                    Value::Tensor(value)
                }
                Err(Reported) => {
                    // What is left to say is about this type, not about what has its axes.
                    frame.unsure.extend(input.ty.axes.iter().map(|axis| Axis::new(&axis.name.text)));
                    Value::Error
                }
            };
            frame.bind(&input.name, value, Origin::Input);
            self.note_bound(&frame, &input.name);
            self.note_axes(&frame, input.ty.axes.iter().map(|axis| &axis.name));
        }
        self.body(&mut frame, &model.body, model.name.at);
        if !self.problems.is_empty() {
            return;
        }
        if self.module.outputs.is_empty() {
            return self.report(NoOutput { at: model.name.at });
        }
        // What is given on request may be about the whole pass.
        self.check_causality(model);
        self.give_extras(&mut frame);
        let results = self.module.outputs.iter().map(|output| output.value).collect();
        self.module.region_mut(region).results = results;
        self.check_params();
    }

    /// An axis without a size, and without a `config` entry of its name, is as long as the input.
    fn input_type(&mut self, frame: &mut Frame, ty: &TypeExpr) -> Result<TensorType, Reported> {
        let dtype = self.dtype_of(&ty.dtype)?;
        let mut dims: Vec<Dim> = Vec::new();
        for axis in &ty.axes {
            let name = Axis::new(&axis.name.text);
            if dims.iter().any(|dim| dim.axis == name) {
                let first = ty.axes.iter().find(|first| first.name.text == axis.name.text);
                let first_at = first.map_or(axis.name.at, |first| first.name.at);
                self.report(AxisTwice { axis: name, at: axis.name.at, first_at });
                return Err(Reported);
            }
            let size = match &axis.size {
                Some(size) => {
                    let size = self.operand(frame, size);
                    self.size(&size, &format!("the size of `{name}`")).map(Size::Fixed).ok_or(Reported)?
                }
                None => match self.setting(frame, name.name()) {
                    Some(Value::Error) => return Err(Reported),
                    Some(value) => {
                        let operand = Operand { value, at: axis.name.at };
                        let entry_at = self.config.iter().find(|entry| entry.name == name.name()).map(|entry| entry.at);
                        let what = format!("the size of `{name}`");
                        self.size_of_entry(&operand, &what, entry_at).map(Size::Fixed).ok_or(Reported)?
                    }
                    None => frame.dims.get(&name).map_or(Size::Input(name.clone()), |dim| dim.size.clone()),
                },
            };
            dims.push(Dim::new(name, size));
        }
        Ok(TensorType::new(dtype, dims))
    }

    /// No two parameters under one path and layer, and none beyond counting.
    fn check_params(&mut self) {
        let mut seen: std::collections::BTreeMap<(&str, Option<u32>, u32), Span> = Default::default();
        let mut clashes = Vec::new();
        let mut total = 0u64;
        let mut too_large = None;
        for param in &self.module.params {
            let layers = param.layers.as_ref().map_or(1, |layers| layers.len() as u64);
            let experts = param.experts.map_or(1, |experts| u64::from(experts.count));
            let all = param.ty.elements().and_then(|one| one.checked_mul(layers)?.checked_mul(experts));
            match all.and_then(|all| total.checked_add(all)).filter(|total| *total < 1 << 60) {
                Some(sum) => total = sum,
                None => too_large = Some(ParamTooLarge { path: param.path.clone(), at: param.at }),
            }
            let first = param.experts.map_or(0, |experts| experts.first);
            let layers: Vec<Option<u32>> = match &param.layers {
                Some(layers) => layers.iter().copied().map(Some).collect(),
                None => vec![None],
            };
            for layer in layers {
                if let Some(first_at) = seen.insert((&param.path, layer, first), param.at) {
                    clashes.push(PathTwice { path: param.path.clone(), at: param.at, first_at });
                    break;
                }
            }
        }
        clashes.into_iter().for_each(|clash| self.report(clash));
        if let Some(problem) = too_large {
            self.report(problem);
        }
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("a model without an output")]
#[diagnostic(code(moec::sema::no_output), help("end it with `out logits: f32[S, V] = …`"))]
struct NoOutput {
    #[label("gives nothing")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("two parameters at `{path}`")]
#[diagnostic(
    code(moec::sema::path_twice),
    help("name the parts apart; of two `layers` over the same numbers, let one count with another name than `l`")
)]
struct PathTwice {
    path: String,
    #[label("again")]
    at: Span,
    #[label("first")]
    first_at: Span,
}
