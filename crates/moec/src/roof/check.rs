//! Measures what was predicted: the plan is compiled so that it marks its steps, and run on weights that are drawn where none
//! are given.

use std::collections::BTreeSet;

use moec_codegen::Instances;
use moec_cpu::Marks;
use moec_diag::SourceMap;
use moec_ir::Module;
use moec_plan::{Format, Layout, Plan};
use moec_program::products::Size;

use super::{
    Line, Machine,
    drawn::Drawn,
    kernels::Kernels,
    library::{self, Temporary},
    passes::{Passes, TURNS},
    predict,
    rates::{Rates, Sample},
};
use crate::failure::Failure;

/// A pass of one size.
pub struct Measured {
    /// In those minutes.
    pub machine: Machine,
    pub rates: Rates,
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

/// Passes of several sizes. `weights` are the checkpoint's, where it has any.
pub fn measure(
    module: &Module,
    plan: &Plan,
    sizes: &[Size],
    weights: Option<&dyn Instances>,
    sources: &SourceMap,
) -> Result<Vec<Measured>, Failure> {
    let drawn = weights.is_none().then(|| Drawn::of(module));
    let weights = weights.or(drawn.as_ref().map(|drawn| drawn as &dyn Instances)).expect("one of both");
    let library = Temporary::build(plan, weights, Marks::Steps, library::all_levels(plan), sources)?;
    let level = library.model.level();
    let threads = usize::try_from(library.model.threads()).unwrap_or(1).max(1);
    let mut kernels = Kernels::build(formats(plan), &level)?;
    let mut sample = Sample::build(&level)?;
    let one = |size: &Size| -> Result<Measured, Failure> {
        let mut machine = Machine::probe(threads);
        let mut passes = Passes::new(plan, *size, &library)?;
        kernels.forget();
        sample.forget();
        for _ in 0..TURNS {
            machine = machine.best(Machine::probe(threads));
            kernels.round()?;
            sample.round()?;
            passes.turn(plan)?;
        }
        machine.read = machine.read.max(kernels.read());
        let rates = sample.rates(&machine);
        let lines = predict(plan, *size, &machine, &rates, Some(&kernels));
        let marking = |line: &Line| line.executions as f64 * sample.marking();
        let took = |line: &Line| line.steps.iter().map(|step| passes.seconds(*step)).sum::<f64>();
        // What marks took is known roughly: a step that was seen took some time of its own.
        let seconds = |line: &Line| (took(line) - marking(line)).max(took(line) / 10.0);
        let lines = lines.into_iter().map(|line| (seconds(&line), line)).map(|(seconds, line)| (line, seconds));
        Ok(Measured { machine, rates, level: level.clone(), lines: lines.collect() })
    };
    sizes.iter().map(one).collect()
}

/// The formats of matrices.
fn formats(plan: &Plan) -> BTreeSet<Format> {
    let matrices = plan.params.iter().filter(|param| matches!(param.layout, Layout::Panels { .. }));
    matrices.map(|param| param.storage).collect()
}
