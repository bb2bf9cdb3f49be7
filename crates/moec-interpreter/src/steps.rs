//! Each kind of step, by its contract.

use moec_plan::{Attention, Bin, Gemm, Group, Home, Layout, ParamId, Rows, Source, StepKind, Store, View, quantise};
use moec_types::DType;

use crate::{
    assign,
    machine::Machine,
    rows::Row,
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
                    gemm_rows(machine, gemm, row, row, 0, None);
                }
            }
            Some(group) => grouped(machine, gemm, group),
        },
        StepKind::Bin(step) => bin(machine, step),
        StepKind::Attention(step) => attention(machine, step),
        StepKind::Assign(step) => {
            let (tokens, most) = (range(machine, step.tokens).end, step.most.of(machine.tokens));
            assign::run(machine, step, tokens, most);
        }
        StepKind::Scan(scan) => {
            for part in 0..scan.parts {
                if machine.memory.past == 0 {
                    Row::of_part(machine, &scan.start, 0, part).run(&scan.start);
                }
                for token in 0..machine.tokens {
                    Row::of_part(machine, &scan.program, token, part).run(&scan.program);
                }
            }
        }
    }
}

fn range(machine: &Machine, rows: Rows) -> std::ops::Range<u64> {
    match rows {
        Rows::Fixed(rows) => 0..rows,
        Rows::Share(share) => 0..share.of(machine.tokens),
        Rows::Tokens => 0..machine.tokens,
        Rows::Outputs => machine.first_output..machine.tokens,
        Rows::Slots { choices } => 0..machine.tokens * choices,
        Rows::Positions => panic!("no step computes all positions"),
    }
}

impl Machine<'_> {
    pub(crate) fn cell(&self, id: moec_plan::BufferId, row: u64, element: u64) -> Scalar {
        self.memory.read(self.plan, id, row, element, u64::from(self.rank))
    }

    pub(crate) fn store(&mut self, id: moec_plan::BufferId, row: u64, element: u64, value: f64) {
        let rank = u64::from(self.rank);
        self.memory.write(self.plan, id, row, element, rank, value);
    }

    /// An element of a view outside row programs.
    pub(crate) fn element(&mut self, view: &View, row: u64, loops: &[u64], expert: u32) -> Scalar {
        let mut at = view.offset + view.row * row;
        at += view.strides.iter().zip(loops).map(|(stride, i)| stride * i).sum::<u64>();
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
            Source::Position => Scalar::new((self.memory.past + at) as f64, DType::I32),
            Source::Count(extent) => Scalar::new(extent.of(self.tokens) as f64, DType::I32),
            Source::Local(_) => panic!("locals live in row programs"),
        }
    }

    fn plain(&mut self, id: ParamId, at: u64, expert: u32) -> f64 {
        assert!(matches!(self.plan.param(id).layout, Layout::Plain { .. }));
        let stride = self.plan.param(id).instance_stride();
        self.param(id, expert + (at / stride) as u32)[(at % stride) as usize]
    }
}

/// All matrix rows of one row of the step: from row `from` of `a`. `scaled`: the choice that it is for, and its weight.
fn gemm_rows(machine: &mut Machine, gemm: &Gemm, from: u64, to: u64, expert: u32, scaled: Option<(u64, f64)>) {
    (0..gemm.batch).for_each(|part| gemm_row(machine, gemm, [from, to, part], expert, scaled));
}

fn gemm_row(machine: &mut Machine, gemm: &Gemm, rows: [u64; 3], expert: u32, scaled: Option<(u64, f64)>) {
    let [from, to, part] = rows;
    let param = machine.plan.param(gemm.weights);
    let Layout::Panels { k, n, branches } = param.layout else { panic!("GEMMs read panels") };
    let a = (0..k).map(|at| machine.cell(gemm.a, 0, (from * gemm.batch + part) * k + at).value as f32);
    let a = quantise::rounded_row(param.storage.rows(), &a.collect::<Vec<f32>>());
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
            let extra = machine.element(view, to * gemm.batch + part, &[column], expert);
            args.push(extra);
        }
        let value = evaluate(&gemm.epilogue, &args).value;
        match scaled {
            None if matches!(machine.plan.buffer(gemm.out).home, Home::Cache { .. }) => {
                machine.store(gemm.out, to, part * n + column, value);
            }
            None => machine.store(gemm.out, 0, (to * gemm.batch + part) * n + column, value),
            Some((choice, weight)) => {
                machine.store(gemm.out, 0, (choice * gemm.batch + part) * n + column, value * weight);
            }
        }
    }
}

fn grouped(machine: &mut Machine, gemm: &Gemm, group: &Group) {
    let experts = machine.plan.param(gemm.weights).experts;
    let slots = range(machine, gemm.rows).end;
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
            gemm_rows(machine, gemm, from, slot, expert, scaled);
        }
    }
    if let Store::Choices { .. } = group.store {
        let Layout::Panels { n, .. } = machine.plan.param(gemm.weights).layout else { panic!("GEMMs read panels") };
        let last = machine.plan.buffer(group.offsets).row - 1;
        for slot in machine.cell(group.offsets, 0, last).value as u64..slots {
            let choice = machine.cell(group.order, slot, 0).value as u64;
            let width = gemm.batch * n;
            (0..width).for_each(|column| machine.store(gemm.out, 0, choice * width + column, 0.0));
        }
    }
}

fn bin(machine: &mut Machine, step: &Bin) {
    let total = range(machine, step.tokens).end * step.choices;
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
            let keys = match step.keys_of {
                None => machine.memory.past + machine.tokens,
                Some(sequence) => machine.pasts[sequence as usize],
            };
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
                    for lookup in &step.lookups {
                        let at = evaluate(&lookup.index, &args[..3]).value as u64;
                        assert!(at < lookup.places, "a place outside its table");
                        let offset = lookup.view.offset + at * lookup.stride;
                        let view = View { offset, ..lookup.view.clone() };
                        args.push(machine.element(&view, row, &[group, rep], 0));
                    }
                    evaluate(&step.score, &args).value
                })
                .collect();
            for (key, score) in scores.iter().enumerate() {
                let late = step.causal && key as u64 > query;
                let early = step.window.is_some_and(|window| query.saturating_sub(key as u64) >= window);
                assert!(!(late || early) || *score == f64::NEG_INFINITY, "a skipped key counts");
            }
            let sink = step.sink.as_ref().map(|sink| {
                let mut args =
                    vec![Scalar::new(0.0, DType::F32), Scalar::new(0.0, DType::I32), Scalar::new(0.0, DType::I32)];
                args.extend(step.extras.iter().map(|view| machine.element(view, row, &[group, rep], 0)));
                evaluate(sink, &args).value
            });
            let most = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
            let shares: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
            let total = shares.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - most).exp());
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
