//! Stacks of layers: kinds, ranks, parameters and caches of each layer, state from pass to pass.

use moec_plan::{Gemm, Layers, Layout, Node, ReduceOp, RowOp, Rows, Source, StepKind};
use moec_types::{DType, Expr, UnaryOp};

use crate::{
    PassInput,
    build::{Building, add, arg, fixed, mul, row, rows, step, view},
    check,
};

#[test]
fn kinds_ranks_and_caches() {
    let width = 20;
    let mut b = Building::new(77);
    let x = b.input(DType::F32, Rows::Tokens, width);
    let h = b.workspace(DType::F32, Rows::Tokens, width);
    let out = b.output(DType::F32, Rows::Tokens, width);
    let order = vec![0, 1, 0, 0, 1];
    let weights = b.param(Layout::Panels { k: width, n: width, branches: 1 }, DType::F32, 3, 1);
    let scale = b.param(Layout::Plain { elements: width }, DType::F32, 2, 1);
    let shared = b.param(Layout::Plain { elements: width }, DType::F32, 1, 1);
    let kept = b.cache(DType::F32, width, 2, false);
    let map = |extents: Vec<u64>, expr, args, into| RowOp::Map { extents: fixed(&extents), expr, args, into };
    b.step(rows(Rows::Tokens, vec![map(vec![width], arg(0), vec![row(x, &[1])], row(h, &[1]))]));
    // Kind 0: h = tanh(h · W[rank]) + h * shared.
    let gemm = step(StepKind::Gemm(Gemm {
        rows: Rows::Tokens,
        batch: 1,
        a: h,
        weights,
        epilogue: add(Expr::unary(UnaryOp::Tanh, arg(0)), arg(1)),
        extras: vec![view(Source::Param(shared), 0, &[1])],
        out,
        group: None,
    }));
    let back = step(rows(Rows::Tokens, vec![map(vec![width], arg(0), vec![row(out, &[1])], row(h, &[1]))]));
    // Kind 1: keeps h * scale[rank], and takes twice that and the sum of its squares.
    let keep = step(rows(
        Rows::Tokens,
        vec![map(
            vec![width],
            mul(arg(0), arg(1)),
            vec![row(h, &[1]), view(Source::Param(scale), 0, &[1])],
            row(kept, &[1]),
        )],
    ));
    let look = step(rows(
        Rows::Tokens,
        vec![
            map(vec![width], add(arg(0), arg(1)), vec![row(kept, &[1]), row(kept, &[1])], row(out, &[1])),
            RowOp::Reduce {
                op: ReduceOp::Sum,
                extents: vec![],
                over: fixed(&[width]),
                expr: mul(arg(0), arg(0)),
                args: vec![row(out, &[1])],
                into: row(h, &[]),
            },
        ],
    ));
    b.plan.body.push(Node::Layers(Layers { kinds: vec![vec![gemm, back], vec![keep, look]], order }));
    b.step(rows(Rows::Tokens, vec![map(vec![width], arg(0), vec![row(h, &[1])], row(out, &[1]))]));
    let passes =
        [4, 1, 1, 3].map(|tokens| PassInput { tokens, first_output: 0, inputs: vec![b.values(tokens * width)] });
    check(&b, &passes, 2e-5);
}

#[test]
fn a_stack_within_a_layer() {
    let mut b = Building::new(78);
    let x = b.input(DType::F32, Rows::Tokens, 16);
    let out = b.output(DType::F32, Rows::Tokens, 16);
    let scale = b.param(Layout::Plain { elements: 16 }, DType::F32, 6, 1);
    let copy = |from, into| RowOp::Map {
        extents: fixed(&[16]),
        expr: arg(0),
        args: vec![row(from, &[1])],
        into: row(into, &[1]),
    };
    b.step(rows(Rows::Tokens, vec![copy(x, out)]));
    let args = vec![row(out, &[1]), view(Source::Param(scale), 0, &[1])];
    let expr = add(mul(arg(0), arg(1)), arg(1));
    let inner = step(rows(Rows::Tokens, vec![RowOp::Map { extents: fixed(&[16]), expr, args, into: row(out, &[1]) }]));
    let stack = Node::Layers(Layers { kinds: vec![vec![inner]], order: vec![0, 0, 0] });
    b.plan.body.push(Node::Layers(Layers { kinds: vec![vec![stack]], order: vec![0, 0] }));
    let pass = PassInput { tokens: 2, first_output: 0, inputs: vec![b.values(32)] };
    check(&b, &[pass], 1e-6);
}
