//! Scans: parts that threads can share out, states that are overwritten in place, and in what order states become their next
//! values. Each plan, interpreted, gives what the oracle gives, in one pass and in several.

mod common;
#[path = "../../../tests/random_specs/scans.rs"]
mod scans;

use common::{FromOracle, module};
use moec_interpreter::{Machine, Packing};
use moec_oracle::{RandomWeights, Session, Tensor};
use moec_plan::{Home, Node, Plan, RowOp, Scan, Source, StepKind};
use scans::SCANS;

/// The plan of one of the specs, of `x: f32[S, D]`, which gives what the oracle gives.
fn sound(name: &str) -> Plan {
    let (_, text) = SCANS.iter().find(|(known, _)| *known == name).expect("a spec of this name");
    let module = module(text);
    let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options::default());
    let plan = moec_lower::lower(&fused).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(moec_plan::parse(&plan.to_string()).expect("a plan's text reads back").to_string(), plan.to_string());
    let weights = RandomWeights::new(&module, 5);
    let from_oracle = FromOracle(&weights);
    let packing = Packing { plan: &plan, instances: &from_oracle };
    let mut session = Session::new(&module, &weights);
    let mut machine = Machine::new(&plan, &packing, 8, 32);
    let width = plan.buffer(plan.inputs[0].buffer).row as usize;
    for (pass, tokens) in [5, 1, 2, 4].into_iter().enumerate() {
        let x: Vec<f32> = (0..tokens * width).map(|at| ((at * 37 + pass * 11) as f32 * 0.61).sin()).collect();
        let rows = x.iter().map(|x| f64::from(*x)).collect();
        let input = Tensor::named(&[("S", tokens), ("D", width)], x);
        let wanted = session.run(&[("x", input)], None).expect("the oracle runs");
        let found = machine.run(vec![rows], tokens as u64, 0);
        for (wanted, found) in wanted[0].1.f32().iter().zip(&found.outputs[0]) {
            let near = (f64::from(*wanted) - found).abs() <= 2e-5 * (1.0 + f64::from(wanted.abs()));
            assert!(near, "pass {pass}: {wanted} is wanted, found {found}\n{plan}");
        }
    }
    plan
}

fn scan(plan: &Plan) -> &Scan {
    fn find(nodes: &[Node]) -> Option<&Scan> {
        nodes.iter().find_map(|node| match node {
            Node::Layers(layers) => layers.kinds.iter().find_map(|kind| find(kind)),
            Node::Step(step) => match &step.kind {
                StepKind::Scan(scan) => Some(scan),
                _ => None,
            },
        })
    }
    find(&plan.body).expect("a scan step")
}

/// How often a whole state is written.
fn state_writes(plan: &Plan, scan: &Scan) -> usize {
    let state = |source: Source| match source {
        Source::Whole(id) => matches!(plan.buffer(id).home, Home::State { .. }),
        _ => false,
    };
    scan.program.ops.iter().flat_map(RowOp::writes).filter(|view| state(view.source)).count()
}

#[test]
fn heads_are_parts_and_a_memory_is_changed_where_it_is() {
    let plan = sound("heads with a memory each");
    let scan = scan(&plan);
    assert_eq!(scan.parts, 3);
    // Decayed, then corrected, both in place: nothing as large as the memory beside it.
    assert_eq!(state_writes(&plan, scan), 2, "{plan}");
    let largest = scan.program.locals.iter().map(|local| local.elements).max();
    assert_eq!(largest, Some(24), "{plan}");
}

#[test]
fn channels_are_parts_wide_enough_for_lanes() {
    let plan = sound("a convolution");
    assert_eq!(scan(&plan).parts, 12, "64 channels of 4 taps each");
}

#[test]
fn what_mixes_all_positions_of_a_state_is_one_part() {
    let plan = sound("all of a state mixed");
    assert_eq!(scan(&plan).parts, 1);
}

#[test]
fn states_become_their_next_values_at_once() {
    // Each takes the other's old value, in expressions and as it is.
    sound("states that take each other's values");
    // The old value is read after the new one is there, and out of step with it.
    sound("the old value after the new one");
}

#[test]
fn numbers_of_positions_learnt_first_values_and_layers() {
    let plan = sound("positions, learnt first values, layers");
    let states = plan.buffers.iter().filter_map(|buffer| match buffer.home {
        Home::State { instances, .. } => Some(instances),
        _ => None,
    });
    assert_eq!(states.collect::<Vec<_>>(), [3, 3], "one instance for each layer");
    assert_eq!(plan.state_bytes(), 6 * 64);
}

#[test]
fn what_looks_along_the_sequence_under_another_name_is_refused() {
    let module = module(
        "model m(x: f32[S, D = 4]) across S {
           let all = rename(x, S as Q)
           out y: f32[S, D] = scan over S { state h[D] = 0.0; h = h + sum(all * x over Q); out h }
         }",
    );
    let error = moec_lower::lower(&module).expect_err("no step can do it");
    assert!(error.reason.contains("as long as the input along `Q`"), "{error}");
}
