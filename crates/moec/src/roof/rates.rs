//! How fast our own code does what is not a product with weights: measured on the steps of a small decoder (`sample.moe`), and,
//! for the meeting of threads, on steps that do nothing.

use std::time::Instant;

use moec_cpu::Marks;
use moec_diag::{SourceMap, Span};
use moec_plan::{
    Buffer, BufferId, Home, Layers, Node, Plan, Port, RowOp, RowProgram, Rows, Source, Step, StepKind, View,
};
use moec_program::products::Size;
use moec_types::{DType, Expr};

use super::{
    Machine,
    drawn::{self, Drawn},
    effort::Effort,
    library::{self, Temporary},
    passes::{Passes, usual},
    work,
};
use crate::{compile, failure::Failure, native::Session, spec};

/// Seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// All threads meeting once.
    pub barrier: f64,
    /// One operation of a row program on an element, by one thread.
    pub operation: f64,
    /// A byte of activations that comes from beyond a core's own cache or goes there, by one thread.
    pub moved: f64,
    /// One choice sorted by expert.
    pub choice: f64,
    /// An element of keys or values read for a block of queries, and one multiplied, by one thread.
    pub key_read: f64,
    pub key_multiplied: f64,
}

impl Rates {
    /// Where nothing is measured: shares of the fastest multiply-add.
    pub fn assumed(machine: &Machine) -> Rates {
        let multiply_add = 2.0 * machine.threads as f64 / machine.f32;
        Rates {
            barrier: 0.5e-6,
            operation: 2.0 * multiply_add,
            moved: machine.threads as f64 / machine.read,
            choice: 2e-9,
            key_read: 4.0 * multiply_add,
            key_multiplied: 2.0 * multiply_add,
        }
    }

    /// Of one execution, but for its barrier.
    pub fn seconds(&self, effort: Effort, threads: usize) -> f64 {
        // Whoever has one part more than others makes them wait.
        let longest = |parts: f64| (parts / threads as f64).ceil();
        match effort {
            Effort::Rows { rows, operations, moved } => {
                longest(rows) * operations * self.operation + far(longest(rows) * moved) * self.moved
            }
            Effort::Choices(choices) => choices * self.choice,
            Effort::Attention { items, read, multiplied } => {
                longest(items) * (read * self.key_read + multiplied / items.max(1.0) * self.key_multiplied)
            }
        }
    }
}

/// Bytes beyond those that a core's own cache keeps from step to step.
fn far(bytes: f64) -> f64 {
    const NEAR: f64 = 256.0 * 1024.0;
    (bytes - NEAR).max(0.0)
}

/// Many tokens at once, and one after some: blocks of queries are full, or not.
const SIZES: [Size; 2] = [Size { tokens: 128, past: 256, outputs: 128 }, Size { tokens: 1, past: 256, outputs: 1 }];

/// A small model whose steps are measured.
pub struct Sample {
    plan: Plan,
    passes: [Passes; SIZES.len()],
    meetings: Meetings,
    _library: Temporary,
}

impl Sample {
    /// At the level in force.
    pub fn build(level: &str) -> Result<Sample, Failure> {
        let mut sources = SourceMap::default();
        let (tree, _) = moec_syntax::parse_bytes(&mut sources, "sample.moe", include_bytes!("sample.moe"));
        let tree = tree.expect("the sample is a file of ours");
        let module = spec::check(&mut sources, &tree, &moec_sema::Settings::default())?.module;
        let (fused, _) = compile::fuse(module, &[])?;
        let plan = compile::plan(&fused, &sources)?;
        let library =
            Temporary::build(&plan, &Drawn::of(&fused), Marks::Steps, library::levels_at(&plan, level), &sources)?;
        let [many, one] = SIZES.map(|size| Passes::new(&plan, size, &library));
        Ok(Sample { passes: [many?, one?], meetings: Meetings::build(level)?, plan, _library: library })
    }

    /// Measures once more.
    pub fn round(&mut self) -> Result<(), Failure> {
        self.meetings.round()?;
        self.passes.iter_mut().try_for_each(|passes| passes.turn(&self.plan))
    }

    /// What was measured so far was another minute's.
    pub fn forget(&mut self) {
        self.passes.iter_mut().for_each(Passes::forget);
        (self.meetings.alone, self.meetings.marked) = Default::default();
    }

    /// Seconds that marking a step adds to it.
    pub fn marking(&self) -> f64 {
        (usual(&self.meetings.marked) - usual(&self.meetings.alone)).max(0.0)
    }

    pub fn rates(&self, machine: &Machine) -> Rates {
        let assumed = Rates::assumed(machine);
        let barrier = usual(&self.meetings.alone);
        let overhead = self.marking() + barrier;
        let [many, one] = SIZES.map(|size| work::steps(&self.plan, size));
        let took = |passes: &Passes, step: usize| (passes.seconds(step) - overhead).max(0.0);
        let longest = |parts: f64| (parts / machine.threads as f64).ceil();
        // Seconds of all steps that have such units, and the units.
        let sums = |steps: &[work::Counted], passes: &Passes, units: &dyn Fn(Effort) -> Option<[f64; 2]>| {
            let each = steps.iter().enumerate().filter_map(|(step, work)| {
                let units = units(work.other()?.effort)?;
                Some([took(passes, step), units[0], units[1]])
            });
            each.fold([0.0; 3], |sum: [f64; 3], new| std::array::from_fn(|at| sum[at] + new[at]))
        };
        let rows = |effort| match effort {
            Effort::Rows { rows, operations, moved } => Some([longest(rows) * operations, far(longest(rows) * moved)]),
            Effort::Attention { .. } | Effort::Choices(_) => None,
        };
        let choices = |effort| match effort {
            Effort::Choices(choices) => Some([choices, 0.0]),
            Effort::Attention { .. } | Effort::Rows { .. } => None,
        };
        // One token's activations stay near: what they take is operations.
        let [seconds, operations, _] = sums(&one, &self.passes[1], &rows);
        let operation = if seconds > 0.0 { seconds / operations } else { assumed.operation };
        let [seconds, operations, bytes] = sums(&many, &self.passes[0], &rows);
        let moved = ((seconds - operations * operation) / bytes).max(0.0);
        let [seconds, choices, _] = sums(&many, &self.passes[0], &choices);
        // Two sizes, two unknowns: what a block reads, and what it multiplies.
        let of_blocks = |steps: &[work::Counted], passes: &Passes| {
            steps.iter().enumerate().find_map(|(step, work)| match work.other()?.effort {
                Effort::Attention { items, read, multiplied } if items > 0.0 => {
                    Some([read, multiplied / items, took(passes, step) / longest(items)])
                }
                Effort::Attention { .. } | Effort::Rows { .. } | Effort::Choices(_) => None,
            })
        };
        let attention = of_blocks(&many, &self.passes[0]).zip(of_blocks(&one, &self.passes[1]));
        let attention = attention.map(|(many, one)| solve(many, one));
        let (key_read, key_multiplied) = attention.unwrap_or((assumed.key_read, assumed.key_multiplied));
        Rates {
            barrier,
            operation,
            moved,
            choice: if seconds > 0.0 { seconds / choices } else { assumed.choice },
            key_read,
            key_multiplied,
        }
    }
}

/// `x` and `y` of a·x + b·y = c twice; none below 0, which noise would make it.
fn solve([a, b, c]: [f64; 3], [d, e, f]: [f64; 3]) -> (f64, f64) {
    let determinant = a * e - b * d;
    let (x, y) = ((c * e - b * f) / determinant, (a * f - c * d) / determinant);
    if x >= 0.0 && y >= 0.0 {
        (x, y)
    } else if x < 0.0 {
        (0.0, c / b)
    } else {
        (f / d, 0.0)
    }
}

/// Steps that do next to nothing: what remains are the meetings of threads.
struct Meetings {
    plan: Plan,
    sessions: [Session; 2],
    _libraries: [Temporary; 2],
    /// Seconds of a step.
    alone: Vec<f64>,
    /// With its mark.
    marked: Vec<f64>,
}

impl Meetings {
    const STEPS: u32 = 400;
    /// So many that all threads are used.
    const TOKENS: u64 = 16;

    fn build(level: &str) -> Result<Meetings, Failure> {
        let plan = idle_plan();
        let library = |marks| {
            let levels = library::levels_at(&plan, level);
            Temporary::build(&plan, &Drawn::new(Vec::new()), marks, levels, &SourceMap::default())
        };
        let libraries = [library(Marks::Routes)?, library(Marks::Steps)?];
        let session = |library: &Temporary| library.model.session(Self::TOKENS as usize);
        let sessions = [session(&libraries[0])?, session(&libraries[1])?];
        Ok(Meetings { plan, sessions, _libraries: libraries, alone: Vec::new(), marked: Vec::new() })
    }

    fn round(&mut self) -> Result<(), Failure> {
        const PASSES: usize = 5;
        let inputs = drawn::inputs(&self.plan, Self::TOKENS, 0);
        let mut outputs = drawn::outputs(&self.plan, Self::TOKENS);
        let [alone, marked] = &mut self.sessions;
        for _ in 0..PASSES {
            alone.reset();
            let started = Instant::now();
            alone.run(&inputs, &mut outputs)?;
            self.alone.push(started.elapsed().as_secs_f64() / f64::from(Self::STEPS));
            marked.reset();
            let (ran, intervals) = marked.timed(|session| session.run(&inputs, &mut outputs));
            ran?;
            let steps = intervals.iter().filter(|interval| moec_cpu::marked_step(interval.mark).is_some());
            self.marked.extend(steps.map(|interval| interval.seconds));
        }
        Ok(())
    }
}

/// A step that copies one number, again and again.
fn idle_plan() -> Plan {
    let port = |name: &str, buffer| Port {
        name: name.into(),
        buffer: BufferId(buffer),
        sequence: 0,
        axes: vec![("D".into(), 1)],
        index_limit: None,
    };
    let buffer = |name: &str, home| Buffer { name: name.into(), dtype: DType::F32, rows: Rows::Tokens, row: 1, home };
    let view =
        |buffer| View { source: Source::Whole(BufferId(buffer)), offset: 0, strides: Vec::new(), row: 0, index: None };
    let copy = RowOp::Map { extents: Vec::new(), expr: Expr::Arg(0), args: vec![view(0)], into: view(1) };
    let program = RowProgram { locals: Vec::new(), ops: vec![copy] };
    let kind = StepKind::Rows { rows: Rows::ONE, program, group: None };
    let step = Step { kind, barrier: true, at: Span::NONE, label: "idle".into() };
    Plan {
        name: "idle".into(),
        inputs: vec![port("x", 0)],
        outputs: vec![port("y", 1)],
        literals: Vec::new(),
        buffers: vec![buffer("x", Home::Input(0)), buffer("y", Home::Output(0))],
        body: vec![Node::Layers(Layers {
            kinds: vec![vec![Node::Step(step)]],
            order: vec![0; Meetings::STEPS as usize],
        })],
        params: Vec::new(),
        sources: Vec::new(),
    }
}
