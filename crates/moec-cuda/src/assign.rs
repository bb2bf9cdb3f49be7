//! Balanced assignments: what the template in kernels/cuda/assign.cuh asks of a step.

use std::fmt::Write;

use moec_plan::{Assign, BufferId, Plan};

use crate::{
    launch::{Kernel, instance},
    place,
};

pub fn kernel(plan: &Plan, name: &str, assign: &Assign) -> Kernel {
    let mut text = format!("  static constexpr int EXPERTS = {};\n", assign.experts);
    let [_, tokens] = place::range(assign.tokens);
    let most = place::extent(assign.most);
    let _ = writeln!(text, "  static MOEC_DEVICE i64 tokens(const Pass &pass) {{ return {tokens}; }}");
    let _ = writeln!(text, "  static MOEC_DEVICE i64 most(const Pass &pass) {{ return {most}; }}");
    let mut pointer = |name: &str, id: BufferId, dtype: &str| {
        let at = place::elements(plan, id);
        let _ = writeln!(text, "  static MOEC_DEVICE {dtype}{name}(const Pass &pass, int rank) {{ return {at}; }}");
    };
    pointer("score", assign.score, "const float *");
    pointer("out", assign.out, "int *");
    pointer("room", assign.room, "int *");
    instance("Assign", name, &text, assign.tokens)
}
