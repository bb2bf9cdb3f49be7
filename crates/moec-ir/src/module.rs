//! The module: arenas of nodes, values and regions, and the questions that passes ask of them.

mod edit;
mod query;

use std::fmt;

use moec_diag::Span;
use moec_types::{DType, Dim, TensorType};

use crate::ops::{Op, TypeError};

pub use query::Readers;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// A node: one application of an op.
    OpId
);
id!(
    /// What a node or a region's argument yields.
    ValueId
);
id!(
    /// A list of nodes with arguments and results.
    RegionId
);
id!(
    /// A parameter: a tensor that the weights supply.
    ParamId
);

impl RegionId {
    /// Holds the place of a region that is still to come.
    pub const NONE: RegionId = RegionId(u32::MAX);
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueType {
    Tensor(TensorType),
    Route(RouteType),
}

/// A token-choice route: each position chooses `choices` of `experts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteType {
    /// The axis whose positions choose.
    pub tokens: Dim,
    /// The axis of the choices (`K`), and how many.
    pub choices: Dim,
    pub experts: u64,
}

impl ValueType {
    pub fn tensor(&self) -> Option<&TensorType> {
        match self {
            ValueType::Tensor(ty) => Some(ty),
            ValueType::Route(_) => None,
        }
    }

    pub fn route(&self) -> Option<&RouteType> {
        match self {
            ValueType::Tensor(_) => None,
            ValueType::Route(ty) => Some(ty),
        }
    }
}

/// `f32[S, D=64]`; `route[S, K=2] of 8`.
impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueType::Tensor(ty) => ty.fmt(f),
            ValueType::Route(ty) => write!(f, "route[{}, {}] of {}", ty.tokens, ty.choices, ty.experts),
        }
    }
}

impl From<TensorType> for ValueType {
    fn from(ty: TensorType) -> Self {
        ValueType::Tensor(ty)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub op: Op,
    pub operands: Vec<ValueId>,
    pub results: Vec<ValueId>,
    /// The `.moe` text behind it.
    pub at: Span,
}

#[derive(Clone, Debug, PartialEq)]
struct Value {
    ty: ValueType,
    /// `None` for a region's argument.
    producer: Option<OpId>,
    /// What the author called it; for printing.
    name: Option<String>,
}

/// Straight-line code. A node may use values of the region it stands in and of every region around that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Region {
    pub args: Vec<ValueId>,
    pub nodes: Vec<OpId>,
    pub results: Vec<ValueId>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub name: String,
    pub value: ValueId,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    pub name: String,
    pub value: ValueId,
}

/// A parameter as the architecture knows it. One entry stands for its instances in every layer of its kind and in every
/// expert of its bank member.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// `table`, `layers[l].attn.q`, `layers[l].ffn.experts[e].up`.
    pub path: String,
    /// Of one instance.
    pub ty: TensorType,
    /// Layers that have an instance, ascending; `None` outside layers. The n-th entry belongs to the n-th execution of the
    /// layer kind that uses it.
    pub layers: Option<Vec<u32>>,
    /// Experts of its bank member that have an instance each; `None` outside banks.
    pub experts: Option<Experts>,
    /// How it is kept in packed weights; arithmetic is f32.
    pub storage: DType,
    pub role: Role,
    pub at: Span,
}

/// Who changes a parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Role {
    /// Training does.
    #[default]
    Trained,
    /// Nobody.
    Buffer,
    /// The model itself, from step to step. Where the weights do not have it, it begins as this number everywhere.
    State { initial: f32 },
}

/// Which experts of a bank a parameter belongs to: `first .. first + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    pub first: u32,
    pub count: u32,
}

impl Param {
    /// The path of one instance, of the `layer`-th of [`Param::layers`] and the `expert`-th of [`Param::experts`]:
    /// `layers[3].ffn.experts[1].up`, and of a stack that does not count with `l`, `layers[encoder=3].ffn.up`.
    pub fn instance_path(&self, layer: u32, expert: u32) -> String {
        let number = self.layers.as_ref().and_then(|layers| layers.get(layer as usize));
        let segment = |segment: &str| {
            let stack = segment.strip_prefix("layers[").and_then(|rest| rest.strip_suffix(']'));
            match (number, stack, self.experts) {
                (Some(number), Some("l"), _) => format!("layers[{number}]"),
                (Some(number), Some(stack), _) => format!("layers[{stack}={number}]"),
                (_, None, Some(experts)) => segment.replace("[e]", &format!("[{}]", experts.first + expert)),
                (_, None, None) | (None, Some(_), _) => segment.to_owned(),
            }
        };
        self.path.split('.').map(segment).collect::<Vec<_>>().join(".")
    }

    /// What stands for a tensor that the weights do not have.
    pub fn initial(&self) -> Option<f32> {
        match self.role {
            Role::State { initial } => Some(initial),
            Role::Trained | Role::Buffer => None,
        }
    }

    /// All elements of all instances.
    pub fn elements(&self) -> u64 {
        let layers = self.layers.as_ref().map_or(1, |layers| layers.len() as u64);
        let experts = self.experts.map_or(1, |experts| u64::from(experts.count));
        self.ty.elements().expect("parameters have fixed sizes") * layers * experts
    }
}

/// How full a module was at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    nodes: usize,
    values: usize,
    regions: usize,
    params: usize,
}

/// A whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    pub name: String,
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    pub params: Vec<Param>,
    /// The region of the whole model; its arguments are the inputs, its results the outputs.
    pub body: RegionId,
    nodes: Vec<Node>,
    values: Vec<Value>,
    regions: Vec<Region>,
}

impl Module {
    /// An empty module with an empty body.
    pub fn new(name: impl Into<String>) -> Self {
        Module {
            name: name.into(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            params: Vec::new(),
            body: RegionId(0),
            nodes: Vec::new(),
            values: Vec::new(),
            regions: vec![Region::default()],
        }
    }

    pub fn node(&self, at: OpId) -> &Node {
        &self.nodes[at.index()]
    }

    pub fn node_mut(&mut self, at: OpId) -> &mut Node {
        &mut self.nodes[at.index()]
    }

    pub fn region(&self, at: RegionId) -> &Region {
        &self.regions[at.index()]
    }

    pub fn region_mut(&mut self, at: RegionId) -> &mut Region {
        &mut self.regions[at.index()]
    }

    pub fn regions(&self) -> impl Iterator<Item = RegionId> + use<> {
        (0..self.regions.len() as u32).map(RegionId)
    }

    pub fn param(&self, at: ParamId) -> &Param {
        &self.params[at.index()]
    }

    pub fn ty(&self, value: ValueId) -> &ValueType {
        &self.values[value.index()].ty
    }

    /// The type of a value that is known to be a tensor.
    ///
    /// # Panics
    /// When it is a route: the verifier has ruled that out where this is called.
    pub fn tensor(&self, value: ValueId) -> &TensorType {
        self.ty(value).tensor().expect("a tensor here was verified")
    }

    pub fn name_of(&self, value: ValueId) -> Option<&str> {
        self.values[value.index()].name.as_deref()
    }

    pub fn set_name(&mut self, value: ValueId, name: impl Into<String>) {
        self.values[value.index()].name = Some(name.into());
    }

    /// The node that yields a value; `None` for a region's argument.
    pub fn producer(&self, value: ValueId) -> Option<&Node> {
        self.producer_id(value).map(|at| self.node(at))
    }

    pub fn producer_id(&self, value: ValueId) -> Option<OpId> {
        self.values[value.index()].producer
    }

    /// How many operands and region results read a value, counting only nodes that stand in some region.
    pub fn uses(&self, value: ValueId) -> usize {
        let read = |values: &[ValueId]| values.iter().filter(|other| **other == value).count();
        self.regions
            .iter()
            .map(|region| {
                read(&region.results) + region.nodes.iter().map(|at| read(&self.node(*at).operands)).sum::<usize>()
            })
            .sum()
    }

    pub fn add_region(&mut self) -> RegionId {
        self.regions.push(Region::default());
        RegionId(self.regions.len() as u32 - 1)
    }

    pub fn add_arg(&mut self, region: RegionId, ty: impl Into<ValueType>) -> ValueId {
        let value = self.add_value(ty.into(), None);
        self.region_mut(region).args.push(value);
        value
    }

    pub fn add_param(&mut self, param: Param) -> ParamId {
        self.params.push(param);
        ParamId(self.params.len() as u32 - 1)
    }

    fn add_value(&mut self, ty: ValueType, producer: Option<OpId>) -> ValueId {
        self.values.push(Value { ty, producer, name: None });
        ValueId(self.values.len() as u32 - 1)
    }

    /// A node whose result types are inferred, not yet in any region.
    pub fn create(&mut self, op: impl Into<Op>, operands: Vec<ValueId>, at: Span) -> Result<OpId, TypeError> {
        let op = op.into();
        let types = op.infer(self, &operands)?;
        let id = OpId(self.nodes.len() as u32);
        let results = types.into_iter().map(|ty| self.add_value(ty, Some(id))).collect();
        self.nodes.push(Node { op, operands, results, at });
        Ok(id)
    }

    /// Appends a node to a region and returns its results.
    pub fn append(
        &mut self,
        region: RegionId,
        op: impl Into<Op>,
        operands: Vec<ValueId>,
        at: Span,
    ) -> Result<Vec<ValueId>, TypeError> {
        let id = self.create(op, operands, at)?;
        self.region_mut(region).nodes.push(id);
        Ok(self.node(id).results.clone())
    }

    /// Appends a node that has one result.
    ///
    /// # Panics
    /// When the op has not exactly one result.
    pub fn append1(
        &mut self,
        region: RegionId,
        op: impl Into<Op>,
        operands: Vec<ValueId>,
        at: Span,
    ) -> Result<ValueId, TypeError> {
        let results = self.append(region, op, operands, at)?;
        let [result] = results[..] else { panic!("append1 is for ops with one result") };
        Ok(result)
    }

    /// How full the module is now, for [`Module::forget_since`].
    pub fn mark(&self) -> Mark {
        Mark {
            nodes: self.nodes.len(),
            values: self.values.len(),
            regions: self.regions.len(),
            params: self.params.len(),
        }
    }

    /// Forgets every node, value, region and parameter added since the mark. For a builder that made something to compare
    /// it with what it has: nothing that stays may speak of what goes.
    pub fn forget_since(&mut self, mark: Mark) {
        self.nodes.truncate(mark.nodes);
        self.values.truncate(mark.values);
        self.regions.truncate(mark.regions);
        self.params.truncate(mark.params);
    }

    /// Makes every reader of `from` read `to`.
    pub fn replace_uses(&mut self, from: ValueId, to: ValueId) {
        let swap = |values: &mut Vec<ValueId>| {
            values.iter_mut().filter(|value| **value == from).for_each(|value| *value = to);
        };
        self.nodes.iter_mut().for_each(|node| swap(&mut node.operands));
        self.regions.iter_mut().for_each(|region| swap(&mut region.results));
        self.outputs.iter_mut().filter(|output| output.value == from).for_each(|output| output.value = to);
    }
}
