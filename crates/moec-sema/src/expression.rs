//! Expressions: each evaluates to a value known now, or to a tensor and the nodes that compute it.

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::ops::{Contract, Iota, Op, Slice};
use moec_syntax::tree::{self, DefinitionKind, Expr, ExprKind, Name};
use moec_types::{Axis, Dim, UnaryOp};
use thiserror::Error;

use crate::{
    builtin,
    call::Arguments,
    evaluator::{Evaluator, WrongKind},
    iterate::Iterate,
    library,
    scope::{Frame, Origin},
    spelling::{did_you_mean, listed},
    value::{Operand, Value},
};

impl Evaluator {
    pub fn operand(&mut self, frame: &mut Frame, expr: &Expr) -> Operand {
        Operand { value: self.eval(frame, expr), at: expr.at }
    }

    pub fn eval(&mut self, frame: &mut Frame, expr: &Expr) -> Value {
        let value = self.eval_kind(frame, expr);
        self.check_axes(frame, expr);
        self.note_expr(frame, expr, &value);
        value
    }

    fn eval_kind(&mut self, frame: &mut Frame, expr: &Expr) -> Value {
        if !self.step(expr.at) {
            return Value::Error;
        }
        let at = expr.at;
        match &*expr.kind {
            ExprKind::Int(value) => Value::Int(*value),
            ExprKind::Float(value) => Value::Float(*value),
            ExprKind::Bool(value) => Value::Bool(*value),
            ExprKind::Text(text) => Value::text(text),
            ExprKind::List(items) => {
                let items: Vec<Value> = items.iter().map(|item| self.eval(frame, item)).collect();
                if items.iter().any(Value::is_error) { Value::Error } else { Value::List(items.into()) }
            }
            ExprKind::Tuple(items) => Value::Tuple(items.iter().map(|item| (None, self.eval(frame, item))).collect()),
            ExprKind::Name(name) => self.name(frame, name, at),
            ExprKind::Unary(op, x) => {
                let x = self.operand(frame, x);
                let op = match op {
                    tree::Unary::Negate => UnaryOp::Neg,
                    tree::Unary::Not => UnaryOp::Not,
                };
                self.unary_op(frame, op, x, at)
            }
            ExprKind::Binary(op, a, b) => {
                let a = self.operand(frame, a);
                match (op, &a.value) {
                    (tree::Binary::And, Value::Bool(false)) => return Value::Bool(false),
                    (tree::Binary::Or, Value::Bool(true)) => return Value::Bool(true),
                    _ => {}
                }
                let b = self.operand(frame, b);
                self.binary(frame, *op, a, b, at)
            }
            ExprKind::Contract { left, right, over } => {
                let (left, right) = (self.operand(frame, left), self.operand(frame, right));
                self.contract(frame, left, right, over, at)
            }
            ExprKind::Call { function, arguments, over } => self.call(frame, function, arguments, over, at),
            ExprKind::Field { of, field } => {
                let of = self.operand(frame, of);
                self.field(frame, of, field, at)
            }
            ExprKind::Index { of, axis, from, to } => {
                let of = self.operand(frame, of);
                let from = self.operand(frame, from);
                let to = to.as_ref().map(|to| self.operand(frame, to));
                self.index(frame, of, axis, from, to, at)
            }
            ExprKind::If { condition, yes, no } => {
                let condition = self.operand(frame, condition);
                match (&condition.value, no) {
                    (Value::Error, _) => Value::Error,
                    (Value::Bool(true), _) => self.eval(frame, yes),
                    (Value::Bool(false), Some(no)) => self.eval(frame, no),
                    (Value::Bool(false), None) => Value::Nothing,
                    (other, _) => {
                        let found = other.describe(&self.module);
                        let help = matches!(other, Value::Tensor(_)).then(|| {
                            "`if` decides when the file is checked; `where(condition, yes, no)` decides for each element".to_owned()
                        });
                        self.fail(WrongKind {
                            who: "`if`".into(),
                            wants: "`true` or `false`",
                            found,
                            at: condition.at,
                            help,
                        })
                    }
                }
            }
            ExprKind::Iterate { steps, name, initial, until, body } => {
                let until = until.as_ref();
                self.iterate(frame, &Iterate { steps, name, initial, until, body }, at)
            }
            ExprKind::Moe(moe) => self.moe(frame, moe),
            ExprKind::Scan { over, body } => self.scan(frame, over, body, at),
            ExprKind::Bank(members) => match self.bank(frame, members) {
                Some(bank) => Value::Bank(bank.into()),
                None => Value::Error,
            },
        }
    }

    fn name(&mut self, frame: &mut Frame, name: &str, at: Span) -> Value {
        if let Some(bound) = frame.bound(name) {
            return bound.value.clone();
        }
        if frame.aliases.iter().any(|(formal, _)| formal == name) {
            return self.positions(frame, &frame.axis(name), at);
        }
        if let Some(value) = self.setting(frame, name) {
            return value;
        }
        if let Some(definition) = self.definitions.look_up(frame.file, name) {
            return match self.definitions.get(definition).kind {
                DefinitionKind::Fn => Value::Function(definition),
                DefinitionKind::Block | DefinitionKind::Expert | DefinitionKind::Gate => {
                    self.call_definition(frame, definition, Arguments::none(at), at)
                }
            };
        }
        if frame.dims.contains_key(&Axis::new(name)) {
            return self.positions(frame, &Axis::new(name), at);
        }
        match name {
            "inf" => Value::Float(f64::INFINITY),
            _ if frame.unsure.contains(&Axis::new(name)) => Value::Error,
            _ => {
                let near = self.nearest_name(frame, name);
                self.unknown_name(frame, name, at, near)
            }
        }
    }

    /// The value of a `config` entry, where the file has it.
    pub fn setting(&self, frame: &Frame, name: &str) -> Option<Value> {
        if !self.definitions.is_own(frame.file) {
            return None;
        }
        self.config.iter().find(|entry| entry.name == name).map(|entry| entry.value.clone())
    }

    pub fn nearest_name(&self, frame: &Frame, name: &str) -> Option<String> {
        let settings =
            self.config.iter().filter(|_| self.definitions.is_own(frame.file)).map(|entry| entry.name.as_str());
        let names = frame.names.iter().map(|bound| bound.name.as_str());
        let axes = frame.dims.keys().map(Axis::name);
        let all = names.chain(settings).chain(axes).chain(self.definitions.names(frame.file)).chain(builtin::names());
        did_you_mean(name, all)
    }

    /// Says of a name that nothing has what can be done about it; `near` is what it may have been meant to be.
    pub fn unknown_name(&mut self, frame: &Frame, name: &str, at: Span, near: Option<String>) -> Value {
        if self.definitions.is_unsure(frame.file, name) {
            return Value::Error;
        }
        let later = frame.declares.iter().find(|later| later.text == name && later.at.start > at.start);
        let help = match later {
            Some(_) => Some("a name is known from where it is introduced: move that up".to_owned()),
            None => {
                library::home_of(name).map(|file| format!("add `use std::{file}::{name}`")).or(near).or_else(|| {
                    let (file, meant) = library::nearest(name)?;
                    Some(format!("did you mean `{meant}`, of `use std::{file}::{meant}`?"))
                })
            }
        };
        if self.alone.as_ref().is_some_and(|alone| alone.may_have(name, help.is_some())) {
            return Value::Error;
        }
        self.fail(UnknownName { name: name.to_owned(), at, later_at: later.map(|later| later.at), help })
    }

    /// An axis as a value: its positions.
    fn positions(&mut self, frame: &mut Frame, axis: &Axis, at: Span) -> Value {
        match self.known_dim(frame, axis, at) {
            Some(dim) => self.emit1(frame, Iota { dim }, &[], at),
            None => Value::Error,
        }
    }

    /// The size of an axis that some value in scope has.
    pub fn known_dim(&mut self, frame: &mut Frame, axis: &Axis, at: Span) -> Option<Dim> {
        if let Some(dim) = frame.dims.get(axis) {
            return Some(dim.clone());
        }
        self.unknown_axis(frame, axis, at, None);
        None
    }

    /// Says once of an axis that no value here has it.
    pub fn unknown_axis(&mut self, frame: &mut Frame, axis: &Axis, at: Span, write: Option<String>) {
        if !frame.unsure.insert(axis.clone()) || self.alone.is_some() {
            return;
        }
        let known: Vec<&str> = frame.dims.keys().map(Axis::name).collect();
        let help = did_you_mean(axis.name(), known.iter().copied()).unwrap_or_else(|| {
            let known = format!("the axes known here are {}", listed(known));
            write.map_or(known.clone(), |write| format!("{write}; {known}"))
        });
        self.report(UnknownAxis { axis: axis.clone(), at, why: "its size is not known", help });
    }

    pub fn contract(&mut self, frame: &mut Frame, left: Operand, right: Operand, over: &[Name], at: Span) -> Value {
        let (Some(a), Some(b)) = (self.tensor(&left, "`·`"), self.tensor(&right, "`·`")) else { return Value::Error };
        let over: Vec<Axis> = match over {
            [] => {
                let (left, right) = (self.module.tensor(a.0), self.module.tensor(b.0));
                let aligned = frame.params.aligned(&self.module);
                let shared: Vec<Axis> =
                    left.axes().filter(|axis| right.has(axis) && !aligned.contains(axis)).cloned().collect();
                if shared.len() != 1 {
                    let names = listed(shared.iter().map(Axis::name));
                    let help = match &shared[..] {
                        [] => {
                            "both sides must have an axis of the same name; `rename(x, A as B)` gives it one".to_owned()
                        }
                        [first, ..] => {
                            format!("say which to sum: `over {first}`, or `over ({})` for all", names.replace('`', ""))
                        }
                    };
                    let (left, right) = (left.to_string(), right.to_string());
                    let shared = if shared.is_empty() { "no axis".to_owned() } else { names };
                    return self.fail(SharedAxes { shared, left, right, left_at: a.1, right_at: b.1, help });
                }
                shared
            }
            names => {
                let over: Vec<Axis> = names.iter().map(|name| frame.axis(&name.text)).collect();
                let (left, right) = (self.module.tensor(a.0), self.module.tensor(b.0));
                if let Some(at) = over.iter().position(|axis| !left.has(axis) || !right.has(axis)) {
                    let shared = left.axes().filter(|axis| right.has(axis)).map(Axis::name);
                    let help = match listed(shared) {
                        shared if shared.is_empty() => {
                            "they share no axis; `rename(x, A as B)` gives one side the other's name".to_owned()
                        }
                        shared => format!("they share {shared}"),
                    };
                    let (left, right) = (left.to_string(), right.to_string());
                    let axis = over[at].clone();
                    let over_at = names[at].at;
                    return self.fail(NotShared { axis, left, right, over_at, left_at: a.1, right_at: b.1, help });
                }
                over
            }
        };
        self.emit1(frame, Contract { over }, &[a, b], at)
    }

    fn field(&mut self, frame: &mut Frame, of: Operand, field: &Name, at: Span) -> Value {
        match &of.value {
            Value::Error => Value::Error,
            Value::Tuple(items) => match items.iter().find(|(name, _)| *name == Some(field.text.as_str())) {
                Some((_, value)) => value.clone(),
                None => {
                    let names: Vec<&str> = items.iter().filter_map(|(name, _)| *name).collect();
                    let help = did_you_mean(&field.text, names.iter().copied()).unwrap_or_else(|| {
                        if names.is_empty() {
                            "take it apart: `let (a, b) = …`".into()
                        } else {
                            format!("it has {}", listed(names))
                        }
                    });
                    self.fail(UnknownField { field: field.text.clone(), of: "this tuple".into(), at: field.at, help })
                }
            },
            Value::Part(part) => {
                let (param, child) =
                    (part.params.borrow().get(&field.text).copied(), part.parts.borrow().get(&field.text).cloned());
                match (param, child) {
                    (Some(param), _) if part.experts.is_some() => self.param_value(frame, param, at),
                    (Some(param), _) => self.emit1(frame, moec_ir::ops::ParamRef { param }, &[], at),
                    (None, Some(child)) => Value::Part(child),
                    (None, None) => {
                        let names: Vec<String> =
                            part.params.borrow().keys().chain(part.parts.borrow().keys()).cloned().collect();
                        let help = match &names[..] {
                            [] => {
                                format!("a part has its parameters once it was used: call `{}` before this", part.path)
                            }
                            names => did_you_mean(&field.text, names.iter().map(String::as_str))
                                .unwrap_or_else(|| format!("it has {}", listed(names.iter().map(String::as_str)))),
                        };
                        self.fail(UnknownField {
                            field: field.text.clone(),
                            of: format!("the part `{}`", part.path),
                            at: field.at,
                            help,
                        })
                    }
                }
            }
            other => {
                let of = other.describe(&self.module);
                let help = "only the results of `top_k` (`.values`, `.indices`) and parts have fields".to_owned();
                self.fail(UnknownField { field: field.text.clone(), of, at: field.at, help })
            }
        }
    }

    fn index(
        &mut self,
        frame: &mut Frame,
        of: Operand,
        axis: &Name,
        from: Operand,
        to: Option<Operand>,
        at: Span,
    ) -> Value {
        let Some(x) = self.tensor(&of, "`[…]`") else { return Value::Error };
        let Some(start) = self.int(&from, "a position") else { return Value::Error };
        let end = match &to {
            Some(to) => match self.int(to, "a position") {
                Some(end) => end,
                None => return Value::Error,
            },
            None => start.saturating_add(1),
        };
        let name = frame.axis(&axis.text);
        let size = self.module.tensor(x.0).dim(&name).and_then(|dim| dim.size.fixed());
        if start < 0 || end <= start || size.is_some_and(|size| end as u64 > size) {
            let size = size.map_or("a symbolic size".to_owned(), |size| size.to_string());
            return self.fail(OutsideAxis {
                axis: name,
                start,
                end,
                size,
                at: from.at.to(to.map_or(from.at, |to| to.at)),
                axis_at: of.at,
            });
        }
        let op = Slice { axis: name, start: start as u64, len: (end - start) as u64, drop: to.is_none() };
        self.reshape(frame, op, x, at)
    }

    /// An op that moves elements without changing them: indices stay indices into the same axis.
    pub fn reshape(&mut self, frame: &mut Frame, op: impl Into<Op>, x: (moec_ir::ValueId, Span), at: Span) -> Value {
        let result = self.emit1(frame, op, &[x], at);
        if let (Value::Tensor(result), Some(from)) = (&result, self.chosen_from.get(&x.0).cloned()) {
            self.chosen_from.insert(*result, from);
        }
        result
    }

    /// An integer that can be the size of something.
    pub fn size(&mut self, operand: &Operand, what: &str) -> Option<u64> {
        self.size_of_entry(operand, what, None)
    }

    /// [`Evaluator::size`] of what a `config` entry says.
    pub fn size_of_entry(&mut self, operand: &Operand, what: &str, entry_at: Option<Span>) -> Option<u64> {
        let value = self.int(operand, what)?;
        match u64::try_from(value).ok().filter(|size| (1..=crate::evaluator::limits::AXIS).contains(size)) {
            Some(size) => Some(size),
            None => {
                self.report(NotASize { what: what.to_owned(), value, at: operand.at, entry_at });
                None
            }
        }
    }

    /// What a name would hide or repeat, if it may not be introduced here.
    pub fn already_named(&mut self, frame: &Frame, name: &Name) -> bool {
        let Some(bound) = frame.bound(&name.text) else { return false };
        let help = match bound.origin {
            Origin::Let | Origin::State => {
                format!("give it a new value with `{} = …`, or choose another name", name.text)
            }
            Origin::Formal | Origin::Input | Origin::Param | Origin::Part | Origin::Index | Origin::Around => {
                "choose another name".to_owned()
            }
        };
        let first_at = (bound.at != Span::NONE).then_some(bound.at);
        self.report(AlreadyNamed { name: name.text.clone(), is: bound.origin.name(), at: name.at, first_at, help });
        true
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("nothing here is called `{name}`")]
#[diagnostic(code(moec::sema::unknown_name))]
pub(crate) struct UnknownName {
    pub name: String,
    #[label("not found")]
    pub at: Span,
    #[label("introduced here, further on")]
    pub later_at: Option<Span>,
    #[help]
    pub help: Option<String>,
}

#[derive(Debug, Error, Diagnostic)]
#[error("no value here has an axis `{axis}`")]
#[diagnostic(code(moec::sema::unknown_axis), help("{help}"))]
pub(crate) struct UnknownAxis {
    pub axis: Axis,
    #[label("{why}")]
    pub at: Span,
    pub why: &'static str,
    pub help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`·` sums over one shared axis, and {left} and {right} share {shared}")]
#[diagnostic(code(moec::sema::shared_axes), help("{help}"))]
struct SharedAxes {
    shared: String,
    left: String,
    right: String,
    #[label("this is {left}")]
    left_at: Span,
    #[label("this is {right}")]
    right_at: Span,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`·` over `{axis}`, which not both sides have")]
#[diagnostic(code(moec::sema::not_shared), help("{help}"))]
struct NotShared {
    axis: Axis,
    left: String,
    right: String,
    #[label("sums over this")]
    over_at: Span,
    #[label("this is {left}")]
    left_at: Span,
    #[label("this is {right}")]
    right_at: Span,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{of} has no field `{field}`")]
#[diagnostic(code(moec::sema::unknown_field), help("{help}"))]
struct UnknownField {
    field: String,
    of: String,
    #[label("not found")]
    at: Span,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("positions {start}..{end} of `{axis}`, which has {size}")]
#[diagnostic(code(moec::sema::outside_axis), help("positions count from 0; the end of a range is not part of it"))]
struct OutsideAxis {
    axis: Axis,
    start: i64,
    end: i64,
    size: String,
    #[label("not within the axis")]
    at: Span,
    #[label("`{axis}` has {size} here")]
    axis_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{what} cannot be {value}")]
#[diagnostic(code(moec::sema::not_a_size), help("sizes are from 1 to {}", crate::evaluator::limits::AXIS))]
struct NotASize {
    what: String,
    value: i64,
    #[label("this is {value}")]
    at: Span,
    #[label("by this entry")]
    entry_at: Option<Span>,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` is already {is}")]
#[diagnostic(code(moec::sema::already_named), help("{help}"))]
struct AlreadyNamed {
    name: String,
    is: &'static str,
    #[label("named again")]
    at: Span,
    #[label("named here")]
    first_at: Option<Span>,
    help: String,
}
