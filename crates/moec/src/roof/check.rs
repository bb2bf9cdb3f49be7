//! Measures what was predicted: the plan is compiled so that it marks its steps, and run on weights that are drawn where none
//! are given.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use moec_codegen::Instances;
use moec_diag::SourceMap;
use moec_ir::Module;
use moec_plan::{Format, Layout, Plan};
use moec_program::products::Size;

use super::{
    Line, Machine,
    drawn::{self, Drawn},
    kernels::Kernels,
    library::Marked,
    predict,
};
use crate::{
    failure::Failure,
    native::{Interval, Session},
};

/// Probes and passes take turns: a slow minute of a shared machine hits both.
const TURNS: usize = 6;
const PASSES_OF_TURN: usize = 10;
const ENOUGH: Duration = Duration::from_secs(1);

pub struct Measured {
    pub machine: Machine,
    pub level: String,
    /// Each with the seconds that it took.
    pub lines: Vec<(Line, f64)>,
}

impl Measured {
    /// The median of |predicted / measured - 1| over the lines that take at least a fiftieth of the pass.
    pub fn median_error(&self) -> f64 {
        let whole: f64 = self.lines.iter().map(|(_, seconds)| seconds).sum();
        let told = self.lines.iter().filter(|(_, seconds)| *seconds >= whole / 50.0);
        let mut errors: Vec<f64> = told.map(|(line, seconds)| (line.seconds / seconds - 1.0).abs()).collect();
        errors.sort_by(f64::total_cmp);
        errors.get(errors.len() / 2).copied().unwrap_or(0.0)
    }
}

/// `weights` are the checkpoint's, where it has any.
pub fn measure(
    module: &Module,
    plan: &Plan,
    size: Size,
    weights: Option<&dyn Instances>,
    sources: &SourceMap,
) -> Result<Measured, Failure> {
    let drawn = weights.is_none().then(|| Drawn::of(module));
    let weights = weights.or(drawn.as_ref().map(|drawn| drawn as &dyn Instances)).expect("one of both");
    let marked = Marked::build(plan, weights, sources)?;
    let threads = usize::try_from(marked.model.threads()).unwrap_or(1).max(1);
    let mut machine = Machine::probe(threads);
    let mut kernels = Kernels::build(formats(plan))?;
    let mut passes = Passes::new(plan, size, &marked)?;
    for _ in 0..TURNS {
        machine = machine.best(Machine::probe(threads));
        kernels.round()?;
        passes.turn()?;
    }
    let lines = predict(plan, size, &machine, Some(&kernels));
    let took = |line: &Line| line.steps.iter().map(|step| passes.seconds(*step)).sum::<f64>();
    let lines = lines.into_iter().map(|line| (took(&line), line)).map(|(seconds, line)| (line, seconds)).collect();
    Ok(Measured { machine, level: marked.model.level(), lines })
}

/// The formats of matrices.
fn formats(plan: &Plan) -> BTreeSet<Format> {
    let matrices = plan.params.iter().filter(|param| matches!(param.layout, Layout::Panels { .. }));
    matrices.map(|param| param.storage).collect()
}

/// Passes of one size, with the seconds of each step.
struct Passes<'a> {
    plan: &'a Plan,
    size: Size,
    session: Session,
    count: u64,
    /// Of each step, the seconds of each execution.
    seconds: BTreeMap<usize, Vec<f64>>,
}

impl<'a> Passes<'a> {
    /// Some positions before the passes, and a first one that touches the weights.
    fn new(plan: &'a Plan, size: Size, marked: &Marked) -> Result<Self, Failure> {
        let Size { tokens, past, .. } = size;
        // Positions cannot be taken back: with some before them, the passes that are measured follow one another.
        let passes = if past == 0 { 1 } else { (1 + TURNS * PASSES_OF_TURN) as u64 };
        let mut session = marked.model.session((past + tokens * passes) as usize)?;
        if past > 0 {
            run(plan, past, 0, &mut session)?;
        }
        run(plan, tokens, 0, &mut session)?;
        Ok(Passes { plan, size, session, count: 0, seconds: BTreeMap::new() })
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let Size { tokens, past, .. } = self.size;
        let started = Instant::now();
        for _ in 0..PASSES_OF_TURN {
            if past == 0 {
                self.session.reset();
            }
            self.count += 1;
            for interval in run(self.plan, tokens, self.count, &mut self.session)? {
                let Some(step) = moec_cpu::marked_step(interval.mark) else { continue };
                self.seconds.entry(step).or_default().push(interval.seconds);
            }
            if started.elapsed() > ENOUGH {
                break;
            }
        }
        Ok(())
    }

    /// What a step takes in a pass, all its executions together.
    fn seconds(&self, step: usize) -> f64 {
        let all = self.seconds.get(&step).map_or(&[][..], |seconds| seconds);
        usual(all) * all.len() as f64 / self.count.max(1) as f64
    }
}

/// One in ten is quicker: others on the machine can only slow things down, often and by much.
pub fn usual(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 10).copied().unwrap_or(0.0)
}

fn run(plan: &Plan, tokens: u64, round: u64, session: &mut Session) -> Result<Vec<Interval>, Failure> {
    let inputs = drawn::inputs(plan, tokens, round);
    let Some((ids, logits)) = moec_codegen::token_ports(plan) else {
        let mut outputs = drawn::outputs(plan, tokens);
        let (ran, intervals) = session.timed(|session| session.run(&inputs, &mut outputs));
        return ran.map(|()| intervals).map_err(Into::into);
    };
    let given = |name: &str| -> Vec<i32> {
        let bytes = inputs.iter().filter(|input| input.name == name).flat_map(|input| input.bytes.as_chunks::<4>().0);
        bytes.map(|four| i32::from_le_bytes(*four)).collect()
    };
    let (ids, source) = (given(&ids.name), moec_codegen::source_port(plan).map(|port| given(&port.name)));
    let mut logits = vec![0.0; plan.buffer(logits.buffer).row as usize];
    let (ran, intervals) = session.timed(|session| {
        source.map_or(Ok(()), |source| session.encode(&source))?;
        session.step(&ids, &mut logits)
    });
    ran.map(|()| intervals).map_err(Into::into)
}
