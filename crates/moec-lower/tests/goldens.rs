//! The catalogue's techniques: the oracle and the plan, interpreted, give the reference's choices and numbers.

#[path = "../../../tests/goldens/cases.rs"]
mod cases;
#[path = "../../../tests/from_oracle.rs"]
mod from_oracle;

use std::{collections::BTreeSet, ops::Range};

use cases::Case;
use from_oracle::FromOracle;
use moec_interpreter::{Machine, Packing};
use moec_ir::{Input, Module};
use moec_oracle::{Data, MemoryWeights, Session, Tensor, Trace};
use moec_plan::{Node, RowOp, Source, Step, StepKind, View};
use moec_types::{DType, Dim};

/// A softmax over the keys cannot be lowered unfused (docs/decisions/0001).
const NEEDED: &str = "fuse-attention";

/// Some positions of the inputs of the module.
fn tensors<'m>(case: &Case, module: &'m Module, positions: &Range<usize>) -> Vec<(&'m str, Tensor)> {
    let tensor = |input: &'m Input| {
        let ty = module.tensor(input.value);
        let size = |dim: &Dim| dim.size.fixed().map_or(positions.len(), |size| size as usize);
        let axes: Vec<_> = ty.dims.iter().map(|dim| (dim.axis.clone(), size(dim))).collect();
        let counted = ty.dims.iter().any(|dim| dim.size.fixed().is_none());
        let rows = if counted { positions.clone() } else { 0..1 };
        let row = axes.iter().map(|(_, size)| size).product::<usize>() / rows.len();
        let values = &case.input(&input.name, if counted { case.tokens * row } else { row });
        let values = &values[rows.start * row..rows.end * row];
        let data = match ty.dtype {
            DType::F32 | DType::Bf16 | DType::F16 => Data::F32(values.iter().map(|value| *value as f32).collect()),
            DType::I32 => Data::I32(values.iter().map(|value| *value as i32).collect()),
            DType::Bool => Data::Bool(values.iter().map(|value| *value != 0.0).collect()),
        };
        (input.name.as_str(), Tensor::new(axes, data))
    };
    module.inputs.iter().map(tensor).collect()
}

fn by_oracle(case: &Case, module: &Module, weights: &MemoryWeights) {
    let mut trace = Trace::default();
    let all = tensors(case, module, &(0..case.tokens));
    let outputs = Session::new(module, weights).run(&all, Some(&mut trace)).expect("the oracle runs");
    case.routed("oracle", trace.routes.iter().map(|route| (&route.indices[..], &route.weights[..])));
    let values = |tensor: &Tensor| match tensor.data() {
        Data::F32(values) => values.iter().map(|value| f64::from(*value)).collect(),
        Data::I32(values) => values.iter().map(|value| f64::from(*value)).collect(),
        Data::Bool(values) => values.iter().map(|value| f64::from(u8::from(*value))).collect(),
    };
    case.gave_all("oracle", outputs.iter().map(|(name, tensor)| (name.as_str(), values(tensor))));
    let (mut session, mut y) = (Session::new(module, weights), Vec::new());
    for positions in case.parts() {
        let outputs = session.run(&tensors(case, module, &positions), None).expect("the oracle runs");
        y.extend(outputs[0].1.f32().iter().map(|y| f64::from(*y)));
    }
    if !y.is_empty() {
        case.gave("oracle, in parts", &y);
    }
}

fn by_plan(case: &Case, module: &Module, weights: &MemoryWeights, disabled: BTreeSet<String>) {
    let who = format!("plan without {disabled:?}");
    let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options { disabled });
    let plan = moec_lower::lower(&fused).unwrap_or_else(|error| panic!("{}, {who}: {error}", case.name));
    let from_oracle = FromOracle(weights);
    let packing = Packing { plan: &plan, instances: &from_oracle };
    let tokens = case.tokens as u64;
    let found = Machine::new(&plan, &packing, tokens, tokens).run(case.rows(&plan), tokens, 0);
    case.routed(&who, found.routes.iter().map(|(indices, weights)| (&indices[..], &weights[..])));
    case.gave_all(&who, plan.outputs.iter().map(|port| port.name.as_str()).zip(found.outputs));
    let (mut machine, mut y) = (Machine::new(&plan, &packing, tokens, tokens), Vec::new());
    for positions in case.parts() {
        let rows = case.rows_at(&plan, &positions);
        y.extend_from_slice(&machine.run(rows, positions.len() as u64, 0).outputs[0]);
    }
    if !y.is_empty() {
        case.gave(&format!("{who}, in parts"), &y);
    }
}

#[test]
fn the_oracle_gives_the_reference() {
    cases::each(|case| {
        for module in case.modules() {
            by_oracle(case, &module, &case.weights(&module));
        }
    });
}

#[test]
fn plans_give_the_reference_fused_and_unfused() {
    cases::each(|case| {
        for module in case.modules() {
            let weights = case.weights(&module);
            by_plan(case, &module, &weights, BTreeSet::new());
            let passes = moec_passes::pipeline().iter().filter(|pass| pass.name != NEEDED);
            by_plan(case, &module, &weights, passes.map(|pass| pass.name.to_owned()).collect());
        }
    });
}

/// docs/catalogue.md names every model that is checked, and no other.
#[test]
fn the_page_names_what_is_checked() {
    let page = include_str!("../../../docs/catalogue.md");
    let named: BTreeSet<&str> = page.split('`').filter_map(|word| word.strip_suffix(".moe")).collect();
    let specs = std::cell::RefCell::new(BTreeSet::new());
    cases::each(|case| {
        specs.borrow_mut().insert(case.spec.clone());
    });
    assert_eq!(named, specs.borrow().iter().map(String::as_str).collect());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/catalogue");
    let files = std::fs::read_dir(folder).expect("the catalogue is there").map(|entry| entry.expect("readable").path());
    let files: BTreeSet<_> = files.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    assert_eq!(files, *specs.borrow());
}

/// Between two barriers, what one row program writes row by row, another may read or write only where threads share out the
/// rows of both alike.
#[test]
fn rows_shared_out_differently_meet_at_barriers() {
    cases::each(|case| {
        let module = case.modules().swap_remove(0);
        let (fused, _) = moec_passes::run(module, &moec_passes::Options::default());
        let plan = moec_lower::lower(&fused).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let mut since: Vec<&Step> = Vec::new();
        for node in &plan.body {
            let Node::Step(step) = node else { continue };
            if step.barrier {
                since.clear();
            }
            for earlier in &since {
                let (StepKind::Rows { group: a, .. }, StepKind::Rows { group: b, .. }) = (&earlier.kind, &step.kind)
                else {
                    continue;
                };
                let shared = rows_of(earlier, true).into_iter().any(|row| rows_of(step, false).contains(&row));
                assert!(!shared || a == b, "{}: `{}` meets `{}`", case.name, step.label, earlier.label);
            }
            since.push(step);
        }
    });
}

/// The buffers of which a row program uses its own row; those that it writes, or all.
fn rows_of(step: &Step, written: bool) -> Vec<Source> {
    let StepKind::Rows { program, .. } = &step.kind else { return Vec::new() };
    let views = |op: &RowOp| -> (Vec<View>, Vec<View>) {
        (op.reads().into_iter().cloned().collect(), op.writes().into_iter().cloned().collect())
    };
    let used = program.ops.iter().flat_map(|op| {
        let (reads, writes) = views(op);
        let indices =
            reads.iter().chain(&writes).filter_map(|view| view.index.as_ref().map(|index| index.view.clone()));
        let read = indices.collect::<Vec<_>>().into_iter().chain(reads);
        if written { writes } else { read.chain(writes).collect() }
    });
    used.map(|view| view.source).filter(|source| matches!(source, Source::Row(_))).collect()
}
