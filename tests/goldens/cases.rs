//! Cases of the catalogue: a model of `examples/catalogue`, its inputs and parameters by formula, and what it must choose and
//! give. `make_goldens.py` and `make_parts.py` write them; the tests of the oracle, of the plan and of the CPU code share this reader.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use moec_diag::SourceMap;
use moec_ir::{Module, Param, ParamId};
use moec_oracle::{MemoryWeights, Tensor};
use moec_plan::{Plan, Rows};
use moec_sema::{Also, Phase, Settings};
use serde::Deserialize;

/// What f32 arithmetic may differ by from the f64 reference, for numbers near 1.
const TOLERANCE: f64 = 1e-5;

#[derive(Debug, Deserialize)]
pub struct Case {
    pub name: String,
    /// The file in `examples/catalogue`, without `.moe`.
    pub spec: String,
    pub tokens: usize,
    /// Positions of each pass when the sequence comes in several; none where it may only come whole.
    #[serde(default)]
    pub passes: Vec<usize>,
    #[serde(default)]
    pub set: Vec<(String, String)>,
    pub inputs: Vec<InputValues>,
    pub params: Vec<ParamValues>,
    pub routes: Vec<Chosen>,
    pub y: Given,
    /// The model is checked for training.
    #[serde(default)]
    train: bool,
    /// What is given on request: losses, traces, states of the next step.
    #[serde(default)]
    extras: Vec<Extra>,
}

#[derive(Debug, Deserialize)]
struct Extra {
    output: String,
    values: Vec<f64>,
}

#[derive(Debug, Deserialize)]
pub struct InputValues {
    pub name: String,
    #[serde(flatten)]
    values: Values,
}

/// The instances of one parameter of one bank member.
#[derive(Debug, Deserialize)]
pub struct ParamValues {
    path: String,
    /// The first expert of the member.
    #[serde(default)]
    first: u32,
    /// The axes in the order of the values, slowest first.
    axes: Vec<String>,
    #[serde(flatten)]
    values: Values,
    /// What the seed grows by from one expert to the next, from one layer to the next.
    #[serde(default)]
    each: f64,
    #[serde(default)]
    layer: f64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Values {
    /// Rows, columns, seed, scale: `scale * sin(seed + 0.7 r + 1.3 c + 0.37 r c)`.
    Waves(usize, usize, f64, f64),
    /// As they are, one instance after the other.
    Values(Vec<f64>),
}

/// One route, position by position.
#[derive(Debug, Deserialize)]
pub struct Chosen {
    pub i: Vec<i32>,
    pub w: Vec<f64>,
}

/// What the whole output is like: its Euclidean norm, its sum, and for each position the sum of `y[d] cos d`.
#[derive(Debug, Deserialize)]
pub struct Given {
    norm: f64,
    sum: f64,
    rows: Vec<f64>,
}

impl Values {
    fn instance(&self, number: usize, shift: f64, count: usize) -> Vec<f64> {
        match self {
            Values::Waves(rows, columns, seed, scale) => {
                assert_eq!(rows * columns, count, "as many waves as elements");
                let wave = |r: f64, c: f64| scale * (seed + shift + 0.7 * r + 1.3 * c + 0.37 * r * c).sin();
                (0..count).map(|at| wave((at / columns) as f64, (at % columns) as f64)).collect()
            }
            Values::Values(all) => all[number * count..][..count].to_vec(),
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn cases() -> Vec<Case> {
    let read = |name: &str| -> Vec<Case> {
        let path = root().join("tests/goldens").join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).expect("the cases are JSON of this form")
    };
    ["cases.json", "parts.json"].into_iter().flat_map(read).collect()
}

/// Runs every case (or those whose names begin with `MOEC_CASES`), also after one has failed, and then says which have.
pub fn each(run: impl Fn(&Case)) {
    let wanted = std::env::var("MOEC_CASES").unwrap_or_default();
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.name.starts_with(&wanted)).collect();
    let fails = |case: &&Case| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(case))).is_err();
    let failed: Vec<&str> = cases.iter().filter(fails).map(|case| case.name.as_str()).collect();
    assert!(failed.is_empty(), "{} of {} cases fail: {failed:#?}", failed.len(), cases.len());
}

impl Case {
    /// The model, checked; and where something is known of what it gives on request, with that as well.
    pub fn modules(&self) -> Vec<Module> {
        let all = Also { aux: true, trace: true, state: true };
        let also = [Some(Also::default()), (!self.extras.is_empty()).then_some(all)];
        also.into_iter().flatten().map(|also| self.checked(also)).collect()
    }

    fn checked(&self, also: Also) -> Module {
        let path = root().join(format!("examples/catalogue/{}.moe", self.spec));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut sources = SourceMap::default();
        let (tree, problems) = moec_syntax::parse(&mut sources, &self.spec, &text);
        assert!(problems.is_empty(), "{}: {problems:?}", self.spec);
        let phase = if self.train { Phase::Train } else { Phase::Infer };
        let settings = Settings { overrides: self.set.clone(), phase, also, ..Settings::default() };
        let (checked, problems) = moec_sema::check(&mut sources, &tree.expect("no problems"), &settings);
        assert!(problems.is_empty(), "{}: {problems:?}", self.spec);
        checked.expect("no problems").module
    }

    /// The rows of a plan's inputs.
    pub fn rows(&self, plan: &Plan) -> Vec<Vec<f64>> {
        self.rows_at(plan, &(0..self.tokens))
    }

    /// The rows of a plan's inputs at some positions.
    pub fn rows_at(&self, plan: &Plan, positions: &Range<usize>) -> Vec<Vec<f64>> {
        let at = |port: &moec_plan::Port| {
            let buffer = plan.buffer(port.buffer);
            let row = buffer.row as usize;
            if let Rows::Fixed(rows) = buffer.rows {
                return self.input(&port.name, rows as usize * row);
            }
            self.input(&port.name, self.tokens * row)[positions.start * row..positions.end * row].to_vec()
        };
        plan.inputs.iter().map(at).collect()
    }

    /// The positions of each pass.
    pub fn parts(&self) -> Vec<Range<usize>> {
        let ends = self.passes.iter().scan(0, |end, count| {
            *end += count;
            Some(*end)
        });
        ends.zip(&self.passes).map(|(end, count)| end - count..end).collect()
    }

    /// An input's elements, row by row.
    pub fn input(&self, name: &str, count: usize) -> Vec<f64> {
        let found = self.inputs.iter().find(|input| input.name == name);
        found.unwrap_or_else(|| panic!("{}: no input `{name}`", self.name)).values.instance(0, 0.0, count)
    }

    /// All parameters of the module.
    pub fn weights(&self, module: &Module) -> MemoryWeights {
        let mut weights = MemoryWeights::default();
        for (number, param) in module.params.iter().enumerate() {
            let count = param.ty.elements().expect("parameters have fixed sizes") as usize;
            let values = self.values_of(param, count);
            let size = |axis: &String| {
                let dim = param.ty.dims.iter().find(|dim| dim.axis.name() == axis);
                let dim = dim.unwrap_or_else(|| panic!("{}: `{}` has no axis {axis}", self.name, param.path));
                (dim.axis.clone(), dim.size.fixed().expect("parameters have fixed sizes") as usize)
            };
            let axes: Vec<_> = values.axes.iter().map(size).collect();
            let layers = param.layers.clone().unwrap_or_else(|| vec![0]);
            for (rank, layer) in layers.iter().enumerate() {
                for expert in 0..param.experts.map_or(1, |experts| experts.count) {
                    let shift = values.each * f64::from(expert) + values.layer * f64::from(*layer);
                    let data = values.values.instance(expert as usize, shift, count);
                    let data: Vec<f32> = data.into_iter().map(|value| value as f32).collect();
                    let id = ParamId(number as u32);
                    weights.insert(id, rank as u32, expert, Tensor::new(axes.clone(), data));
                }
            }
        }
        weights
    }

    /// Layers of several kinds have parameters of one path, told apart by their size.
    fn values_of(&self, param: &Param, count: usize) -> &ParamValues {
        let first = param.experts.map_or(0, |experts| experts.first);
        let fits = |values: &&ParamValues| match &values.values {
            Values::Waves(rows, columns, _, _) => rows * columns == count,
            Values::Values(_) => true,
        };
        let named = self.params.iter().filter(|values| values.path == param.path && values.first == first);
        let found = named.clone().find(fits).or(named.clone().next());
        found.unwrap_or_else(|| panic!("{}: no values for `{}` from expert {first} on", self.name, param.path))
    }

    /// Compares the routes: choices exactly, weights nearly.
    pub fn routed<'r>(&self, who: &str, found: impl ExactSizeIterator<Item = (&'r [i32], &'r [f32])>) {
        let name = &self.name;
        assert_eq!(found.len(), self.routes.len(), "{name}, {who}: routes");
        for (at, (found, wanted)) in found.zip(&self.routes).enumerate() {
            assert_eq!(found.0, wanted.i, "{name}, {who}, route {at}: choices");
            for (place, (found, wanted)) in found.1.iter().zip(&wanted.w).enumerate() {
                near(f64::from(*found), *wanted, 1.0, || format!("{name}, {who}, route {at}, weight {place}"));
            }
        }
    }

    /// Compares the output.
    pub fn gave(&self, who: &str, y: &[f64]) {
        let (name, width) = (&self.name, y.len() / self.tokens);
        let norm = y.iter().map(|y| y * y).sum::<f64>().sqrt();
        near(norm, self.y.norm, self.y.norm, || format!("{name}, {who}, norm of y"));
        near(y.iter().sum(), self.y.sum, self.y.norm, || format!("{name}, {who}, sum of y"));
        for (at, (row, wanted)) in y.chunks(width).zip(&self.y.rows).enumerate() {
            let found = row.iter().enumerate().map(|(d, y)| y * (d as f64).cos()).sum();
            near(found, *wanted, self.y.norm, || format!("{name}, {who}, row {at} of y"));
        }
    }

    /// Compares all outputs; those after the first were given on request.
    pub fn gave_all<'o>(&self, who: &str, mut outputs: impl Iterator<Item = (&'o str, Vec<f64>)>) {
        let (_, y) = outputs.next().expect("a model gives something");
        self.gave(who, &y);
        let found: BTreeMap<&str, Vec<f64>> = outputs.collect();
        if found.is_empty() {
            return;
        }
        for Extra { output, values } in &self.extras {
            let found = found.get(output.as_str());
            let found = found.unwrap_or_else(|| panic!("{}, {who}: no output `{output}`", self.name));
            assert_eq!(found.len(), values.len(), "{}, {who}: size of `{output}`", self.name);
            for (at, (found, wanted)) in found.iter().zip(values).enumerate() {
                near(*found, *wanted, *wanted, || format!("{}, {who}, `{output}` {at}", self.name));
            }
        }
    }
}

fn near(found: f64, wanted: f64, size: f64, what: impl Fn() -> String) {
    let close = (found - wanted).abs() <= TOLERANCE * size.abs().max(1.0);
    assert!(close, "{}: {wanted} is wanted, found {found}", what());
}
