//! `moec explain --json`: everything, for programs.

use moec_diag::SourceMap;
use moec_ir::{Module, Param, ValueId};
use moec_passes::{Entry, Report};
use moec_plan::PackedParam;
use moec_types::TensorType;
use serde_json::{Value, json};

use super::{Explained, kept, place, steps};
use crate::{placement, routes::RouteShape};

impl Explained<'_> {
    pub fn json(&self, sources: &SourceMap) -> Value {
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
                "tokens": self.pass().tokens,
                "past": self.pass().past,
                "product_flops": self.cost.product_flops,
                "other_flops": self.cost.other_flops,
                "weight_bytes": self.cost.weight_bytes,
                "cache_bytes": self.cost.cache_bytes,
            },
            "passes": moec_passes::pipeline().iter().map(|pass| {
                json!({ "name": pass.name, "summary": pass.summary })
            }).collect::<Vec<_>>(),
            "fusion": fusion_json(&self.report, sources),
            "plan": plan,
            "roofs": self.roofs.iter().map(|roof| roof.json()).collect::<Vec<_>>(),
        })
    }
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
