//! `build.json`, written and read.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use moec_codegen::{PortRows, port_rows, source_port, token_ports};
use moec_plan::{Node, Plan, Port, StepKind};
use moec_program::manifest::{Tensor, VERSION};
use thiserror::Error;

pub use moec_program::manifest::Manifest;

use crate::{failure::Failure, files, roof};

pub const FILE: &str = "build.json";
const BYTES: u64 = 16 << 20;

#[derive(Debug, Error, Diagnostic)]
#[error("{} is no build: {reason}", path.display())]
#[diagnostic(code(moec::manifest::no_build), help("give a .moe file, or a folder that `moec build` wrote"))]
struct NoBuild {
    path: PathBuf,
    reason: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{} was built without weights", path.display())]
#[diagnostic(code(moec::manifest::no_weights), help("build again with `--weights DIR`"))]
struct NoWeights {
    path: PathBuf,
}

pub fn of(plan: &Plan, levels: Vec<String>, config: Option<&serde_json::Value>, weights: bool) -> Manifest {
    let number = |key: &str| config.and_then(|config| config.get(key)).and_then(|value| value.as_u64());
    Manifest {
        version: VERSION,
        model: plan.name.clone(),
        moec: env!("CARGO_PKG_VERSION").into(),
        levels,
        inputs: plan.inputs.iter().map(|port| tensor(plan, port)).collect(),
        outputs: plan.outputs.iter().map(|port| tensor(plan, port)).collect(),
        vocabulary: token_ports(plan).map(|(_, logits)| plan.buffer(logits.buffer).row as usize),
        context: number("max_position_embeddings").map(|context| context as usize),
        start_token: source_port(plan).map(|_| {
            let named = ["decoder_start_token_id", "pad_token_id"].into_iter().find_map(number);
            named.and_then(|token| i32::try_from(token).ok()).unwrap_or(0)
        }),
        end_tokens: config.and_then(|config| config.get("eos_token_id")).map(end_tokens).unwrap_or_default(),
        experts: experts(plan),
        weights,
        products: roof::products(plan),
    }
}

fn experts(plan: &Plan) -> BTreeMap<i32, u64> {
    fn add(nodes: &[Node], found: &mut BTreeMap<i32, u64>) {
        for node in nodes {
            match node {
                Node::Layers(layers) => layers.kinds.iter().for_each(|kind| add(kind, found)),
                Node::Step(step) => match &step.kind {
                    StepKind::Bin(bin) => _ = found.insert(bin.route as i32, bin.experts),
                    StepKind::Rows { .. }
                    | StepKind::Gemm(_)
                    | StepKind::Assign(_)
                    | StepKind::Attention(_)
                    | StepKind::Scan(_) => {}
                },
            }
        }
    }
    let mut found = BTreeMap::new();
    plan.passes().for_each(|pass| add(pass, &mut found));
    found
}

pub fn write(manifest: &Manifest, folder: &Path) -> Result<(), files::CannotWrite> {
    let text = serde_json::to_string_pretty(manifest).expect("a manifest is plain data") + "\n";
    files::write(&folder.join(FILE), text.as_bytes())
}

/// Of a folder that `moec build` wrote, with weights.
pub fn open(folder: &Path) -> Result<Manifest, Failure> {
    let no_build = |reason: String| NoBuild { path: folder.into(), reason };
    let path = folder.join(FILE);
    if !path.exists() {
        return Err(no_build(format!("it has no {FILE}")).into());
    }
    let bytes = files::read(&path, BYTES)?;
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|error| no_build(format!("its {FILE} cannot be read: {error}")))?;
    if manifest.version != VERSION {
        let reason = format!("its {FILE} has version {}, this moec reads {VERSION}", manifest.version);
        return Err(no_build(reason).into());
    }
    // The name becomes a part of paths.
    if moec_codegen::check_name(&manifest.model).is_err() {
        return Err(no_build(format!("its {FILE} names the model `{}`", manifest.model)).into());
    }
    if !manifest.weights {
        return Err(NoWeights { path: folder.into() }.into());
    }
    Ok(manifest)
}

fn tensor(plan: &Plan, port: &Port) -> Tensor {
    Tensor {
        name: port.name.clone(),
        dtype: plan.buffer(port.buffer).dtype.name().into(),
        positions: matches!(port_rows(plan, port), Some(PortRows::Tokens | PortRows::Outputs)),
        sequence: port.sequence,
        axes: port.axes.clone(),
    }
}

/// One number or a list of them.
fn end_tokens(value: &serde_json::Value) -> Vec<i32> {
    let number = |value: &serde_json::Value| value.as_i64().and_then(|token| i32::try_from(token).ok());
    match value.as_array() {
        Some(values) => values.iter().filter_map(number).collect(),
        None => number(value).into_iter().collect(),
    }
}
