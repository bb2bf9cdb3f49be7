//! Bodies: the statements of a function, block, gate, layer or model, in order.

use std::rc::Rc;

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    Output,
    ops::{Iota, Map},
};
use moec_syntax::tree::{DefinitionKind, Expr, Name, Pattern, Statement, StatementKind, TypeExpr};
use moec_types::{Axis, DType, Dim, Expr as Scalar, TensorType};
use thiserror::Error;

use crate::{
    evaluator::{Evaluator, WrongKind},
    scope::{BodyKind, Bound, Frame, Origin},
    spelling::{closest, did_you_mean, listed},
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
        // What follows `on step` may speak of all that the body computes.
        let mut steps: Vec<(&Name, &Expr)> = Vec::new();
        frame.declares = introduced(statements);
        for statement in statements {
            if self.stopped {
                return Value::Error;
            }
            if let Some(what) = misplaced(&statement.kind, frame.kind) {
                self.report(Misplaced {
                    what,
                    body: frame.kind.name(),
                    at: statement.at,
                    help: help_of(&statement.kind, frame.kind),
                });
                if let StatementKind::Param { name, .. }
                | StatementKind::Buffer { name, .. }
                | StatementKind::State { name, .. }
                | StatementKind::Part { name, .. } = &statement.kind
                {
                    frame.bind(name, Value::Error, Origin::Param);
                }
                sound = false;
                continue;
            }
            match &statement.kind {
                StatementKind::Param { name, axes, shared } => {
                    self.param(frame, name, axes, shared.as_ref(), statement.at)
                }
                StatementKind::Buffer { name, axes, value } => {
                    self.buffer(frame, name, axes, value.as_ref(), statement.at)
                }
                // Declared before the body was entered.
                StatementKind::State { .. } if frame.kind == BodyKind::Scan => {}
                StatementKind::State { name, axes, initial, next } => {
                    self.kept_state(frame, name, axes, initial, statement.at);
                    steps.extend(next.as_ref().map(|next| (name, next)));
                }
                StatementKind::Aux { name, coefficient, value } => self.aux(frame, name, coefficient.as_ref(), value),
                StatementKind::Trace { name, value } => self.trace(frame, name, value),
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
            self.note_statement(frame, statement);
        }
        for (name, next) in steps {
            self.state_steps(frame, name, next);
        }
        match (result, frame.kind) {
            (_, BodyKind::Model | BodyKind::Layer | BodyKind::Config) => Value::Nothing,
            (Some((value, at)), BodyKind::Gate) => {
                let help = "`tokens(indices, weights)` makes one: `route tokens(i, w)`";
                self.only(value, at, matches_route, "`route`", "a route", help)
            }
            (Some((value, at)), BodyKind::Block) => self.only(
                value,
                at,
                matches_tensor,
                "the result of a block",
                "a tensor",
                "what a block gives goes on as `x` does",
            ),
            (Some((value, _)), BodyKind::Fn | BodyKind::Scan) => value,
            (None, kind) => {
                if sound {
                    let wants = if kind == BodyKind::Gate { "route" } else { "out" };
                    self.report(NoResult { body: kind.name(), wants, at });
                }
                Value::Error
            }
        }
    }

    fn only(
        &mut self,
        value: Value,
        at: Span,
        fits: fn(&Value) -> bool,
        who: &str,
        wants: &'static str,
        help: &str,
    ) -> Value {
        if fits(&value) || value.is_error() {
            return value;
        }
        let found = value.describe(&self.module);
        self.fail(WrongKind { who: who.to_owned(), wants, found, at, help: Some(help.to_owned()) })
    }

    fn part(&mut self, frame: &mut Frame, name: &Name, value: &Expr) {
        if self.already_named(frame, name) {
            return;
        }
        let of = match self.eval(frame, value) {
            Value::Error => None,
            Value::Template(template) if template.kind == DefinitionKind::Gate => Some(PartOf::Gate(template)),
            Value::Template(template) => Some(PartOf::Block(template)),
            Value::Moe(moe) => Some(PartOf::Moe(moe)),
            Value::Bank(bank) => Some(PartOf::Bank(bank)),
            other => {
                let found = other.describe(&self.module);
                self.report(WrongKind {
                    who: "`part`".into(),
                    wants: "a block, an expert, a gate, a bank or a `moe` layer",
                    found,
                    at: value.at,
                    help: None,
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
            Some(at) if matches!(frame.names[at].origin, Origin::Let | Origin::State) => {
                self.call_it(&value, &name.text);
                frame.names[at].value = value;
            }
            Some(at) => {
                let bound = &frame.names[at];
                let (is, first_at) = (bound.origin.name(), (bound.at != Span::NONE).then_some(bound.at));
                self.report(NotAssignable { name: name.text.clone(), is, at: name.at, first_at });
            }
            None => {
                let assigned = |bound: &&Bound| matches!(bound.origin, Origin::Let | Origin::State);
                let lets = frame.names.iter().filter(assigned).map(|bound| bound.name.as_str());
                let help = did_you_mean(&name.text, lets)
                    .unwrap_or_else(|| format!("introduce it with `let {} = …`", name.text));
                self.report(AssignsNothing { name: name.text.clone(), at: name.at, help });
                frame.bind(name, Value::Error, Origin::Let);
            }
        }
    }

    /// Names a tensor in the IR's text.
    pub fn call_it(&mut self, value: &Value, name: &str) {
        if let Value::Tensor(value) | Value::Route(value) = value
            && self.module.name_of(*value).is_none()
        {
            self.module.set_name(*value, name);
        }
    }

    fn output(&mut self, frame: &mut Frame, name: Option<&Name>, ty: Option<&TypeExpr>, value: &Expr, at: Span) {
        let declared = ty.map(|ty| self.declared_type(frame, ty));
        let operand = self.operand(frame, value);
        let Some((value, value_at)) = self.materialise_for(frame, &operand, "`out`") else { return };
        // Without a name, what stands for it is the word `out`.
        let name_at = name.map_or(Span::new(at.start, at.start + 3), |name| name.at);
        let name = name.map_or("out", |name| name.text.as_str());
        if let Some((_, first_at)) = self.outputs_at.iter().find(|(known, _)| known == name) {
            let first_at = *first_at;
            return self.report(OutputTwice { name: name.to_owned(), at: name_at, first_at });
        }
        self.outputs_at.push((name.to_owned(), name_at));
        let value = match declared {
            None => value,
            Some(Err(Reported)) => return,
            Some(Ok(declared)) => {
                let found = self.module.tensor(value).clone();
                if found.dtype != declared.dtype
                    || found.dims.len() != declared.dims.len()
                    || !declared.dims.iter().all(|dim| found.dims.contains(dim))
                {
                    let help = difference(&declared, &found);
                    let (declared, found) = (declared.to_string(), found.to_string());
                    let ty_at = ty.map_or(at, |ty| ty.at);
                    return self.report(OutputDiffers {
                        name: name.to_owned(),
                        declared,
                        found,
                        ty_at,
                        value_at,
                        help,
                    });
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
                let meant = match other {
                    "float" | "float32" | "f16" | "bf16" | "f64" | "half" | "double" => Some("f32"),
                    "int" | "int32" | "i64" | "u32" | "long" => Some("i32"),
                    "boolean" | "i1" => Some("bool"),
                    other => closest(other, ["f32", "i32", "bool"]),
                };
                let help = match meant {
                    Some(meant) => format!("write `{meant}`: there are `f32`, `i32` and `bool`"),
                    None => "there are `f32`, `i32` and `bool`".to_owned(),
                };
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

/// The names that the statements of a body introduce.
fn introduced(statements: &[Statement]) -> Rc<[Name]> {
    let names = |statement: &Statement| -> Vec<Name> {
        match &statement.kind {
            StatementKind::Param { name, .. }
            | StatementKind::Buffer { name, .. }
            | StatementKind::Part { name, .. }
            | StatementKind::State { name, .. }
            | StatementKind::Let { pattern: Pattern::Name(name), .. } => vec![name.clone()],
            StatementKind::Let { pattern: Pattern::Tuple(names, _), .. } => names.iter().flatten().cloned().collect(),
            StatementKind::Assign { .. }
            | StatementKind::Route { .. }
            | StatementKind::Out { .. }
            | StatementKind::Aux { .. }
            | StatementKind::Trace { .. }
            | StatementKind::Layers { .. } => Vec::new(),
        }
    };
    statements.iter().flat_map(names).collect()
}

/// In what a value's type is not the declared one, the first thing first.
fn difference(declared: &TensorType, found: &TensorType) -> String {
    if declared.dtype != found.dtype {
        return format!("convert it, `{}(…)`, or declare it {}", declared.dtype, found.dtype);
    }
    let missing = listed(declared.axes().filter(|axis| !found.has(axis)).map(Axis::name));
    let more = listed(found.axes().filter(|axis| !declared.has(axis)).map(Axis::name));
    match (missing.is_empty(), more.is_empty()) {
        (false, false) => format!("it has {more} and lacks {missing}: is one called by another name?"),
        (false, true) => format!("it lacks {missing}"),
        (true, false) => format!("it has {more} as well: sum over it, or declare it"),
        (true, true) => {
            let other = declared.dims.iter().find(|dim| !found.dims.contains(dim));
            let axis = other.map_or(String::new(), |dim| dim.axis.to_string());
            format!("axes that share a name are one axis: give one `{axis}` another name")
        }
    }
}

fn matches_route(value: &Value) -> bool {
    matches!(value, Value::Route(_) | Value::Shape(_))
}

fn matches_tensor(value: &Value) -> bool {
    matches!(value, Value::Tensor(_))
}

/// What a statement is called, where it may not stand in such a body.
fn misplaced(statement: &StatementKind, body: BodyKind) -> Option<&'static str> {
    let (what, fits) = match statement {
        StatementKind::Param { .. } => ("`param`", !matches!(body, BodyKind::Fn | BodyKind::Scan)),
        StatementKind::Buffer { .. } => ("`buffer`", !matches!(body, BodyKind::Fn | BodyKind::Scan)),
        StatementKind::Part { .. } => ("`part`", !matches!(body, BodyKind::Fn | BodyKind::Scan)),
        StatementKind::State { .. } => ("`state`", body != BodyKind::Fn),
        StatementKind::Aux { .. } => ("`aux`", !matches!(body, BodyKind::Fn | BodyKind::Scan)),
        StatementKind::Trace { .. } => ("`trace`", !matches!(body, BodyKind::Fn | BodyKind::Scan)),
        StatementKind::Let { .. } | StatementKind::Assign { .. } => ("`let`", true),
        StatementKind::Route { .. } => ("`route`", body == BodyKind::Gate),
        StatementKind::Out { .. } => {
            ("`out`", matches!(body, BodyKind::Fn | BodyKind::Block | BodyKind::Model | BodyKind::Scan))
        }
        StatementKind::Layers { .. } => ("`layers`", body == BodyKind::Model),
    };
    (!fits).then_some(what)
}

fn help_of(statement: &StatementKind, body: BodyKind) -> &'static str {
    match statement {
        StatementKind::Param { .. }
        | StatementKind::Buffer { .. }
        | StatementKind::Part { .. }
        | StatementKind::Aux { .. }
        | StatementKind::Trace { .. }
            if body == BodyKind::Scan =>
        {
            "write it before the `scan`, which can use it"
        }
        StatementKind::Aux { .. } | StatementKind::Trace { .. } => {
            "a `fn` is an expression: write it where the `fn` is used, in a gate, a block or the model"
        }
        StatementKind::Param { .. }
        | StatementKind::Buffer { .. }
        | StatementKind::State { .. }
        | StatementKind::Part { .. } => "a `fn` has no parameters of its own: declare a `block`",
        StatementKind::Route { .. } => "only a gate ends in a route",
        StatementKind::Out { .. } if body == BodyKind::Gate => "a gate ends in `route …`",
        StatementKind::Out { .. } => "layers hand on what they assign: `h = …`; outputs stand after them",
        StatementKind::Layers { .. } if body == BodyKind::Layer => "layers do not nest: give each run its own `layers`",
        StatementKind::Layers { .. } => "layers stand in the model itself",

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
#[error("{body} that gives nothing")]
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
#[error("{found} cannot be taken apart into {wants}")]
#[diagnostic(code(moec::sema::not_a_tuple), help("as many names as there are values; `_` drops one"))]
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
    help("only what `let` or `state` introduced here can be given a new value: `let {name}2 = {name}`")
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
    #[label("first")]
    first_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the output `{name}` is declared {declared} and is {found}")]
#[diagnostic(code(moec::sema::output_differs), help("{help}"))]
struct OutputDiffers {
    help: String,
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
