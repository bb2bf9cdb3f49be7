//! A session: the plan, its weights and its memory.

use std::collections::BTreeMap;

use moec_plan::{Format, Layout, Node, PackSource, ParamId, Plan, Port, Rows, quantise};

use crate::{memory::Memory, steps};

/// Where packed parameters come from.
pub trait Weights {
    /// Instance `(layer, expert)` of a parameter of the plan, without its layout: `[branch][n][k]` for panels, the plain order
    /// otherwise.
    fn packed(&self, param: ParamId, layer: u32, expert: u32) -> Vec<f64>;
}

/// Where a module's parameters come from.
pub trait Instances {
    /// An instance of parameter number `param` of the module: its axes (names and sizes, slowest first) and its elements.
    /// `layer` and `expert` are ranks among its instances.
    fn instance(&self, param: u32, layer: u32, expert: u32) -> (Vec<(String, u64)>, Vec<f32>);
}

/// A module's parameters, packed as a plan wants them.
pub struct Packing<'p> {
    pub plan: &'p Plan,
    pub instances: &'p dyn Instances,
}

impl Weights for Packing<'_> {
    fn packed(&self, param: ParamId, layer: u32, expert: u32) -> Vec<f64> {
        let packed = self.plan.param(param);
        let branch = |source: &PackSource| -> Vec<f64> {
            let (axes, data) = self.instances.instance(source.param, layer, expert);
            let stride_of = |name: &String| {
                let at = axes.iter().position(|(axis, _)| axis == name).expect("a source names the parameter's axes");
                (axes[at].1, axes[at + 1..].iter().map(|(_, size)| size).product::<u64>())
            };
            let order: Vec<(u64, u64)> = source.rows.iter().chain(&source.columns).map(stride_of).collect();
            let total: u64 = order.iter().map(|(size, _)| size).product();
            let values: Vec<f32> = (0..total).map(|flat| data[place(flat, &order)]).collect();
            match packed.layout {
                Layout::Plain { .. } => values.into_iter().map(f64::from).collect(),
                Layout::Panels { k, .. } => in_columns(&values, k, packed.storage),
            }
        };
        packed.sources.iter().flat_map(branch).collect()
    }
}

/// Columns of k elements as they are stored. Elements that are stored each by itself stay as they are: the judge of such
/// weights does not round.
fn in_columns(values: &[f32], k: u64, format: Format) -> Vec<f64> {
    match format {
        Format::Each(_) => values.iter().map(|value| f64::from(*value)).collect(),
        Format::Pairs | Format::Int8 | Format::Int4 { .. } | Format::Mxfp4 | Format::Fp8 { .. } => {
            values.chunks(k.max(1) as usize).flat_map(|column| quantise::stored_column(format, column)).collect()
        }
    }
}

/// What one pass gives.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Each output's rows, for all new positions (those before the first asked for are NaN).
    pub outputs: Vec<Vec<f64>>,
    /// For each bin in order of execution: indices, then weights, `[tokens, choices]`.
    pub routes: Vec<(Vec<i32>, Vec<f32>)>,
}

pub struct Machine<'p> {
    pub(crate) plan: &'p Plan,
    weights: &'p dyn Weights,
    packed: BTreeMap<(ParamId, u32, u32), Vec<f64>>,
    pub(crate) memory: Memory,
    /// Positions that each sequence has.
    pub(crate) pasts: Vec<u64>,
    pub(crate) tokens: u64,
    pub(crate) first_output: u64,
    pub(crate) rank: u32,
    pub(crate) routes: Vec<(Vec<i32>, Vec<f32>)>,
}

impl<'p> Machine<'p> {
    /// A session for passes of up to `chunk` tokens and `capacity` positions.
    pub fn new(plan: &'p Plan, weights: &'p dyn Weights, chunk: u64, capacity: u64) -> Self {
        Machine {
            plan,
            weights,
            packed: BTreeMap::new(),
            memory: Memory::new(plan, chunk, capacity),
            tokens: 0,
            first_output: 0,
            rank: 0,
            routes: Vec::new(),
            pasts: vec![0; plan.sources.len() + 1],
        }
    }

    /// Appends `tokens` positions, whose inputs are given as rows.
    ///
    /// # Panics
    /// When the pass does not fit the session, or the plan is unsound: this is for tests.
    pub fn run(&mut self, inputs: Vec<Vec<f64>>, tokens: u64, first_output: u64) -> Pass {
        self.run_along(0, inputs, tokens, first_output)
    }

    /// The same along another sequence; inputs of others are not looked at.
    pub fn run_along(&mut self, sequence: usize, inputs: Vec<Vec<f64>>, tokens: u64, first_output: u64) -> Pass {
        let plan = self.plan;
        assert!(tokens <= self.memory.chunk && self.pasts[sequence] + tokens <= self.memory.capacity);
        self.memory.inputs = inputs;
        let blank = |port: &Port| {
            let buffer = plan.buffer(port.buffer);
            let rows = match buffer.rows {
                Rows::Fixed(rows) => rows,
                Rows::Share(share) => share.of(tokens),
                Rows::Tokens | Rows::Outputs => tokens,
                Rows::Slots { choices } => tokens * choices,
                Rows::Positions => self.memory.past + tokens,
            };
            vec![f64::NAN; (buffer.row * rows) as usize]
        };
        self.memory.outputs = plan.outputs.iter().map(blank).collect();
        self.memory.workspace.fill(f64::NAN);
        (self.tokens, self.first_output) = (tokens, first_output);
        let pass = plan.passes().nth(sequence).expect("the plan has this sequence");
        self.memory.past = self.pasts[sequence];
        self.nodes(pass);
        self.pasts[sequence] += tokens;
        self.memory.past = self.pasts[0];
        Pass { outputs: self.memory.outputs.clone(), routes: std::mem::take(&mut self.routes) }
    }

    fn nodes(&mut self, nodes: &'p [Node]) {
        for node in nodes {
            match node {
                Node::Step(step) => steps::run(self, &step.kind),
                Node::Layers(layers) => {
                    // A stack within a layer runs once for each of that layer.
                    let outer = self.rank;
                    let count = |kind: u32, order: &[u32]| order.iter().filter(|other| **other == kind).count() as u32;
                    for (at, kind) in layers.order.iter().enumerate() {
                        self.rank = outer * count(*kind, &layers.order) + count(*kind, &layers.order[..at]);
                        self.nodes(&layers.kinds[*kind as usize]);
                    }
                    self.rank = outer;
                }
            }
        }
    }

    /// A packed instance without its layout.
    pub(crate) fn param(&mut self, id: ParamId, expert: u32) -> &[f64] {
        let param = self.plan.param(id);
        let layer = if param.per_layer { self.rank } else { 0 };
        let expert = if param.experts > 1 { expert } else { 0 };
        let weights = self.weights;
        self.packed.entry((id, layer, expert)).or_insert_with(|| {
            let found = weights.packed(id, layer, expert);
            assert_eq!(found.len() as u64, param.weights(), "{} is packed whole", param.name);
            found
        })
    }
}

/// Where the element that is number `flat` in the order (sizes and strides, slowest first) lies.
fn place(flat: u64, order: &[(u64, u64)]) -> usize {
    let mut rest = flat;
    let mut at = 0;
    for (size, stride) in order.iter().rev() {
        at += rest % size * stride;
        rest /= size;
    }
    at as usize
}
