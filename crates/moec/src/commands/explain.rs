//! `moec explain`: what a model is and what it costs, before anything is built.

mod drawing;
mod page;

pub use page::STYLE;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use moec_diag::{SourceMap, Span};
use moec_ir::{Module, Param, ValueId, ops::Op};
use moec_passes::{Entry, Report};
use moec_plan::{Format, Node, PackedParam, Plan, StepKind};
use moec_sema::Placement;
use moec_types::TensorType;
use serde_json::{Value, json};

use crate::{
    checkpoint,
    cli::Explain,
    compile,
    cost::{self, Cost, Pass},
    count::{self, grouped},
    failure::Failure,
    files,
    placement::{self, Group, ranges},
    quant,
    routes::{self, RouteShape},
    spec,
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
    let explained = Explained::of(&module, groups, arguments, matched.as_ref(), &loaded.sources)?;
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
    pass: Pass,
    cost: Cost,
    /// Bytes of one element of each parameter.
    stored: Vec<f64>,
    report: Report,
    /// Why there is none, where lowering refuses.
    plan: Result<Plan, String>,
}

impl<'a> Explained<'a> {
    fn of(
        module: &'a Module,
        placement: Vec<Group>,
        arguments: &Explain,
        matched: Option<&checkpoint::Matched>,
        sources: &SourceMap,
    ) -> Result<Self, Failure> {
        let pass = Pass { tokens: arguments.tokens.max(1), past: arguments.past };
        let (fused, report) = compile::fuse(module.clone(), &arguments.disable_pass)?;
        let mut plan = compile::plan(&fused, sources).map_err(|failure| failure.messages());
        if let Ok(plan) = &mut plan {
            quant::apply(plan, arguments.quant.quant, matched);
        }
        let stored = stored_bytes(module, plan.as_ref().ok());
        Ok(Explained {
            module,
            parameters: count::parameters(module),
            placement,
            routes: routes::all(module),
            kinds: layer_kinds(module),
            pass,
            cost: cost::of(module, pass, &stored),
            stored,
            report,
            plan,
        })
    }

    fn text(&self, sources: &SourceMap) -> String {
        let mut lines = vec![format!("model {}", self.module.name), String::new()];
        lines.push(format!("parameters   {:>18} total", grouped(self.parameters.total)));
        lines.push(format!("             {:>18} active for one token", grouped(self.parameters.active)));
        self.text_of_layers(&mut lines);
        self.text_of_routes(&mut lines, sources);
        self.text_of_cost(&mut lines);
        lines.push(String::new());
        lines.push("fusion".into());
        lines.extend(fusion_lines(&self.report, sources).into_iter().map(|line| format!("  {line}")));
        self.text_of_plan(&mut lines);
        lines.join("\n") + "\n"
    }

    fn text_of_layers(&self, lines: &mut Vec<String>) {
        for (kind, layers) in self.kinds.iter().enumerate() {
            let count = layers.len();
            let plural = if count == 1 { "" } else { "s" };
            lines.push(format!("layer kind {kind:<2}{count:>18} layer{plural}: {}", ranges(layers)));
        }
        if !self.placement.is_empty() {
            lines.push(String::new());
            lines.push("placement".into());
            lines.extend(placement::lines(&self.placement).into_iter().map(|line| format!("  {line}")));
        }
    }

    fn text_of_routes(&self, lines: &mut Vec<String>, sources: &SourceMap) {
        lines.push(String::new());
        if self.routes.is_empty() {
            lines.push("no routes: nothing is chosen".into());
        }
        for route in &self.routes {
            let times = if route.layers == 1 { String::new() } else { format!(", in {} layers", route.layers) };
            let place = place(sources, route.at);
            lines.push(format!(
                "route        each token chooses {} of {} experts{times} ({place})",
                route.choices, route.experts
            ));
            lines.push(match (route.is_batch_invariant(), route.is_causal()) {
                (true, _) => "             batch-invariant: a token's choice depends on that token alone".into(),
                (false, true) => {
                    "             causal, not batch-invariant: it depends on earlier tokens of the pass".into()
                }
                (false, false) => "             neither causal nor batch-invariant".into(),
            });
            for crossing in &route.crossings {
                let (operation, axis, place) = (crossing.operation, &crossing.axis, self::place(sources, crossing.at));
                lines.push(format!(
                    "             tokens meet in `{operation}` over {axis} ({place}): a choice depends on others"
                ));
            }
        }
    }

    fn text_of_cost(&self, lines: &mut Vec<String>) {
        let Pass { tokens, past } = self.pass;
        let each = |number: f64| number / tokens as f64;
        lines.push(String::new());
        let plural = if tokens == 1 { "token" } else { "tokens" };
        lines.push(format!("a pass of {tokens} {plural} after {past}"));
        lines.push(format!(
            "  operations {:>18} a token ({} in products)",
            short(each(self.cost.flops()), "FLOP"),
            short(each(self.cost.product_flops), "FLOP")
        ));
        let kept = self.storage().join(" and ");
        lines.push(format!("  weights    {:>18} read once a pass, kept as {kept}", short(self.cost.weight_bytes, "B")));
        lines.push(format!("  cache      {:>18} read and written a pass", short(self.cost.cache_bytes, "B")));
        lines.push(format!("  intensity  {:>18.2} FLOP a byte", self.cost.flops() / self.cost.bytes().max(1.0)));
    }

    /// The formats of the weights: those of the plan, or the types of the parameters.
    fn storage(&self) -> Vec<String> {
        let used: BTreeSet<Format> = match &self.plan {
            Ok(plan) => plan.params.iter().map(|param| param.storage).collect(),
            Err(_) => self.module.params.iter().map(|param| param.storage.into()).collect(),
        };
        used.into_iter().map(|format| format.to_string()).collect()
    }

    fn text_of_plan(&self, lines: &mut Vec<String>) {
        lines.push(String::new());
        let plan = match &self.plan {
            Ok(plan) => plan,
            Err(why) => return lines.push(format!("no plan: {why}")),
        };
        let steps: Vec<String> = steps(plan).into_iter().map(|(name, count)| format!("{name} {count}")).collect();
        lines.push(format!("plan         {}", steps.join(", ")));
        let (per_token, fixed) = plan.workspace_bytes();
        lines.push(format!("  packed     {:>18}", short(plan.weight_bytes() as f64, "B")));
        for (format, kept) in kept(plan) {
            let (bytes, bits) = (short(kept.bytes as f64, "B"), kept.bytes as f64 * 8.0 / kept.weights.max(1) as f64);
            let count = grouped(kept.weights);
            lines.push(format!("             {bytes:>18} as {format}: {count} weights, {bits:.2} bits each"));
        }
        lines.push(format!(
            "  workspace  {:>18} for each token of a pass, and {}",
            short(per_token as f64, "B"),
            short(fixed as f64, "B")
        ));
        lines
            .push(format!("  cache      {:>18} for each position", short(plan.cache_bytes_per_position() as f64, "B")));
        if plan.state_bytes() > 0 {
            lines.push(format!("  states     {:>18} of a session", short(plan.state_bytes() as f64, "B")));
        }
    }

    fn json(&self, sources: &SourceMap) -> Value {
        let routes: Vec<Value> = self.routes.iter().map(|route| route_json(route, sources)).collect();
        let kinds: Vec<Value> = self.kinds.iter().map(|layers| json!({ "layers": layers })).collect();
        let plan = match &self.plan {
            Ok(plan) => {
                let (per_token, fixed) = plan.workspace_bytes();
                let steps: serde_json::Map<String, Value> =
                    steps(plan).into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
                json!({
                    "steps": steps,
                    "weight_bytes": plan.weight_bytes(),
                    "formats": kept(plan).into_iter().map(|(format, kept)| {
                        json!({ "format": format.to_string(), "weights": kept.weights, "bytes": kept.bytes })
                    }).collect::<Vec<_>>(),
                    "parameters": plan.params.iter().map(packed_json).collect::<Vec<_>>(),
                    "workspace_bytes_per_token": per_token,
                    "workspace_bytes_fixed": fixed,
                    "cache_bytes_per_position": plan.cache_bytes_per_position(),
                    "state_bytes": plan.state_bytes(),
                })
            }
            Err(why) => json!({ "unsupported": why }),
        };
        json!({
            "model": self.module.name,
            "inputs": self.module.inputs.iter().map(|input| port_json(self.module, &input.name, input.value)).collect::<Vec<_>>(),
            "outputs": self.module.outputs.iter().map(|output| port_json(self.module, &output.name, output.value)).collect::<Vec<_>>(),
            "parameters": {
                "total": self.parameters.total,
                "active": self.parameters.active,
                "each": self.module.params.iter().map(param_json).collect::<Vec<_>>(),
            },
            "layer_kinds": kinds,
            "placement": placement::json(&self.placement),
            "routes": routes,
            "pass": {
                "tokens": self.pass.tokens,
                "past": self.pass.past,
                "product_flops": self.cost.product_flops,
                "other_flops": self.cost.other_flops,
                "weight_bytes": self.cost.weight_bytes,
                "cache_bytes": self.cost.cache_bytes,
            },
            "fusion": fusion_json(&self.report, sources),
            "plan": plan,
        })
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

fn packed_json(param: &PackedParam) -> Value {
    json!({ "name": param.name, "format": param.storage.to_string(), "bytes": param.bytes() })
}

/// Names and sizes; null for what is known only when the model runs.
fn axes_json(ty: &TensorType) -> Value {
    ty.dims.iter().map(|dim| json!([dim.axis.name(), dim.size.fixed()])).collect()
}

fn port_json(module: &Module, name: &str, value: ValueId) -> Value {
    let ty = module.tensor(value);
    json!({ "name": name, "dtype": ty.dtype.name(), "axes": axes_json(ty) })
}

fn param_json(param: &Param) -> Value {
    json!({
        "path": param.path,
        "dtype": param.ty.dtype.name(),
        "axes": axes_json(&param.ty),
        "layers": param.layers,
        "experts": param.experts.map(|experts| [experts.first, experts.first + experts.count]),
    })
}

fn route_json(route: &RouteShape, sources: &SourceMap) -> Value {
    let crossings: Vec<Value> = route
        .crossings
        .iter()
        .map(|crossing| {
            let (axis, at) = (crossing.axis.name(), place(sources, crossing.at));
            json!({ "operation": crossing.operation, "axis": axis, "at": at })
        })
        .collect();
    json!({
        "at": place(sources, route.at),
        "layers": route.layers,
        "choices": route.choices,
        "experts": route.experts,
        "causal": route.is_causal(),
        "batch_invariant": route.is_batch_invariant(),
        "across_tokens": crossings,
    })
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

fn fusion_lines(report: &Report, sources: &SourceMap) -> Vec<String> {
    let line = |entry: &Entry| match entry {
        Entry::Fused { pass, at, what, saves } => {
            let plural = if saves.launches == 1 { "step" } else { "steps" };
            let (place, bytes, launches) = (place(sources, *at), &saves.bytes, saves.launches);
            format!("{pass}: {what} ({place}); saves {bytes} bytes, {launches} {plural}")
        }
        Entry::Blocked { pass, at, rule } => format!("{pass}: not at {}: {rule}", place(sources, *at)),
    };
    // Layers and experts of one kind say the same thing again.
    let mut counted: Vec<(String, usize)> = Vec::new();
    for entry in &report.entries {
        let line = line(entry);
        match counted.iter_mut().find(|(known, _)| *known == line) {
            Some((_, count)) => *count += 1,
            None => counted.push((line, 1)),
        }
    }
    let times = |(line, count)| if count == 1 { line } else { format!("{line} ({count} times)") };
    counted.into_iter().map(times).collect()
}

fn fusion_json(report: &Report, sources: &SourceMap) -> Vec<Value> {
    let object = |entry: &Entry| match entry {
        Entry::Fused { pass, at, what, saves } => json!({
            "pass": pass,
            "at": place(sources, *at),
            "fused": what,
            "saves_bytes": saves.bytes,
            "saves_launches": saves.launches,
        }),
        Entry::Blocked { pass, at, rule } => json!({ "pass": pass, "at": place(sources, *at), "blocked": rule }),
    };
    report.entries.iter().map(object).collect()
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
