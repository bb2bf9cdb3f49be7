//! The state of lowering, and the walk over regions.

use std::collections::{BTreeMap, BTreeSet};

use moec_diag::Span;
use moec_ir::{
    Module, Node as ModelNode, Op, OpId, ParamId as ModelParam, RegionId, ValueId,
    ops::{self, Reach},
};
use moec_plan::{
    Buffer, BufferId, Extent, Home, Layers, Literal, LiteralId, Node, Plan, Port, Rows, Share, Step, StepKind,
};
use moec_types::{DType, Dim, Size};

use crate::{
    Unsupported,
    access::{RowDim, elements},
    experts::MemberPlace,
    parallel,
    params::Packing,
    ports,
    sequences::{Needed, Sequences},
    workspace,
};

/// Where a value is to be found.
#[derive(Clone, Debug)]
pub enum Place {
    /// A row for each position (or slot), or one row; the dims of a row are the type's without the symbolic axis, in order.
    Buffer(BufferId),
    /// Rows of tokens, read by slots: what an expert sees when its rows are gathered on the way in.
    Gathered {
        tokens: BufferId,
        route: ValueId,
    },
    Param(ModelParam),
    /// All experts' instances of a parameter.
    Stack(ModelParam),
    Literal(LiteralId),
    Iota(Dim),
    Count(Extent),
    /// Kept by attention; found through the two caches.
    Past {
        keys: Option<BufferId>,
        values: Option<BufferId>,
    },
}

/// A route's buffers.
#[derive(Clone, Debug)]
pub struct RoutePlace {
    pub weights: BufferId,
    pub offsets: BufferId,
    pub order: BufferId,
    pub slot_of: Option<BufferId>,
    /// The token of each slot, made when something needs it.
    pub token_of: Option<BufferId>,
    pub choices: u64,
    /// The rows of its tokens: those of the pass, or a fixed number.
    pub tokens: Rows,
    pub slots: Rows,
}

pub struct Lowering<'m> {
    pub module: &'m Module,
    pub packing: Packing,
    pub literals: Vec<Literal>,
    pub buffers: Vec<Buffer>,
    pub places: BTreeMap<ValueId, Place>,
    pub routes: BTreeMap<ValueId, RoutePlace>,
    /// Readers of each value, region results not counted.
    pub readers: BTreeMap<ValueId, Vec<OpId>>,
    /// Values that some region yields.
    pub yielded: BTreeSet<ValueId>,
    /// The steps of the region being lowered.
    pub steps: Vec<Node>,
    /// Executions of the layer kind being lowered; 1 outside.
    pub instances: u32,
    /// The row count that `Input` axes have here: `Tokens`, or `Outputs` after the last step that looks across positions.
    pub tokens: Rows,
    /// The bank member whose region is being lowered.
    pub member: Option<MemberPlace>,
    pub route_count: u32,
    pub cache_bytes: u64,
    pub state_bytes: u64,
    /// What the inputs are long along, and which of these the pass being lowered goes along.
    pub sequences: Sequences,
    /// What that pass has to compute; everything where there is one sequence.
    pub needed: Option<Needed>,
}

impl<'m> Lowering<'m> {
    pub fn new(module: &'m Module) -> Self {
        let mut readers: BTreeMap<ValueId, Vec<OpId>> = BTreeMap::new();
        let mut yielded = BTreeSet::new();
        for region in module.regions().map(|region| module.region(region)) {
            yielded.extend(region.results.iter().copied());
            for at in &region.nodes {
                for operand in &module.node(*at).operands {
                    readers.entry(*operand).or_default().push(*at);
                }
            }
        }
        Lowering {
            module,
            packing: Packing::default(),
            literals: Vec::new(),
            buffers: Vec::new(),
            places: BTreeMap::new(),
            routes: BTreeMap::new(),
            readers,
            yielded,
            steps: Vec::new(),
            instances: 1,
            tokens: Rows::Tokens,
            member: None,
            route_count: 0,
            cache_bytes: 0,
            state_bytes: 0,
            sequences: Sequences::of(module),
            needed: None,
        }
    }

    pub fn run(mut self) -> Result<Plan, Unsupported> {
        let module = self.module;
        let inputs = ports::inputs(&mut self)?;
        let outputs = ports::declare_outputs(&mut self)?;
        // What a pass reads of another sequence has been kept by the passes over that: those come first.
        let mut sources = Vec::new();
        for sequence in 1..self.sequences.count() {
            self.begin(sequence, &inputs)?;
            self.region(module.body)?;
            sources.push(std::mem::take(&mut self.steps));
        }
        self.begin(0, &inputs)?;
        let body = module.region(module.body);
        let wanted: Vec<OpId> = body.nodes.iter().copied().filter(|at| self.is_needed(*at)).collect();
        let last_look_across = wanted.iter().rposition(|at| looks_across(module, *at)).map_or(0, |at| at + 1);
        for (at, node) in wanted.iter().enumerate() {
            if at >= last_look_across {
                self.tokens = Rows::Outputs;
            }
            self.node(*node)?;
        }
        self.tokens = Rows::Outputs;
        let outputs = ports::finish_outputs(&mut self, outputs)?;
        let mut plan = Plan {
            name: module.name.clone(),
            inputs,
            outputs,
            params: self.packing.finish(),
            literals: self.literals,
            buffers: self.buffers,
            body: self.steps,
            sources,
        };
        parallel::cut_single_rows(&mut plan);
        workspace::assign(&mut plan);
        if let Err(error) = moec_plan::verify(&plan) {
            panic!("lowering made an unsound plan: {error}");
        }
        Ok(plan)
    }

    fn region(&mut self, region: RegionId) -> Result<(), Unsupported> {
        let module = self.module;
        let needed: Vec<OpId> = module.region(region).nodes.iter().copied().filter(|at| self.is_needed(*at)).collect();
        needed.into_iter().try_for_each(|at| self.node(at))
    }

    /// A pass over a sequence: of what other passes found it knows what is kept.
    fn begin(&mut self, sequence: u32, inputs: &[Port]) -> Result<(), Unsupported> {
        self.places.retain(|_, place| matches!(place, Place::Past { .. }));
        self.routes.clear();
        self.tokens = Rows::Tokens;
        self.sequences.now = sequence;
        self.needed = match self.sequences.count() {
            0 | 1 => None,
            _ => Some(Needed::of(self.module, &self.sequences)?),
        };
        ports::place_inputs(self, inputs);
        Ok(())
    }

    /// Whether the pass being lowered has to compute a node of the model or of a layer.
    fn is_needed(&self, at: OpId) -> bool {
        self.needed.as_ref().is_none_or(|needed| needed.nodes.contains(&at))
    }

    /// Lowers one node outside row programs.
    pub fn node(&mut self, at: OpId) -> Result<(), Unsupported> {
        let module = self.module;
        let node = module.node(at);
        match &node.op {
            Op::ParamRef(_) | Op::Stack(_) | Op::Literal(_) | Op::Iota(_) | Op::Count(_) => self.leaf(node)?,
            Op::Past(op) => self.past(op, node)?,
            Op::Assign(op) => self.assign(op, node)?,
            Op::Scan(op) => self.scan(op, node)?,
            Op::Attention(op) => self.attention(op, node)?,
            Op::Linear(op) => self.linear(op, node)?,
            Op::Contract(op) => self.contract(op, at, node)?,
            Op::Route(op) => self.route(op, node)?,
            Op::Dispatch(_) => self.dispatch(node)?,
            Op::Experts(op) => self.experts(op, node)?,
            Op::Combine(_) => self.combine(node)?,
            Op::Each(_) => self.each(node)?,
            Op::Layers(op) => self.layers(op, node)?,
            Op::Rows(op) => self.rows(op, node)?,
            Op::Rename(op) => self.rename(op, at)?,
            Op::Map(_)
            | Op::Reduce(_)
            | Op::Cumsum(_)
            | Op::ScatterAdd(_)
            | Op::TopK(_)
            | Op::Gather(_)
            | Op::Split(_)
            | Op::Merge(_)
            | Op::Slice(_)
            | Op::Unfold(_)
            | Op::Concat(_) => self.single(at)?,
        }
        Ok(())
    }

    fn layers(&mut self, op: &ops::Layers, node: &ModelNode) -> Result<(), Unsupported> {
        let module = self.module;
        let own = |at: &usize| self.needed.as_ref().is_none_or(|needed| needed.values.contains(&node.results[*at]));
        // What goes from layer to layer in this pass.
        let places: Vec<usize> = (0..node.operands.len()).filter(own).collect();
        let carried: Vec<BufferId> =
            places.iter().map(|at| self.owned_buffer(node.operands[*at], node.at)).collect::<Result<_, _>>()?;
        let mut kinds = Vec::new();
        for (kind, region) in op.kinds.iter().enumerate() {
            let outer = std::mem::take(&mut self.steps);
            self.instances = op.order.iter().filter(|other| **other as usize == kind).count() as u32;
            let inside = module.region(*region);
            for (at, buffer) in places.iter().zip(&carried) {
                self.places.insert(inside.args[*at], Place::Buffer(*buffer));
            }
            self.region(*region)?;
            let results: Vec<ValueId> = places.iter().map(|at| inside.results[*at]).collect();
            self.carry(&results, &carried, node.at)?;
            self.instances = 1;
            kinds.push(std::mem::replace(&mut self.steps, outer));
        }
        self.steps.push(Node::Layers(Layers { kinds, order: op.order.clone() }));
        for (at, buffer) in places.iter().zip(&carried) {
            self.places.insert(node.results[*at], Place::Buffer(*buffer));
        }
        Ok(())
    }

    /// Ends a layer: its results become what the next layer starts from, in place where that is safe.
    fn carry(&mut self, results: &[ValueId], carried: &[BufferId], at: Span) -> Result<(), Unsupported> {
        let crossed = results.iter().zip(carried).any(|(result, own)| {
            matches!(self.places.get(result), Some(Place::Buffer(here)) if here != own && carried.contains(here))
        });
        for (result, own) in results.iter().zip(carried) {
            if let Some(Place::Buffer(here)) = self.places.get(result).cloned()
                && matches!(self.buffers[here.0 as usize].home, Home::Workspace { .. })
                && self.is_only_name_of(here)
                && !carried.contains(&here)
                && !crossed
                && workspace::write_in_place(&mut self.steps, here, *own)
            {
                self.places.insert(*result, Place::Buffer(*own));
            }
        }
        if crossed {
            for result in results {
                let apart = self.buffer_for(*result, at)?;
                self.copy_into(*result, apart, at)?;
                self.places.insert(*result, Place::Buffer(apart));
            }
        }
        results.iter().zip(carried).try_for_each(|(result, own)| self.copy_into(*result, *own, at))
    }

    /// A buffer that holds a value and that the loop may overwrite: the value's own when nothing else reads it.
    fn owned_buffer(&mut self, value: ValueId, at: Span) -> Result<BufferId, Unsupported> {
        let alone = self.readers.get(&value).map_or(0, Vec::len) == 1 && !self.yielded.contains(&value);
        if let Some(Place::Buffer(buffer)) = self.places.get(&value)
            && alone
            && self.is_only_name_of(*buffer)
            && matches!(self.buffers[buffer.0 as usize].home, Home::Workspace { .. })
        {
            return Ok(*buffer);
        }
        let buffer = self.buffer_for(value, at)?;
        self.copy_into(value, buffer, at)?;
        Ok(buffer)
    }

    /// Whether no two values share a buffer, as one does with what it is renamed to.
    fn is_only_name_of(&self, buffer: BufferId) -> bool {
        self.places.values().filter(|place| matches!(place, Place::Buffer(other) if *other == buffer)).count() == 1
    }

    pub fn literal(&mut self, op: &ops::Literal) -> LiteralId {
        let literal = Literal { dtype: op.ty.dtype, data: op.data.clone() };
        let at = self.literals.iter().position(|other| same_literal(other, &literal)).unwrap_or_else(|| {
            self.literals.push(literal);
            self.literals.len() - 1
        });
        LiteralId(at as u32)
    }

    pub fn unsupported(
        &self,
        node: &ModelNode,
        reason: impl Into<String>,
        way_round: impl Into<String>,
    ) -> Unsupported {
        Unsupported {
            op: format!("`{}`", node.op.mnemonic()),
            reason: reason.into(),
            way_round: way_round.into(),
            at: node.at,
        }
    }

    /// The rows that a symbolic size counts here.
    pub fn row_count(&self, size: &Size) -> Option<Rows> {
        match size {
            Size::Fixed(_) => None,
            Size::Input(_) => Some(self.tokens),
            Size::Past(_) => Some(Rows::Positions),
            Size::Share { times, per, up, .. } => Some(Rows::Share(Share { times: *times, per: *per, up: *up })),
            Size::Slots { tokens, choices } => match tokens.fixed() {
                Some(tokens) => Some(Rows::Fixed(tokens * choices)),
                None => Some(Rows::Slots { choices: *choices }),
            },
        }
    }

    /// How long a loop along an axis is. Of `past`, only where nothing runs along it.
    pub fn extent(&self, size: &Size) -> Extent {
        match size {
            Size::Fixed(size) => Extent::Fixed(*size),
            Size::Input(_) | Size::Past(_) => Extent::Tokens,
            Size::Slots { tokens, choices } => match tokens.fixed() {
                Some(tokens) => Extent::Fixed(tokens * choices),
                None => Extent::Share(Share::multiple(*choices)),
            },
            Size::Share { times, per, up, .. } => Extent::Share(Share { times: *times, per: *per, up: *up }),
        }
    }

    /// The rows of a type and the dims of one row.
    pub fn shape(&self, value: ValueId, at: Span) -> Result<(Rows, Vec<RowDim>), Unsupported> {
        let ty = self.module.tensor(value);
        let mut rows = None;
        let mut dims = Vec::new();
        for dim in &ty.dims {
            match dim.size.fixed() {
                Some(size) => dims.push((dim.axis.clone(), Extent::Fixed(size))),
                None if rows.is_none() => rows = self.row_count(&dim.size),
                None => {
                    return Err(Unsupported {
                        op: format!("a value of type {ty}"),
                        reason: "it has two symbolic axes".into(),
                        way_round:
                            "give one of them a fixed size, or, if this is attention, write it as a softmax over \
                                    the keys between two contractions, so that it fuses"
                                .into(),
                        at,
                    });
                }
            }
        }
        Ok((rows.unwrap_or_else(|| self.rows_of_constants()), dims))
    }

    /// What is the same for all positions has one row; within an expert it may differ from expert to expert.
    fn rows_of_constants(&self) -> Rows {
        match &self.member {
            Some(member) => member.slots.rows,
            None => Rows::ONE,
        }
    }

    /// A new workspace buffer for a value.
    pub fn buffer_for(&mut self, value: ValueId, at: Span) -> Result<BufferId, Unsupported> {
        let (rows, dims) = self.shape(value, at)?;
        let name = self.module.name_of(value).map_or_else(|| format!("v{}", value.0), str::to_owned);
        Ok(self.new_buffer(&name, self.module.tensor(value).dtype, rows, elements(&dims)))
    }

    pub fn new_buffer(&mut self, name: &str, dtype: DType, rows: Rows, row: u64) -> BufferId {
        let home = Home::Workspace { per_token: 0, fixed: 0 };
        self.buffers.push(Buffer { name: name.to_owned(), dtype, rows, row, home });
        BufferId(self.buffers.len() as u32 - 1)
    }

    pub fn new_cache(&mut self, name: &str, row: u64, panels: bool) -> BufferId {
        let home = Home::Cache { instances: self.instances, per_position: self.cache_bytes, panels };
        let buffer = Buffer { name: name.to_owned(), dtype: DType::F32, rows: Rows::Positions, row, home };
        self.cache_bytes += buffer.row_bytes() * u64::from(self.instances);
        self.buffers.push(buffer);
        BufferId(self.buffers.len() as u32 - 1)
    }

    /// What a session keeps of one row, for every execution of the layer kind.
    pub fn state_buffer(&mut self, name: &str, row: u64) -> BufferId {
        let home = Home::State { instances: self.instances, offset: self.state_bytes };
        let buffer = Buffer { name: name.to_owned(), dtype: DType::F32, rows: Rows::ONE, row, home };
        self.state_bytes += buffer.instance_bytes() * u64::from(self.instances);
        self.buffers.push(buffer);
        BufferId(self.buffers.len() as u32 - 1)
    }

    pub fn step(&mut self, kind: StepKind, at: Span, label: impl Into<String>) {
        self.steps.push(Node::Step(Step { kind, barrier: true, at, label: label.into() }));
    }

    /// The single reader of a value that no region yields.
    pub fn only_reader(&self, value: ValueId) -> Option<&'m ModelNode> {
        let [reader] = self.readers.get(&value)?[..] else { return None };
        (!self.yielded.contains(&value)).then(|| self.module.node(reader))
    }
}

/// Whether a node's results at one token depend on others.
fn looks_across(module: &Module, at: OpId) -> bool {
    let node = module.node(at);
    let symbolic = |value: &ValueId, axis: &moec_types::Axis| {
        module.ty(*value).tensor().and_then(|ty| ty.dim(axis)).is_some_and(|dim| dim.size.fixed().is_none())
    };
    let along = |axis: &moec_types::Axis| node.operands.iter().any(|value| symbolic(value, axis));
    node.op.reach() == Reach::Across || node.op.along().iter().any(along)
}

/// NaN-proof equality: the same bits.
fn same_literal(a: &Literal, b: &Literal) -> bool {
    a.dtype == b.dtype
        && a.data.len() == b.data.len()
        && a.data.iter().zip(&b.data).all(|(a, b)| a.to_bits() == b.to_bits())
}
