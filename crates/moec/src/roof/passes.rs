//! Passes of one size through a library that marks its steps.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use moec_plan::Plan;
use moec_program::products::Size;

use super::{drawn, library::Temporary};
use crate::{
    failure::Failure,
    native::{Interval, Session},
};

/// Probes and passes take turns: a slow minute of a shared machine hits both.
pub const TURNS: usize = 6;
const PASSES_OF_TURN: usize = 12;
/// Inputs go elsewhere, to more experts or fewer: what is usual is asked for each alone.
const INPUTS: usize = 4;
const ENOUGH: Duration = Duration::from_secs(1);

/// Passes of one size, with the seconds of each step.
pub struct Passes {
    size: Size,
    /// At the position that the passes start from.
    session: Session,
    count: usize,
    /// Of each step, for each input, the seconds of each pass: all its executions together.
    seconds: BTreeMap<usize, [Vec<f64>; INPUTS]>,
}

impl Passes {
    /// What is before the passes, and a first one that touches the weights.
    pub fn new(plan: &Plan, size: Size, library: &Temporary) -> Result<Self, Failure> {
        let Size { tokens, past, .. } = size;
        let mut session = library.model.session((past + tokens) as usize)?;
        if past > 0 {
            run(plan, past, 0, &mut session)?;
        }
        let mut passes = Passes { size, session, count: 0, seconds: BTreeMap::new() };
        passes.pass(plan, 0)?;
        Ok(passes)
    }

    /// Every pass starts from the same position.
    fn pass(&mut self, plan: &Plan, round: u64) -> Result<Vec<Interval>, Failure> {
        let Size { tokens, past, .. } = self.size;
        if past > 0 {
            return run(plan, tokens, round, &mut self.session.fork(past as usize)?);
        }
        self.session.reset();
        run(plan, tokens, round, &mut self.session)
    }

    /// Some passes, on other inputs each.
    pub fn turn(&mut self, plan: &Plan) -> Result<(), Failure> {
        let started = Instant::now();
        for _ in 0..PASSES_OF_TURN {
            self.count += 1;
            let input = self.count % INPUTS;
            let mut took: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
            for interval in self.pass(plan, input as u64)? {
                let Some(step) = moec_cpu::marked_step(interval.mark) else { continue };
                took.entry(step).or_default().push(interval.seconds);
            }
            for (step, seconds) in took {
                // One execution that was disturbed is not to spoil the pass.
                self.seconds.entry(step).or_default()[input].push(median(&seconds) * seconds.len() as f64);
            }
            if started.elapsed() > ENOUGH {
                break;
            }
        }
        Ok(())
    }

    pub fn forget(&mut self) {
        self.seconds.clear();
        self.count = 0;
    }

    /// What a step takes in a pass, all its executions together, with their marks.
    pub fn seconds(&self, step: usize) -> f64 {
        let Some(inputs) = self.seconds.get(&step) else { return 0.0 };
        let each: Vec<f64> =
            inputs.iter().filter(|seconds| !seconds.is_empty()).map(|seconds| usual(seconds)).collect();
        each.iter().sum::<f64>() / each.len().max(1) as f64
    }
}

/// Of two, the lesser.
fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 2]
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
