//! What no backend can do, found before any code is made: emission itself never fails.

use moec_plan::{Attention, BufferId, Gemm, Home, Layout, Node, Plan, RowProgram, Source, Step, StepKind, View};
use moec_types::DType;

use crate::Unsupported;

/// Every step of the plan, and every literal; `target` is whose they would be.
pub fn check_steps(plan: &Plan, target: &'static str) -> Result<(), Unsupported> {
    plan.passes().try_for_each(|pass| nodes(plan, pass, target))
}

fn nodes(plan: &Plan, body: &[Node], target: &'static str) -> Result<(), Unsupported> {
    body.iter().try_for_each(|node| match node {
        Node::Step(step) => check_step(plan, step, target),
        Node::Layers(layers) => layers.kinds.iter().try_for_each(|kind| nodes(plan, kind, target)),
    })
}

fn check_step(plan: &Plan, step: &Step, target: &'static str) -> Result<(), Unsupported> {
    let problem = match &step.kind {
        StepKind::Rows { program, .. } => check_program(plan, program),
        StepKind::Scan(scan) => check_program(plan, &scan.start).or_else(|| check_program(plan, &scan.program)),
        StepKind::Gemm(gemm) => check_gemm(plan, gemm),
        StepKind::Bin(_) | StepKind::Assign(_) => None,
        StepKind::Attention(attention) => check_attention(plan, attention),
    };
    problem.map_or(Ok(()), |(reason, way_round)| {
        let (step_name, at) = (step.label.clone(), step.at);
        let way_round = way_round.to_string();
        Err(Unsupported { step: step_name, target, reason: reason.to_string(), way_round, at })
    })
}

type Problem = (&'static str, &'static str);

fn in_panels(plan: &Plan, id: BufferId) -> bool {
    matches!(plan.buffer(id).home, Home::Cache { panels: true, .. })
}

/// Caches lie in pages: only rows of the pass, and attention, find their way.
fn is_cache(plan: &Plan, id: BufferId) -> bool {
    matches!(plan.buffer(id).home, Home::Cache { .. })
}

fn check_program(plan: &Plan, program: &RowProgram) -> Option<Problem> {
    let views = program.ops.iter().flat_map(|op| op.reads().into_iter().chain(op.writes()));
    views.into_iter().find_map(|view| check_view(plan, view))
}

fn check_view(plan: &Plan, view: &View) -> Option<Problem> {
    if let Some(problem) = view.index.as_ref().and_then(|index| check_view(plan, &index.view)) {
        return Some(problem);
    }
    match view.source {
        Source::Whole(id) if is_cache(plan, id) => {
            Some(("it looks at all that is kept", "use what `past` gives in an attention only"))
        }
        Source::Literal(id) if matches!(plan.literal(id).dtype, DType::Bf16 | DType::F16) => {
            Some(("it reads a constant of a storage type", "write the constant as f32"))
        }
        Source::Local(_)
        | Source::Row(_)
        | Source::Whole(_)
        | Source::Param(_)
        | Source::Literal(_)
        | Source::Place
        | Source::Position
        | Source::Count(_) => None,
    }
}

fn check_gemm(plan: &Plan, gemm: &Gemm) -> Option<Problem> {
    let param = plan.param(gemm.weights);
    let Layout::Panels { .. } = param.layout else {
        return Some(("its weights are not packed in panels", "report this as a bug of the lowering"));
    };
    if param.storage.each().is_some_and(|dtype| !dtype.is_float()) {
        return Some(("its weights are not floats", "store them as f32, bf16 or f16"));
    }
    if plan.buffer(gemm.a).dtype != DType::F32 {
        return Some(("its rows are not f32", "convert them to f32 before"));
    }
    if is_cache(plan, gemm.a) {
        return Some(("it multiplies what is kept", "report this as a bug of the lowering"));
    }
    if gemm.group.is_some() && is_cache(plan, gemm.out) {
        return Some(("experts write into a cache", "combine the experts' rows first"));
    }
    gemm.extras.iter().find_map(|view| check_view(plan, view))
}

fn check_attention(plan: &Plan, attention: &Attention) -> Option<Problem> {
    if !in_panels(plan, attention.k) || in_panels(plan, attention.v) {
        return Some(("its keys are not in panels, or its values are", "report this as a bug of the lowering"));
    }
    attention.extras.iter().find_map(|view| check_view(plan, view))
}
