//! A plan's meaning, read off its doc comments: one element at a time, in f64.

use std::collections::HashMap;

use moec_plan::{
    Attention, Bin, BufferId, Gemm, Home, Layout, Node, Plan, ReduceOp, RowGroup, RowOp, RowProgram, Rows, Source,
    StepKind, Store, View,
};
use moec_types::{BinaryOp, DType, Expr, UnaryOp};

/// Values by buffer and instance; caches last.
pub struct Interpreter<'a> {
    plan: &'a Plan,
    weights: &'a [Vec<f64>],
    past: u64,
    tokens: u64,
    first_output: u64,
    rank: u64,
    memory: HashMap<(BufferId, u64), Vec<f64>>,
}

impl<'a> Interpreter<'a> {
    pub fn new(plan: &'a Plan, weights: &'a [Vec<f64>]) -> Self {
        Interpreter { plan, weights, past: 0, tokens: 0, first_output: 0, rank: 0, memory: HashMap::new() }
    }

    pub fn run(&mut self, inputs: &[Vec<f64>], tokens: u64, first_output: u64) -> Vec<Vec<f64>> {
        self.tokens = tokens;
        self.first_output = first_output;
        self.memory.retain(|(id, _), _| is_cache(self.plan, *id));
        for (port, values) in self.plan.inputs.iter().zip(inputs) {
            self.memory.insert((port.buffer, 0), values.clone());
        }
        let plan = self.plan;
        self.nodes(&plan.body);
        self.past += tokens;
        let output = |port: &moec_plan::Port| {
            let buffer = plan.buffer(port.buffer);
            let size = (crate::host::rows_of(buffer, tokens) * buffer.row) as usize;
            let mut values = self.memory.get(&(port.buffer, 0)).cloned().unwrap_or_default();
            values.resize(size, f64::NAN);
            values
        };
        plan.outputs.iter().map(output).collect()
    }

    fn nodes(&mut self, nodes: &[Node]) {
        for node in nodes {
            match node {
                Node::Step(step) => match &step.kind {
                    StepKind::Rows { rows, program, group } => self.rows(*rows, program, group.as_ref()),
                    StepKind::Gemm(gemm) => self.gemm(gemm),
                    StepKind::Bin(bin) => self.bin(bin),
                    StepKind::Attention(attention) => self.attention(attention),
                },
                Node::Layers(layers) => {
                    let outer = self.rank;
                    for (at, kind) in layers.order.iter().enumerate() {
                        let times = |range: &[u32]| range.iter().filter(|other| *other == kind).count() as u64;
                        self.rank = outer * times(&layers.order) + times(&layers.order[..at]);
                        self.nodes(&layers.kinds[*kind as usize]);
                    }
                    self.rank = outer;
                }
            }
        }
    }

    fn range(&self, rows: Rows) -> std::ops::Range<u64> {
        match rows {
            Rows::One => 0..1,
            Rows::Tokens => 0..self.tokens,
            Rows::Outputs => self.first_output..self.tokens,
            Rows::Slots { choices } => 0..self.tokens * choices,
            Rows::Positions => 0..self.past + self.tokens,
        }
    }

    fn instance(&self, id: BufferId) -> u64 {
        match self.plan.buffer(id).home {
            Home::Cache { instances, .. } if instances > 1 => self.rank,
            _ => 0,
        }
    }

    /// The first element of row `row` of a step over `rows`.
    fn row(&self, id: BufferId, rows: Rows, row: u64) -> u64 {
        let buffer = self.plan.buffer(id);
        let row = match (is_cache(self.plan, id), rows) {
            (true, Rows::Tokens | Rows::Outputs) => row + self.past,
            _ if buffer.rows == Rows::One => 0,
            _ => row,
        };
        row * buffer.row
    }

    fn get(&self, id: BufferId, at: u64) -> f64 {
        let values = self.memory.get(&(id, self.instance(id)));
        values.and_then(|values| values.get(at as usize)).copied().unwrap_or(f64::NAN)
    }

    fn set(&mut self, id: BufferId, at: u64, value: f64) {
        let dtype = self.plan.buffer(id).dtype;
        let instance = self.instance(id);
        let values = self.memory.entry((id, instance)).or_default();
        if values.len() <= at as usize {
            values.resize(at as usize + 1, f64::NAN);
        }
        values[at as usize] = stored(dtype, value);
    }

    /// Element `at` of the parameter's instance for this layer and an expert.
    fn param(&self, id: moec_plan::ParamId, expert: u64, at: u64) -> f64 {
        let param = self.plan.param(id);
        let layer = if param.per_layer { self.rank } else { 0 };
        let size = match param.layout {
            Layout::Plain { elements } => elements,
            Layout::Panels { k, n, branches } => k * n * u64::from(branches),
        };
        let instance = layer * u64::from(param.experts) + if param.experts > 1 { expert } else { 0 };
        stored(param.storage, self.weights[id.0 as usize][(instance * size + at) as usize])
    }

    fn rows(&mut self, rows: Rows, program: &RowProgram, group: Option<&RowGroup>) {
        let mut all: Vec<(u64, u64)> = self.range(rows).map(|row| (row, 0)).collect();
        if let Some(group) = group {
            let offset = |expert: u32| self.get(group.offsets, u64::from(group.first + expert)) as u64;
            let of = |expert: u32| (offset(expert)..offset(expert + 1)).map(move |row| (row, u64::from(expert)));
            all = (0..group.count).flat_map(of).collect();
        }
        for (row, expert) in all {
            let locals = program.locals.iter().map(|local| vec![f64::NAN; local.elements as usize]).collect();
            let mut place = RowPlace { rows, row, expert, locals };
            for op in &program.ops {
                match op {
                    RowOp::Map { extents, expr, args, into } => {
                        for ivs in indices(extents) {
                            let args: Vec<f64> = args.iter().map(|view| self.load(&place, view, &ivs)).collect();
                            let dtypes: Vec<DType> = self.dtypes(program, args.len(), op);
                            let value = evaluate(expr, &args, &dtypes);
                            self.store(&mut place, into, &ivs, value);
                        }
                    }
                    RowOp::Reduce { op: reduce, extents, over, expr, args, into } => {
                        for kept in indices(extents) {
                            let values: Vec<f64> = indices(over)
                                .map(|rest| {
                                    let ivs: Vec<u64> = kept.iter().chain(&rest).copied().collect();
                                    let args: Vec<f64> =
                                        args.iter().map(|view| self.load(&place, view, &ivs)).collect();
                                    let dtypes = self.dtypes(program, args.len(), op);
                                    evaluate(expr, &args, &dtypes)
                                })
                                .collect();
                            self.store(&mut place, into, &kept, reduced(*reduce, &values));
                        }
                    }
                    RowOp::TopK { extents, len, k, arg, values, indices: chosen } => {
                        for kept in indices(extents) {
                            let at = |last: u64| kept.iter().copied().chain([last]).collect::<Vec<u64>>();
                            let all: Vec<f64> = (0..*len).map(|last| self.load(&place, arg, &at(last))).collect();
                            let mut order: Vec<usize> = (0..all.len()).collect();
                            order.sort_by(|x, y| match (all[*x].is_nan(), all[*y].is_nan()) {
                                (false, false) => all[*y].partial_cmp(&all[*x]).expect("numbers"),
                                (x, y) => x.cmp(&y),
                            });
                            for turn in 0..*k {
                                let index = order[turn as usize];
                                self.store(&mut place, values, &at(turn), all[index]);
                                self.store(&mut place, chosen, &at(turn), index as f64);
                            }
                        }
                    }
                }
            }
        }
    }

    fn dtypes(&self, program: &RowProgram, _: usize, op: &RowOp) -> Vec<DType> {
        let args = match op {
            RowOp::Map { args, .. } | RowOp::Reduce { args, .. } => args,
            RowOp::TopK { .. } => return vec![DType::F32],
        };
        args.iter().map(|view| self.dtype(program, view.source)).collect()
    }

    fn dtype(&self, program: &RowProgram, source: Source) -> DType {
        let dtype = match source {
            Source::Local(id) => program.locals[id.0 as usize].dtype,
            Source::Row(id) | Source::Whole(id) => self.plan.buffer(id).dtype,
            Source::Param(id) => self.plan.param(id).storage,
            Source::Literal(id) => self.plan.literal(id).dtype,
            Source::Place | Source::Position => DType::I32,
        };
        if dtype.is_float() { DType::F32 } else { dtype }
    }

    fn element(&self, place: &RowPlace, view: &View, ivs: &[u64]) -> u64 {
        let affine: u64 = view.strides.iter().zip(ivs).map(|(stride, iv)| stride * iv).sum();
        let index = view.index.as_ref().map_or(0, |index| {
            let value = self.load(place, &index.view, ivs);
            assert!(value >= 0.0, "an index below 0");
            value as u64 * index.stride
        });
        view.offset + affine + index
    }

    fn load(&self, place: &RowPlace, view: &View, ivs: &[u64]) -> f64 {
        let at = self.element(place, view, ivs);
        match view.source {
            Source::Local(id) => place.locals[id.0 as usize][at as usize],
            Source::Row(id) => self.get(id, self.row(id, place.rows, place.row) + at),
            Source::Whole(id) => self.get(id, at),
            Source::Param(id) => self.param(id, place.expert, at),
            Source::Literal(id) => self.plan.literal(id).data[at as usize],
            Source::Place => at as f64,
            Source::Position => (self.past + place.row + at) as f64,
        }
    }

    fn store(&mut self, place: &mut RowPlace, view: &View, ivs: &[u64], value: f64) {
        let at = self.element(place, view, ivs);
        match view.source {
            Source::Local(id) => place.locals[id.0 as usize][at as usize] = value,
            Source::Row(id) => self.set(id, self.row(id, place.rows, place.row) + at, value),
            Source::Whole(id) => self.set(id, at, value),
            Source::Param(_) | Source::Literal(_) | Source::Place | Source::Position => panic!("written"),
        }
    }

    fn gemm(&mut self, gemm: &Gemm) {
        let Layout::Panels { k, n, branches } = self.plan.param(gemm.weights).layout else { panic!("no panels") };
        let experts = u64::from(self.plan.param(gemm.weights).experts);
        let mut jobs: Vec<(u64, u64, u64, u64, f64)> = Vec::new();
        let mut zeros = Vec::new();
        match &gemm.group {
            None => {
                for row in self.range(gemm.rows) {
                    let a = self.row(gemm.a, gemm.rows, row);
                    jobs.push((row, a, self.row(gemm.out, gemm.rows, row), 0, 1.0));
                }
            }
            Some(group) => {
                let all = self.plan.buffer(group.offsets).row - 1;
                let offset = |expert: u64| self.get(group.offsets, expert) as u64;
                for slot in 0..self.tokens * group.choices {
                    let choice = self.get(group.order, slot) as u64;
                    let expert = (0..all).find(|expert| (offset(*expert)..offset(*expert + 1)).contains(&slot));
                    let target = if group.store == Store::Slots { slot } else { choice } * n;
                    let Some(expert) = expert else {
                        if group.store != Store::Slots {
                            zeros.push(target);
                        }
                        continue;
                    };
                    let Some(own) = expert.checked_sub(u64::from(group.first)).filter(|own| *own < experts) else {
                        continue;
                    };
                    let a = if group.gather { choice / group.choices } else { slot } * k;
                    let factor = match group.store {
                        Store::Slots => 1.0,
                        Store::Choices { weights } => self.get(weights, choice),
                    };
                    jobs.push((slot, a, target, own, factor));
                }
            }
        }
        for target in zeros {
            (0..n).for_each(|at| self.set(gemm.out, target + at, 0.0));
        }
        for (row, a, target, expert, factor) in jobs {
            let x: Vec<f64> = (0..k).map(|at| self.get(gemm.a, a + at)).collect();
            for column in 0..n {
                let sum = |branch: u64| -> f64 {
                    let start = (branch * n + column) * k;
                    (0..k).map(|at| x[at as usize] * self.param(gemm.weights, expert, start + at)).sum()
                };
                let mut args: Vec<f64> = (0..u64::from(branches)).map(sum).collect();
                let place = RowPlace { rows: gemm.rows, row, expert, locals: Vec::new() };
                for view in &gemm.extras {
                    let in_place = view.source == Source::Row(gemm.out);
                    args.push(if in_place {
                        self.get(gemm.out, target + column)
                    } else {
                        self.load(&place, view, &[column])
                    });
                }
                let value = evaluate(&gemm.epilogue, &args, &vec![DType::F32; args.len()]);
                self.set(gemm.out, target + column, value * factor);
            }
        }
    }

    fn bin(&mut self, bin: &Bin) {
        let count = self.tokens * bin.choices;
        let expert = |at: u64| {
            let index = self.get(bin.indices, at);
            if (0.0..bin.experts as f64).contains(&index) { index as u64 } else { bin.experts }
        };
        let experts: Vec<u64> = (0..count).map(expert).collect();
        let mut order: Vec<u64> = (0..count).collect();
        order.sort_by_key(|at| experts[*at as usize]);
        for expert in 0..=bin.experts {
            let before = experts.iter().filter(|other| **other < expert).count();
            self.set(bin.offsets, expert, before as f64);
        }
        for (slot, choice) in order.iter().enumerate() {
            self.set(bin.order, slot as u64, *choice as f64);
            if let Some(slot_of) = bin.slot_of {
                let value = if experts[*choice as usize] < bin.experts { slot as f64 } else { -1.0 };
                self.set(slot_of, *choice, value);
            }
        }
    }

    fn attention(&mut self, attention: &Attention) {
        let Attention { groups, queries, width, values, .. } = *attention;
        for row in self.range(attention.rows) {
            for head in 0..groups * queries {
                let (group, query) = (head / queries, head % queries);
                let q = self.row(attention.q, attention.rows, row) + head * width;
                let position = self.past + row;
                let score = |key: u64| {
                    if attention.causal && key > position
                        || attention.window.is_some_and(|window| position >= key + window)
                    {
                        return f64::NEG_INFINITY;
                    }
                    let k = (key * groups + group) * width;
                    let dot = (0..width).map(|at| self.get(attention.q, q + at) * self.get(attention.k, k + at)).sum();
                    let mut args = vec![dot, position as f64, key as f64];
                    let place = RowPlace { rows: attention.rows, row, expert: 0, locals: Vec::new() };
                    args.extend(attention.extras.iter().map(|view| self.load(&place, view, &[group, query])));
                    let mut dtypes = vec![DType::F32; args.len()];
                    dtypes[1..3].fill(DType::I32);
                    evaluate(&attention.score, &args, &dtypes)
                };
                let scores: Vec<f64> = (0..self.past + self.tokens).map(score).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                let total: f64 = weights.iter().sum();
                let out = self.row(attention.out, attention.rows, row) + head * values;
                for at in 0..values {
                    let v = |key: usize| self.get(attention.v, (key as u64 * groups + group) * values + at);
                    let some = |(key, weight): (usize, &f64)| if *weight == 0.0 { 0.0 } else { weight * v(key) };
                    let sum: f64 = weights.iter().enumerate().map(some).sum();
                    self.set(attention.out, out + at, sum / total);
                }
            }
        }
    }
}

struct RowPlace {
    rows: Rows,
    row: u64,
    expert: u64,
    locals: Vec<Vec<f64>>,
}

fn is_cache(plan: &Plan, id: BufferId) -> bool {
    matches!(plan.buffer(id).home, Home::Cache { .. })
}

pub fn stored(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F32 => f64::from(value as f32),
        DType::Bf16 => half::bf16::from_f32(value as f32).to_f64(),
        DType::F16 => half::f16::from_f32(value as f32).to_f64(),
        DType::I32 | DType::Bool => value,
    }
}

/// All index tuples, the last fastest.
fn indices(extents: &[u64]) -> impl Iterator<Item = Vec<u64>> + use<> {
    let extents = extents.to_vec();
    let count: u64 = extents.iter().product();
    (0..count).map(move |mut at| {
        let mut ivs: Vec<u64> = extents
            .iter()
            .rev()
            .map(|extent| {
                let iv = at % extent;
                at /= extent;
                iv
            })
            .collect();
        ivs.reverse();
        ivs
    })
}

fn reduced(op: ReduceOp, values: &[f64]) -> f64 {
    let nan = |f: fn(f64, f64) -> f64| move |x: f64, y: f64| if x.is_nan() || y.is_nan() { f64::NAN } else { f(x, y) };
    match op {
        ReduceOp::Sum => values.iter().sum(),
        ReduceOp::Prod => values.iter().product(),
        ReduceOp::Max => values.iter().copied().reduce(nan(f64::max)).expect("a value"),
        ReduceOp::Min => values.iter().copied().reduce(nan(f64::min)).expect("a value"),
        ReduceOp::Any => f64::from(values.iter().any(|value| *value != 0.0)),
        ReduceOp::All => f64::from(values.iter().all(|value| *value != 0.0)),
    }
}

/// In f64; integers wrap and divide as i32.
pub fn evaluate(expr: &Expr, args: &[f64], dtypes: &[DType]) -> f64 {
    let of = |expr: &Expr| evaluate(expr, args, dtypes);
    let is_int = |expr: &Expr| expr.dtype(dtypes).expect("well typed") == DType::I32;
    match expr {
        Expr::Arg(at) => args[*at],
        Expr::F32(value) => f64::from(*value),
        Expr::I32(value) => f64::from(*value),
        Expr::Bool(value) => f64::from(*value),
        Expr::Unary(op, x) => {
            let x = of(x);
            match op {
                UnaryOp::Neg => -x,
                UnaryOp::Not => f64::from(x == 0.0),
                UnaryOp::Exp => x.exp(),
                UnaryOp::Log => x.ln(),
                UnaryOp::Sqrt => x.sqrt(),
                UnaryOp::Tanh => x.tanh(),
                UnaryOp::Erf => erf(x),
                UnaryOp::Sin => x.sin(),
                UnaryOp::Cos => x.cos(),
                UnaryOp::Abs => x.abs(),
                UnaryOp::Sign if x == 0.0 || x.is_nan() => x,
                UnaryOp::Sign => x.signum(),
                UnaryOp::Floor => x.floor(),
                UnaryOp::Ceil => x.ceil(),
                UnaryOp::Round => x.round_ties_even(),
            }
        }
        Expr::Binary(op, x, y) => {
            let int = is_int(x);
            let (x, y) = (of(x), of(y));
            let wrapped = |value: f64| if int { f64::from(value as i64 as i32) } else { value };
            let nan = x.is_nan() || y.is_nan();
            match op {
                BinaryOp::Add => wrapped(x + y),
                BinaryOp::Sub => wrapped(x - y),
                BinaryOp::Mul => wrapped(x * y),
                BinaryOp::Div if int && y == 0.0 => 0.0,
                BinaryOp::Div if int => f64::from((x as i32).wrapping_div(y as i32)),
                BinaryOp::Div => x / y,
                BinaryOp::Mod if int && y == 0.0 => 0.0,
                BinaryOp::Mod => {
                    let rest = x % y;
                    if rest != 0.0 && (rest < 0.0) != (y < 0.0) { rest + y } else { rest }
                }
                BinaryOp::Pow => x.powf(y),
                BinaryOp::Min | BinaryOp::Max if nan => f64::NAN,
                BinaryOp::Min => x.min(y),
                BinaryOp::Max => x.max(y),
                BinaryOp::Lt => f64::from(x < y),
                BinaryOp::Le => f64::from(x <= y),
                BinaryOp::Gt => f64::from(x > y),
                BinaryOp::Ge => f64::from(x >= y),
                BinaryOp::Eq => f64::from(x == y),
                BinaryOp::Ne => f64::from(x != y),
                BinaryOp::And => f64::from(x != 0.0 && y != 0.0),
                BinaryOp::Or => f64::from(x != 0.0 || y != 0.0),
            }
        }
        Expr::Select(condition, yes, no) => {
            if of(condition) != 0.0 {
                of(yes)
            } else {
                of(no)
            }
        }
        Expr::Cast(dtype, x) => match dtype {
            DType::I32 => f64::from(of(x) as i32),
            DType::Bool => f64::from(of(x) != 0.0),
            DType::F32 | DType::Bf16 | DType::F16 => stored(*dtype, of(x)),
        },
    }
}

/// By its series, or the continued fraction of its complement.
fn erf(x: f64) -> f64 {
    let size = x.abs();
    if x.is_nan() {
        return x;
    }
    if size < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..80 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    let tail = (1..60).rev().fold(0.0, |below, n| f64::from(n) / 2.0 / (size + below));
    x.signum() * (1.0 - (-x * x).exp() / std::f64::consts::PI.sqrt() / (size + tail))
}
