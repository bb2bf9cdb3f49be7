//! What a model gives on request beside its outputs: `aux`, `trace`, and the next values of each `state`.

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{Output, RegionId, Role, ValueId};
use moec_syntax::tree::{AxisExpr, Expr, Name};
use moec_types::{BinaryOp, DType, TensorType};
use thiserror::Error;

use crate::{
    body::Reported,
    evaluator::{Evaluator, WrongKind},
    scope::{Frame, Origin},
    value::{Operand, Value},
};

/// The output that all aux are added up to.
const TOTAL: &str = "aux";

/// Which extras become outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Also {
    pub aux: bool,
    pub trace: bool,
    pub state: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraKind {
    Aux,
    Trace,
    /// The next value of a state.
    State,
    /// The sum of all aux, each by its coefficient.
    Total,
}

/// An output that is given on request.
#[derive(Clone, Debug, PartialEq)]
pub struct Extra {
    pub kind: ExtraKind,
    /// The name of the output: the path without the numbers of layers.
    pub output: String,
    /// Where it was written, or where its state lives: `layers[l].ffn.gate.b`.
    pub path: String,
    /// The layers that have one each, in the order of the axis `Layer`.
    pub layers: Option<Vec<u32>>,
}

/// An extra whose value still stands in some region.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub kind: ExtraKind,
    pub path: String,
    pub layers: Option<Vec<u32>>,
    pub value: ValueId,
    pub region: RegionId,
    pub at: Span,
}

impl Evaluator {
    /// Where something that the extra may speak of is wrong, what is to be said was said there. Gives how it was before.
    fn muted_where_broken(&mut self, frame: &Frame) -> bool {
        let broken = frame.names.iter().any(|bound| bound.value.is_error());
        let muted = self.muted;
        self.muted |= broken;
        muted
    }

    pub fn aux(&mut self, frame: &mut Frame, name: &Name, coefficient: Option<&Expr>, value: &Expr) {
        let muted = self.muted_where_broken(frame);
        self.weighed(frame, name, coefficient, value);
        self.muted = muted;
    }

    fn weighed(&mut self, frame: &mut Frame, name: &Name, coefficient: Option<&Expr>, value: &Expr) {
        let before = self.module.region(frame.region).nodes.len();
        let value = self.operand(frame, value);
        let coefficient = coefficient.map(|coefficient| self.operand(frame, coefficient));
        let Some((value, at)) = self.materialise(frame, &value) else { return };
        self.found(frame, ExtraKind::Aux, name, value);
        if let Some(coefficient) = coefficient {
            let by = (coefficient.value.clone(), coefficient.at);
            let weighed =
                self.binary_op(frame, BinaryOp::Mul, coefficient, Operand { value: Value::Tensor(value), at }, name.at);
            match &weighed {
                Value::Tensor(weighed) if *self.module.tensor(*weighed) == TensorType::scalar(DType::F32) => {
                    self.found(frame, ExtraKind::Total, name, *weighed);
                }
                Value::Error => {}
                other => {
                    let (found, coefficient) = (other.describe(&self.module), by.0.describe(&self.module));
                    self.report(AuxNotOneNumber { found, coefficient, at, coefficient_at: by.1 });
                }
            }
        }
        self.forget_unless(self.also.aux, frame, before);
    }

    pub fn trace(&mut self, frame: &mut Frame, name: &Name, value: &Expr) {
        let muted = self.muted_where_broken(frame);
        let before = self.module.region(frame.region).nodes.len();
        let value = self.operand(frame, value);
        if let Some((value, _)) = self.materialise(frame, &value) {
            self.found(frame, ExtraKind::Trace, name, value);
        }
        self.forget_unless(self.also.trace, frame, before);
        self.muted = muted;
    }

    /// Declares the state.
    pub fn kept_state(&mut self, frame: &mut Frame, name: &Name, axes: &[AxisExpr], initial: &Expr, at: Span) {
        if self.already_named(frame, name) {
            return;
        }
        let ty = self.tensor_type_of(frame, DType::F32, axes);
        let initial = self.operand(frame, initial);
        let value = match (&initial.value, ty) {
            (Value::Int(initial), Ok(ty)) => {
                self.own_param(frame, name, axes, ty, Role::State { initial: *initial as f32 }, at)
            }
            (Value::Float(initial), Ok(ty)) => {
                self.own_param(frame, name, axes, ty, Role::State { initial: *initial as f32 }, at)
            }
            (Value::Error, _) | (_, Err(Reported)) => Value::Error,
            (other, Ok(_)) => {
                let found = other.describe(&self.module);
                let who = format!("the state `{}`", name.text);
                let help =
                    Some("it begins as one number everywhere; its tensor in the weights may say more".to_owned());
                self.fail(WrongKind { who, wants: "a number known now to begin with", found, at: initial.at, help })
            }
        };
        frame.bind(name, value, Origin::Param);
    }

    /// What a state becomes in the next step.
    pub fn state_steps(&mut self, frame: &mut Frame, name: &Name, next: &Expr) {
        let before = self.module.region(frame.region).nodes.len();
        let muted = self.muted_where_broken(frame);
        let state = frame.bound(&name.text).map(|bound| bound.value.clone());
        let next = self.operand(frame, next);
        if let (Some(Value::Tensor(state)), Some((next, next_at))) = (state, self.materialise(frame, &next)) {
            self.next_state(frame, name, state, next, next_at);
        }
        self.forget_unless(self.also.state, frame, before);
        self.muted = muted;
    }

    fn next_state(&mut self, frame: &mut Frame, name: &Name, state: ValueId, next: ValueId, next_at: Span) {
        let (is, becomes) = (self.module.tensor(state).clone(), self.module.tensor(next).clone());
        if becomes.dtype != is.dtype || !becomes.dims.iter().all(|dim| is.dims.contains(dim)) {
            let (name, is, becomes) = (name.text.clone(), is.to_string(), becomes.to_string());
            return self.report(StateChanges { name, is, becomes, at: next_at });
        }
        let path = frame.part.path_of(&name.text);
        let twice = self.found.iter().find(|found| found.kind == ExtraKind::State && found.path == path);
        if let Some(first) = twice.filter(|first| first.region == frame.region) {
            let first_at = first.at;
            return self.report(StateTwice { path, at: next_at, first_at });
        }
        if let Value::Tensor(next) = self.reorder(frame, next, &is.dims, next_at) {
            self.found(frame, ExtraKind::State, name, next);
        }
    }

    fn found(&mut self, frame: &Frame, kind: ExtraKind, name: &Name, value: ValueId) {
        if frame.part.experts.is_some() {
            return self.report(ExtraInExpert { name: name.text.clone(), at: name.at });
        }
        let wanted = match kind {
            ExtraKind::Aux | ExtraKind::Total => self.also.aux,
            ExtraKind::Trace => self.also.trace,
            ExtraKind::State => self.also.state,
        };
        if wanted {
            let path = frame.part.path_of(&name.text);
            self.found.push(Found { kind, path, layers: None, value, region: frame.region, at: name.at });
        }
    }

    /// What is not asked for is checked, and leaves nothing behind: no name stands for these nodes.
    fn forget_unless(&mut self, wanted: bool, frame: &Frame, before: usize) {
        if !wanted {
            self.module.region_mut(frame.region).nodes.truncate(before);
        }
    }

    /// The extras of a layer's region, to be compared with those of other layers.
    pub fn found_since(&self, first: usize, region: RegionId) -> Vec<Found> {
        self.found[first..].iter().filter(|found| found.region == region).cloned().collect()
    }

    /// Makes the outputs of all extras; the last thing in a model.
    pub fn give_extras(&mut self, frame: &mut Frame) {
        let mut total: Option<ValueId> = None;
        for found in std::mem::take(&mut self.found) {
            if found.region != frame.region {
                let name = found.path;
                self.report(ExtraOutOfReach { name, at: found.at });
                continue;
            }
            if found.kind == ExtraKind::Total {
                total = match total {
                    None => Some(found.value),
                    Some(total) => self.sum(frame, total, found.value, found.at),
                };
                continue;
            }
            let Some(value) = self.positions_first(frame, found.value, found.at) else { continue };
            let output = self.free_output(&without_numbers(&found.path));
            self.module.outputs.push(Output { name: output.clone(), value });
            self.extras.push(Extra { kind: found.kind, output, path: found.path, layers: found.layers });
        }
        if let Some(value) = total {
            let output = self.free_output(TOTAL);
            self.module.outputs.push(Output { name: output.clone(), value });
            self.extras.push(Extra { kind: ExtraKind::Total, path: output.clone(), output, layers: None });
        }
    }

    /// A part that is used several times has one for each use.
    fn free_output(&self, name: &str) -> String {
        let taken = |name: &str| self.module.outputs.iter().any(|output| output.name == name);
        let numbered = (2..).map(|number| format!("{name}.{number}"));
        std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken(name)).expect("numbers do not end")
    }

    /// At the boundary the axis of the positions is the first.
    fn positions_first(&mut self, frame: &mut Frame, value: ValueId, at: Span) -> Option<ValueId> {
        let mut dims = self.module.tensor(value).dims.clone();
        dims.sort_by_key(|dim| dim.size.fixed().is_some());
        match self.reorder(frame, value, &dims, at) {
            Value::Tensor(value) => Some(value),
            _ => None,
        }
    }

    pub fn sum(&mut self, frame: &mut Frame, a: ValueId, b: ValueId, at: Span) -> Option<ValueId> {
        let operand = |value| Operand { value: Value::Tensor(value), at };
        match self.binary_op(frame, BinaryOp::Add, operand(a), operand(b), at) {
            Value::Tensor(value) => Some(value),
            _ => None,
        }
    }
}

/// `layers[l].ffn.gate.balance` -> `layers.ffn.gate.balance`
fn without_numbers(path: &str) -> String {
    let mut depth = 0;
    let outside = |letter: &char| {
        depth += i32::from(*letter == '[');
        let keep = depth == 0;
        depth -= i32::from(*letter == ']');
        keep
    };
    path.chars().filter(outside).collect()
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` stands in an expert")]
#[diagnostic(
    code(moec::sema::extra_in_expert),
    help("an expert sees only the rows that came to it: write it in the gate, or where the `moe` layer is used")
)]
struct ExtraInExpert {
    name: String,
    #[label("evaluated for each expert")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` cannot be given")]
#[diagnostic(
    code(moec::sema::extra_out_of_reach),
    help("it stands in something that is evaluated position by position: write it outside of that")
)]
struct ExtraOutOfReach {
    name: String,
    #[label("evaluated many times")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("an aux with a coefficient is one number")]
#[diagnostic(
    code(moec::sema::aux_not_one_number),
    help("add it up, or take the mean: `mean(x over S)`; or leave the coefficient out")
)]
struct AuxNotOneNumber {
    found: String,
    coefficient: String,
    #[label("this times the coefficient is {found}")]
    at: Span,
    #[label("the coefficient is {coefficient}")]
    coefficient_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the state `{name}` is {is} and would become {becomes}")]
#[diagnostic(code(moec::sema::state_changes), help("a state keeps its type from step to step"))]
struct StateChanges {
    name: String,
    is: String,
    becomes: String,
    #[label("this is {becomes}")]
    at: Span,
}

/// A part of outside layers, used in them: which of the layers' values would be the next?
#[derive(Debug, Error, Diagnostic)]
#[error("the state `{path}` would be given a next value by every layer")]
#[diagnostic(
    code(moec::sema::state_of_all_layers),
    help("make the part in the layers: then each layer has its own state")
)]
pub(crate) struct StateOfAllLayers {
    pub path: String,
    #[label("one for all layers")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the state `{path}` would be given two next values in one step")]
#[diagnostic(code(moec::sema::state_twice), help("its part is used twice: make two parts, each with its own state"))]
struct StateTwice {
    path: String,
    #[label("again")]
    at: Span,
    #[label("first")]
    first_at: Span,
}
