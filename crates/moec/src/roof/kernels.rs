//! How fast our own products are on this machine: seconds for a weight of each format, by how many rows meet it. A plan of
//! nothing but one product a layer is compiled and run, with more weights than caches hold.

use std::collections::BTreeMap;

use moec_cpu::Marks;
use moec_diag::{SourceMap, Span};
use moec_plan::{
    Buffer, BufferId, Format, Gemm, Home, Layers, Layout, Node, PackSource, PackedParam, ParamId, Plan, Port, Rows,
    Step, StepKind,
};
use moec_types::{DType, Expr};

use super::{
    drawn::{self, Drawn},
    library::{self, Temporary},
    passes::usual,
};
use crate::{failure::Failure, native::Session};

/// Numbers of rows that are tried; between them, the line through both is taken.
const ROWS: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const WIDTH: u64 = 2048;
/// So many that threads take many items each, as they do of the experts of a layer.
const COLUMNS: u64 = 8192;
/// Of all layers together: several times what a large last-level cache holds.
const BYTES: u64 = 128 << 20;

/// Seconds for one weight, by format and rows.
pub struct Kernels(BTreeMap<Format, Probe>);

struct Probe {
    plan: Plan,
    session: Session,
    _library: Temporary,
    /// Of each of [`ROWS`], the seconds of each product so far.
    seconds: [Vec<f64>; ROWS.len()],
}

impl Kernels {
    /// At the level in force.
    pub fn build(formats: impl IntoIterator<Item = Format>, level: &str) -> Result<Kernels, Failure> {
        let each = formats.into_iter().map(|format| Ok((format, Probe::build(format, level)?)));
        Ok(Kernels(each.collect::<Result<_, Failure>>()?))
    }

    /// What was measured so far was another minute's.
    pub fn forget(&mut self) {
        self.0.values_mut().for_each(|probe| probe.seconds = Default::default());
    }

    /// Measures once more.
    pub fn round(&mut self) -> Result<(), Failure> {
        self.0.values_mut().try_for_each(Probe::round)
    }

    /// Bytes a second, all threads together: the fastest of all products. A roof is not below what was seen.
    pub fn read(&self) -> f64 {
        let fastest = |probe: &Probe| {
            let bytes = probe.plan.params[0].needed_bytes() as f64;
            probe.seconds.each_ref().map(|seconds| bytes / usual(seconds)).into_iter().fold(0.0, f64::max)
        };
        self.0.values().map(fastest).fold(0.0, f64::max)
    }

    /// For one weight that so many rows meet; beyond the most that was tried, in proportion.
    pub fn seconds(&self, format: Format, rows: f64) -> Option<f64> {
        let known = self.0.get(&format)?.known();
        let Some(after) = ROWS.iter().position(|at| *at as f64 >= rows) else {
            return Some(known[ROWS.len() - 1] * rows / ROWS[ROWS.len() - 1] as f64);
        };
        let Some(before) = after.checked_sub(1) else { return Some(known[after]) };
        let [from, to] = [before, after].map(|at| ROWS[at] as f64);
        Some(known[before] + (known[after] - known[before]) * (rows - from) / (to - from))
    }
}

impl Probe {
    fn build(format: Format, level: &str) -> Result<Probe, Failure> {
        let plan = plan(format);
        let axes = vec![("F".to_owned(), COLUMNS), ("D".to_owned(), WIDTH)];
        let weights = Drawn::new(vec![(DType::F32, axes)]);
        let levels = library::levels_at(&plan, level);
        let library = Temporary::build(&plan, &weights, Marks::Steps, levels, &SourceMap::default())?;
        let session = library.model.session(ROWS[ROWS.len() - 1] as usize)?;
        Ok(Probe { plan, session, _library: library, seconds: Default::default() })
    }

    /// Seconds for a weight, by [`ROWS`].
    fn known(&self) -> [f64; ROWS.len()] {
        let weights = self.plan.params[0].weights() as f64;
        self.seconds.each_ref().map(|seconds| usual(seconds) / weights)
    }

    fn round(&mut self) -> Result<(), Failure> {
        for (rows, seconds) in ROWS.into_iter().zip(&mut self.seconds) {
            let (inputs, mut outputs) = (drawn::inputs(&self.plan, rows, 0), drawn::outputs(&self.plan, rows));
            self.session.reset();
            let (ran, intervals) = self.session.timed(|session| session.run(&inputs, &mut outputs));
            ran?;
            let steps = intervals.iter().filter(|interval| moec_cpu::marked_step(interval.mark).is_some());
            seconds.extend(steps.map(|interval| interval.seconds));
        }
        Ok(())
    }
}

/// `y = x · w[l]` for each layer.
fn plan(format: Format) -> Plan {
    let port = |name: &str, buffer, axis: &str, size| Port {
        name: name.into(),
        buffer: BufferId(buffer),
        sequence: 0,
        axes: vec![(axis.into(), size)],
        index_limit: None,
    };
    let buffer = |name: &str, row, home| Buffer { name: name.into(), dtype: DType::F32, rows: Rows::Tokens, row, home };
    let mut weights = PackedParam {
        name: "w".into(),
        layout: Layout::Panels { k: WIDTH, n: COLUMNS, branches: 1 },
        storage: format,
        layers: 1,
        per_layer: true,
        experts: 1,
        instance_bytes: 0,
        offset: 0,
        sources: vec![PackSource { param: 0, path: "w".into(), rows: vec!["F".into()], columns: vec!["D".into()] }],
    };
    weights.instance_bytes = weights.needed_bytes().next_multiple_of(64);
    weights.layers = BYTES.div_ceil(weights.instance_bytes) as u32;
    let gemm = Gemm {
        rows: Rows::Tokens,
        batch: 1,
        a: BufferId(0),
        weights: ParamId(0),
        epilogue: Expr::Arg(0),
        extras: Vec::new(),
        out: BufferId(1),
        group: None,
    };
    let step = Step { kind: StepKind::Gemm(gemm), barrier: true, at: Span::NONE, label: "w".into() };
    Plan {
        name: "probe".into(),
        inputs: vec![port("x", 0, "D", WIDTH)],
        outputs: vec![port("y", 1, "F", COLUMNS)],
        literals: Vec::new(),
        buffers: vec![buffer("x", WIDTH, Home::Input(0)), buffer("y", COLUMNS, Home::Output(0))],
        body: vec![Node::Layers(Layers {
            kinds: vec![vec![Node::Step(step)]],
            order: vec![0; weights.layers as usize],
        })],
        params: vec![weights],
        sources: Vec::new(),
    }
}
