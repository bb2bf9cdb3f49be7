//! Small plans, put together by hand.

use moec_diag::Span;
use moec_plan::{
    Buffer, BufferId, Extent, Format, Home, Layout, Literal, LiteralId, Node, PackedParam, ParamId, Plan, Port, RowOp,
    RowProgram, Rows, Source, Step, StepKind, View, quantise,
};
use moec_types::{BinaryOp, DType, Expr, UnaryOp};

/// A plan on its way, with values for its parameters.
pub struct Building {
    pub plan: Plan,
    pub weights: Vec<Vec<f64>>,
    random: Random,
    workspace: (u64, u64),
    cache: u64,
}

impl Building {
    pub fn new(seed: u64) -> Self {
        let plan = Plan {
            name: "test".into(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            params: Vec::new(),
            literals: Vec::new(),
            buffers: Vec::new(),
            body: Vec::new(),
            sources: Vec::new(),
        };
        Building { plan, weights: Vec::new(), random: Random(seed), workspace: (0, 0), cache: 0 }
    }

    fn buffer(&mut self, dtype: DType, rows: Rows, row: u64, home: Home) -> BufferId {
        let id = BufferId(self.plan.buffers.len() as u32);
        self.plan.buffers.push(Buffer { name: format!("b{}", id.0), dtype, rows, row, home });
        id
    }

    fn port(&self, buffer: BufferId, row: u64) -> Port {
        Port { name: format!("p{}", buffer.0), buffer, sequence: 0, axes: vec![("A".into(), row)], index_limit: None }
    }

    pub fn input(&mut self, dtype: DType, rows: Rows, row: u64) -> BufferId {
        let id = self.buffer(dtype, rows, row, Home::Input(self.plan.inputs.len() as u32));
        let port = self.port(id, row);
        self.plan.inputs.push(port);
        id
    }

    pub fn output(&mut self, dtype: DType, rows: Rows, row: u64) -> BufferId {
        let id = self.buffer(dtype, rows, row, Home::Output(self.plan.outputs.len() as u32));
        let port = self.port(id, row);
        self.plan.outputs.push(port);
        id
    }

    pub fn workspace(&mut self, dtype: DType, rows: Rows, row: u64) -> BufferId {
        let (per_token, fixed) = self.workspace;
        let id = self.buffer(dtype, rows, row, Home::Workspace { per_token, fixed });
        let (more, more_fixed) = self.plan.buffer(id).bytes();
        self.workspace = (per_token + more, fixed + more_fixed);
        id
    }

    pub fn cache(&mut self, dtype: DType, row: u64, instances: u32, panels: bool) -> BufferId {
        let per_position = self.cache;
        let id = self.buffer(dtype, Rows::Positions, row, Home::Cache { instances, per_position, panels });
        self.cache += self.plan.buffer(id).row_bytes() * u64::from(instances);
        id
    }

    pub fn param(&mut self, layout: Layout, storage: impl Into<Format>, layers: u32, experts: u32) -> ParamId {
        let storage = storage.into();
        let id = ParamId(self.plan.params.len() as u32);
        let sources = match layout {
            Layout::Plain { .. } => 1,
            Layout::Panels { branches, .. } => branches,
        };
        let source = |at: u32| moec_plan::PackSource {
            param: at,
            path: format!("w{}_{at}", id.0),
            rows: vec!["N".into()],
            columns: vec!["K".into()],
        };
        let mut param = PackedParam {
            name: format!("w{}", id.0),
            layout: layout.clone(),
            storage,
            layers,
            per_layer: layers > 1,
            experts,
            instance_bytes: 0,
            offset: self.plan.weight_bytes(),
            sources: (0..sources).map(source).collect(),
        };
        param.instance_bytes = param.needed_bytes().next_multiple_of(64);
        let size = param.weights();
        self.plan.params.push(param);
        let values = self.values(size * u64::from(layers * experts));
        // What is stored each by itself is rounded here, everything else when it is packed.
        let stored = |value| storage.each().map_or(value, |dtype| stored(dtype, value));
        self.weights.push(values.into_iter().map(stored).collect());
        id
    }

    pub fn literal(&mut self, dtype: DType, data: Vec<f64>) -> LiteralId {
        self.plan.literals.push(Literal { dtype, data });
        LiteralId(self.plan.literals.len() as u32 - 1)
    }

    pub fn step(&mut self, kind: StepKind) {
        let node = step(kind);
        self.plan.body.push(node);
    }

    /// From -1 to 1, as f32.
    pub fn values(&mut self, count: u64) -> Vec<f64> {
        (0..count).map(|_| f64::from(self.random.next() as f32)).collect()
    }

    /// From 0 up to `limit`.
    pub fn indices(&mut self, count: u64, limit: u64) -> Vec<f64> {
        (0..count).map(|_| ((self.random.next() + 1.0) / 2.0 * limit as f64).floor().min(limit as f64 - 1.0)).collect()
    }
}

impl moec_interpreter::Weights for Building {
    fn packed(&self, param: ParamId, layer: u32, expert: u32) -> Vec<f64> {
        let packed = self.plan.param(param);
        let size = packed.weights() as usize;
        let instance = (layer * packed.experts + expert) as usize;
        let values = &self.weights[param.0 as usize][instance * size..(instance + 1) * size];
        match packed.layout {
            Layout::Panels { k, .. } if packed.storage.each().is_none() => {
                let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
                values.chunks(k as usize).flat_map(|column| quantise::stored_column(packed.storage, column)).collect()
            }
            Layout::Panels { .. } | Layout::Plain { .. } => values.to_vec(),
        }
    }
}

/// A number as storage rounds it.
pub fn stored(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F32 => f64::from(value as f32),
        DType::Bf16 => half::bf16::from_f32(value as f32).to_f64(),
        DType::F16 => half::f16::from_f32(value as f32).to_f64(),
        DType::I32 | DType::Bool => value,
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as f64 / f64::from(1u32 << 30) - 1.0
    }
}

pub fn step(kind: StepKind) -> Node {
    Node::Step(Step { kind, barrier: true, at: Span::default(), label: "step".into() })
}

pub fn rows(rows: Rows, ops: Vec<RowOp>) -> StepKind {
    StepKind::Rows { rows, program: RowProgram { locals: Vec::new(), ops }, group: None }
}

pub fn view(source: Source, offset: u64, strides: &[u64]) -> View {
    View { source, offset, strides: strides.to_vec(), row: 0, index: None }
}

/// Loops of sizes that are known now.
pub fn fixed(sizes: &[u64]) -> Vec<Extent> {
    sizes.iter().map(|size| Extent::Fixed(*size)).collect()
}

pub fn row(id: BufferId, strides: &[u64]) -> View {
    view(Source::Row(id), 0, strides)
}

pub fn arg(at: usize) -> Expr {
    Expr::Arg(at)
}

pub fn add(x: Expr, y: Expr) -> Expr {
    Expr::binary(BinaryOp::Add, x, y)
}

pub fn mul(x: Expr, y: Expr) -> Expr {
    Expr::binary(BinaryOp::Mul, x, y)
}

/// `x / (1 + exp(-x))`.
pub fn silu(x: Expr) -> Expr {
    let grown = Expr::unary(UnaryOp::Exp, Expr::unary(UnaryOp::Neg, x.clone()));
    Expr::binary(BinaryOp::Div, x, add(Expr::F32(1.0), grown))
}
