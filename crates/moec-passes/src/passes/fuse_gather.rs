//! Tokens are gathered while the first GEMM of the experts loads them.
//!
//! Before:  rows = dispatch x, route;  y = experts rows, route {input packed}
//! After:   y = experts x, route {input from_tokens}
//! Holds when both use the same route. Other readers of the rows keep the dispatch.

use moec_ir::ops::{Experts, ExpertsInput};
use moec_ir::{Module, Op};

use crate::{Pass, Report};

pub const PASS: Pass =
    Pass { name: "fuse-gather", summary: "Gather tokens in the load of the experts' first GEMM.", run };

fn run(mut module: Module, report: &mut Report) -> Module {
    let readers = module.readers();
    for (_, at) in module.walk() {
        let node = module.node(at);
        let Op::Experts(Experts { input: ExpertsInput::Packed, slots, .. }) = &node.op else { continue };
        let [rows, route] = node.operands[..] else { continue };
        let Some(dispatch) = module.producer(rows) else { continue };
        let Op::Dispatch(op) = &dispatch.op else { continue };
        let [x, dispatched] = dispatch.operands[..] else { continue };
        if dispatched != route || op.slots != *slots {
            report.blocked(PASS.name, node.at, "the rows were dispatched by another route");
            continue;
        }
        if module.ty(route).route().is_some_and(|route| module.tensor(x).has(&route.choices.axis)) {
            report.blocked(PASS.name, node.at, "each choice of a token has a row of its own");
            continue;
        }
        let only = readers.count(rows) == 1;
        if !only {
            report.blocked(
                PASS.name,
                dispatch.at,
                "the dispatched rows have other readers, so they are stored as well",
            );
        }
        let kept = only.then(|| module.tensor(rows));
        report.fused(PASS.name, node.at, "dispatch into experts", kept, usize::from(only));
        let node = module.node_mut(at);
        node.operands[0] = x;
        if let Op::Experts(experts) = &mut node.op {
            experts.input = ExpertsInput::FromTokens;
        }
    }
    module
}
