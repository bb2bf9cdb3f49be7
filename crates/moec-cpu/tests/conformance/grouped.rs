//! Routing and the experts' GEMMs: adversarial routings, banks in parts, both ways of storing.

use moec_plan::{Bin, Format, Gemm, Group, Layout, RowGroup, RowOp, RowProgram, Rows, Source, StepKind, Store};
use moec_types::{DType, Expr};

use crate::{
    PassInput,
    build::{Building, add, arg, fixed, mul, row, silu, view},
    check,
    host::{Library, Session, levels},
};

#[derive(Clone, Copy)]
pub struct Sizes {
    pub experts: u64,
    pub choices: u64,
    pub width: u64,
    pub hidden: u64,
    pub storage: Format,
}

/// Gate, up and down of a bank in two members, `first` experts in the first.
pub fn bank(sizes: Sizes, first: u64) -> Building {
    let Sizes { experts, choices, width, hidden, storage } = sizes;
    let mut b = Building::new(experts * 7 + width);
    let x = b.input(DType::F32, Rows::Tokens, width);
    let indices = b.input(DType::I32, Rows::Tokens, choices);
    let weights = b.input(DType::F32, Rows::Tokens, choices);
    let offsets = b.workspace(DType::I32, Rows::ONE, experts + 1);
    let order = b.workspace(DType::I32, Rows::Slots { choices }, 1);
    let slots = Rows::Slots { choices };
    let inner = b.workspace(DType::F32, slots, hidden);
    let slot_of = b.output(DType::I32, Rows::Tokens, choices);
    let out = b.output(DType::F32, Rows::Tokens, choices * width);
    b.step(StepKind::Bin(Bin {
        tokens: Rows::Tokens,
        indices,
        weights,
        experts,
        choices,
        offsets,
        order,
        slot_of: Some(slot_of),
        route: 3,
    }));
    let members = [(0, first), (first, experts - first)];
    for (from, count) in members.into_iter().filter(|(_, count)| *count > 0) {
        let up = b.param(Layout::Panels { k: width, n: hidden, branches: 2 }, storage, 1, count as u32);
        let down = b.param(Layout::Panels { k: hidden, n: width, branches: 1 }, storage, 1, count as u32);
        let bias = b.param(Layout::Plain { elements: hidden }, DType::F32, 1, count as u32);
        let group = |gather, store| Some(Group { offsets, order, choices, first: from as u32, gather, store });
        b.step(StepKind::Gemm(Gemm {
            rows: slots,
            batch: 1,
            a: x,
            weights: up,
            epilogue: add(mul(silu(arg(0)), arg(1)), arg(2)),
            extras: vec![view(Source::Param(bias), 0, &[1])],
            out: inner,
            group: group(true, Store::Slots),
        }));
        b.step(StepKind::Gemm(Gemm {
            rows: slots,
            batch: 1,
            a: inner,
            weights: down,
            epilogue: arg(0),
            extras: vec![],
            out,
            group: group(false, Store::Choices { weights }),
        }));
    }
    b
}

fn routed(b: &mut Building, sizes: Sizes, indices: Vec<f64>) -> PassInput {
    let tokens = indices.len() as u64 / sizes.choices;
    let inputs = vec![b.values(tokens * sizes.width), indices, b.values(tokens * sizes.choices)];
    PassInput { tokens, first_output: 0, inputs }
}

#[test]
fn adversarial_routings() {
    let sizes = Sizes { experts: 5, choices: 2, width: 24, hidden: 36, storage: Format::Each(DType::F32) };
    for first in [5, 2] {
        let mut b = bank(sizes, first);
        let mixed = b.indices(2 * 23, 5);
        // Choices of no expert among them.
        let gaps: Vec<f64> = mixed.iter().enumerate().map(|(at, e)| [*e, -1.0, 5.0, 1e9][at % 7 % 4]).collect();
        let routings: [Vec<f64>; 6] =
            [mixed, gaps, vec![3.0; 2 * 70], vec![0.0, 4.0], vec![4.0, -7.0], vec![-1.0; 2 * 4]];
        let passes: Vec<PassInput> = routings.into_iter().map(|indices| routed(&mut b, sizes, indices)).collect();
        check(&b, &passes, 1e-5);
    }
}

#[test]
fn one_expert_all_experts_and_storage() {
    for sizes in [
        Sizes { experts: 1, choices: 1, width: 16, hidden: 8, storage: Format::Each(DType::Bf16) },
        Sizes { experts: 4, choices: 4, width: 17, hidden: 33, storage: Format::Each(DType::Bf16) },
        Sizes { experts: 9, choices: 3, width: 64, hidden: 64, storage: Format::Each(DType::F16) },
    ] {
        let mut b = bank(sizes, sizes.experts);
        let passes = [1, 2, 19].map(|tokens| {
            let all = (0..tokens * sizes.choices).map(|at| (at % sizes.experts) as f64).collect();
            let indices = if sizes.experts > 4 { b.indices(tokens * sizes.choices, sizes.experts) } else { all };
            routed(&mut b, sizes, indices)
        });
        check(&b, &passes, 1e-4);
    }
}

/// Blocks of rows that begin anywhere; experts with many rows, few and none. Single elements of the inner rows are rounded the
/// other way, by 2^-6 where they are above 2.
#[test]
fn experts_in_packed_formats() {
    for storage in [Format::Pairs, Format::Int8, Format::Int4 { group: 32 }] {
        let sizes = Sizes { experts: 5, choices: 2, width: 48, hidden: 72, storage };
        let mut b = bank(sizes, 5);
        let indices = (0..2 * 90).map(|at| [0.0, 4.0, 0.0, 1.0, 0.0, 4.0, 0.0][at % 7]).collect();
        let passes = [routed(&mut b, sizes, indices), routed(&mut b, sizes, vec![3.0; 2 * 9])];
        check(&b, &passes, 3e-2);
    }
}

#[test]
fn routings_are_traced() {
    let sizes = Sizes { experts: 4, choices: 2, width: 16, hidden: 16, storage: Format::Each(DType::F32) };
    let mut b = bank(sizes, 4);
    let indices = vec![1.0, 3.0, 0.0, 1.0];
    let pass = routed(&mut b, sizes, indices);
    let level = levels()[0];
    let library = Library::new(&b.plan, level);
    let mut session = Session::new(&b.plan, &b.weights, 2, 16, 2);
    session.run(&library, &pass.inputs, 2, 0);
    let traced = session.traced.iter().map(|traced| (traced.route, traced.rank, &traced.indices[..]));
    assert_eq!(traced.collect::<Vec<_>>(), [(3, 0, &[1, 3, 0, 1][..])]);
}

#[test]
fn rows_of_experts_read_their_own_parameters() {
    let (experts, choices, width) = (5, 2, 20);
    let mut b = Building::new(6);
    let indices = b.input(DType::I32, Rows::Tokens, choices);
    let weights = b.input(DType::F32, Rows::Tokens, choices);
    let offsets = b.workspace(DType::I32, Rows::ONE, experts + 1);
    let slots = Rows::Slots { choices };
    let order = b.workspace(DType::I32, slots, 1);
    let out = b.output(DType::F32, slots, width);
    let scale = b.param(Layout::Plain { elements: width }, DType::F32, 1, 3);
    b.step(StepKind::Bin(Bin {
        tokens: Rows::Tokens,
        indices,
        weights,
        experts,
        choices,
        offsets,
        order,
        slot_of: None,
        route: 0,
    }));
    let args = vec![view(Source::Param(scale), 0, &[1]), row(order, &[0])];
    let expr = mul(arg(0), Expr::cast(DType::F32, arg(1)));
    let map = RowOp::Map { extents: fixed(&[width]), expr, args, into: row(out, &[1]) };
    let program = RowProgram { locals: vec![], ops: vec![map] };
    b.step(StepKind::Rows { rows: slots, program, group: Some(RowGroup { offsets, first: 1, count: 3 }) });
    let passes = [1, 9, 30].map(|tokens| PassInput {
        tokens,
        first_output: 0,
        inputs: vec![b.indices(tokens * choices, experts), b.values(tokens * choices)],
    });
    check(&b, &passes, 1e-6);
}
