//! Routes, banks and layers: every way to apply a bank gives what a plain loop over positions and choices gives.

mod support;

use moec_ir::ops::*;
use moec_ir::{ParamId, RegionId};
use moec_oracle::{RandomWeights, RouteRecord, Session, Tensor, Trace, Weights};
use moec_types::{BinaryOp, DType, Expr};
use support::*;

const D: usize = 3;
const EXPERTS: usize = 5;

/// A bank of three scalings `x * w[D]` (experts 0 to 2) and two that pass x on.
struct Bank {
    build: Build,
    scale: ParamId,
    /// Rows, indices and weights come in; each way to apply the bank goes out.
    choices: usize,
}

fn bank(choices: usize) -> Bank {
    let mut build = Build::new();
    let k = format!("K={choices}");
    let x = build.input("x", DType::F32, &["S", "D=3"]);
    let indices = build.input("i", DType::I32, &["S", &k]);
    let weights = build.input("w", DType::F32, &[&k, "S"]);
    let scale = build.param("experts[e].scale", &["D=3"], None, Some((0, 3)));
    let route = build.one(Route { experts: EXPERTS as u64, tokens: None }, &[indices, weights]);
    let rows = build.one(Dispatch { slots: axis("Slot") }, &[x, route]);
    let scaled = build.region_like(rows, |build, rows| {
        let w = build.one(ParamRef { param: scale }, &[]);
        build.one(Map { expr: Expr::binary(BinaryOp::Mul, Expr::Arg(0), Expr::Arg(1)) }, &[rows, w])
    });
    let copied = build.region_like(rows, |_, rows| rows);
    let op = |input, output| Experts {
        bank: vec![Member { region: scaled, first: 0, count: 3 }, Member { region: copied, first: 3, count: 2 }],
        slots: axis("Slot"),
        input,
        output,
    };
    for (input, from) in [(ExpertsInput::Packed, rows), (ExpertsInput::FromTokens, x)] {
        let per_slot = build.one(op(input, ExpertsOutput::PerSlot), &[from, route]);
        let combined = build.one(Combine, &[per_slot, route]);
        build.output("combined", combined);
        let per_choice = build.one(op(input, ExpertsOutput::WeighedPerChoice), &[from, route]);
        let summed = build.one(Reduce { op: ReduceOp::Sum, over: vec![axis("K")] }, &[per_choice]);
        build.output("summed", summed);
    }
    let times = || Map { expr: Expr::binary(BinaryOp::Mul, Expr::Arg(0), Expr::Arg(1)) };
    let sum = || Reduce { op: ReduceOp::Sum, over: vec![axis("K")] };
    // Each choice's row by itself, weighed afterwards.
    let per_slot = build.one(op(ExpertsInput::Packed, ExpertsOutput::PerSlot), &[rows, route]);
    let each = build.one(Each, &[per_slot, route]);
    let weighed = build.one(times(), &[each, weights]);
    let summed = build.one(sum(), &[weighed]);
    build.output("each", summed);
    // Weighed beforehand: each choice has a row of its own. (The experts are linear.)
    let own = build.one(times(), &[x, weights]);
    let own = build.one(Dispatch { slots: axis("Slot") }, &[own, route]);
    let per_slot = build.one(op(ExpertsInput::Packed, ExpertsOutput::PerSlot), &[own, route]);
    let each = build.one(Each, &[per_slot, route]);
    let summed = build.one(sum(), &[each]);
    build.output("own", summed);
    Bank { build, scale, choices }
}

/// Sums over choices, expert by expert as the text says.
fn plainly(x: &[f32], indices: &[i32], weights: &[f32], choices: usize, scale: &dyn Fn(usize) -> Vec<f32>) -> Vec<f32> {
    let positions = x.len() / D;
    let mut out = vec![0f32; x.len()];
    for position in 0..positions {
        for choice in 0..choices {
            let Ok(expert @ 0..EXPERTS) = usize::try_from(indices[position * choices + choice]) else { continue };
            let scale = if expert < 3 { scale(expert) } else { vec![1.0; D] };
            for d in 0..D {
                // Weights come as [K, S].
                out[position * D + d] += weights[choice * positions + position] * scale[d] * x[position * D + d];
            }
        }
    }
    out
}

fn check(positions: usize, choices: usize, pick: impl Fn(&mut Random, usize) -> i32) {
    let mut random = Random(positions as u64 * 31 + choices as u64);
    let bank = bank(choices);
    let weights = RandomWeights::new(&bank.build.module, 9);
    let x = random.floats(positions * D);
    let indices: Vec<i32> = (0..positions * choices).map(|at| pick(&mut random, at)).collect();
    let w = random.floats(positions * choices);
    let inputs = [
        ("x", f32s(&[("S", positions), ("D", D)], &x)),
        ("i", i32s(&[("S", positions), ("K", bank.choices)], &indices)),
        ("w", f32s(&[("K", bank.choices), ("S", positions)], &w)),
    ];
    let scale = |expert: usize| weights.instance(bank.scale, 0, expert as u32).expect("random").f32().to_vec();
    let wanted = f32s(&[("S", positions), ("D", D)], &plainly(&x, &indices, &w, choices, &scale));
    for result in run(&bank.build.module, &weights, &inputs).expect("a pass") {
        near(&result, &wanted, 1e-6);
    }
}

#[test]
fn random_routes() {
    for positions in [1, 2, 7, 33] {
        for choices in [1, 2, 5] {
            check(positions, choices, |random, _| random.below(EXPERTS as u32) as i32);
        }
    }
}

#[test]
fn routes_that_choose_nothing_or_one_expert_or_have_no_positions() {
    check(9, 3, |random, _| random.below(8) as i32 - 1); // -1 and 5, 6 are no choice
    check(4, 2, |_, _| -1);
    check(4, 2, |_, _| i32::MAX);
    check(6, 2, |_, _| 4);
    check(6, 2, |_, at| (at % 2) as i32);
    check(0, 2, |_, _| 0);
}

#[test]
fn slots_lie_by_expert_then_position_and_unused_ones_last() {
    let mut build = Build::new();
    let x = build.input("x", DType::F32, &["S"]);
    let indices = build.input("i", DType::I32, &["S", "K=2"]);
    let weight = build.one(Literal { ty: ty(DType::F32, &[]), data: vec![1.0] }, &[]);
    let route = build.one(Route { experts: 3, tokens: None }, &[indices, weight]);
    let rows = build.one(Dispatch { slots: axis("Slot") }, &[x, route]);
    build.output("rows", rows);
    let inputs =
        [("x", f32s(&[("S", 3)], &[10.0, 20.0, 30.0])), ("i", i32s(&[("S", 3), ("K", 2)], &[2, 0, 3, 2, 0, -1]))];
    let rows = build.run(&inputs).expect("a pass").remove(0);
    // Expert 0: positions 0 and 2; expert 2: positions 0 and 1; two places without a choice.
    assert_eq!(rows, f32s(&[("Slot", 6)], &[10.0, 30.0, 10.0, 20.0, 0.0, 0.0]));
}

/// Two kinds of layers, `h + w` and `h * w`, in the order a, b, a.
#[test]
fn layers_take_the_instance_of_their_execution() {
    let mut build = Build::new();
    let h = build.input("h", DType::F32, &[]);
    let add = build.param("layers[l].add", &[], Some(vec![0, 2]), None);
    let times = build.param("layers[l].times", &[], Some(vec![1]), None);
    let shared = build.param("shared", &[], None, None);
    let kind = |build: &mut Build, param, op| -> RegionId {
        build.region_like(h, |build, h| {
            let w = build.one(ParamRef { param }, &[]);
            let s = build.one(ParamRef { param: shared }, &[]);
            let sum = build.one(Map { expr: Expr::binary(op, Expr::Arg(0), Expr::Arg(1)) }, &[h, w]);
            build.one(Map { expr: Expr::binary(BinaryOp::Add, Expr::Arg(0), Expr::Arg(1)) }, &[sum, s])
        })
    };
    let kinds = vec![kind(&mut build, add, BinaryOp::Add), kind(&mut build, times, BinaryOp::Mul)];
    let result = build.one(Layers { kinds, order: vec![0, 1, 0] }, &[h]);
    build.output("h", result);
    for (param, layer, value) in [(add, 0, 1.0), (add, 1, 5.0), (times, 0, 10.0), (shared, 0, 0.25)] {
        build.weights.insert(param, layer, 0, f32s(&[], &[value]));
    }
    let result = build.run(&[("h", f32s(&[], &[2.0]))]).expect("a pass");
    assert_eq!(result, [f32s(&[], &[(2.0 + 1.0 + 0.25) * 10.0 + 0.25 + 5.0 + 0.25])]);
}

/// A decoder of two layers of one kind: what it sees of the past decides its routes.
fn decoder() -> Build {
    let mut build = Build::new();
    let ids = build.input("ids", DType::I32, &["S"]);
    let table = build.param("table", &["V=11", "D=4"], None, None);
    let router = build.param("layers[l].router", &["E=3", "D=4"], Some(vec![0, 1]), None);
    let up = build.param("layers[l].experts[e].up", &["F=4", "D=4"], Some(vec![0, 1]), Some((0, 3)));
    let table = build.one(ParamRef { param: table }, &[]);
    let h = build.one(Gather { over: axis("V") }, &[table, ids]);
    let kind = build.region_like(h, |build, h| {
        let keys = build.one(Past { axis: axis("S"), into: axis("T") }, &[h]);
        let (here, there) = (build.one(Iota { dim: dim("S") }, &[]), build.one(Iota { dim: dim("T=past(S)") }, &[]));
        let causal = Expr::binary(BinaryOp::Le, Expr::Arg(2), Expr::Arg(1));
        let score = Expr::select(causal, Expr::Arg(0), Expr::F32(f32::NEG_INFINITY));
        let seen = keys;
        let mixed = build.one(Rename { from: axis("D"), to: axis("Dv") }, &[seen]);
        let op = Attention { over: vec![axis("D")], keys: axis("T"), score, sink: None, lookups: Vec::new() };
        let mixed = build.one(op, &[h, keys, mixed, here, there]);
        let mixed = build.one(Rename { from: axis("Dv"), to: axis("D") }, &[mixed]);
        let sum = Expr::binary(BinaryOp::Add, Expr::Arg(0), Expr::Arg(1));
        let h = build.one(Map { expr: sum.clone() }, &[h, mixed]);
        let w = build.one(ParamRef { param: router }, &[]);
        let scores = build.one(Contract { over: vec![axis("D")] }, &[h, w]);
        let top = build.all(TopK { over: axis("E"), choices: dim("K=2") }, &[scores]);
        let route = build.one(Route { experts: 3, tokens: None }, &[top[1], top[0]]);
        build.module.set_name(route, "ffn");
        let rows = build.one(Dispatch { slots: axis("Slot") }, &[h, route]);
        let member = build.region_like(rows, |build, rows| {
            let up = build.one(ParamRef { param: up }, &[]);
            build.one(Contract { over: vec![axis("D")] }, &[rows, up])
        });
        let bank = vec![Member { region: member, first: 0, count: 3 }];
        let op = Experts { bank, slots: axis("Slot"), input: ExpertsInput::Packed, output: ExpertsOutput::PerSlot };
        let rows = build.one(op, &[rows, route]);
        let y = build.one(Combine, &[rows, route]);
        let y = build.one(Rename { from: axis("F"), to: axis("D") }, &[y]);
        build.one(Map { expr: sum }, &[h, y])
    });
    let h = build.one(Layers { kinds: vec![kind], order: vec![0, 0] }, &[h]);
    build.output("h", h);
    build
}

#[test]
fn passes_that_follow_each_other_equal_one_pass() {
    let build = decoder();
    let weights = RandomWeights::new(&build.module, 1);
    let ids = [3, 1, 4, 1, 5, 9, 2, 6];
    let input = |ids: &[i32]| [("ids", i32s(&[("S", ids.len())], ids))];
    let mut trace = Trace::default();
    let whole = Session::new(&build.module, &weights).run(&input(&ids), Some(&mut trace)).expect("a pass").remove(0).1;

    let mut session = Session::new(&build.module, &weights);
    let (mut parts, mut indices) = (Vec::new(), [Vec::new(), Vec::new()]);
    for part in [&ids[..3], &ids[3..4], &[], &ids[4..]] {
        let mut trace = Trace::default();
        parts.extend_from_slice(session.run(&input(part), Some(&mut trace)).expect("a pass")[0].1.f32());
        trace.routes.iter().enumerate().for_each(|(layer, route)| indices[layer].extend(&route.indices));
    }
    near(&whole, &f32s(&[("S", 8), ("D", 4)], &parts), 1e-6);

    let [first, second]: &[RouteRecord; 2] = trace.routes[..].try_into().expect("two routes");
    assert_eq!((first.layer, second.layer), (Some(0), Some(1)));
    assert_eq!((first.label.as_str(), first.positions(), first.choices, first.experts), ("layers[0].ffn", 8, 2, 3));
    assert_eq!([&first.indices, &second.indices], [&indices[0], &indices[1]]);
    assert!(first.indices.chunks(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn inputs_and_weights_that_do_not_fit_are_problems() {
    let build = decoder();
    let weights = RandomWeights::new(&build.module, 1);
    let ids = || i32s(&[("S", 2)], &[1, 2]);
    let problem = |inputs: &[(&str, Tensor)]| run(&build.module, &weights, inputs).expect_err("a problem").to_string();
    assert_eq!(problem(&[]), "input `ids` is missing");
    assert_eq!(problem(&[("id", ids())]), "the model has no input `id`");
    assert_eq!(problem(&[("ids", ids()), ("ids", ids())]), "input `ids` is given twice");
    assert_eq!(problem(&[("ids", f32s(&[("S", 1)], &[1.0]))]), "input `ids` is f32[S=1], the model takes i32[S]");
    assert_eq!(problem(&[("ids", i32s(&[("T", 1)], &[1]))]), "input `ids` is i32[T=1], the model takes i32[S]");
    assert_eq!(
        problem(&[("ids", i32s(&[("S", 1)], &[11]))]),
        "input `ids` holds 11 at S = 0, but axis `V` has indices 0 to 10"
    );
    let missing = run(&build.module, &build.weights, &[("ids", ids())]).expect_err("no weights");
    assert_eq!(missing.to_string(), "no weights for `table`");
}

#[test]
fn sizes_that_disagree_are_problems() {
    let mut build = Build::new();
    let a = build.input("a", DType::F32, &["S"]);
    let b = build.input("b", DType::F32, &["S"]);
    let sum = build.one(Map { expr: Expr::binary(BinaryOp::Add, Expr::Arg(0), Expr::Arg(1)) }, &[a, b]);
    build.output("sum", sum);
    let problem =
        build.run(&[("a", f32s(&[("S", 1)], &[1.0])), ("b", f32s(&[("S", 2)], &[1.0; 2]))]).expect_err("1 and 2");
    assert_eq!(problem.to_string(), "axis `S` has size 1 in input `a` and 2 in input `b`");
}
