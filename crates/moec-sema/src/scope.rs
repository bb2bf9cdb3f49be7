//! Where names are looked up: the frame of the body being evaluated.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use moec_diag::Span;
use moec_ir::{Module, RegionId, ValueId};
use moec_syntax::tree::Name;
use moec_types::{Axis, Dim, TensorType};

use crate::{
    definitions::FileId,
    value::{Part, Value},
};

/// What a body may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyKind {
    Config,
    Fn,
    Block,
    Gate,
    Model,
    Layer,
    Scan,
}

impl BodyKind {
    pub fn name(self) -> &'static str {
        match self {
            BodyKind::Config => "`config`",
            BodyKind::Fn => "a `fn`",
            BodyKind::Block => "a block",
            BodyKind::Gate => "a gate",
            BodyKind::Model => "a model",
            BodyKind::Layer => "layers",
            BodyKind::Scan => "a `scan`",
        }
    }
}

/// How a name came to be, which says whether it may be given a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Let,
    Formal,
    Input,
    Param,
    Part,
    Index,
    State,
    /// A `let` around the `scan` that is being evaluated.
    Around,
}

impl Origin {
    pub fn name(self) -> &'static str {
        match self {
            Origin::Let => "a `let`",
            Origin::Formal => "an argument",
            Origin::Input => "an input",
            Origin::Param => "a parameter",
            Origin::Part => "a part",
            Origin::Index => "the number of the layer",
            Origin::State => "a state",
            Origin::Around => "a value of around this `scan`",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub name: String,
    pub value: Value,
    pub origin: Origin,
    pub at: Span,
}

/// The axis of the experts of a bank, known in its gate.
pub(crate) const EXPERTS: &str = "E";
/// What a gate calls the axis of the tokens that choose, whatever it is called outside.
pub(crate) const TOKENS: &str = "Token";

/// The bank that a gate chooses from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bank {
    pub experts: u64,
    pub at: Span,
}

/// What a body gets for the parameters that it declares.
#[derive(Clone, Debug)]
pub(crate) enum Parameters {
    /// Its own instance.
    Own,
    /// Those of all experts of its bank's member, along this axis.
    Stacked(Axis),
    /// Those of all experts as one, each weighed by its place along the axis.
    Merged { weights: (ValueId, Span), axis: Axis },
}

impl Parameters {
    /// The axes that every parameter has besides those that it declares: a product sums over none of them unless it says so.
    pub fn aligned(&self, module: &Module) -> Vec<Axis> {
        match self {
            Parameters::Own => Vec::new(),
            Parameters::Stacked(axis) => vec![axis.clone()],
            Parameters::Merged { weights, axis } => {
                module.tensor(weights.0).axes().filter(|other| *other != axis).cloned().collect()
            }
        }
    }
}

/// The body being evaluated: its names, the axes it knows, and where its nodes and parameters go.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub file: FileId,
    pub kind: BodyKind,
    pub names: Vec<Bound>,
    /// Formal axes and what the caller calls them.
    pub aliases: Vec<(String, Axis)>,
    /// Every axis seen so far, by name, as the latest value had it.
    pub dims: BTreeMap<Axis, Dim>,
    /// The axes of this body's inputs and parameters, as they were first declared.
    pub declared: BTreeMap<Axis, Dim>,
    /// Axes whose size could not be told, which was reported.
    pub unsure: BTreeSet<Axis>,
    /// The names that this body introduces somewhere.
    pub declares: Rc<[Name]>,
    pub region: RegionId,
    pub part: Rc<Part>,
    pub bank: Option<Bank>,
    pub params: Parameters,
    /// The body's input, in blocks, experts and gates.
    pub x: Option<Value>,
}

impl Frame {
    /// Where configuration values are evaluated: nothing is in scope but what the file and the library define.
    pub fn of_config() -> Self {
        Frame {
            file: FileId::USER,
            kind: BodyKind::Config,
            names: Vec::new(),
            aliases: Vec::new(),
            dims: Default::default(),
            declared: Default::default(),
            unsure: Default::default(),
            declares: Default::default(),
            region: RegionId(0),
            part: Part::model(),
            bank: None,
            params: Parameters::Own,
            x: None,
        }
    }

    pub fn bound(&self, name: &str) -> Option<&Bound> {
        self.names.iter().rfind(|bound| bound.name == name)
    }

    pub fn bind(&mut self, name: &Name, value: Value, origin: Origin) {
        self.names.push(Bound { name: name.text.clone(), value, origin, at: name.at });
    }

    /// The axis that a name stands for here.
    pub fn axis(&self, name: &str) -> Axis {
        let alias = self.aliases.iter().find(|(formal, _)| formal == name);
        alias.map_or_else(|| Axis::new(name), |(_, axis)| axis.clone())
    }

    /// Remembers the axes of a value.
    pub fn note(&mut self, ty: &TensorType) {
        for dim in &ty.dims {
            self.dims.insert(dim.axis.clone(), dim.clone());
        }
    }
}
