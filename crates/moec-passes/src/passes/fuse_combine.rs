//! Expert rows are weighed and put in their places as the last GEMM stores them.
//!
//! Before:  rows = experts x, route {output per_slot};  y = combine rows, route
//! After:   parts = experts x, route {output weighed_per_choice};  y = reduce sum parts over K
//! Holds when the rows have no other reader. The sum over choices is row-wise, so `fuse-rows` joins it to what follows.

use std::collections::HashMap;

use moec_ir::ops::{Experts, ExpertsOutput, Reduce, ReduceOp};
use moec_ir::{Module, Op, OpId};

use crate::{Pass, Report};

pub const PASS: Pass =
    Pass { name: "fuse-combine", summary: "Weigh expert rows and store them by token in the experts' last GEMM.", run };

fn run(mut module: Module, report: &mut Report) -> Module {
    let readers = module.readers();
    let mut replaced = HashMap::new();
    for (region, at) in module.walk() {
        let node = module.node(at);
        let Op::Combine(_) = &node.op else { continue };
        let [rows, route] = node.operands[..] else { continue };
        let Some(experts_id) = module.producer_id(rows) else { continue };
        let Op::Experts(experts @ Experts { output: ExpertsOutput::PerSlot, .. }) = &module.node(experts_id).op else {
            continue;
        };
        let experts = Experts { output: ExpertsOutput::WeighedPerChoice, ..experts.clone() };
        let operands = module.node(experts_id).operands.clone();
        if operands[1] != route {
            report.blocked(PASS.name, node.at, "the rows are combined by another route than the experts'");
            continue;
        }
        if readers.count(rows) != 1 {
            report.blocked(PASS.name, node.at, "the experts' rows have another reader");
            continue;
        }
        let (span, experts_span) = (node.at, module.node(experts_id).at);
        let Ok(parts) = module.create(experts, operands, experts_span) else {
            report.blocked(PASS.name, span, "the rows have an axis named as the tokens or the choices");
            continue;
        };
        let Some(choices) = module.ty(route).route().map(|route| route.choices.axis.clone()) else { continue };
        let part = module.node(parts).results[0];
        let sum = Reduce { op: ReduceOp::Sum, over: vec![choices] };
        let Ok(sum) = module.create(sum, vec![part], span) else { continue };
        let (old, new) = (module.node(at).results[0], module.node(sum).results[0]);
        if module.ty(old) != module.ty(new) {
            report.blocked(PASS.name, span, "the sum over choices has its axes in another order");
            continue;
        }
        report.fused(PASS.name, span, "combine into experts", [module.tensor(rows)], 1);
        put(&mut module, region, at, &[parts, sum]);
        replaced.insert(old, new);
    }
    module.replace_all(&replaced);
    module
}

/// Puts nodes in the place of another.
fn put(module: &mut Module, region: moec_ir::RegionId, at: OpId, nodes: &[OpId]) {
    let all = &mut module.region_mut(region).nodes;
    if let Some(place) = all.iter().position(|other| *other == at) {
        all.splice(place..=place, nodes.iter().copied());
    }
}
