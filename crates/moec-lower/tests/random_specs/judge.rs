//! What must hold of a spec: from its text to the numbers of its plan.

use std::{collections::BTreeSet, fmt};

use moec_interpreter::{Machine, Packing};
use moec_ir::Module;
use moec_oracle::RandomWeights;
use moec_plan::Plan;

use crate::from_oracle::FromOracle;
use crate::parts::agree_with_the_whole;
use crate::specs::{
    random::Random,
    session::{Found, OnePass, Passes, check, same},
};

/// What the interpreter's rounding may come to, relative to the weights.
const ROUNDING: f32 = 1e-6;

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
    if let Err(what) = agree_with_the_whole(text, &module, &passes, &weights, &expected) {
        if !passes.unsteady(&module, &weights, &expected, ROUNDING) {
            return fault("at once", what);
        }
        verdict = Verdict::Unsteady;
    }
    for disabled in variants(&mut random) {
        let stage = match disabled.is_empty() {
            true => "all passes".to_owned(),
            false => format!("without {}", disabled.iter().cloned().collect::<Vec<_>>().join(", ")),
        };
        let options = moec_passes::Options { disabled };
        let (fused, _) = moec_passes::run(module.clone(), &options);
        reads_back(&stage, &fused)?;
        if options.disabled.is_empty()
            && moec_ir::print(&moec_passes::run(again.clone(), &options).0) != moec_ir::print(&fused)
        {
            return fault(stage, "the passes give another module the second time");
        }
        let found = passes.oracle(&fused, &weights);
        let found = found.or_else(|error| fault(format!("fused, {stage}"), error))?;
        if let Err(what) = same(&expected, &found) {
            if passes.unsteady(&module, &weights, &expected, ROUNDING) {
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
        let found = interpret(&passes, &module, &plan, &weights);
        if let Err(what) = same(&expected, &found) {
            if passes.unsteady(&module, &weights, &expected, ROUNDING) {
                verdict = Verdict::Unsteady;
                continue;
            }
            return fault(format!("interpreted, {stage}"), what);
        }
    }
    Ok(verdict)
}

/// All passes; then some left out. (Attention has no other way than its pass.)
fn variants(random: &mut Random) -> [BTreeSet<String>; 2] {
    let some = moec_passes::pipeline().iter().filter(|pass| pass.name != "fuse-attention" && random.percent(40));
    [BTreeSet::new(), some.map(|pass| pass.name.to_owned()).collect()]
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

/// What the plan gives.
fn interpret(passes: &Passes, module: &Module, plan: &Plan, weights: &RandomWeights) -> Vec<Found> {
    let from_oracle = FromOracle(weights);
    let packing = Packing { plan, instances: &from_oracle };
    let mut machine = Machine::new(plan, &packing, 6, 20);
    let run = |pass: &OnePass| {
        let found = machine.run(pass.rows(module), pass.tokens as u64, pass.first as u64);
        let outputs = found.outputs.into_iter().enumerate();
        Found {
            outputs: outputs.map(|(number, values)| pass.given(module, number, values)).collect(),
            routes: found.routes,
        }
    };
    passes.passes.iter().map(run).collect()
}
