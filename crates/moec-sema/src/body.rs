//! Bodies: the statements of a function, block, gate, layer or model, in order.

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    Output, Param,
    ops::{Iota, Map, Op, ParamRef},
};
use moec_syntax::tree::{AxisExpr, Expr, Name, Pattern, Statement, StatementKind, TypeExpr};
use moec_types::{Axis, DType, Dim, Expr as Scalar, Size, TensorType};
use thiserror::Error;

use crate::{
    evaluator::{Evaluator, Shared, WrongKind},
    scope::{BodyKind, Frame, Origin},
    spelling::did_you_mean,
    value::{Operand, Part, PartOf, Value},
};

/// The problem has been reported.
#[derive(Debug)]
pub(crate) struct Reported;

impl Evaluator {
    /// What a body gives: its `out`, or its `route`. `at` is the name of what is defined.
    pub fn body(&mut self, frame: &mut Frame, statements: &[Statement], at: Span) -> Value {
        let mut result: Option<(Value, Span)> = None;
        let mut sound = true;
        for statement in statements {
            if self.stopped {
                return Value::Error;
            }
            if let Some(what) = misplaced(&statement.kind, frame.kind) {
                self.report(Misplaced {
                    what,
                    body: frame.kind.name(),
                    at: statement.at,
                    help: help_of(&statement.kind),
                });
                if let StatementKind::Param { name, .. } | StatementKind::Part { name, .. } = &statement.kind {
                    frame.bind(name, Value::Error, Origin::Param);
                }
                sound = false;
                continue;
            }
            match &statement.kind {
                StatementKind::Param { name, axes, shared } => {
                    self.param(frame, name, axes, shared.as_ref(), statement.at)
                }
                StatementKind::Part { name, value } => self.part(frame, name, value),
                StatementKind::Let { pattern, value } => self.let_value(frame, pattern, value),
                StatementKind::Assign { name, value } => self.assign(frame, name, value),
                StatementKind::Route { value } | StatementKind::Out { value, name: _, ty: _ }
                    if frame.kind != BodyKind::Model =>
                {
                    let value = self.operand(frame, value);
                    if let Some((_, first_at)) = result {
                        self.report(TwoResults { at: statement.at, first_at });
                        continue;
                    }
                    result = Some((value.value, value.at));
                }
                StatementKind::Route { value } => {
                    self.eval(frame, value);
                }
                StatementKind::Out { name, ty, value } => {
                    self.output(frame, name.as_ref(), ty.as_ref(), value, statement.at)
                }
                StatementKind::Layers { index, from, to, body } => {
                    self.layers(frame, index, from, to, body, statement.at)
                }
            }
        }
        match (result, frame.kind) {
            (_, BodyKind::Model | BodyKind::Layer | BodyKind::Config) => Value::Nothing,
            (Some((value, at)), BodyKind::Gate) => {
                self.only(value, at, matches_route, "a gate", "a route: `route tokens(indices, weights)`")
            }
            (Some((value, at)), BodyKind::Block) => {
                self.only(value, at, matches_tensor, "the result of a block", "a tensor")
            }
            (Some((value, _)), BodyKind::Fn) => value,
            (None, kind) => {
                if sound {
                    let wants = if kind == BodyKind::Gate { "route" } else { "out" };
                    self.report(NoResult { body: kind.name(), wants, at });
                }
                Value::Error
            }
        }
    }

    fn only(&mut self, value: Value, at: Span, fits: fn(&Value) -> bool, who: &str, wants: &'static str) -> Value {
        if fits(&value) || value.is_error() {
            return value;
        }
        let found = value.describe(&self.module);
        self.fail(WrongKind { who: who.to_owned(), wants, found, at, help: None })
    }

    fn param(&mut self, frame: &mut Frame, name: &Name, axes: &[AxisExpr], shared: Option<&Expr>, at: Span) {
        if self.already_named(frame, name) {
            return;
        }
        let ty = self.tensor_type_of(frame, DType::F32, axes);
        let shared =
            shared.map(|expr| self.operand(frame, expr)).filter(|shared| !matches!(shared.value, Value::Nothing));
        let value = match (shared, ty) {
            (Some(shared), Ok(ty)) => self.shared_param(frame, name, &ty, shared),
            (None, Ok(ty)) => self.own_param(frame, name, ty, at),
            (_, Err(Reported)) => Value::Error,
        };
        frame.bind(name, value, Origin::Param);
    }

    fn own_param(&mut self, frame: &mut Frame, name: &Name, ty: TensorType, at: Span) -> Value {
        if ty.elements().is_none() {
            return match ty.dims.iter().find(|dim| dim.size.fixed().is_none()) {
                Some(dim) => self.fail(SymbolicParam { name: name.text.clone(), axis: dim.axis.clone(), at: name.at }),
                None => self.fail(ParamTooLarge { path: frame.part.path_of(&name.text), at: name.at }),
            };
        }
        let known = frame.part.params.borrow().get(&name.text).copied();
        let param = match known {
            Some(param) if self.module.param(param).ty == ty => param,
            Some(param) => {
                let first = self.module.param(param).ty.to_string();
                return self.fail(ParamTwoTypes { name: name.text.clone(), first, second: ty.to_string(), at });
            }
            None => {
                let part = &frame.part;
                let param = self.module.add_param(Param {
                    path: part.path_of(&name.text),
                    ty,
                    layers: part.layer.map(|layer| vec![layer]),
                    experts: part.experts,
                    storage: DType::F32,
                    at: name.at,
                });
                part.params.borrow_mut().insert(name.text.clone(), param);
                param
            }
        };
        let value = self.emit1(frame, ParamRef { param }, &[], name.at);
        self.call_it(&value, &name.text);
        value
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
    fn tensor_type_of(&mut self, frame: &mut Frame, dtype: DType, axes: &[AxisExpr]) -> Result<TensorType, Reported> {
        let mut dims: Vec<Dim> = Vec::new();
        let mut sound = true;
        for axis in axes {
            let name = frame.axis(&axis.name.text);
            if dims.iter().any(|dim| dim.axis == name) {
                self.report(AxisTwice { axis: name, at: axis.name.at });
                sound = false;
                continue;
            }
            match self.axis_size(frame, axis) {
                Ok(size) => {
                    let dim = Dim::new(name.clone(), size);
                    frame.dims.insert(name, dim.clone());
                    dims.push(dim);
                }
                Err(Reported) => sound = false,
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
        self.known_dim(frame, &name, axis.name.at).map(|dim| dim.size).ok_or(Reported)
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
                return self.size(&Operand { value, at: name.at }, &what).map(Some).ok_or(Reported);
            }
            Some(_) | None => {}
        }
        Ok(frame.dims.get(&axis).and_then(|dim| dim.size.fixed()))
    }

    fn part(&mut self, frame: &mut Frame, name: &Name, value: &Expr) {
        if self.already_named(frame, name) {
            return;
        }
        let of = match self.eval(frame, value) {
            Value::Error => None,
            Value::Template(template) if template.kind != moec_syntax::tree::DefinitionKind::Gate => {
                Some(PartOf::Block(template))
            }
            Value::Moe(moe) => Some(PartOf::Moe(moe)),
            other => {
                let found = other.describe(&self.module);
                let help = matches!(other, Value::Template(_))
                    .then(|| "a gate stands in a layer: `moe { gate …; experts … }`".to_owned());
                self.report(WrongKind {
                    who: "`part`".into(),
                    wants: "a block, an expert or a `moe` layer",
                    found,
                    at: value.at,
                    help,
                });
                None
            }
        };
        let value = match of {
            Some(of) => {
                let (layer, experts) = (frame.part.layer, frame.part.experts);
                Value::Part(frame.part.child(&name.text, |path| Part::new(path, layer, experts, of)))
            }
            None => Value::Error,
        };
        frame.bind(name, value, Origin::Part);
    }

    fn let_value(&mut self, frame: &mut Frame, pattern: &Pattern, value: &Expr) {
        let operand = self.operand(frame, value);
        match pattern {
            Pattern::Name(name) => {
                if !self.already_named(frame, name) {
                    self.call_it(&operand.value, &name.text);
                    let value = self.something(operand);
                    frame.bind(name, value, Origin::Let);
                }
            }
            Pattern::Tuple(names, at) => {
                let values: Vec<Value> = match &operand.value {
                    Value::Tuple(items) if items.len() == names.len() => {
                        items.iter().map(|(_, value)| value.clone()).collect()
                    }
                    Value::Error => vec![Value::Error; names.len()],
                    other => {
                        let found = other.describe(&self.module);
                        self.report(NotATuple { wants: names.len(), found, at: *at, value_at: operand.at });
                        vec![Value::Error; names.len()]
                    }
                };
                for (name, value) in names.iter().zip(values) {
                    let Some(name) = name else { continue };
                    if !self.already_named(frame, name) {
                        self.call_it(&value, &name.text);
                        frame.bind(name, value, Origin::Let);
                    }
                }
            }
        }
    }

    fn something(&mut self, operand: Operand) -> Value {
        match operand.value {
            Value::Nothing => {
                let (who, found) = ("`let`".to_owned(), Value::Nothing.describe(&self.module));
                let help = Some("add an `else { … }`".to_owned());
                self.fail(WrongKind { who, wants: "a value", found, at: operand.at, help })
            }
            value => value,
        }
    }

    fn assign(&mut self, frame: &mut Frame, name: &Name, value: &Expr) {
        let value = self.operand(frame, value);
        let value = self.something(value);
        match frame.names.iter().rposition(|bound| bound.name == name.text) {
            Some(at) if frame.names[at].origin == Origin::Let => {
                self.call_it(&value, &name.text);
                frame.names[at].value = value;
            }
            Some(at) => {
                let bound = &frame.names[at];
                let (is, first_at) = (bound.origin.name(), (bound.at != Span::NONE).then_some(bound.at));
                self.report(NotAssignable { name: name.text.clone(), is, at: name.at, first_at });
            }
            None => {
                let lets =
                    frame.names.iter().filter(|bound| bound.origin == Origin::Let).map(|bound| bound.name.as_str());
                let help = did_you_mean(&name.text, lets)
                    .unwrap_or_else(|| format!("introduce it with `let {} = …`", name.text));
                self.report(AssignsNothing { name: name.text.clone(), at: name.at, help });
                frame.bind(name, Value::Error, Origin::Let);
            }
        }
    }

    /// Names a tensor in the IR's text.
    fn call_it(&mut self, value: &Value, name: &str) {
        if let Value::Tensor(value) | Value::Route(value) = value
            && self.module.name_of(*value).is_none()
        {
            self.module.set_name(*value, name);
        }
    }

    fn output(&mut self, frame: &mut Frame, name: Option<&Name>, ty: Option<&TypeExpr>, value: &Expr, at: Span) {
        let declared = ty.map(|ty| self.declared_type(frame, ty));
        let operand = self.operand(frame, value);
        let Some((value, value_at)) = self.materialise(frame, &operand) else { return };
        let name = name.map_or("out", |name| name.text.as_str());
        if self.module.outputs.iter().any(|output| output.name == name) {
            return self.report(OutputTwice { name: name.to_owned(), at });
        }
        let value = match declared {
            None => value,
            Some(Err(Reported)) => return,
            Some(Ok(declared)) => {
                let found = self.module.tensor(value).clone();
                if found.dtype != declared.dtype
                    || found.dims.len() != declared.dims.len()
                    || !declared.dims.iter().all(|dim| found.dims.contains(dim))
                {
                    let (declared, found) = (declared.to_string(), found.to_string());
                    let ty_at = ty.map_or(at, |ty| ty.at);
                    return self.report(OutputDiffers { name: name.to_owned(), declared, found, ty_at, value_at });
                }
                match self.reorder(frame, value, &declared.dims, value_at) {
                    Value::Tensor(value) => value,
                    _ => return,
                }
            }
        };
        self.module.outputs.push(Output { name: name.to_owned(), value });
    }

    /// A type that the author wrote.
    pub fn declared_type(&mut self, frame: &mut Frame, ty: &TypeExpr) -> Result<TensorType, Reported> {
        let dtype = self.dtype_of(&ty.dtype);
        let tensor = self.tensor_type_of(frame, DType::F32, &ty.axes)?;
        Ok(TensorType::new(dtype?, tensor.dims))
    }

    pub fn dtype_of(&mut self, name: &Name) -> Result<DType, Reported> {
        match name.text.as_str() {
            "f32" => Ok(DType::F32),
            "i32" => Ok(DType::I32),
            "bool" => Ok(DType::Bool),
            other => {
                let help = did_you_mean(other, ["f32", "i32", "bool"])
                    .unwrap_or_else(|| "there are `f32`, `i32` and `bool`".into());
                self.report(UnknownDType { name: other.to_owned(), at: name.at, help });
                Err(Reported)
            }
        }
    }

    /// The same tensor with its axes in this order, where order reaches the outside. `map` orders axes as its operands bring
    /// them, so positions along each axis go first.
    pub fn reorder(&mut self, frame: &mut Frame, value: moec_ir::ValueId, dims: &[Dim], at: Span) -> Value {
        if self.module.tensor(value).dims == dims {
            return Value::Tensor(value);
        }
        let mut operands = Vec::new();
        for dim in dims {
            match self.emit1(frame, Iota { dim: dim.clone() }, &[], at) {
                Value::Tensor(positions) => operands.push((positions, at)),
                _ => return Value::Error,
            }
        }
        operands.push((value, at));
        self.emit1(frame, Map { expr: Scalar::Arg(dims.len()) }, &operands, at)
    }
}

fn matches_route(value: &Value) -> bool {
    matches!(value, Value::Route(_))
}

fn matches_tensor(value: &Value) -> bool {
    matches!(value, Value::Tensor(_))
}

/// What a statement is called, where it may not stand in such a body.
fn misplaced(statement: &StatementKind, body: BodyKind) -> Option<&'static str> {
    let (what, fits) = match statement {
        StatementKind::Param { .. } => ("`param`", body != BodyKind::Fn),
        StatementKind::Part { .. } => ("`part`", body != BodyKind::Fn),
        StatementKind::Let { .. } | StatementKind::Assign { .. } => ("`let`", true),
        StatementKind::Route { .. } => ("`route`", body == BodyKind::Gate),
        StatementKind::Out { .. } => ("`out`", matches!(body, BodyKind::Fn | BodyKind::Block | BodyKind::Model)),
        StatementKind::Layers { .. } => ("`layers`", body == BodyKind::Model),
    };
    (!fits).then_some(what)
}

fn help_of(statement: &StatementKind) -> &'static str {
    match statement {
        StatementKind::Param { .. } | StatementKind::Part { .. } => {
            "a `fn` has no parameters of its own: declare a `block`"
        }
        StatementKind::Route { .. } => "only a gate ends in a route",
        StatementKind::Out { .. } => "a gate ends in `route …`; layers hand on what they assign: `h = …`",
        StatementKind::Layers { .. } => "layers stand in the model itself, and not within each other",
        StatementKind::Let { .. } | StatementKind::Assign { .. } => "",
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("{what} cannot stand in {body}")]
#[diagnostic(code(moec::sema::misplaced), help("{help}"))]
struct Misplaced {
    what: &'static str,
    body: &'static str,
    #[label("not here")]
    at: Span,
    help: &'static str,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{body} has one result")]
#[diagnostic(code(moec::sema::no_result), help("end it with `{wants} …`"))]
struct NoResult {
    body: &'static str,
    wants: &'static str,
    #[label("has no `{wants}`")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("a second result")]
#[diagnostic(code(moec::sema::two_results), help("a body has one result; make it a tuple, or drop one"))]
struct TwoResults {
    #[label("again")]
    at: Span,
    #[label("first")]
    first_at: Span,
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
#[diagnostic(code(moec::sema::param_too_large))]
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
    #[label("{second} here")]
    at: Span,
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
#[diagnostic(code(moec::sema::shared_differs))]
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
}

#[derive(Debug, Error, Diagnostic)]
#[error("{found} cannot be taken apart into {wants}")]
#[diagnostic(code(moec::sema::not_a_tuple))]
struct NotATuple {
    wants: usize,
    found: String,
    #[label("{wants} names")]
    at: Span,
    #[label("this is {found}")]
    value_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` is {is} and keeps its value")]
#[diagnostic(
    code(moec::sema::not_assignable),
    help("only what `let` introduced can be given a new value: `let {name}2 = {name}`")
)]
struct NotAssignable {
    name: String,
    is: &'static str,
    #[label("given a new value")]
    at: Span,
    #[label("named here")]
    first_at: Option<Span>,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` was not introduced")]
#[diagnostic(code(moec::sema::assigns_nothing), help("{help}"))]
struct AssignsNothing {
    name: String,
    #[label("not found")]
    at: Span,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("two outputs named `{name}`")]
#[diagnostic(code(moec::sema::output_twice), help("name each: `out logits: f32[S, V] = …`"))]
struct OutputTwice {
    name: String,
    #[label("again")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the output `{name}` is declared {declared} and is {found}")]
#[diagnostic(code(moec::sema::output_differs))]
struct OutputDiffers {
    name: String,
    declared: String,
    found: String,
    #[label("declared {declared}")]
    ty_at: Span,
    #[label("this is {found}")]
    value_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("no element type `{name}`")]
#[diagnostic(code(moec::sema::unknown_dtype), help("{help}"))]
struct UnknownDType {
    name: String,
    #[label("not found")]
    at: Span,
    help: String,
}
