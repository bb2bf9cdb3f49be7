//! What must hold of a spec: from its text to the numbers of its plan.

use std::{collections::BTreeSet, fmt, sync::Arc};

use moec_diag::SourceMap;
use moec_interpreter::Machine;
use moec_ir::{Module, ParamId};
use moec_oracle::{Data, RandomWeights, Session, Tensor, Trace, Weights};
use moec_plan::Plan;
use moec_sema::Settings;
use moec_types::{DType, Size};

use crate::random::Random;

/// Rounding differs only in the order of sums, and in f32 against f64.
const TOLERANCE: f64 = 2e-4;

/// What a spec came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Sound,
    /// The checker has problems with it: their messages.
    Problems(String),
    /// A form that lowering says it cannot do.
    Unsupported(String),
    /// Numbers so near to a step of some function that rounding decides.
    Unsteady,
}

/// What is wrong, and in which stage.
#[derive(Clone, Debug)]
pub struct Fault {
    pub stage: String,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.stage, self.what)
    }
}

fn fault<T>(stage: impl Into<String>, what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { stage: stage.into(), what: what.into() })
}

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

/// Everything, for the choices of a seed.
pub fn judge(text: &str, seed: u64) -> Result<Verdict, Fault> {
    let module = match check(text) {
        Ok(module) => module,
        Err(problems) => return Ok(Verdict::Problems(problems)),
    };
    reads_back("check", &module)?;
    let again = check(text).map_err(|problems| Fault { stage: "check again".into(), what: problems })?;
    if moec_ir::print(&again) != moec_ir::print(&module) {
        return fault("check again", "the same text gives another module");
    }
    let mut random = Random::new(seed ^ 0xabcd);
    let passes = Passes::random(&mut random, &module);
    let weights = RandomWeights::new(&module, seed);
    let all = passes.oracle(&module, &weights).or_else(|error| fault("oracle", error))?;
    // Routes that no output depends on go with what is dead.
    let module = module.without_dead();
    let expected = passes.oracle(&module, &weights).or_else(|error| fault("oracle", error))?;
    let outputs =
        |found: &[Found]| found.iter().map(|found| Found { routes: Vec::new(), ..found.clone() }).collect::<Vec<_>>();
    same(&outputs(&all), &outputs(&expected)).or_else(|what| fault("without what is dead", what))?;
    let mut verdict = Verdict::Sound;
    for disabled in variants(&mut random) {
        let stage = match disabled.is_empty() {
            true => "all passes".to_owned(),
            false => format!("without {}", disabled.iter().cloned().collect::<Vec<_>>().join(", ")),
        };
        let options = moec_passes::Options { disabled };
        let (fused, _) = moec_passes::run(module.clone(), &options);
        reads_back(&stage, &fused)?;
        if moec_ir::print(&moec_passes::run(again.clone(), &options).0) != moec_ir::print(&fused) {
            return fault(stage, "the passes give another module the second time");
        }
        let found = passes.oracle(&fused, &weights);
        let found = found.or_else(|error| fault(format!("fused, {stage}"), error))?;
        if let Err(what) = same(&expected, &found) {
            if passes.unsteady(&module, &weights, &expected) {
                verdict = Verdict::Unsteady;
                continue;
            }
            return fault(format!("fused, {stage}"), what);
        }
        let plan = match moec_lower::lower(&fused) {
            Ok(plan) => plan,
            Err(error) => {
                // What some pass is needed for is not said against a spec.
                if options.disabled.is_empty() {
                    verdict = Verdict::Unsupported(error.to_string());
                }
                continue;
            }
        };
        plan_is_sound(&plan, &fused).or_else(|what| fault(format!("plan, {stage}"), what))?;
        let found = passes.interpret(&plan, &weights);
        if let Err(what) = same(&expected, &found) {
            if passes.unsteady(&module, &weights, &expected) {
                verdict = Verdict::Unsteady;
                continue;
            }
            return fault(format!("interpreted, {stage}"), what);
        }
    }
    Ok(verdict)
}

/// All passes; then two with some left out. (Attention has no other way than its pass.)
fn variants(random: &mut Random) -> Vec<BTreeSet<String>> {
    let mut variants = vec![BTreeSet::new()];
    for _ in 0..2 {
        let some = moec_passes::pipeline().iter().filter(|pass| pass.name != "fuse-attention" && random.percent(40));
        variants.push(some.map(|pass| pass.name.to_owned()).collect());
    }
    variants
}

fn reads_back(stage: &str, module: &Module) -> Result<(), Fault> {
    if let Err(error) = moec_ir::verify(module) {
        return fault(stage, format!("does not verify: {error}"));
    }
    let text = moec_ir::print(module);
    match moec_ir::parse(&text) {
        Ok(read) if moec_ir::print(&read) == text => Ok(()),
        Ok(read) => fault(stage, format!("reads back as another module:\n{text}\n{}", moec_ir::print(&read))),
        Err(error) => fault(stage, format!("does not read back: {error}\n{text}")),
    }
}

fn plan_is_sound(plan: &Plan, fused: &Module) -> Result<(), String> {
    moec_plan::verify(plan).map_err(|error| error.to_string())?;
    let text = plan.to_string();
    let again = moec_plan::parse(&text).map_err(|error| format!("does not read back: {error}\n{text}"))?;
    if again.to_string() != text {
        return Err(format!("reads back as another plan:\n{text}\n{again}"));
    }
    match moec_lower::lower(fused) {
        Ok(second) if second.to_string() == text => Ok(()),
        Ok(_) | Err(_) => Err("lowering gives another plan the second time".into()),
    }
}

/// What one pass gives: outputs as numbers with a name, and the chosen experts.
#[derive(Clone, Debug)]
struct Found {
    outputs: Vec<(String, Vec<f64>)>,
    routes: Vec<(Vec<i32>, Vec<f32>)>,
    /// Rows of the outputs before this are not asked for.
    first: f64,
}

/// The same routes, and the same numbers as far as rounding allows.
fn same(expected: &[Found], found: &[Found]) -> Result<(), String> {
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
        for ((name, wanted), (_, got)) in expected.outputs.iter().zip(&found.outputs) {
            let skipped = (found.first * wanted.len() as f64) as usize;
            if wanted.len() != got.len() {
                return Err(format!("pass {pass}, {name}: {} elements, not {}", got.len(), wanted.len()));
            }
            for (at, (want, got)) in wanted.iter().zip(got).enumerate() {
                if at < skipped {
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
struct Passes {
    passes: Vec<OnePass>,
}

struct OnePass {
    tokens: usize,
    first: usize,
    inputs: Vec<(String, Tensor)>,
}

impl Passes {
    fn random(random: &mut Random, module: &Module) -> Passes {
        let count = random.within(2, 3);
        let passes = (0..count).map(|_| {
            let tokens = random.within(1, 6) as usize;
            let first = if random.percent(50) { 0 } else { random.below(tokens) };
            let inputs = module.inputs.iter().map(|input| {
                let ty = module.tensor(input.value);
                let size = |size: &Size| match size {
                    Size::Fixed(size) => *size as usize,
                    Size::Input(_) | Size::Past(_) | Size::Slots { .. } => tokens,
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

    fn oracle(&self, module: &Module, weights: &dyn Weights) -> Result<Vec<Found>, String> {
        let mut session = Session::new(module, weights);
        let run = |pass: &OnePass| {
            let mut trace = Trace::default();
            let inputs: Vec<(&str, Tensor)> =
                pass.inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
            let outputs = session.run(&inputs, Some(&mut trace)).map_err(|error| error.to_string())?;
            let outputs = outputs.into_iter().map(|(name, tensor)| (name, cells(&tensor))).collect();
            let routes = trace.routes.into_iter().map(|route| (route.indices, route.weights)).collect();
            Ok(Found { outputs, routes, first: 0.0 })
        };
        self.passes.iter().map(run).collect()
    }

    fn interpret(&self, plan: &Plan, weights: &RandomWeights) -> Vec<Found> {
        let from_oracle = FromOracle(weights);
        let packing = moec_interpreter::Packing { plan, instances: &from_oracle };
        let mut machine = Machine::new(plan, &packing, 6, 20);
        let run = |pass: &OnePass| {
            let inputs = pass.inputs.iter().map(|(_, tensor)| cells(tensor)).collect();
            let found = machine.run(inputs, pass.tokens as u64, pass.first as u64);
            let outputs = plan.outputs.iter().zip(found.outputs).map(|(port, rows)| (port.name.clone(), rows));
            let first = pass.first as f64 / pass.tokens as f64;
            Found { outputs: outputs.collect(), routes: found.routes, first }
        };
        self.passes.iter().map(run).collect()
    }

    /// Whether a change of the weights about as large as rounding changes what the model gives far more than that: then a
    /// difference says nothing.
    fn unsteady(&self, module: &Module, weights: &RandomWeights, expected: &[Found]) -> bool {
        (1..6).any(|seed| {
            let shaken = Shaken { weights, seed };
            match self.oracle(module, &shaken) {
                Ok(found) => same(expected, &found).is_err(),
                Err(_) => true,
            }
        })
    }
}

fn cells(tensor: &Tensor) -> Vec<f64> {
    match tensor.data() {
        Data::F32(values) => values.iter().map(|value| f64::from(*value)).collect(),
        Data::I32(values) => values.iter().map(|value| f64::from(*value)).collect(),
        Data::Bool(values) => values.iter().map(|value| f64::from(u8::from(*value))).collect(),
    }
}

struct FromOracle<'w>(&'w RandomWeights);

impl moec_interpreter::Instances for FromOracle<'_> {
    fn instance(&self, param: u32, layer: u32, expert: u32) -> (Vec<(String, u64)>, Vec<f32>) {
        let tensor = self.0.instance(ParamId(param), layer, expert).expect("random weights know every parameter");
        let axes = tensor.axes().iter().map(|(axis, size)| (axis.name().to_owned(), *size as u64)).collect();
        (axes, tensor.f32().to_vec())
    }
}

/// Weights with an error of a few ten-millionths each.
struct Shaken<'w> {
    weights: &'w RandomWeights,
    seed: u64,
}

impl Weights for Shaken<'_> {
    fn instance(&self, param: ParamId, layer: u32, expert: u32) -> Option<Arc<Tensor>> {
        let tensor = self.weights.instance(param, layer, expert)?;
        let mut random =
            Random::new(self.seed ^ (u64::from(param.0) << 20) ^ (u64::from(layer) << 10) ^ u64::from(expert));
        let shake = |value: &f32| value * (1.0 + 1e-6 * random.signed());
        let data: Vec<f32> = tensor.f32().iter().map(shake).collect();
        Some(Arc::new(Tensor::new(tensor.axes().to_vec(), data)))
    }
}
