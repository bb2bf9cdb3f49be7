//! Row programs.

use moec_plan::{Extent, ReduceOp, RowOp, RowProgram, Source, View};
use moec_types::Expr;

use crate::{
    machine::Machine,
    scalar::{Scalar, evaluate},
};

/// One row of a row program with its scratch.
pub struct Row<'a, 'p> {
    machine: &'a mut Machine<'p>,
    locals: Vec<Vec<Scalar>>,
    row: u64,
    /// What `View::row` counts: the row, or a scan's part.
    part: u64,
    /// Counted from the first of the step's group.
    expert: u32,
}

impl<'a, 'p> Row<'a, 'p> {
    pub fn new(machine: &'a mut Machine<'p>, program: &RowProgram, row: u64, expert: u32) -> Self {
        let blank =
            |local: &moec_plan::Local| vec![Scalar { value: f64::NAN, dtype: local.dtype }; local.elements as usize];
        Row { machine, locals: program.locals.iter().map(blank).collect(), row, part: row, expert }
    }

    /// A part of a scan at one of the pass's tokens.
    pub fn of_part(machine: &'a mut Machine<'p>, program: &RowProgram, token: u64, part: u64) -> Self {
        Row { part, ..Row::new(machine, program, token, 0) }
    }

    pub fn run(&mut self, program: &RowProgram) {
        let tokens = self.machine.tokens;
        let indices = |extents: &[Extent]| indices(extents.iter().map(|extent| extent.of(tokens)).collect());
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
                RowOp::Cumsum { extents, along, expr, args, into } => {
                    for kept in indices(extents) {
                        let mut sum = 0.0;
                        for last in 0..along.of(tokens) {
                            let loops: Vec<u64> = kept.iter().copied().chain([last]).collect();
                            let value = self.evaluate(expr, args, &loops);
                            sum = Scalar::new(sum + value.value, value.dtype).value;
                            self.write(into, &loops, sum);
                        }
                    }
                }
                RowOp::ScatterAdd { extents, over, count, index, expr, args, into } => {
                    for kept in indices(extents) {
                        let mut sums = vec![0.0; count.of(tokens) as usize];
                        for more in indices(over) {
                            let loops: Vec<u64> = kept.iter().chain(&more).copied().collect();
                            let to = self.read(index, &loops).value;
                            if let Some(sum) = sums.get_mut(to as usize).filter(|_| to >= 0.0) {
                                let value = self.evaluate(expr, args, &loops);
                                *sum = Scalar::new(*sum + value.value, value.dtype).value;
                            }
                        }
                        for (at, sum) in sums.into_iter().enumerate() {
                            let loops: Vec<u64> = kept.iter().copied().chain([at as u64]).collect();
                            self.write(into, &loops, sum);
                        }
                    }
                }
                RowOp::TopK { extents, len, k, arg, values, indices: chosen, work: _ } => {
                    for loops in indices(extents) {
                        let with = |last: u64| loops.iter().copied().chain([last]).collect::<Vec<u64>>();
                        let all: Vec<f64> = (0..len.of(tokens)).map(|at| self.read(arg, &with(at)).value).collect();
                        let mut order: Vec<usize> = (0..all.len()).collect();
                        // -0 and 0 are equal, so the total order must not part them.
                        order.sort_by(|a, b| match (all[*a].is_nan(), all[*b].is_nan()) {
                            (false, false) => all[*b].partial_cmp(&all[*a]).expect("no NaN").then(a.cmp(b)),
                            (x, y) => x.cmp(&y).then(a.cmp(b)),
                        });
                        for place in 0..k.of(tokens) {
                            let from = order.get(place as usize);
                            self.write(values, &with(place), from.map_or(f64::NAN, |from| all[*from]));
                            self.write(chosen, &with(place), from.map_or(0.0, |from| *from as f64));
                        }
                    }
                }
            }
        }
    }

    fn evaluate(&mut self, expr: &Expr, args: &[View], loops: &[u64]) -> Scalar {
        let args: Vec<Scalar> = args.iter().map(|view| self.read(view, loops)).collect();
        evaluate(expr, &args)
    }

    fn place(&mut self, view: &View, loops: &[u64]) -> u64 {
        assert_eq!(view.strides.len(), loops.len(), "a view has one stride for each loop");
        let at = view.offset
            + view.row * self.part
            + view.strides.iter().zip(loops).map(|(stride, i)| stride * i).sum::<u64>();
        let Some(index) = &view.index else { return at };
        at + index.stride * self.read(&index.view, loops).value as u64
    }

    fn read(&mut self, view: &View, loops: &[u64]) -> Scalar {
        let at = self.place(view, loops);
        match view.source {
            Source::Local(id) => self.locals[id.0 as usize][at as usize],
            _ => {
                let here = View { offset: at, strides: Vec::new(), row: 0, index: None, ..view.clone() };
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
            Source::Param(_) | Source::Literal(_) | Source::Place | Source::Position | Source::Count(_) => {
                panic!("not a place to write")
            }
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
fn indices(extents: Vec<u64>) -> impl Iterator<Item = Vec<u64>> {
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
