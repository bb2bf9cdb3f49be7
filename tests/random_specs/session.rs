//! Passes over a random module: inputs, what the oracle and the plan's interpreter make of them, and whether two agree.

use moec_diag::SourceMap;
use moec_ir::Module;
use moec_oracle::{Data, Session, Shake, Tensor, Trace, Weights};
use moec_sema::Settings;
use moec_types::{DType, Size, TensorType};

use super::random::Random;

/// Rounding differs only in the order of sums, and in f32 against f64.
const TOLERANCE: f64 = 2e-4;

/// Text to module; the messages of all problems otherwise.
pub fn check(text: &str) -> Result<Module, String> {
    let mut sources = SourceMap::default();
    let (tree, problems) = moec_syntax::parse(&mut sources, "random.moe", text);
    let told = |problems: moec_diag::Problems| {
        let told = |problem: &moec_diag::Problem| {
            let labels: Vec<String> = problem
                .labels()
                .into_iter()
                .flatten()
                .map(|label| {
                    let (from, to) = (label.offset(), label.offset() + label.len());
                    format!("`{}` {}", text.get(from..to).unwrap_or("…"), label.label().unwrap_or_default())
                })
                .collect();
            format!("{problem} [{}]", labels.join("; "))
        };
        problems.iter().map(told).collect::<Vec<_>>().join("\n")
    };
    let Some(tree) = tree.filter(|_| problems.is_empty()) else {
        assert!(!problems.is_empty(), "no tree, and no problem either");
        return Err(told(problems));
    };
    let (checked, problems) = moec_sema::check(&mut sources, &tree, &Settings::default());
    match checked {
        Some(checked) => {
            assert!(problems.is_empty(), "checked, and problems: {}", told(problems));
            Ok(checked.module)
        }
        None => {
            assert!(!problems.is_empty(), "not sound, and no problem said");
            Err(told(problems))
        }
    }
}

/// What one pass gives: outputs as numbers with a name, and the chosen experts.
#[derive(Clone, Debug)]
pub struct Found {
    pub outputs: Vec<Given>,
    pub routes: Vec<(Vec<i32>, Vec<f32>)>,
}

/// An output: row by row where it has rows.
#[derive(Clone, Debug)]
pub struct Given {
    pub name: String,
    pub values: Vec<f64>,
    /// Elements that were not asked for.
    pub skipped: usize,
}

/// The same routes, and the same numbers as far as rounding allows.
pub fn same(expected: &[Found], found: &[Found]) -> Result<(), String> {
    for (pass, (expected, found)) in expected.iter().zip(found).enumerate() {
        if expected.routes.len() != found.routes.len() {
            return Err(format!("pass {pass}: {} routes, not {}", found.routes.len(), expected.routes.len()));
        }
        for (number, ((wanted, weights), (chosen, weighed))) in expected.routes.iter().zip(&found.routes).enumerate() {
            if wanted != chosen {
                return Err(format!("pass {pass}, route {number}: {wanted:?} is wanted, found {chosen:?}"));
            }
            for (at, (want, got)) in weights.iter().zip(weighed).enumerate() {
                if !near(f64::from(*want), f64::from(*got)) {
                    return Err(format!("pass {pass}, route {number}, weight {at}: {want} is wanted, found {got}"));
                }
            }
        }
        for (Given { name, values: wanted, .. }, Given { values: got, skipped, .. }) in
            expected.outputs.iter().zip(&found.outputs)
        {
            if wanted.len() != got.len() {
                return Err(format!("pass {pass}, {name}: {} elements, not {}", got.len(), wanted.len()));
            }
            for (at, (want, got)) in wanted.iter().zip(got).enumerate() {
                if at < *skipped {
                    if !got.is_nan() {
                        return Err(format!("pass {pass}, {name}[{at}] is not asked for, and written: {got}"));
                    }
                } else if !near(*want, *got) {
                    return Err(format!("pass {pass}, {name}[{at}]: {want} is wanted, found {got}"));
                }
            }
        }
    }
    Ok(())
}

fn near(want: f64, got: f64) -> bool {
    want == got || (want.is_nan() && got.is_nan()) || (want - got).abs() <= TOLERANCE * (1.0 + want.abs())
}

/// Some passes of one sequence: for each, how many positions, and the inputs.
pub struct Passes {
    pub passes: Vec<OnePass>,
}

pub struct OnePass {
    pub tokens: usize,
    pub first: usize,
    pub inputs: Vec<(String, Tensor)>,
}

impl Passes {
    pub fn random(random: &mut Random, module: &Module) -> Passes {
        let count = random.within(2, 3);
        let passes = (0..count).map(|_| {
            let tokens = random.within(1, 6) as usize;
            let first = if random.percent(50) { 0 } else { random.below(tokens) };
            let inputs = module.inputs.iter().map(|input| {
                let ty = module.tensor(input.value);
                let size = |size: &Size| match size {
                    Size::Fixed(size) => *size as usize,
                    Size::Input(_) | Size::Past(_) | Size::Slots { .. } | Size::Share { .. } => tokens,
                };
                let axes: Vec<_> = ty.dims.iter().map(|dim| (dim.axis.clone(), size(&dim.size))).collect();
                let elements: usize = axes.iter().map(|(_, size)| size).product();
                let data = match ty.dtype {
                    DType::I32 => Data::I32((0..elements).map(|_| random.below(3) as i32).collect()),
                    DType::Bool => Data::Bool((0..elements).map(|_| random.percent(50)).collect()),
                    DType::F32 | DType::Bf16 | DType::F16 => {
                        Data::F32((0..elements).map(|_| random.signed()).collect())
                    }
                };
                (input.name.clone(), Tensor::new(axes, data))
            });
            let inputs = inputs.collect();
            OnePass { tokens, first, inputs }
        });
        Passes { passes: passes.collect() }
    }

    pub fn oracle(&self, module: &Module, weights: &dyn Weights) -> Result<Vec<Found>, String> {
        self.by(module, Session::new(module, weights))
    }

    fn by(&self, module: &Module, mut session: Session) -> Result<Vec<Found>, String> {
        let run = |pass: &OnePass| {
            let mut trace = Trace::default();
            let inputs: Vec<(&str, Tensor)> =
                pass.inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
            let outputs = session.run(&inputs, Some(&mut trace)).map_err(|error| error.to_string())?;
            let given = |((name, tensor), output): ((String, Tensor), &moec_ir::Output)| {
                let values = rows(&tensor, module.tensor(output.value));
                Given { name, values, skipped: 0 }
            };
            let outputs = outputs.into_iter().zip(&module.outputs).map(given).collect();
            let routes = trace.routes.into_iter().map(|route| (route.indices, route.weights)).collect();
            Ok(Found { outputs, routes })
        };
        self.passes.iter().map(run).collect()
    }

    /// Whether errors about as large as rounding, of whatever is rounded, change what the model gives far more than that:
    /// then a difference says nothing.
    pub fn unsteady(&self, module: &Module, weights: &dyn Weights, expected: &[Found], error: f32) -> bool {
        (1..6).any(|seed| match self.by(module, Session::shaken(module, weights, Shake { error, seed })) {
            Ok(found) => same(expected, &found).is_err(),
            Err(_) => true,
        })
    }
}

impl OnePass {
    /// The inputs as a plan takes them.
    pub fn rows(&self, module: &Module) -> Vec<Vec<f64>> {
        let types = module.inputs.iter().map(|input| module.tensor(input.value));
        self.inputs.iter().zip(types).map(|((_, tensor), ty)| rows(tensor, ty)).collect()
    }

    /// An output as a plan gives it. (One that is the same for all positions is always asked for.)
    pub fn given(&self, module: &Module, number: usize, values: Vec<f64>) -> Given {
        let output = &module.outputs[number];
        let by_row = module.tensor(output.value).elements().is_none();
        let skipped = if by_row { self.first * (values.len() / self.tokens) } else { 0 };
        Given { name: output.name.clone(), values, skipped }
    }
}

/// The elements, whatever their type, row by row.
fn rows(tensor: &Tensor, ty: &TensorType) -> Vec<f64> {
    let (of_rows, within): (Vec<_>, Vec<_>) = ty.dims.iter().partition(|dim| dim.size.fixed().is_none());
    let tensor = tensor.arranged(of_rows.into_iter().chain(within).map(|dim| &dim.axis));
    match tensor.data() {
        Data::F32(values) => values.iter().map(|value| f64::from(*value)).collect(),
        Data::I32(values) => values.iter().map(|value| f64::from(*value)).collect(),
        Data::Bool(values) => values.iter().map(|value| f64::from(u8::from(*value))).collect(),
    }
}
