//! What an expression is worth while a file is checked: numbers and definitions known now, tensors known when it runs.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use moec_diag::Span;
use moec_ir::{Experts, Module, ParamId, RouteType, ValueId};
use moec_syntax::tree::DefinitionKind;
use moec_types::{Axis, TensorType};

use crate::{count::Fraction, definitions::DefinitionId, scope::Bank, shape::Shape};

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A problem was reported where this came from; whatever is made of it stays silent.
    Error,
    /// `if` without `else` whose condition is false.
    Nothing,
    Int(i64),
    /// A fraction, or a number of positions that is known when the model runs.
    Count(Fraction),
    Float(f64),
    Bool(bool),
    Text(Rc<str>),
    List(Rc<[Value]>),
    /// Fields have names where the language gives them some (`.values`).
    Tuple(Rc<[(Option<&'static str>, Value)]>),
    Tensor(ValueId),
    Route(ValueId),
    /// A route of another shape.
    Shape(Rc<Shape>),
    /// A `fn` by its name, to be called by whoever gets it.
    Function(DefinitionId),
    /// A block, expert or gate with its arguments: what a `part` makes an instance of.
    Template(Rc<Template>),
    Moe(Rc<MoeTemplate>),
    Bank(Rc<BankTemplate>),
    Part(Rc<Part>),
}

/// A value and the text that it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Operand {
    pub value: Value,
    pub at: Span,
}

/// A definition that takes `x`, with its own arguments bound.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub definition: DefinitionId,
    pub kind: DefinitionKind,
    pub name: String,
    /// Each formal parameter with its value.
    pub arguments: Vec<(String, Value, Span)>,
    /// Each formal axis with the caller's.
    pub axes: Vec<(String, Axis)>,
    /// Of a gate: how many experts it was told to choose from.
    pub experts: Option<Bank>,
    pub at: Span,
}

#[derive(Clone, Debug)]
pub(crate) struct MoeTemplate {
    pub gate: Rc<Template>,
    pub bank: Rc<BankTemplate>,
    pub always: Vec<Rc<Template>>,
}

#[derive(Clone, Debug)]
pub(crate) struct BankTemplate {
    pub members: Vec<MemberTemplate>,
    pub experts: u64,
    /// The members in the text.
    pub at: Span,
}

#[derive(Clone, Debug)]
pub(crate) struct MemberTemplate {
    pub expert: Rc<Template>,
    pub first: u32,
    pub count: u32,
    pub at: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum PartOf {
    /// The model itself, or one of its layers: parameters and parts, but nothing to call.
    Body,
    Block(Rc<Template>),
    Gate(Rc<Template>),
    Bank(Rc<BankTemplate>),
    Moe(Rc<MoeTemplate>),
}

/// An instance: where parameters live. Using it twice uses the same parameters.
#[derive(Debug)]
pub(crate) struct Part {
    /// `layers[l].attn`; empty for the model.
    pub path: String,
    pub layer: Option<u32>,
    pub experts: Option<Experts>,
    pub of: PartOf,
    pub params: RefCell<BTreeMap<String, ParamId>>,
    pub parts: RefCell<BTreeMap<String, Rc<Part>>>,
}

impl Part {
    pub fn model() -> Rc<Part> {
        Rc::new(Part::new(String::new(), None, None, PartOf::Body))
    }

    pub fn new(path: String, layer: Option<u32>, experts: Option<Experts>, of: PartOf) -> Part {
        Part { path, layer, experts, of, params: RefCell::default(), parts: RefCell::default() }
    }

    /// The path of a parameter or part within this one.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The part of this name within this one, made on its first use.
    pub fn child(&self, name: &str, make: impl FnOnce(String) -> Part) -> Rc<Part> {
        if let Some(known) = self.parts.borrow().get(name) {
            return known.clone();
        }
        let part = Rc::new(make(self.path_of(name)));
        self.parts.borrow_mut().insert(name.to_owned(), part.clone());
        part
    }
}

impl Value {
    /// A number as one writes it; of anything else, what it is not.
    pub fn spelled(&self) -> String {
        match crate::config::setting_value(self) {
            Some(value) => value.to_string(),
            None => "something else".to_owned(),
        }
    }

    pub fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Value::Error)
    }

    /// What it is, for messages: `` the integer 3 ``, `` f32[S, D=64] ``.
    pub fn describe(&self, module: &Module) -> String {
        match self {
            Value::Error => "something wrong".to_owned(),
            Value::Nothing => "nothing (an `if` without `else`)".to_owned(),
            Value::Int(value) => format!("the integer {value}"),
            Value::Count(count) if count.of.is_some() => format!("{}, known when the model runs", count.describe()),
            Value::Count(fraction) => format!("the fraction {}", fraction.describe()),
            Value::Float(value) => format!("the number {value:?}"),
            Value::Bool(value) => format!("`{value}`"),
            Value::Text(value) => format!("the text {value:?}"),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Tuple(items) => format!("a tuple of {}", items.len()),
            Value::Tensor(value) => module.tensor(*value).to_string(),
            Value::Route(value) => match module.ty(*value).route() {
                Some(RouteType { choices, experts, .. }) => format!("a route to {} of {experts} experts", choices.size),
                None => "a route".to_owned(),
            },
            Value::Shape(shape) => shape.describe().to_owned(),
            Value::Function(_) => "a function".to_owned(),
            Value::Template(template) => format!("the {} `{}`", kind_name(template.kind), template.name),
            Value::Moe(_) => "a `moe { … }` layer".to_owned(),
            Value::Bank(bank) => format!("a bank of {}", bank.experts),
            Value::Part(part) => format!("the part `{}`", part.path),
        }
    }

    pub fn tensor_type<'m>(&self, module: &'m Module) -> Option<&'m TensorType> {
        match self {
            Value::Tensor(value) => Some(module.tensor(*value)),
            _ => None,
        }
    }
}

/// Values known now are equal; tensors, parts and definitions never are.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| equal(a, b)),
        _ => false,
    }
}

pub(crate) fn kind_name(kind: DefinitionKind) -> &'static str {
    match kind {
        DefinitionKind::Fn => "function",
        DefinitionKind::Block => "block",
        DefinitionKind::Expert => "expert",
        DefinitionKind::Gate => "gate",
    }
}
