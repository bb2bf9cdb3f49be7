//! Attention over several passes: prefill, then one position at a time, with the caches in between.

use moec_plan::{Attention, Layout, RowOp, Rows, Source, StepKind, View};
use moec_types::{BinaryOp, DType, Expr};

use crate::{
    PassInput,
    build::{Building, add, arg, fixed, mul, row, rows, view},
    check,
};

pub struct Heads {
    pub groups: u64,
    pub queries: u64,
    pub width: u64,
    pub values: u64,
    pub storage: DType,
    pub causal: bool,
    pub window: Option<u64>,
    pub sink: bool,
}

fn compare(op: BinaryOp, x: Expr, y: Expr) -> Expr {
    Expr::binary(op, x, y)
}

/// `q · k * 0.3 + bias[head] + 0.01 * key`, masked as the heads say.
fn score(heads: &Heads) -> Expr {
    let plain = add(add(mul(arg(0), Expr::F32(0.3)), arg(3)), mul(Expr::cast(DType::F32, arg(2)), Expr::F32(0.01)));
    let masked = |out: Expr, score: Expr| Expr::select(out, Expr::F32(f32::NEG_INFINITY), score);
    let mut score = plain;
    if heads.causal {
        score = masked(compare(BinaryOp::Gt, arg(2), arg(1)), score);
    }
    if let Some(window) = heads.window {
        let distance = Expr::binary(BinaryOp::Sub, arg(1), arg(2));
        score = masked(compare(BinaryOp::Ge, distance, Expr::I32(window as i32)), score);
    }
    score
}

/// Elements of a position's query, key and value.
pub fn input_sizes(heads: &Heads) -> [u64; 3] {
    let Heads { groups, queries, width, values, .. } = *heads;
    [groups * queries * width, groups * width, groups * values]
}

pub fn attention(heads: &Heads) -> Building {
    let Heads { groups, queries, width, values, storage, causal, window, sink } = *heads;
    let sink = sink.then(|| Expr::binary(BinaryOp::Mul, arg(3), Expr::F32(2.0)));
    let mut b = Building::new(groups * 100 + width);
    let q = b.input(DType::F32, Rows::Tokens, groups * queries * width);
    let keys = b.input(DType::F32, Rows::Tokens, groups * width);
    let new_values = b.input(DType::F32, Rows::Tokens, groups * values);
    let _unused = b.cache(DType::F32, 3, 1, false);
    let k = b.cache(storage, groups * width, 1, true);
    let v = b.cache(storage, groups * values, 1, false);
    let bias = b.param(Layout::Plain { elements: groups * queries }, DType::F32, 1, 1);
    let out = b.output(DType::F32, Rows::Tokens, groups * queries * values);
    let copy = |from: View, into: View, size: u64| RowOp::Map {
        extents: fixed(&[size]),
        expr: arg(0),
        args: vec![from],
        into,
    };
    b.step(rows(
        Rows::Tokens,
        vec![
            copy(row(keys, &[1]), row(k, &[1]), groups * width),
            copy(row(new_values, &[1]), row(v, &[1]), groups * values),
        ],
    ));
    let extras = vec![view(Source::Param(bias), 0, &[queries, 1])];
    let score = score(heads);
    let rows = Rows::Outputs;
    b.step(StepKind::Attention(Box::new(Attention {
        rows,
        q,
        k,
        v,
        out,
        groups,
        queries,
        width,
        values,
        score,
        extras,
        sink,
        lookups: Vec::new(),
        keys_of: None,
        causal,
        window,
    })));
    b
}

fn run(heads: Heads, passes: &[(u64, u64)]) {
    let mut b = attention(&heads);
    let mut pass = |tokens: u64, first_output: u64| PassInput {
        tokens,
        first_output,
        inputs: input_sizes(&heads).map(|size| b.values(tokens * size)).to_vec(),
    };
    let passes: Vec<PassInput> = passes.iter().map(|(tokens, first)| pass(*tokens, *first)).collect();
    check(&b, &passes, 2e-5);
}

#[test]
fn causal_grouped_queries() {
    let heads = Heads {
        groups: 2,
        queries: 3,
        width: 20,
        values: 20,
        storage: DType::F32,
        causal: true,
        window: None,
        sink: false,
    };
    run(heads, &[(37, 0), (1, 0), (1, 0), (7, 2), (1, 0)]);
}

#[test]
fn one_head_long_past() {
    let heads = Heads {
        groups: 1,
        queries: 1,
        width: 8,
        values: 64,
        storage: DType::F32,
        causal: true,
        window: None,
        sink: false,
    };
    run(heads, &[(300, 290), (1, 0), (3, 0)]);
}

#[test]
fn windows_and_sinks() {
    let heads = Heads {
        groups: 3,
        queries: 2,
        width: 16,
        values: 24,
        storage: DType::F32,
        causal: true,
        window: Some(9),
        sink: true,
    };
    run(heads, &[(127, 0), (1, 0), (130, 0), (1, 0)]);
}

#[test]
fn everything_sees_everything() {
    let heads = Heads {
        groups: 4,
        queries: 1,
        width: 33,
        values: 7,
        storage: DType::F32,
        causal: false,
        window: None,
        sink: false,
    };
    run(heads, &[(21, 0)]);
}

#[test]
fn many_queries_of_one_small_cache() {
    let heads = Heads {
        groups: 1,
        queries: 40,
        width: 72,
        values: 64,
        storage: DType::Bf16,
        causal: true,
        window: None,
        sink: false,
    };
    run(heads, &[(5, 0), (1, 0), (1, 0)]);
}
