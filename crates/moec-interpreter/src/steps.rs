//! Each kind of step, by its contract.

use moec_plan::{
    Attention, Bin, Gemm, Group, Home, Layout, ParamId, ReduceOp, RowOp, RowProgram, Rows, Source, StepKind, Store,
    View,
};
use moec_types::DType;

use crate::{
    machine::Machine,
    scalar::{Scalar, evaluate},
};

pub fn run(machine: &mut Machine, kind: &StepKind) {
    match kind {
        StepKind::Rows { rows, program, group: None } => {
            for row in range(machine, *rows) {
                Row::new(machine, program, row, 0).run(program);
            }
        }
        StepKind::Rows { program, group: Some(group), .. } => {
            for expert in 0..group.count {
                let bound = |at: u32| machine.cell(group.offsets, 0, u64::from(group.first + at)).value as u64;
                for slot in bound(expert)..bound(expert + 1) {
                    Row::new(machine, program, slot, expert).run(program);
                }
            }
        }
        StepKind::Gemm(gemm) => match &gemm.group {
            None => {
                for row in range(machine, gemm.rows) {
                    gemm_row(machine, gemm, row, row, 0, None);
                }
            }
            Some(group) => grouped(machine, gemm, group),
        },
        StepKind::Bin(step) => bin(machine, step),
        StepKind::Attention(step) => attention(machine, step),
    }
}

fn range(machine: &Machine, rows: Rows) -> std::ops::Range<u64> {
    match rows {
        Rows::One => 0..1,
        Rows::Tokens => 0..machine.tokens,
        Rows::Outputs => machine.first_output..machine.tokens,
        Rows::Slots { choices } => 0..machine.tokens * choices,
        Rows::Positions => panic!("no step computes all positions"),
    }
}

impl Machine<'_> {
    fn cell(&self, id: moec_plan::BufferId, row: u64, element: u64) -> Scalar {
        self.memory.read(self.plan, id, row, element, u64::from(self.rank))
    }

    fn store(&mut self, id: moec_plan::BufferId, row: u64, element: u64, value: f64) {
        let rank = u64::from(self.rank);
        self.memory.write(self.plan, id, row, element, rank, value);
    }

    /// An element of a view outside row programs.
    fn element(&mut self, view: &View, row: u64, loops: &[u64], expert: u32) -> Scalar {
        let mut at = view.offset + view.strides.iter().zip(loops).map(|(stride, i)| stride * i).sum::<u64>();
        if let Some(index) = &view.index {
            at += index.stride * self.element(&index.view, row, loops, expert).value as u64;
        }
        match view.source {
            Source::Row(id) => self.cell(id, row, at),
            Source::Whole(id) if matches!(self.plan.buffer(id).home, Home::Cache { .. }) => {
                let value = self.memory.read_position(self.plan, id, 0, at, u64::from(self.rank));
                Scalar { value, dtype: self.plan.buffer(id).dtype }
            }
            Source::Whole(id) => self.cell(id, 0, at),
            Source::Param(id) => Scalar { value: self.plain(id, at, expert), dtype: DType::F32 },
            Source::Literal(id) => {
                let literal = self.plan.literal(id);
                Scalar::new(literal.data[at as usize], literal.dtype)
            }
            Source::Place => Scalar::new(at as f64, DType::I32),
            Source::Position => Scalar::new((self.memory.past + row + at) as f64, DType::I32),
            Source::Local(_) => panic!("locals live in row programs"),
        }
    }

    fn plain(&mut self, id: ParamId, at: u64, expert: u32) -> f64 {
        assert!(matches!(self.plan.param(id).layout, Layout::Plain { .. }));
        self.param(id, expert)[at as usize]
    }
}

/// One row of a row program with its scratch.
struct Row<'a, 'p> {
    machine: &'a mut Machine<'p>,
    locals: Vec<Vec<Scalar>>,
    row: u64,
    /// Counted from the first of the step's group.
    expert: u32,
}

impl<'a, 'p> Row<'a, 'p> {
    fn new(machine: &'a mut Machine<'p>, program: &RowProgram, row: u64, expert: u32) -> Self {
        let blank =
            |local: &moec_plan::Local| vec![Scalar { value: f64::NAN, dtype: local.dtype }; local.elements as usize];
        Row { machine, locals: program.locals.iter().map(blank).collect(), row, expert }
    }

    fn run(&mut self, program: &RowProgram) {
        for op in &program.ops {
            match op {
                RowOp::Map { extents, expr, args, into } => {
                    for loops in indices(extents) {
                        let value = self.evaluate(expr, args, &loops);
                        self.write(into, &loops, value.value);
                    }
                }
                RowOp::Reduce { op, extents, over, expr, args, into } => {
                    for loops in indices(extents) {
                        let inner = indices(over).map(|more| {
                            let all: Vec<u64> = loops.iter().chain(&more).copied().collect();
                            self.evaluate(expr, args, &all).value
                        });
                        let value = reduce(*op, inner);
                        self.write(into, &loops, value);
                    }
                }
                RowOp::TopK { extents, len, k, arg, values, indices: chosen } => {
                    for loops in indices(extents) {
                        let with = |last: u64| loops.iter().copied().chain([last]).collect::<Vec<u64>>();
                        let all: Vec<f64> = (0..*len).map(|at| self.read(arg, &with(at)).value).collect();
                        let mut order: Vec<usize> = (0..all.len()).collect();
                        // -0 and 0 are equal, so the total order must not part them.
                        order.sort_by(|a, b| match (all[*a].is_nan(), all[*b].is_nan()) {
                            (false, false) => all[*b].partial_cmp(&all[*a]).expect("no NaN").then(a.cmp(b)),
                            (x, y) => x.cmp(&y).then(a.cmp(b)),
                        });
                        for (place, from) in order.iter().take(*k as usize).enumerate() {
                            self.write(values, &with(place as u64), all[*from]);
                            self.write(chosen, &with(place as u64), *from as f64);
                        }
                    }
                }
            }
        }
    }

    fn evaluate(&mut self, expr: &moec_types::Expr, args: &[View], loops: &[u64]) -> Scalar {
        let args: Vec<Scalar> = args.iter().map(|view| self.read(view, loops)).collect();
        evaluate(expr, &args)
    }

    fn place(&mut self, view: &View, loops: &[u64]) -> u64 {
        assert_eq!(view.strides.len(), loops.len(), "a view has one stride for each loop");
        let at = view.offset + view.strides.iter().zip(loops).map(|(stride, i)| stride * i).sum::<u64>();
        let Some(index) = &view.index else { return at };
        at + index.stride * self.read(&index.view, loops).value as u64
    }

    fn read(&mut self, view: &View, loops: &[u64]) -> Scalar {
        let at = self.place(view, loops);
        match view.source {
            Source::Local(id) => self.locals[id.0 as usize][at as usize],
            _ => {
                let here = View { offset: at, strides: Vec::new(), index: None, ..view.clone() };
                self.machine.element(&here, self.row, &[], self.expert)
            }
        }
    }

    fn write(&mut self, view: &View, loops: &[u64], value: f64) {
        let at = self.place(view, loops);
        match view.source {
            Source::Local(id) => {
                let cell = &mut self.locals[id.0 as usize][at as usize];
                *cell = Scalar::new(value, cell.dtype);
            }
            Source::Row(id) => self.machine.store(id, self.row, at, value),
            Source::Whole(id) => self.machine.store(id, 0, at, value),
            Source::Param(_) | Source::Literal(_) | Source::Place | Source::Position => panic!("not a place to write"),
        }
    }
}

fn reduce(op: ReduceOp, mut values: impl Iterator<Item = f64>) -> f64 {
    let nan_or = |a: f64, b: f64, pick: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { pick };
    match op {
        ReduceOp::Sum => values.sum(),
        ReduceOp::Prod => values.product(),
        ReduceOp::Max => values.fold(f64::NEG_INFINITY, |a, b| nan_or(a, b, a.max(b))),
        ReduceOp::Min => values.fold(f64::INFINITY, |a, b| nan_or(a, b, a.min(b))),
        ReduceOp::Any => f64::from(u8::from(values.any(|value| value != 0.0))),
        ReduceOp::All => f64::from(u8::from(values.all(|value| value != 0.0))),
    }
}

/// All index vectors below the extents, the last fastest.
fn indices(extents: &[u64]) -> impl Iterator<Item = Vec<u64>> + use<> {
    let extents = extents.to_vec();
    let total: u64 = extents.iter().product();
    (0..total).map(move |flat| {
        let mut rest = flat;
        let mut loops = vec![0; extents.len()];
        for at in (0..extents.len()).rev() {
            loops[at] = rest % extents[at];
            rest /= extents[at];
        }
        loops
    })
}

/// One output row from row `from` of `a`; `weight` and the row that it goes to, seen as rows of n elements.
fn gemm_row(machine: &mut Machine, gemm: &Gemm, from: u64, to: u64, expert: u32, scaled: Option<(u64, f64)>) {
    let Layout::Panels { k, n, branches } = machine.plan.param(gemm.weights).layout else {
        panic!("GEMMs read panels")
    };
    let a: Vec<f64> = (0..k).map(|at| machine.cell(gemm.a, from, at).value).collect();
    for column in 0..n {
        let weights = machine.param(gemm.weights, expert);
        let mut args: Vec<Scalar> = (0..u64::from(branches))
            .map(|branch| {
                let start = ((branch * n + column) * k) as usize;
                let sum = a.iter().zip(&weights[start..]).map(|(a, w)| a * w).sum();
                Scalar::new(sum, DType::F32)
            })
            .collect();
        for view in &gemm.extras {
            let extra = machine.element(view, to, &[column], expert);
            args.push(extra);
        }
        let value = evaluate(&gemm.epilogue, &args).value;
        match scaled {
            None => machine.store(gemm.out, to, column, value),
            Some((choice, weight)) => machine.store(gemm.out, 0, choice * n + column, value * weight),
        }
    }
}

fn grouped(machine: &mut Machine, gemm: &Gemm, group: &Group) {
    let experts = machine.plan.param(gemm.weights).experts;
    let slots = machine.tokens * group.choices;
    for expert in 0..experts {
        let bound = |at: u32, machine: &Machine| machine.cell(group.offsets, 0, u64::from(at)).value as u64;
        let (start, end) = (bound(group.first + expert, machine), bound(group.first + expert + 1, machine));
        for slot in start..end {
            let choice = machine.cell(group.order, slot, 0).value as u64;
            let from = if group.gather { choice / group.choices } else { slot };
            let scaled = match group.store {
                Store::Slots => None,
                Store::Choices { weights } => Some((choice, machine.cell(weights, 0, choice).value)),
            };
            gemm_row(machine, gemm, from, slot, expert, scaled);
        }
    }
    if let Store::Choices { .. } = group.store {
        let Layout::Panels { n, .. } = machine.plan.param(gemm.weights).layout else { panic!("GEMMs read panels") };
        let last = machine.plan.buffer(group.offsets).row - 1;
        for slot in machine.cell(group.offsets, 0, last).value as u64..slots {
            let choice = machine.cell(group.order, slot, 0).value as u64;
            (0..n).for_each(|column| machine.store(gemm.out, 0, choice * n + column, 0.0));
        }
    }
}

fn bin(machine: &mut Machine, step: &Bin) {
    let total = machine.tokens * step.choices;
    let chosen: Vec<i32> = (0..total).map(|at| machine.cell(step.indices, 0, at).value as i32).collect();
    let weights: Vec<f32> = (0..total).map(|at| machine.cell(step.weights, 0, at).value as f32).collect();
    let expert =
        |index: i32| if (0..step.experts as i64).contains(&i64::from(index)) { index as u64 } else { step.experts };
    let mut slot = 0;
    for e in 0..=step.experts {
        machine.store(step.offsets, 0, e, slot as f64);
        for (choice, _) in chosen.iter().enumerate().filter(|(_, index)| expert(**index) == e) {
            machine.store(step.order, slot, 0, choice as f64);
            if let Some(slot_of) = step.slot_of {
                machine.store(slot_of, 0, choice as u64, if e < step.experts { slot as f64 } else { -1.0 });
            }
            slot += 1;
        }
    }
    machine.routes.push((chosen, weights));
}

fn attention(machine: &mut Machine, step: &Attention) {
    let rank = u64::from(machine.rank);
    for row in range(machine, step.rows) {
        let query = machine.memory.past + row;
        for (group, rep) in (0..step.groups).flat_map(|group| (0..step.queries).map(move |rep| (group, rep))) {
            let head = group * step.queries + rep;
            let keys = machine.memory.past + machine.tokens;
            let scores: Vec<f64> = (0..keys)
                .map(|key| {
                    let product = |at| {
                        let k = machine.memory.read_position(machine.plan, step.k, key, group * step.width + at, rank);
                        machine.cell(step.q, row, head * step.width + at).value * k
                    };
                    let dot = Scalar::new((0..step.width).map(product).sum(), DType::F32);
                    let position = |at: u64| Scalar::new(at as f64, DType::I32);
                    let mut args = vec![dot, position(query), position(key)];
                    for view in &step.extras {
                        let extra = machine.element(view, row, &[group, rep], 0);
                        args.push(extra);
                    }
                    evaluate(&step.score, &args).value
                })
                .collect();
            for (key, score) in scores.iter().enumerate() {
                let late = step.causal && key as u64 > query;
                let early = step.window.is_some_and(|window| query.saturating_sub(key as u64) >= window);
                assert!(!(late || early) || *score == f64::NEG_INFINITY, "a skipped key counts");
            }
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let shares: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
            let total: f64 = shares.iter().sum();
            for at in 0..step.values {
                let value = |key: usize| {
                    machine.memory.read_position(machine.plan, step.v, key as u64, group * step.values + at, rank)
                };
                let sum: f64 = shares
                    .iter()
                    .enumerate()
                    .filter(|(_, share)| **share > 0.0)
                    .map(|(key, share)| share * value(key))
                    .sum();
                machine.store(step.out, row, head * step.values + at, sum / total);
            }
        }
    }
}
