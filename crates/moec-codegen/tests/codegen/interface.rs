use moec_codegen::{PortRows, port_rows, sees_later_positions, token_ports};
use moec_diag::Span;
use moec_plan::{
    Attention, BufferId, Extent, Gemm, Layers, Node, ParamId, Plan, ReduceOp, RowOp, RowProgram, Rows, Source, Step,
    StepKind, View,
};
use moec_types::Expr;

use crate::plans::{empty, tiny};

fn step(kind: StepKind) -> Node {
    Node::Step(Step { kind, barrier: true, at: Span::NONE, label: String::new() })
}

/// A step that writes the logits.
fn into_logits(rows: Rows) -> Node {
    let (a, weights, out) = (BufferId(2), ParamId(0), BufferId(1));
    step(StepKind::Gemm(Gemm { rows, batch: 1, a, weights, epilogue: Expr::Arg(0), extras: vec![], out, group: None }))
}

fn with(body: Vec<Node>) -> Plan {
    let mut plan = tiny("tiny");
    plan.buffers[1].rows = Rows::Tokens;
    plan.body = body;
    plan
}

#[test]
fn outputs_of_which_only_wanted_rows_are_written() {
    let rows_of = |body| {
        let plan = with(body);
        port_rows(&plan, &plan.outputs[0])
    };
    assert_eq!(rows_of(vec![into_logits(Rows::Outputs)]), Some(PortRows::Outputs));
    assert_eq!(rows_of(vec![into_logits(Rows::Outputs), into_logits(Rows::Tokens)]), Some(PortRows::Tokens));
    let layers = Layers { kinds: vec![vec![into_logits(Rows::Tokens)]], order: vec![0] };
    assert_eq!(rows_of(vec![Node::Layers(layers), into_logits(Rows::Outputs)]), Some(PortRows::Tokens));
    assert_eq!(rows_of(vec![]), Some(PortRows::Tokens));
}

#[test]
fn a_model_of_tokens() {
    assert!(token_ports(&with(vec![])).is_some());
    assert!(token_ports(&empty("none")).is_none());
    let mut wide = tiny("wide");
    wide.buffers[0].row = 2;
    assert!(token_ports(&wide).is_none());
}

#[test]
fn attention_that_may_look_ahead() {
    let attention = |causal| {
        let id = BufferId(2);
        let (groups, queries, width, values) = (1, 1, 16, 16);
        let (score, extras, window) = (Expr::Arg(0), vec![], None);
        let kind = Attention {
            rows: Rows::Tokens,
            q: id,
            k: id,
            v: id,
            out: id,
            groups,
            queries,
            width,
            values,
            score,
            extras,
            sink: None,
            lookups: Vec::new(),
            keys_of: None,
            causal,
            window,
        };
        let layers = Layers { kinds: vec![vec![step(StepKind::Attention(Box::new(kind)))]], order: vec![0, 0] };
        with(vec![Node::Layers(layers)])
    };
    assert!(!sees_later_positions(&attention(true)));
    assert!(sees_later_positions(&attention(false)));
}

#[test]
fn a_sum_over_tokens_sees_later_ones() {
    let sum = |source, over| RowOp::Reduce {
        op: ReduceOp::Sum,
        extents: vec![],
        over: vec![over],
        expr: Expr::Arg(0),
        args: vec![View { source, offset: 0, strides: vec![1], row: 0, index: None }],
        into: View { source: Source::Row(BufferId(2)), offset: 0, strides: vec![], row: 0, index: None },
    };
    let program = |rows, op| {
        let program = RowProgram { locals: vec![], ops: vec![op] };
        step(StepKind::Rows { rows, program, group: None })
    };
    let moved = BufferId(2);
    assert!(!sees_later_positions(&with(vec![program(Rows::Tokens, sum(Source::Row(moved), Extent::Fixed(16)))])));
    assert!(sees_later_positions(&with(vec![program(Rows::ONE, sum(Source::Whole(moved), Extent::Tokens))])));
}
