//! The plan with a roof: how long each group of steps should take in a pass, what bounds it, and how long it does take.
//!
//! *Roof*: the longer of (bytes, each read once) over the rate of reading and (operations) over the rate of the fastest
//! multiply-add. No code is faster. *Predicted*: what our own code is expected to take, from how fast its products are with
//! as many rows as each matrix is expected to meet (experts: binomially many under uniform routing), and how fast its row
//! programs, its attention and its barriers are.

mod check;
mod drawn;
mod effort;
mod kernels;
mod library;
mod passes;
mod probe;
mod rates;
mod work;

use moec_plan::{Format, Plan};
use moec_program::products::{Product, Size};

pub use check::{Measured, measure};
pub use probe::Machine;
pub use rates::Rates;
pub use work::{Place, outputs, products};

use kernels::Kernels;
use work::{Counted, Other};

/// How much of the fastest multiply-add's rate our products reach, where it is not measured.
const ASSUMED_SHARE: f64 = 0.5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Memory,
    Compute,
    /// The work is less than the meetings of threads.
    Barriers,
}

impl Bound {
    pub fn name(self) -> &'static str {
        match self {
            Bound::Memory => "memory",
            Bound::Compute => "compute",
            Bound::Barriers => "barriers",
        }
    }
}

/// Steps of one kind in one place: in all layers of a kind, or outside layers.
#[derive(Clone, Debug)]
pub struct Line {
    pub place: Place,
    pub step: &'static str,
    /// Their numbers in the plan.
    pub steps: Vec<usize>,
    /// All executions of all of them.
    pub executions: u64,
    pub bytes: f64,
    pub flops: f64,
    pub roof_seconds: f64,
    pub seconds: f64,
    /// Of these, how many the threads spend meeting.
    meeting: f64,
    pub bound: Bound,
}

/// The lines of a pass, outer steps last.
pub fn predict(plan: &Plan, size: Size, machine: &Machine, rates: &Rates, kernels: Option<&Kernels>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (number, step) in work::steps(plan, size).iter().enumerate().filter(|(_, step)| step.executions > 0) {
        let new = line(number, step, size, (machine, rates, kernels));
        match lines.iter_mut().find(|line| (line.place, line.step) == (new.place, new.step)) {
            Some(line) => line.add(new),
            None => lines.push(new),
        }
    }
    lines.sort_by_key(|line| line.place);
    lines.iter_mut().for_each(Line::decide);
    lines
}

/// The machine, and our own code on it.
type Known<'a> = (&'a Machine, &'a Rates, Option<&'a Kernels>);

fn line(number: usize, step: &Counted, size: Size, (machine, rates, kernels): Known) -> Line {
    let times = step.executions as f64;
    let (bytes, flops, rate) = match &step.product {
        Some(product) => {
            let rate = format(product).map_or(machine.f32, |format| machine.flops(format));
            (product.bytes_read(size), product.flops(size), rate)
        }
        None => (step.other.bytes * times, step.other.flops * times, machine.f32),
    };
    let seconds = match &step.product {
        Some(product) => product_seconds(product, size, machine, kernels) * times,
        None => other_seconds(step.other, machine, rates) * times,
    };
    let meeting = rates.barrier * times;
    Line {
        place: step.place,
        step: step.name,
        steps: vec![number],
        executions: step.executions,
        bytes,
        flops,
        roof_seconds: (bytes / machine.read).max(flops / rate),
        seconds: seconds + meeting,
        meeting,
        bound: if bytes / machine.read >= flops / rate { Bound::Memory } else { Bound::Compute },
    }
}

impl Line {
    fn add(&mut self, other: Line) {
        // Of two bounds, that of the longer part.
        if other.roof_seconds > self.roof_seconds {
            self.bound = other.bound;
        }
        self.steps.extend(other.steps);
        self.executions += other.executions;
        self.bytes += other.bytes;
        self.flops += other.flops;
        self.roof_seconds += other.roof_seconds;
        self.seconds += other.seconds;
        self.meeting += other.meeting;
    }

    fn decide(&mut self) {
        if self.meeting > self.seconds / 2.0 {
            self.bound = Bound::Barriers;
        }
    }
}

/// Of one execution.
fn product_seconds(product: &Product, size: Size, machine: &Machine, kernels: Option<&Kernels>) -> f64 {
    let Some(format) = format(product) else { return 0.0 };
    let assumed = |rows: f64| {
        let read = product.bytes / product.weights.max(1.0) / machine.read;
        read.max(2.0 * rows / (machine.flops(format) * ASSUMED_SHARE))
    };
    let weight = |rows: f64| kernels.and_then(|kernels| kernels.seconds(format, rows)).unwrap_or_else(|| assumed(rows));
    let matrix = |rows: f64| if rows > 0.0 { product.weights * weight(rows) } else { 0.0 };
    let rows = |tokens: f64| tokens * product.rows_of_token + product.rows;
    let expected =
        product.meetings(size).into_iter().map(|(tokens, likely)| likely * matrix(rows(tokens))).sum::<f64>();
    product.matrices * expected
}

fn other_seconds(other: Other, machine: &Machine, rates: &Rates) -> f64 {
    (other.bytes / machine.read).max(rates.seconds(other.effort, machine.threads))
}

/// Seconds that a pass takes at least: the weights' products alone.
pub fn products_roof(products: &[Product], size: Size, machine: &Machine) -> (f64, Bound) {
    let bytes: f64 = products.iter().map(|product| product.bytes_read(size)).sum::<f64>() / machine.read;
    let rate = |product: &Product| format(product).map_or(machine.f32, |format| machine.flops(format));
    let compute: f64 = products.iter().map(|product| product.flops(size) / rate(product)).sum();
    if bytes >= compute { (bytes, Bound::Memory) } else { (compute, Bound::Compute) }
}

/// `None` where a later moec wrote it.
fn format(product: &Product) -> Option<Format> {
    product.format.parse().ok()
}
