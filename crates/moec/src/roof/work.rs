//! What the steps of a plan do in a pass: operations, bytes, and how many rows meet each matrix of weights.

use moec_plan::{
    Attention, Extent, Gemm, Layers, Layout, Node, Plan, RowGroup, RowOp, RowProgram, Rows, Source, Step, StepKind,
    View,
};
use moec_program::products::{Product, Size};

use super::effort::{self, Effort};

/// What one execution of a step does besides products with matrices of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Other {
    /// Of f32 numbers.
    pub flops: f64,
    /// Of parameters and caches.
    pub bytes: f64,
    pub effort: Effort,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Kind(usize),
    Outside,
}

/// One step of the plan.
#[derive(Clone, Debug)]
pub struct Counted {
    pub place: Place,
    pub name: &'static str,
    pub executions: u64,
    pub product: Option<Product>,
    pub other: Other,
}

impl Counted {
    /// Where it is no product.
    pub fn other(&self) -> Option<Other> {
        self.product.is_none().then_some(self.other)
    }
}

/// Every step, by its number in the plan.
pub fn steps(plan: &Plan, size: Size) -> Vec<Counted> {
    let mut counter = Counter { plan, size, kinds: 0, found: Vec::new() };
    plan.passes().for_each(|pass| counter.nodes(pass, Place::Outside, 1));
    counter.found
}

/// The products of a plan, whatever the pass.
pub fn products(plan: &Plan) -> Vec<Product> {
    let size = Size { tokens: 1, past: 0, outputs: 1 };
    steps(plan, size).into_iter().filter_map(|step| step.product).collect()
}

struct Counter<'p> {
    plan: &'p Plan,
    size: Size,
    kinds: usize,
    found: Vec<Counted>,
}

impl Counter<'_> {
    fn nodes(&mut self, nodes: &[Node], place: Place, executions: u64) {
        for node in nodes {
            match node {
                Node::Layers(layers) => self.layers(layers, executions),
                Node::Step(step) => {
                    let counted = self.step(step, place, executions);
                    self.found.push(counted);
                }
            }
        }
    }

    fn layers(&mut self, layers: &Layers, executions: u64) {
        let first = self.kinds;
        self.kinds += layers.kinds.len();
        for (number, kind) in layers.kinds.iter().enumerate() {
            let times = layers.order.iter().filter(|of| **of as usize == number).count() as u64;
            self.nodes(kind, Place::Kind(first + number), executions * times);
        }
    }

    fn step(&self, step: &Step, place: Place, executions: u64) -> Counted {
        let (mut product, mut other) = (None, Other::default());
        match &step.kind {
            StepKind::Rows { rows, program, group } => other = self.rows(self.count(*rows), program, group.as_ref()),
            StepKind::Gemm(gemm) => product = Some(self.gemm(gemm, executions)),
            StepKind::Attention(attention) => other = self.attention(attention),
            StepKind::Scan(scan) => {
                let (tokens, parts) = (self.size.tokens as f64, scan.parts as f64);
                other = self.rows(tokens * parts, &scan.program, None);
                let [operations, moved] = self.of_row(&scan.program).map(|each| tokens * each);
                other.effort = Effort::Rows { rows: parts, operations, moved };
            }
            // Each choice is looked at three times, and written.
            StepKind::Bin(bin) => {
                let choices = self.count(bin.tokens) * bin.choices as f64;
                other.flops = choices * 8.0 + bin.experts as f64 * 4.0;
                other.effort = Effort::Choices(choices + bin.experts as f64);
            }
            StepKind::Assign(assign) => {
                other.flops = self.count(assign.tokens) * (assign.experts * assign.experts) as f64;
                other.effort = Effort::Rows { rows: 1.0, operations: other.flops * effort::LANES, moved: 0.0 };
            }
        }
        Counted { place, name: step.kind.name(), executions, product, other }
    }

    fn count(&self, rows: Rows) -> f64 {
        let Size { tokens, past, .. } = self.size;
        match rows {
            Rows::Fixed(rows) => rows as f64,
            Rows::Tokens => tokens as f64,
            Rows::Outputs => self.size.outputs as f64,
            Rows::Slots { choices } => (tokens * choices) as f64,
            Rows::Share(share) => share.of(tokens) as f64,
            Rows::Positions => (tokens + past) as f64,
        }
    }

    fn gemm(&self, gemm: &Gemm, executions: u64) -> Product {
        let param = self.plan.param(gemm.weights);
        let (matrices, share) = match &gemm.group {
            None => (1.0, 1.0),
            Some(group) => {
                let experts = self.plan.buffer(group.offsets).row.saturating_sub(1).max(1);
                (f64::from(param.experts), (group.choices as f64 / experts as f64).min(1.0))
            }
        };
        let batch = gemm.batch as f64;
        let (rows_of_token, rows) = match gemm.rows {
            Rows::Tokens | Rows::Outputs | Rows::Slots { .. } => (batch, 0.0),
            Rows::Share(part) => (batch * part.times as f64 / part.per as f64, 0.0),
            Rows::Fixed(_) | Rows::Positions => (0.0, self.count(gemm.rows) * batch / matrices),
        };
        Product {
            format: param.storage.to_string(),
            weights: param.weights() as f64,
            bytes: param.needed_bytes() as f64,
            matrices,
            share,
            rows_of_token,
            rows,
            of_outputs: gemm.rows == Rows::Outputs,
            executions,
        }
    }

    /// The keys that queries look at on average, and the cache rows that are read at all.
    fn attention(&self, attention: &Attention) -> Other {
        let Size { tokens, past, .. } = self.size;
        let all = (tokens + past) as f64;
        let seen = if attention.causal { past as f64 + (tokens as f64 + 1.0) / 2.0 } else { all };
        let seen = attention.window.map_or(seen, |window| seen.min(window as f64));
        let read = attention.window.map_or(all, |window| all.min((window + tokens) as f64));
        let queries = self.count(attention.rows) * attention.queries as f64;
        let scores = queries * attention.groups as f64 * seen;
        let row = |id| self.plan.buffer(id).row_bytes() as f64;
        let width = (attention.width + attention.values) as f64;
        Other {
            flops: scores * (2 * (attention.width + attention.values) + attention.score.operations() + 8) as f64,
            bytes: read * (row(attention.k) + row(attention.v)),
            effort: Effort::Attention {
                items: effort::attention_items(queries) * attention.groups as f64,
                read: seen * width,
                multiplied: scores * (width + effort::of_expression(&attention.score) + effort::SOFTMAX),
            },
        }
    }

    fn rows(&self, rows: f64, program: &RowProgram, group: Option<&RowGroup>) -> Other {
        let instances = group.map_or(1.0, |group| f64::from(group.count));
        let [operations, moved] = self.of_row(program);
        let none = Other { effort: Effort::Rows { rows, operations, moved }, ..Other::default() };
        program.ops.iter().fold(none, |sum, op| {
            let (elements, operations) = self.op(op);
            let read = |view: &&View| self.param_bytes(view, rows, elements) * instances;
            Other {
                flops: sum.flops + rows * elements * operations,
                bytes: sum.bytes + op.reads().iter().map(read).sum::<f64>(),
                ..sum
            }
        })
    }

    /// Operations of one row, and bytes of activations that come and go.
    fn of_row(&self, program: &RowProgram) -> [f64; 2] {
        let (tokens, bytes) = (self.size.tokens, |id| self.plan.buffer(id).dtype.bytes());
        let operations = program.ops.iter().map(|op| effort::of_op(op, tokens)).sum();
        [operations, program.ops.iter().map(|op| effort::moved(op, tokens, bytes)).sum()]
    }

    /// A look-up reads what it asks for; what all rows read is read once.
    fn param_bytes(&self, view: &View, rows: f64, elements: f64) -> f64 {
        let Source::Param(id) = view.source else { return 0.0 };
        let param = self.plan.param(id);
        let Layout::Plain { elements: whole } = param.layout else { return 0.0 };
        let asked = if view.index.is_some() { rows * elements } else { elements };
        asked.min(whole as f64) * param.dtype().bytes() as f64
    }

    /// Elements of one row's loops, and operations for each.
    fn op(&self, op: &RowOp) -> (f64, f64) {
        let product = |extents: &[Extent]| extents.iter().map(|extent| self.extent(*extent)).product::<f64>();
        match op {
            RowOp::Map { extents, expr, .. } => (product(extents), expr.operations() as f64 + 1.0),
            RowOp::Reduce { extents, over, expr, .. } | RowOp::ScatterAdd { extents, over, expr, .. } => {
                (product(extents) * product(over), expr.operations() as f64 + 1.0)
            }
            RowOp::Cumsum { extents, along, expr, .. } => {
                (product(extents) * self.extent(*along), expr.operations() as f64 + 1.0)
            }
            // All are looked at for each that is chosen, or sorted.
            RowOp::TopK { extents, len, k, work, .. } => {
                let len = self.extent(*len);
                let looks = if work.is_some() { len.max(2.0).log2() } else { self.extent(*k) };
                (product(extents) * len, looks)
            }
        }
    }

    fn extent(&self, extent: Extent) -> f64 {
        extent.of(self.size.tokens) as f64
    }
}

/// Whether the model goes from tokens to logits of the last one alone, as `NAME_step` runs it.
pub fn outputs(plan: &Plan, tokens: u64) -> u64 {
    if moec_codegen::token_ports(plan).is_some() { 1 } else { tokens }
}
