//! `moec explain`: what a model is and what it costs, before anything is built.

mod data;
mod drawing;
mod fusion;
mod page;
mod roof;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use moec_codegen::Instances;
use moec_diag::{SourceMap, Span};
use moec_ir::{Module, ops::Op};
use moec_passes::Report;
use moec_plan::{Format, Node, Plan, StepKind};
use moec_sema::Placement;

use crate::{
    checkpoint,
    cli::{Explain, Quant},
    compile,
    cost::{self, Cost, Pass},
    count,
    failure::Failure,
    files,
    placement::{self, Group},
    quant,
    routes::{self, RouteShape},
    spec,
    weights::{FromCheckpoint, NonFinite},
};

pub fn run(arguments: &Explain) -> Result<(), Failure> {
    let loaded = spec::load(&arguments.spec.file, &arguments.spec.settings, arguments.weights.as_deref())?;
    let mut module = loaded.checked.module;
    let mut matched = None;
    if let (Some(dir), Some(map)) = (&arguments.weights, &loaded.checked.weights)
        && checkpoint::is_there(dir)
    {
        let found = matched.insert(checkpoint::open(dir, Some(map), &module, &loaded.sources)?);
        found.keep_types(&mut module);
    }
    let placements = &loaded.checked.placements;
    let groups = placement::groups(placements);
    let mut explained = Explained::of(&module, groups, arguments, matched.as_ref(), &loaded.sources)?;
    if arguments.check {
        explained.check(matched.as_ref(), arguments, &loaded.sources)?;
    }
    if let Some(file) = &arguments.html {
        write_page(file, &explained, placements, &loaded.sources)?;
    } else if arguments.json {
        println!("{:#}", explained.json(&loaded.sources));
    } else {
        print!("{}", explained.text(&loaded.sources));
    }
    Ok(())
}

/// The page, and the same as JSON beside it.
fn write_page(
    file: &Path,
    explained: &Explained,
    placements: &[Placement],
    sources: &SourceMap,
) -> Result<(), Failure> {
    let data = explained.json(sources);
    files::write(file, page::page(explained, placements, &data, sources).as_bytes())?;
    files::write(&file.with_extension("json"), format!("{data:#}\n").as_bytes())?;
    eprintln!("wrote {} and {}", file.display(), file.with_extension("json").display());
    Ok(())
}

struct Explained<'a> {
    module: &'a Module,
    parameters: count::Parameters,
    placement: Vec<Group>,
    routes: Vec<RouteShape>,
    /// The layers of each kind.
    kinds: Vec<Vec<u32>>,
    /// At least one; costs are those of the first.
    passes: Vec<Pass>,
    cost: Cost,
    /// Bytes of one element of each parameter.
    stored: Vec<f64>,
    report: Report,
    /// Why there is none, where lowering refuses.
    plan: Result<Plan, String>,
    /// Of each pass, where there is a plan.
    roofs: Vec<roof::Roof>,
}

impl<'a> Explained<'a> {
    fn of(
        module: &'a Module,
        placement: Vec<Group>,
        arguments: &Explain,
        matched: Option<&checkpoint::Matched>,
        sources: &SourceMap,
    ) -> Result<Self, Failure> {
        let pass = |tokens: &u64| Pass { tokens: (*tokens).max(1), past: arguments.past };
        let passes: Vec<Pass> = arguments.tokens.iter().map(pass).collect();
        let (fused, report) = compile::fuse(module.clone(), &arguments.disable_pass)?;
        let mut plan = compile::plan(&fused, sources).map_err(|failure| failure.messages());
        if let Ok(plan) = &mut plan {
            quant::apply(plan, arguments.quant.quant, matched);
        }
        let stored = stored_bytes(module, plan.as_ref().ok());
        let assumed = |plan| passes.iter().map(|pass| roof::Roof::assumed(plan, *pass)).collect();
        let roofs = plan.as_ref().map_or_else(|_| Vec::new(), assumed);
        Ok(Explained {
            module,
            parameters: count::parameters(module),
            placement,
            routes: routes::all(module),
            kinds: layer_kinds(module),
            cost: cost::of(module, passes[0], &stored),
            passes,
            stored,
            report,
            plan,
            roofs,
        })
    }

    /// Puts what is measured in the place of what was assumed.
    fn check(
        &mut self,
        matched: Option<&checkpoint::Matched>,
        arguments: &Explain,
        sources: &SourceMap,
    ) -> Result<(), Failure> {
        // Lowering again tells why it cannot, with the place.
        let (fused, _) = compile::fuse(self.module.clone(), &arguments.disable_pass)?;
        let Ok(plan) = &self.plan else { return compile::plan(&fused, sources).map(|_| ()) };
        let weights = matched.map(|matched| FromCheckpoint::new(matched, self.module, NonFinite::Accepted));
        let weights = weights.map(|weights| match arguments.quant.quant {
            Some(Quant::Stored) => weights.keeping_codes(plan),
            Some(_) | None => weights,
        });
        let weights = weights.as_ref().map(|weights| weights as &dyn Instances);
        self.roofs = roof::Roof::measured(self.module, plan, &self.passes, weights, sources)?;
        Ok(())
    }

    /// The one whose costs are told.
    fn pass(&self) -> Pass {
        self.passes[0]
    }

    /// The formats of the weights: those of the plan, or the types of the parameters.
    fn storage(&self) -> Vec<String> {
        let used: BTreeSet<Format> = match &self.plan {
            Ok(plan) => plan.params.iter().map(|param| param.storage).collect(),
            Err(_) => self.module.params.iter().map(|param| param.storage.into()).collect(),
        };
        used.into_iter().map(|format| format.to_string()).collect()
    }
}

/// What is stored in one format.
#[derive(Clone, Copy, Default)]
struct Kept {
    weights: u64,
    bytes: u64,
}

fn kept(plan: &Plan) -> BTreeMap<Format, Kept> {
    let mut all: BTreeMap<Format, Kept> = BTreeMap::new();
    for param in &plan.params {
        let kept = all.entry(param.storage).or_default();
        kept.weights += param.weights() * u64::from(param.layers) * u64::from(param.experts);
        kept.bytes += param.bytes();
    }
    all
}

/// Bytes of one element of each parameter of the module: as the plan packs it, else by its type.
fn stored_bytes(module: &Module, plan: Option<&Plan>) -> Vec<f64> {
    let mut bytes: Vec<f64> = module.params.iter().map(|param| param.storage.bytes() as f64).collect();
    for param in plan.iter().flat_map(|plan| &plan.params).filter(|param| param.storage.each().is_none()) {
        for source in &param.sources {
            bytes[source.param as usize] = param.needed_bytes() as f64 / param.weights().max(1) as f64;
        }
    }
    bytes
}

fn layer_kinds(module: &Module) -> Vec<Vec<u32>> {
    let mut kinds = Vec::new();
    count::walk(module, &mut |at, _| {
        if let Op::Layers(op) = &module.node(at).op {
            for kind in 0..op.kinds.len() as u32 {
                let of = |(layer, of): (usize, &u32)| (*of == kind).then_some(layer as u32);
                kinds.push(op.order.iter().enumerate().filter_map(of).collect());
            }
        }
    });
    kinds
}

/// How many steps of each kind the plan has, those of layers counted once.
fn steps(plan: &Plan) -> Vec<(&'static str, usize)> {
    let mut counts =
        [("rows", 0), ("gemm", 0), ("grouped gemm", 0), ("bin", 0), ("attention", 0), ("scan", 0), ("assign", 0)];
    fn count(nodes: &[Node], counts: &mut [(&'static str, usize); 7]) {
        for node in nodes {
            match node {
                Node::Layers(layers) => layers.kinds.iter().for_each(|kind| count(kind, counts)),
                Node::Step(step) => {
                    let at = match &step.kind {
                        StepKind::Rows { .. } => 0,
                        StepKind::Gemm(gemm) if gemm.group.is_none() => 1,
                        StepKind::Gemm(_) => 2,
                        StepKind::Bin(_) => 3,
                        StepKind::Attention(_) => 4,
                        StepKind::Scan(_) => 5,
                        StepKind::Assign(_) => 6,
                    };
                    counts[at].1 += 1;
                }
            }
        }
    }
    plan.passes().for_each(|pass| count(pass, &mut counts));
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// `model.moe:27`.
pub(crate) fn place(sources: &SourceMap, at: Span) -> String {
    match sources.position(at) {
        Some((file, line, _)) => {
            let name = std::path::Path::new(file).file_name().map_or(file.into(), |name| name.to_string_lossy());
            format!("{name}:{line}")
        }
        None => "made by the compiler".into(),
    }
}

/// Three figures and a decimal prefix: `12.9 GB`.
pub(crate) fn short(number: f64, unit: &str) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P"];
    let mut scaled = number;
    let mut at = 0;
    while scaled.abs() >= 999.5 && at + 1 < prefixes.len() {
        scaled /= 1000.0;
        at += 1;
    }
    let decimals = if at == 0 { 0 } else { 2 };
    format!("{scaled:.decimals$} {}{unit}", prefixes[at])
}
