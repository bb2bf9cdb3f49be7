//! A plan as one translation unit of CUDA C++ and the list of its launches.

use std::fmt::Write;

use moec_codegen::{Unsupported, check_steps};
use moec_plan::{Layers, LiteralId, Node, Plan, Step, StepKind};
use moec_types::DType;

use crate::{
    assign, attention, bin,
    expr::{float, storage_type},
    gemm,
    launch::{Kernel, Launch, Ways},
    rows,
};

/// What does not depend on the plan, in the order in which one needs the other.
const FIXED: [&str; 11] = [
    include_str!("../../../kernels/cuda/device.cuh"),
    include_str!("../../../kernels/cuda/pass.cuh"),
    include_str!("../../../kernels/cuda/scalar.cuh"),
    include_str!("../../../kernels/cuda/rows.cuh"),
    include_str!("../../../kernels/cuda/storage.cuh"),
    include_str!("../../../kernels/cuda/row_tile.cuh"),
    include_str!("../../../kernels/cuda/few_rows.cuh"),
    include_str!("../../../kernels/cuda/gemm.cuh"),
    include_str!("../../../kernels/cuda/gemm_wide.cuh"),
    include_str!("../../../kernels/cuda/bin.cuh"),
    include_str!("../../../kernels/cuda/attention.cuh"),
];

/// Only where it is used: it asks for 128-bit integers.
const ASSIGN: &str = include_str!("../../../kernels/cuda/assign.cuh");

/// One execution of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Which of the launches.
    pub launch: usize,
    /// The layer's, within its kind.
    pub rank: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// CUDA C++ without any header.
    pub text: String,
    pub launches: Vec<Launch>,
    /// What a pass along each sequence runs, one after the other.
    pub passes: Vec<Vec<Execution>>,
    /// `Pass::scratch`.
    pub scratch_bytes: u64,
}

/// The plan's kernels and when they run.
pub fn program(plan: &Plan) -> Result<Program, Unsupported> {
    program_in(plan, Ways::All)
}

/// The same with some of the ways to make a step.
pub fn program_in(plan: &Plan, ways: Ways) -> Result<Program, Unsupported> {
    check_steps(plan, "cuda")?;
    let mut making = Making { plan, ways, kernels: Vec::new(), assigns: false };
    let passes = plan.passes().map(|pass| making.nodes(pass)).collect::<Vec<_>>();
    let passes = passes.into_iter().map(|tree| {
        let mut executions = Vec::new();
        unroll(&tree, 0, &mut executions);
        executions
    });
    let passes = passes.collect();
    let mut text = FIXED.concat();
    if making.assigns {
        text.push_str(ASSIGN);
    }
    text.push_str("\nusing namespace moec;\n\n");
    for (at, _) in plan.literals.iter().enumerate() {
        text.push_str(&literal(plan, LiteralId(at as u32)));
    }
    making.kernels.iter().for_each(|kernel| {
        text.push('\n');
        text.push_str(&kernel.text);
    });
    let scratch_bytes = making.kernels.iter().map(|kernel| kernel.scratch_bytes).max().unwrap_or(0);
    let launches = making.kernels.into_iter().map(|kernel| kernel.launch).collect();
    Ok(Program { text, launches, passes, scratch_bytes })
}

/// Nodes with each step's number.
enum Numbered {
    Step(usize),
    Layers { kinds: Vec<Vec<Numbered>>, order: Vec<u32> },
}

struct Making<'a> {
    plan: &'a Plan,
    ways: Ways,
    kernels: Vec<Kernel>,
    assigns: bool,
}

impl Making<'_> {
    fn nodes(&mut self, nodes: &[Node]) -> Vec<Numbered> {
        let of = |node: &Node| match node {
            Node::Step(step) => Numbered::Step(self.step(step)),
            Node::Layers(Layers { kinds, order }) => {
                let kinds = kinds.iter().map(|kind| self.nodes(kind)).collect();
                Numbered::Layers { kinds, order: order.clone() }
            }
        };
        nodes.iter().map(of).collect()
    }

    fn step(&mut self, step: &Step) -> usize {
        let (plan, number) = (self.plan, self.kernels.len());
        let name = format!("{}_{number}", step.kind.name());
        let kernel = match &step.kind {
            StepKind::Rows { rows, program, group } => rows::rows(plan, &name, *rows, program, group.as_ref()),
            StepKind::Scan(scan) => rows::scan(plan, &name, scan),
            StepKind::Gemm(gemm) => gemm::kernel(plan, &name, gemm, self.ways),
            StepKind::Bin(bin) => bin::kernel(plan, &name, bin),
            StepKind::Attention(attention) => attention::kernel(plan, &name, attention, self.ways),
            StepKind::Assign(assign) => {
                self.assigns = true;
                assign::kernel(plan, &name, assign)
            }
        };
        let label: String = step.label.chars().filter(|c| !c.is_control() && *c != '\\').collect();
        self.kernels.push(Kernel { text: format!("// {label}\n{}", kernel.text), ..kernel });
        number
    }
}

/// The n-th execution of a kind has rank n; a stack within a layer runs once for each of that layer.
fn unroll(nodes: &[Numbered], rank: u32, into: &mut Vec<Execution>) {
    for node in nodes {
        match node {
            Numbered::Step(launch) => into.push(Execution { launch: *launch, rank }),
            Numbered::Layers { kinds, order } => {
                let count = |kind: u32, order: &[u32]| order.iter().filter(|other| **other == kind).count() as u32;
                for (at, kind) in order.iter().enumerate() {
                    let rank = rank * count(*kind, order) + count(*kind, &order[..at]);
                    unroll(&kinds[*kind as usize], rank, into);
                }
            }
        }
    }
}

fn literal(plan: &Plan, id: LiteralId) -> String {
    let literal = plan.literal(id);
    let value = |value: &f64| match literal.dtype {
        DType::F32 => float(*value as f32),
        DType::I32 => crate::expr::print(&moec_types::Expr::I32(*value as i32), &[]),
        DType::Bool => format!("{{{}}}", u8::from(*value != 0.0)),
        DType::Bf16 | DType::F16 => unreachable!("checked before"),
    };
    let values: Vec<String> = literal.data.iter().map(value).collect();
    // An empty array is none of C++'s.
    let values = if values.is_empty() { "{}".to_owned() } else { values.join(", ") };
    let mut text = String::new();
    let _ = writeln!(
        text,
        "MOEC_CONSTANT {} literal_{}[{}] = {{{values}}};",
        storage_type(literal.dtype),
        id.0,
        literal.data.len().max(1)
    );
    text
}
