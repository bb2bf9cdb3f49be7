//! Parameters: where they live, how long their axes are, and which share another's tensor.

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    Param, ParamId, Role,
    ops::{Contract, Op, ParamRef, Stack},
};
use moec_syntax::tree::{AxisExpr, Expr, Name};
use moec_types::{Axis, DType, Dim, Size, TensorType};
use thiserror::Error;

use crate::{
    body::Reported,
    evaluator::{Evaluator, Shared, WrongKind},
    scope::{Frame, Origin, Parameters},
    value::{Operand, Value},
};

impl Evaluator {
    pub fn param(&mut self, frame: &mut Frame, name: &Name, axes: &[AxisExpr], shared: Option<&Expr>, at: Span) {
        if self.already_named(frame, name) {
            return;
        }
        let ty = self.tensor_type_of(frame, DType::F32, axes);
        let shared =
            shared.map(|expr| self.operand(frame, expr)).filter(|shared| !matches!(shared.value, Value::Nothing));
        let value = match (shared, ty) {
            (Some(shared), Ok(ty)) => self.shared_param(frame, name, &ty, shared),
            (None, Ok(ty)) => self.own_param(frame, name, axes, ty, Role::Trained, at),
            (_, Err(Reported)) => Value::Error,
        };
        frame.bind(name, value, Origin::Param);
    }

    /// `buffer T[V]` is a parameter; `buffer T[V] = expression` is computed.
    pub fn buffer(&mut self, frame: &mut Frame, name: &Name, axes: &[AxisExpr], value: Option<&Expr>, at: Span) {
        if self.already_named(frame, name) {
            return;
        }
        let ty = self.tensor_type_of(frame, DType::F32, axes);
        let computed = value.map(|value| self.operand(frame, value));
        let value = match (computed, ty) {
            (None, Ok(ty)) => self.own_param(frame, name, axes, ty, Role::Buffer, at),
            (Some(computed), Ok(ty)) => self.constant(frame, name, &ty, computed),
            (_, Err(Reported)) => Value::Error,
        };
        frame.bind(name, value, Origin::Param);
    }

    /// A computed value with the axes declared; it may lack some, along which it is constant.
    fn constant(&mut self, frame: &mut Frame, name: &Name, ty: &TensorType, computed: Operand) -> Value {
        let at = computed.at;
        let computed = Operand { value: self.cast(frame, DType::F32, computed, at), at };
        let Some((value, value_at)) = self.materialise(frame, &computed) else { return Value::Error };
        let found = self.module.tensor(value);
        if !found.dims.iter().all(|dim| ty.dims.contains(dim)) {
            let (name, declared, found) = (name.text.clone(), ty.to_string(), found.to_string());
            return self.fail(BufferDiffers { name, declared, found, at: value_at });
        }
        let value = self.reorder(frame, value, &ty.dims.clone(), value_at);
        self.call_it(&value, &name.text);
        value
    }

    pub fn own_param(
        &mut self,
        frame: &mut Frame,
        name: &Name,
        axes: &[AxisExpr],
        ty: TensorType,
        role: Role,
        at: Span,
    ) -> Value {
        if ty.elements().is_none() {
            return match ty.dims.iter().find(|dim| dim.size.fixed().is_none()) {
                Some(dim) => {
                    let axis = axes.iter().find(|axis| frame.axis(&axis.name.text) == dim.axis);
                    let at = axis.map_or(name.at, |axis| axis.name.at);
                    self.fail(SymbolicParam { name: name.text.clone(), axis: dim.axis.clone(), at })
                }
                None => self.fail(ParamTooLarge { path: frame.part.path_of(&name.text), at: name.at }),
            };
        }
        let known = frame.part.params.borrow().get(&name.text).copied();
        let param = match known {
            Some(param) if self.module.param(param).ty == ty => param,
            Some(param) => {
                let first = self.module.param(param).ty.to_string();
                let used_at = self.calls.last().map(|call| call.at);
                return self.fail(ParamTwoTypes {
                    name: name.text.clone(),
                    first,
                    second: ty.to_string(),
                    at,
                    used_at,
                });
            }
            None => {
                let part = &frame.part;
                let param = self.module.add_param(Param {
                    path: part.path_of(&name.text),
                    ty,
                    layers: part.layer.map(|layer| vec![layer]),
                    experts: part.experts,
                    storage: DType::F32,
                    role,
                    at: name.at,
                });
                part.params.borrow_mut().insert(name.text.clone(), param);
                param
            }
        };
        let value = self.param_value(frame, param, name.at);
        self.call_it(&value, &name.text);
        value
    }

    /// A parameter of the body's own part, as the body sees it.
    pub fn param_value(&mut self, frame: &mut Frame, param: ParamId, at: Span) -> Value {
        match frame.params.clone() {
            Parameters::Own => self.emit1(frame, ParamRef { param }, &[], at),
            Parameters::Stacked(axis) => self.emit1(frame, Stack { param, axis }, &[], at),
            Parameters::Merged { weights, axis } => {
                match self.emit1(frame, Stack { param, axis: axis.clone() }, &[], at) {
                    Value::Tensor(all) => self.emit1(frame, Contract { over: vec![axis] }, &[weights, (all, at)], at),
                    _ => Value::Error,
                }
            }
        }
    }

    /// `param head[V, D] = if tied { table }`: another parameter under a second name, or a number instead of a parameter.
    fn shared_param(&mut self, frame: &mut Frame, name: &Name, ty: &TensorType, shared: Operand) -> Value {
        match shared.value {
            Value::Error => Value::Error,
            Value::Int(value) => Value::Float(value as f64),
            Value::Float(value) => Value::Float(value),
            Value::Tensor(value) => {
                let Some(Op::ParamRef(ParamRef { param })) = self.module.producer(value).map(|node| &node.op) else {
                    let found = self.module.tensor(value).to_string();
                    return self.fail(NotAParam { name: name.text.clone(), found, at: shared.at });
                };
                let param = *param;
                let found = &self.module.param(param).ty;
                let same = found.dims.len() == ty.dims.len() && ty.dims.iter().all(|dim| found.dims.contains(dim));
                if !same {
                    let (found, declared) = (found.to_string(), ty.to_string());
                    return self.fail(SharedDiffers {
                        name: name.text.clone(),
                        declared,
                        found,
                        at: name.at,
                        shared_at: shared.at,
                    });
                }
                self.shared.push(Shared { path: frame.part.path_of(&name.text), layer: frame.part.layer, param });
                Value::Tensor(value)
            }
            other => {
                let found = other.describe(&self.module);
                let who = format!("`{}`", name.text);
                self.fail(WrongKind {
                    who,
                    wants: "another parameter or a number after `=`",
                    found,
                    at: shared.at,
                    help: None,
                })
            }
        }
    }

    /// `f32[S, V]` with every size found.
    pub fn tensor_type_of(
        &mut self,
        frame: &mut Frame,
        dtype: DType,
        axes: &[AxisExpr],
    ) -> Result<TensorType, Reported> {
        let mut dims: Vec<Dim> = Vec::new();
        let mut sound = true;
        for axis in axes {
            let name = frame.axis(&axis.name.text);
            if dims.iter().any(|dim| dim.axis == name) {
                let first = axes.iter().find(|first| frame.axis(&first.name.text) == name);
                let first_at = first.map_or(axis.name.at, |first| first.name.at);
                self.report(AxisTwice { axis: name, at: axis.name.at, first_at });
                sound = false;
                continue;
            }
            match self.axis_size(frame, axis) {
                Ok(size) => {
                    let dim = Dim::new(name.clone(), size);
                    frame.declared.entry(name.clone()).or_insert_with(|| dim.clone());
                    frame.dims.insert(name, dim.clone());
                    dims.push(dim);
                }
                Err(Reported) => {
                    frame.unsure.insert(name);
                    sound = false;
                }
            }
        }
        if sound { Ok(TensorType::new(dtype, dims)) } else { Err(Reported) }
    }

    /// The size written, else that of the argument of this name, of `x`, of the `config` entry, of any value seen so far.
    fn axis_size(&mut self, frame: &mut Frame, axis: &AxisExpr) -> Result<Size, Reported> {
        if let Some(size) = &axis.size {
            let size = self.operand(frame, size);
            let what = format!("the size of `{}`", axis.name.text);
            return self.size(&size, &what).map(Size::Fixed).ok_or(Reported);
        }
        if let Some(size) = self.named_size(frame, &axis.name)? {
            return Ok(Size::Fixed(size));
        }
        let name = frame.axis(&axis.name.text);
        if frame.dims.contains_key(&name) || frame.unsure.contains(&name) {
            return self.known_dim(frame, &name, axis.name.at).map(|dim| dim.size).ok_or(Reported);
        }
        let help = format!("write it, `{} = 8`, or make `{0}` a `config` entry", axis.name.text);
        self.unknown_axis(frame, &name, axis.name.at, Some(help));
        Err(Reported)
    }

    /// The size that goes with an axis' name, where it is known now.
    pub fn named_size(&mut self, frame: &Frame, name: &Name) -> Result<Option<u64>, Reported> {
        let what = format!("the size of `{}`", name.text);
        if let Some(bound) = frame.bound(&name.text)
            && let Value::Int(_) = bound.value
        {
            let operand = Operand { value: bound.value.clone(), at: name.at };
            return self.size(&operand, &what).map(Some).ok_or(Reported);
        }
        let axis = frame.axis(&name.text);
        let of_x = frame.x.as_ref().and_then(|x| x.tensor_type(&self.module)).and_then(|ty| ty.dim(&axis));
        if let Some(size) = of_x.and_then(|dim| dim.size.fixed()) {
            return Ok(Some(size));
        }
        match self.setting(frame, axis.name()) {
            Some(Value::Error) => return Err(Reported),
            Some(value @ Value::Int(_)) => {
                let entry_at = self.config.iter().find(|entry| entry.name == axis.name()).map(|entry| entry.at);
                let operand = Operand { value, at: name.at };
                return self.size_of_entry(&operand, &what, entry_at).map(Some).ok_or(Reported);
            }
            Some(_) | None => {}
        }
        let dim = frame.declared.get(&axis).or_else(|| frame.dims.get(&axis));
        Ok(dim.and_then(|dim| dim.size.fixed()))
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("the buffer `{name}` is declared {declared} and is {found}")]
#[diagnostic(code(moec::sema::buffer_differs), help("it may have only the axes declared"))]
struct BufferDiffers {
    name: String,
    declared: String,
    found: String,
    #[label("this is {found}")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the parameter `{name}` cannot be as long as the input")]
#[diagnostic(code(moec::sema::symbolic_param), help("write a size: `{axis} = 128`"))]
struct SymbolicParam {
    name: String,
    axis: Axis,
    #[label("`{axis}` is known only at run time")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the parameter `{path}` is too large")]
#[diagnostic(code(moec::sema::param_too_large), help("make one of its axes smaller"))]
pub(crate) struct ParamTooLarge {
    pub path: String,
    #[label("its number of elements does not fit in 60 bits")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the parameter `{name}` would be {first} in one use and {second} in another")]
#[diagnostic(
    code(moec::sema::param_two_types),
    help("a part that is used twice has one set of parameters: make two parts")
)]
struct ParamTwoTypes {
    name: String,
    first: String,
    second: String,
    #[label("{first}, until now")]
    at: Span,
    #[label("would make it {second}")]
    used_at: Option<Span>,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` can share a parameter, not a computed tensor")]
#[diagnostic(code(moec::sema::not_a_param), help("after `=` stands the name of another `param`, or a number"))]
struct NotAParam {
    name: String,
    found: String,
    #[label("this {found} is computed")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` is declared {declared} and shares {found}")]
#[diagnostic(
    code(moec::sema::shared_differs),
    help("a shared parameter has the axes of the one it shares: {found}; `rename` its axes where it is used")
)]
struct SharedDiffers {
    name: String,
    declared: String,
    found: String,
    #[label("declared {declared}")]
    at: Span,
    #[label("this is {found}")]
    shared_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("two axes named `{axis}`")]
#[diagnostic(code(moec::sema::axis_twice), help("name one of them differently: a tensor's axes have distinct names"))]
pub(crate) struct AxisTwice {
    pub axis: Axis,
    #[label("again")]
    pub at: Span,
    #[label("first")]
    pub first_at: Span,
}
