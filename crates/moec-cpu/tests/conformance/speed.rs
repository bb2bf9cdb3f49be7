//! Measurements, not tests: `cargo test -p moec-cpu -- --ignored --nocapture speed`.

use std::time::Instant;

use moec_cpu::Level;
use moec_plan::{
    Attention, Bin, Extent, Format, Gemm, Group, Layers, Layout, Node, ReduceOp, RowOp, Rows, Source, StepKind, Store,
    View,
};
use moec_types::{BinaryOp, DType, Expr, UnaryOp};

use crate::{
    build::{Building, add, arg, fixed, mul, row, rows, silu, step, view},
    host::{Library, Session, levels},
};

/// A decoder like OLMoE's, of a size to choose.
struct Decoder {
    layers: u64,
    width: u64,
    heads: u64,
    experts: u64,
    choices: u64,
    hidden: u64,
    vocab: u64,
    storage: DType,
}

fn decoder(size: &Decoder) -> Building {
    let Decoder { layers, width, heads, experts, choices, hidden, vocab, storage } = *size;
    let mut b = Building::new(1);
    let head = width / heads;
    let ids = b.input(DType::I32, Rows::Tokens, 1);
    let logits = b.output(DType::F32, Rows::Outputs, vocab);
    let many = layers as u32;
    let plain = |b: &mut Building, elements: u64, layers: u32| b.param(Layout::Plain { elements }, storage, layers, 1);
    let panels = |b: &mut Building, k: u64, n: u64, branches: u32, layers: u32, experts: u64| {
        b.param(Layout::Panels { k, n, branches }, storage, layers, experts as u32)
    };
    let table = plain(&mut b, vocab * width, 1);
    let norms = [0; 5].map(|_| plain(&mut b, width, many));
    let router = plain(&mut b, experts * width, many);
    let qkv = [0; 3].map(|_| panels(&mut b, width, width, 1, many, 1));
    let o = panels(&mut b, width, width, 1, many, 1);
    let up = panels(&mut b, width, hidden, 2, many, experts);
    let down = panels(&mut b, hidden, width, 1, many, experts);
    let last = panels(&mut b, width, vocab, 1, 1, 1);

    let tokens = Rows::Tokens;
    let slots = Rows::Slots { choices };
    let ws = |b: &mut Building, rows, row| b.workspace(DType::F32, rows, row);
    let [h, normed, q, kt, vt, attended] = [0; 6].map(|_| ws(&mut b, tokens, width));
    let sums = ws(&mut b, tokens, 1);
    let scores = ws(&mut b, tokens, experts);
    let weights = ws(&mut b, tokens, choices);
    let indices = b.workspace(DType::I32, tokens, choices);
    let offsets = b.workspace(DType::I32, Rows::ONE, experts + 1);
    let order = b.workspace(DType::I32, slots, 1);
    let inner = ws(&mut b, slots, hidden);
    let chosen = ws(&mut b, tokens, choices * width);
    let k = b.cache(DType::F32, width, many, true);
    let v = b.cache(DType::F32, width, many, false);

    let mut entry = view(Source::Param(table), 0, &[1]);
    entry.index = Some(Box::new(moec_plan::Indirect { view: row(ids, &[0]), stride: width }));
    let map = |extents: &[u64], expr, args: Vec<View>, into| RowOp::Map { extents: fixed(extents), expr, args, into };
    let norm = |x, weight, into| {
        let square = RowOp::Reduce {
            op: ReduceOp::Sum,
            extents: vec![],
            over: fixed(&[width]),
            expr: mul(arg(0), arg(0)),
            args: vec![row(x, &[1])],
            into: row(sums, &[]),
        };
        let mean = add(mul(arg(1), Expr::F32(1.0 / width as f32)), Expr::F32(1e-5));
        let scaled = Expr::binary(BinaryOp::Div, arg(0), Expr::unary(UnaryOp::Sqrt, mean));
        let args = vec![row(x, &[1]), row(sums, &[0]), view(Source::Param(weight), 0, &[1])];
        vec![square, map(&[width], mul(scaled, arg(2)), args, row(into, &[1]))]
    };
    let gemm = |a, weights, out, epilogue, extras, group| {
        let rows = if group { slots } else { tokens };
        Gemm { rows, batch: 1, a, weights, epilogue, extras, out, group: None }
    };
    let plain_gemm = |a, weights, out| step(StepKind::Gemm(gemm(a, weights, out, arg(0), vec![], false)));
    let residual =
        |a, weights| step(StepKind::Gemm(gemm(a, weights, h, add(arg(0), arg(1)), vec![row(h, &[1])], false)));
    let grouped = |a, weights, out, epilogue, gather, store| {
        let group = Some(Group { offsets, order, choices, first: 0, gather, store });
        step(StepKind::Gemm(Gemm { group, ..gemm(a, weights, out, epilogue, vec![], true) }))
    };

    let mut layer: Vec<Node> = vec![step(rows(tokens, norm(h, norms[0], normed)))];
    for (weights, out) in qkv.into_iter().zip([q, kt, vt]) {
        layer.push(plain_gemm(normed, weights, out));
    }
    let mut prepare = norm(q, norms[1], q);
    prepare.extend(norm(kt, norms[2], kt));
    let angle = mul(Expr::cast(DType::F32, arg(2)), Expr::F32(0.001));
    let turned = |op| {
        Expr::binary(
            BinaryOp::Add,
            mul(arg(0), Expr::unary(UnaryOp::Cos, angle.clone())),
            mul(arg(1), Expr::unary(op, angle.clone())),
        )
    };
    for x in [q, kt] {
        let half = head / 2;
        let args = |first: u64, second: u64| {
            vec![
                view(Source::Row(x), first, &[head, 1]),
                view(Source::Row(x), second, &[head, 1]),
                view(Source::Position, 0, &[0, 1]),
            ]
        };
        prepare.push(map(
            &[heads, half],
            turned(UnaryOp::Sin),
            args(0, half),
            view(Source::Row(attended), 0, &[head, 1]),
        ));
        prepare.push(map(
            &[heads, half],
            turned(UnaryOp::Sin),
            args(half, 0),
            view(Source::Row(attended), half, &[head, 1]),
        ));
        prepare.push(map(&[width], arg(0), vec![row(attended, &[1])], row(x, &[1])));
    }
    prepare.push(map(&[width], arg(0), vec![row(kt, &[1])], row(k, &[1])));
    prepare.push(map(&[width], arg(0), vec![row(vt, &[1])], row(v, &[1])));
    layer.push(step(rows(tokens, prepare)));
    let score = Expr::select(
        Expr::binary(BinaryOp::Gt, arg(2), arg(1)),
        Expr::F32(f32::NEG_INFINITY),
        mul(arg(0), Expr::F32(1.0 / (head as f32).sqrt())),
    );
    layer.push(step(StepKind::Attention(Box::new(Attention {
        rows: tokens,
        q,
        k,
        v,
        out: attended,
        groups: heads,
        queries: 1,
        width: head,
        values: head,
        score,
        extras: vec![],
        sink: None,
        lookups: Vec::new(),
        keys_of: None,
        causal: true,
        window: None,
    }))));
    layer.push(residual(attended, o));
    let mut route = norm(h, norms[3], normed);
    route.push(RowOp::Reduce {
        op: ReduceOp::Sum,
        extents: fixed(&[experts]),
        over: fixed(&[width]),
        expr: mul(arg(0), arg(1)),
        args: vec![row(normed, &[0, 1]), view(Source::Param(router), 0, &[width, 1])],
        into: row(scores, &[1]),
    });
    route.push(map(&[experts], Expr::unary(UnaryOp::Exp, arg(0)), vec![row(scores, &[1])], row(scores, &[1])));
    route.push(RowOp::TopK {
        extents: vec![],
        len: Extent::Fixed(experts),
        k: Extent::Fixed(choices),
        work: None,
        arg: row(scores, &[1]),
        values: row(weights, &[1]),
        indices: row(indices, &[1]),
    });
    layer.push(step(rows(tokens, route)));
    layer.push(step(StepKind::Bin(Bin {
        tokens: Rows::Tokens,
        indices,
        weights,
        experts,
        choices,
        offsets,
        order,
        slot_of: None,
        route: 0,
    })));
    layer.push(grouped(normed, up, inner, mul(silu(arg(0)), arg(1)), true, Store::Slots));
    layer.push(grouped(inner, down, chosen, arg(0), false, Store::Choices { weights }));
    layer.push(step(rows(
        tokens,
        vec![
            RowOp::Reduce {
                op: ReduceOp::Sum,
                extents: fixed(&[width]),
                over: fixed(&[choices]),
                expr: arg(0),
                args: vec![row(chosen, &[1, width])],
                into: row(normed, &[1]),
            },
            map(&[width], add(arg(0), arg(1)), vec![row(h, &[1]), row(normed, &[1])], row(h, &[1])),
        ],
    )));
    b.step(rows(tokens, vec![map(&[width], arg(0), vec![entry], row(h, &[1]))]));
    b.plan.body.push(Node::Layers(Layers { kinds: vec![layer], order: vec![0; layers as usize] }));
    b.step(rows(Rows::Outputs, norm(h, norms[4], normed)));
    let whole = Gemm { rows: Rows::Outputs, ..gemm(normed, last, logits, arg(0), vec![], false) };
    b.step(StepKind::Gemm(whole));
    moec_plan::verify(&b.plan).unwrap_or_else(|error| panic!("{error}"));
    b
}

#[test]
#[ignore = "a measurement"]
fn speed_of_compiling() {
    let size =
        Decoder { layers: 4, width: 64, heads: 4, experts: 8, choices: 2, hidden: 32, vocab: 100, storage: DType::F32 };
    let b = decoder(&size);
    for level in Level::ALL {
        let start = Instant::now();
        let object = moec_cpu::object(&b.plan, level, &|_| None).expect("supported");
        println!("{level:?}: {:?}, {} bytes", start.elapsed(), object.bytes.len());
        if let Some(folder) = std::env::var_os("MOEC_SPEED_OBJECTS") {
            std::fs::write(std::path::Path::new(&folder).join(&object.name), &object.bytes).expect("written");
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn speed_of_passes() {
    let size = Decoder {
        layers: 4,
        width: 1024,
        heads: 16,
        experts: 32,
        choices: 4,
        hidden: 512,
        vocab: 8000,
        storage: DType::Bf16,
    };
    let b = decoder(&size);
    // Bytes of weights that one token reads.
    let (d, f) = (size.width, size.hidden);
    let layer = 4 * d * d + size.experts * d + size.choices * 3 * d * f;
    let parameters = size.layers * layer + size.vocab * d;
    let mut session = Session::new(&b.plan, &b.weights, 512, 2048, 1);
    for level in levels().into_iter().rev() {
        let library = Library::new(&b.plan, level);
        for threads in [1, 2] {
            session.threads = threads;
            for tokens in [1u64, 1, 4, 16, 64, 512] {
                let ids: Vec<f64> = (0..tokens).map(|at| (at * 37 % size.vocab) as f64).collect();
                let mut best = f64::INFINITY;
                for _ in 0..if tokens > 64 { 2 } else { 8 } {
                    session.rewind();
                    let seconds = session.time(&library, &vec![ids.clone()], tokens, tokens - 1);
                    best = best.min(seconds);
                }
                let bytes = parameters as f64 * size.storage.bytes() as f64;
                let flops = 2.0 * tokens as f64 * (parameters - size.vocab * d) as f64;
                println!(
                    "{level:?} {threads} threads, {tokens} tokens: {:.2} ms, {:.1} GB/s as if once, {:.0} GFLOP/s",
                    best * 1e3,
                    bytes / best / 1e9,
                    flops / best / 1e9
                );
            }
        }
    }
}

/// One GEMM alone, weights from memory. `MOEC_SPEED_FORMATS=int8,bf16` measures these alone.
#[test]
#[ignore = "a measurement"]
fn speed_of_gemms() {
    let (k, n) = (2048, 16384);
    let asked = std::env::var("MOEC_SPEED_FORMATS").ok();
    let each = [DType::F32, DType::Bf16].map(Format::Each);
    let formats = each.into_iter().chain(Format::ALL);
    for storage in formats
        .filter(|format| asked.as_ref().is_none_or(|asked| asked.split(',').any(|name| name == format.to_string())))
    {
        let mut b = Building::new(1);
        let x = b.input(DType::F32, Rows::Tokens, k);
        let w = b.param(Layout::Panels { k, n, branches: 2 }, storage, 1, 1);
        let out = b.output(DType::F32, Rows::Tokens, n);
        b.step(StepKind::Gemm(Gemm {
            rows: Rows::Tokens,
            batch: 1,
            a: x,
            weights: w,
            epilogue: mul(silu(arg(0)), arg(1)),
            extras: vec![],
            out,
            group: None,
        }));
        let bytes = b.plan.weight_bytes() as f64;
        let mut session = Session::new(&b.plan, &b.weights, 512, 2048, 1);
        for level in levels().into_iter().rev().filter(|level| *level >= Level::Avx2) {
            let library = Library::new(&b.plan, level);
            for threads in [1, 2] {
                session.threads = threads;
                for tokens in [1u64, 4, 16, 64, 256] {
                    let inputs = vec![(0..tokens * k).map(|at| (at % 97) as f64 / 97.0 - 0.5).collect::<Vec<f64>>()];
                    let best = (0..7).map(|_| session.time(&library, &inputs, tokens, 0)).fold(f64::INFINITY, f64::min);
                    let flops = 4.0 * (tokens * k * n) as f64;
                    println!(
                        "{storage} {level:?} {threads} threads, {tokens} rows: {:.2} ms, {:.1} GB/s, {:.0} GFLOP/s",
                        best * 1e3,
                        bytes / best / 1e9,
                        flops / best / 1e9
                    );
                }
            }
        }
    }
}
