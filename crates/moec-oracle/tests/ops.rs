//! Each op on a case small enough to compute by hand.

mod support;

use moec_ir::ops::*;
use moec_oracle::{EvalError, Session, Tensor};
use moec_types::{BinaryOp, DType, Dim, Expr, Size, UnaryOp};
use support::*;

/// `op` applied to inputs `a`, `b`, … of the given types and values.
fn apply(op: impl Into<Op>, inputs: &[(&[&str], Tensor)]) -> Vec<Tensor> {
    try_apply(op, inputs).unwrap_or_else(|error| panic!("{error}"))
}

fn try_apply(op: impl Into<Op>, inputs: &[(&[&str], Tensor)]) -> Result<Vec<Tensor>, EvalError> {
    let names = ["a", "b", "c", "d"];
    let mut build = Build::new();
    let operands: Vec<_> =
        names.iter().zip(inputs).map(|(name, (dims, value))| build.input(name, value.dtype(), dims)).collect();
    for result in build.all(op, &operands) {
        build.output("result", result);
    }
    let inputs: Vec<_> = names.into_iter().zip(inputs.iter().map(|(_, value)| value.clone())).collect();
    build.run(&inputs)
}

#[test]
fn map_repeats_operands_along_the_axes_they_lack() {
    let expr = Expr::binary(BinaryOp::Sub, Expr::Arg(0), Expr::binary(BinaryOp::Mul, Expr::Arg(1), Expr::Arg(2)));
    let result = apply(
        Map { expr },
        &[
            (&["D=2"], f32s(&[("D", 2)], &[1.0, 2.0])),
            (&["S", "D=2"], f32s(&[("S", 2), ("D", 2)], &[1.0, 2.0, 3.0, 4.0])),
            (&[], f32s(&[], &[10.0])),
        ],
    );
    assert_eq!(result, [f32s(&[("D", 2), ("S", 2)], &[-9.0, -29.0, -18.0, -38.0])]);
}

#[test]
fn contract_sums_by_name_whatever_the_order_of_the_axes() {
    // a[S, H, D] · b[D, F, H] over D
    let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let b = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0];
    let result = apply(
        Contract { over: vec![axis("D")] },
        &[
            (&["S", "H=2", "D=2"], f32s(&[("S", 2), ("H", 2), ("D", 2)], &a)),
            (&["D=2", "F=2", "H=2"], f32s(&[("D", 2), ("F", 2), ("H", 2)], &b)),
        ],
    );
    // H=0: b = [[1, 2], [3, 4]] (D, F); H=1: ten times that.
    let wanted = [7.0, 10.0, 150.0, 220.0, 23.0, 34.0, 310.0, 460.0];
    assert_eq!(result, [f32s(&[("S", 2), ("H", 2), ("F", 2)], &wanted)]);
}

#[test]
fn contract_over_several_axes_and_nothing() {
    let ones = |axes: &[(&str, usize)]| f32s(axes, &vec![1.0; axes.iter().map(|(_, size)| size).product()]);
    let x = ones(&[("S", 3), ("H", 2), ("D", 19)]);
    let w = ones(&[("F", 1), ("D", 19), ("H", 2)]);
    let result = apply(
        Contract { over: vec![axis("H"), axis("D")] },
        &[(&["S", "H=2", "D=19"], x), (&["F=1", "D=19", "H=2"], w)],
    );
    assert_eq!(result, [f32s(&[("S", 3), ("F", 1)], &[38.0; 3])]);
    let empty = apply(
        Contract { over: vec![axis("D")] },
        &[(&["S", "D=2"], ones(&[("S", 0), ("D", 2)])), (&["D=2", "F=3"], ones(&[("D", 2), ("F", 3)]))],
    );
    assert_eq!(empty, [f32s(&[("S", 0), ("F", 3)], &[])]);
    let nothing = apply(
        Contract { over: vec![axis("S")] },
        &[(&["S", "D=2"], ones(&[("S", 0), ("D", 2)])), (&["S"], ones(&[("S", 0)]))],
    );
    assert_eq!(nothing, [f32s(&[("D", 2)], &[0.0, 0.0])]);
}

#[test]
fn contract_sums_wider_than_f32() {
    let x = f32s(&[("D", 3)], &[1e8, 1.0, -1e8]);
    let w = f32s(&[("D", 3)], &[1.0; 3]);
    assert_eq!(apply(Contract { over: vec![axis("D")] }, &[(&["D=3"], x), (&["D=3"], w)]), [f32s(&[], &[1.0])]);
}

#[test]
fn reduce_along_any_axis() {
    let x = || f32s(&[("S", 2), ("E", 3)], &[1.0, -2.0, 4.0, f32::NAN, 5.0, 6.0]);
    let reduce =
        |op, over: &str, x: Tensor| apply(Reduce { op, over: vec![axis(over)] }, &[(&["S", "E=3"], x)]).remove(0);
    let first = |op| reduce(op, "E", x()).f32()[0];
    assert_eq!(first(ReduceOp::Sum), 3.0);
    assert_eq!(first(ReduceOp::Mean), 1.0);
    assert_eq!(first(ReduceOp::Prod), -8.0);
    assert_eq!(first(ReduceOp::Max), 4.0);
    assert_eq!(first(ReduceOp::Min), -2.0);
    assert!(reduce(ReduceOp::Max, "E", x()).f32()[1].is_nan());
    assert_eq!(reduce(ReduceOp::Sum, "S", x()).f32()[1..], [3.0, 10.0]);
    let whole = Tensor::named(&[("S", 1), ("E", 3)], vec![3, 7, i32::MAX]);
    assert_eq!(reduce(ReduceOp::Sum, "E", whole), i32s(&[("S", 1)], &[i32::MIN + 9]));
    let truth = Tensor::named(&[("S", 2), ("E", 3)], vec![true, true, false, true, true, true]);
    assert_eq!(reduce(ReduceOp::All, "E", truth.clone()).bool(), [false, true]);
    assert_eq!(reduce(ReduceOp::Any, "S", truth).bool(), [true, true, true]);
}

#[test]
fn cumsum_adds_up_to_and_with_each_position() {
    let x = f32s(&[("S", 3), ("E", 2)], &[1.0, 10.0, 2.0, 20.0, 4.0, -40.0]);
    let over = |axis_name: &str, x: Tensor| apply(Cumsum { over: axis(axis_name) }, &[(&["S", "E=2"], x)]).remove(0);
    assert_eq!(over("S", x.clone()).f32(), [1.0, 10.0, 3.0, 30.0, 7.0, -10.0]);
    assert_eq!(over("E", x).f32(), [1.0, 11.0, 2.0, 22.0, 4.0, -36.0]);
    let whole = i32s(&[("S", 2), ("E", 2)], &[i32::MAX, 1, 1, -3]);
    assert_eq!(over("S", whole).i32(), [i32::MAX, 1, i32::MIN, -2]);
    assert_eq!(over("S", f32s(&[("S", 0), ("E", 2)], &[])).f32(), [0.0; 0]);
}

#[test]
fn scatter_add_sums_what_meets_and_drops_what_is_outside() {
    let op = ScatterAdd { axes: vec![axis("E"), axis("C")], into: Dim::fixed("N", 3) };
    let index = i32s(&[("C", 2), ("E", 2)], &[2, 0, -1, 2]); // i[e, c]: [2, -1], [0, 2]
    let x = f32s(&[("E", 2), ("C", 2), ("D", 2)], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let result = apply(op, &[(&["E=2", "C=2", "D=2"], x), (&["C=2", "E=2"], index)]);
    assert_eq!(result, [f32s(&[("N", 3), ("D", 2)], &[5.0, 6.0, 0.0, 0.0, 8.0, 10.0])]);
    let symbolic = ScatterAdd { axes: vec![axis("S")], into: dim("S") };
    let turned = apply(symbolic, &[(&["S"], i32s(&[("S", 3)], &[7, 8, 9])), (&["S"], i32s(&[("S", 3)], &[1, 3, 0]))]);
    assert_eq!(turned, [i32s(&[("S", 3)], &[9, 7, 0])]);
}

#[test]
fn scatter_add_keeps_apart_what_the_index_has_too() {
    let op = ScatterAdd { axes: vec![axis("C")], into: Dim::fixed("N", 2) };
    let index = i32s(&[("C", 2), ("B", 2)], &[0, 1, 0, 0]); // of b = 0: [0, 0]; of b = 1: [1, 0]
    let x = f32s(&[("B", 2), ("C", 2)], &[1.0, 2.0, 3.0, 4.0]);
    let result = apply(op, &[(&["B=2", "C=2"], x), (&["C=2", "B=2"], index)]);
    assert_eq!(result, [f32s(&[("N", 2), ("B", 2)], &[3.0, 4.0, 0.0, 3.0])]);
}

#[test]
fn unfold_gives_every_window_that_fits() {
    let op = Unfold { axis: axis("A"), place: axis("A"), window: Dim::fixed("T", 3), step: 2 };
    let x: Vec<f32> = (0..12).map(|at| at as f32).collect();
    let result = apply(op, &[(&["A=6", "B=2"], f32s(&[("A", 6), ("B", 2)], &x))]);
    let wanted = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
    assert_eq!(result, [f32s(&[("A", 2), ("T", 3), ("B", 2)], &wanted)]);
}

/// No other assignment of so few tokens has a larger total, and of one expert's tokens there are never too many.
#[test]
fn assign_is_as_good_as_any_assignment() {
    for case in 0..60u32 {
        let (tokens, experts, most) = (1 + case % 4, 1 + case / 4 % 3, 1 + case / 12 % 2);
        let score: Vec<f32> = (0..tokens * experts).map(|at| (at * at * 7 + case * 5 + at) as f32 % 9.0).collect();
        let of = |token: u32, expert: u32| score[(token * experts + expert) as usize];
        let total = |chosen: &[u32]| -> Option<(usize, f32)> {
            let fits = (0..experts).all(|e| chosen.iter().filter(|c| **c == e).count() <= most as usize);
            let placed: Vec<f32> =
                chosen.iter().enumerate().filter(|(_, e)| **e < experts).map(|(t, e)| of(t as u32, *e)).collect();
            fits.then(|| (placed.len(), placed.iter().sum()))
        };
        let all = (0..(experts + 1).pow(tokens)).filter_map(|code| {
            total(&(0..tokens).map(|t| code / (experts + 1).pow(t) % (experts + 1)).collect::<Vec<_>>())
        });
        let best = all.reduce(|a, b| if b > a { b } else { a }).expect("none at all is one");
        let op = Assign { axes: [axis("S"), axis("E")], most: Size::Fixed(u64::from(most)) };
        let size = format!("E={experts}");
        let given = f32s(&[("S", tokens as usize), ("E", experts as usize)], &score);
        let found: Vec<u32> = apply(op, &[(&["S", &size], given)])[0]
            .i32()
            .iter()
            .map(|e| u32::try_from(*e).unwrap_or(experts))
            .collect();
        assert_eq!(total(&found), Some(best), "{found:?} of {score:?}");
    }
}

#[test]
fn counts_and_shares_follow_the_input() {
    let share = |up| Size::Share { of: axis("S"), times: 3, per: 4, up };
    for (positions, down, up) in [(0, 0, 0), (1, 0, 1), (4, 3, 3), (5, 3, 4)] {
        let mut build = Build::new();
        let x = build.input("x", DType::F32, &["S"]);
        for rounded in [share(false), share(true)] {
            let count = build.one(Count { size: rounded.clone() }, &[]);
            build.output("count", count);
            let choices = Dim::new(axis("K"), rounded);
            let chosen = build.all(TopK { over: axis("S"), choices }, &[x])[1];
            build.output("chosen", chosen);
        }
        let values: Vec<f32> = (0..positions).map(|at| at as f32).collect();
        let found = build.run(&[("x", f32s(&[("S", positions)], &values))]).expect("it runs");
        let largest = |count: usize| (0..count).map(|at| (positions - 1 - at) as i32).collect::<Vec<_>>();
        let counts = [found[0].i32()[0], found[2].i32()[0]];
        assert_eq!(counts, [down as i32, up as i32]);
        assert_eq!((found[1].i32(), found[3].i32()), (&largest(down)[..], &largest(up)[..]));
    }
}

#[test]
fn top_k_prefers_low_indices_and_puts_nan_last() {
    let x = f32s(
        &[("E", 5), ("S", 2)],
        &[2.0, f32::NAN, 3.0, f32::NAN, 3.0, -1.0, f32::NAN, f32::NEG_INFINITY, 2.0, f32::NAN],
    );
    let op = TopK { over: axis("E"), choices: Dim::fixed("K", 4) };
    let result = apply(op, &[(&["E=5", "S"], x)]);
    assert_eq!(result[1], i32s(&[("K", 4), ("S", 2)], &[1, 2, 2, 3, 0, 0, 4, 1]));
    assert_eq!(result[0].f32()[..4], [3.0, -1.0, 3.0, f32::NEG_INFINITY]);
}

#[test]
fn top_k_of_too_few_positions_is_a_problem() {
    let op = TopK { over: axis("S"), choices: Dim::fixed("K", 2) };
    let problem = try_apply(op, &[(&["S"], f32s(&[("S", 1)], &[0.0]))]).expect_err("one position");
    assert_eq!(problem, EvalError::TooFewToChooseFrom { axis: "S".to_string(), size: 1, choices: 2 });
}

#[test]
fn gather_aligns_shared_axes() {
    let x = f32s(&[("S", 2), ("E", 3)], &[10.0, 11.0, 12.0, 20.0, 21.0, 22.0]);
    let i = i32s(&[("K", 2), ("S", 2)], &[2, 0, 1, 1]);
    let result = apply(Gather { over: axis("E") }, &[(&["S", "E=3"], x), (&["K=2", "S"], i)]);
    assert_eq!(result, [f32s(&[("K", 2), ("S", 2)], &[12.0, 20.0, 11.0, 21.0])]);
    let table = f32s(&[("D", 2), ("V", 3)], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let ids = i32s(&[("S", 2)], &[2, 0]);
    let result = apply(Gather { over: axis("V") }, &[(&["D=2", "V=3"], table), (&["S"], ids)]);
    assert_eq!(result, [f32s(&[("S", 2), ("D", 2)], &[3.0, 6.0, 1.0, 4.0])]);
}

#[test]
fn an_index_outside_the_axis_names_input_place_and_limit() {
    for bad in [3, -1] {
        let table = f32s(&[("V", 3)], &[1.0, 2.0, 3.0]);
        let ids = i32s(&[("S", 2)], &[0, bad]);
        let problem =
            try_apply(Gather { over: axis("V") }, &[(&["V=3"], table), (&["S"], ids)]).expect_err("too large");
        assert_eq!(problem.to_string(), format!("input `b` holds {bad} at S = 1, but axis `V` has indices 0 to 2"));
    }
}

#[test]
fn axes_are_split_merged_renamed_sliced_and_joined() {
    let x = || f32s(&[("S", 1), ("E", 6)], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let split = Split { axis: axis("E"), into: vec![Dim::fixed("G", 2), Dim::fixed("M", 3)] };
    let grouped = f32s(&[("S", 1), ("G", 2), ("M", 3)], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(apply(split, &[(&["S", "E=6"], x())])[0], grouped);

    let merge = Merge { axes: vec![axis("M"), axis("G")], into: axis("E") };
    let merged = apply(merge, &[(&["S", "G=2", "M=3"], grouped)]);
    assert_eq!(merged, [f32s(&[("S", 1), ("E", 6)], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0])]);

    let rename = Rename { from: axis("E"), to: axis("F") };
    assert_eq!(apply(rename, &[(&["S", "E=6"], x())])[0].axes()[1], (axis("F"), 6));

    let slice = |drop, len| Slice { axis: axis("E"), start: 4, len, drop };
    assert_eq!(apply(slice(false, 2), &[(&["S", "E=6"], x())]), [f32s(&[("S", 1), ("E", 2)], &[4.0, 5.0])]);
    assert_eq!(apply(slice(true, 1), &[(&["S", "E=6"], x())]), [f32s(&[("S", 1)], &[4.0])]);

    let a = f32s(&[("S", 2), ("D", 1)], &[1.0, 2.0]);
    let b = f32s(&[("D", 2), ("S", 2)], &[3.0, 4.0, 5.0, 6.0]);
    let joined = apply(Concat { over: axis("D") }, &[(&["S", "D=1"], a), (&["D=2", "S"], b)]);
    assert_eq!(joined, [f32s(&[("S", 2), ("D", 3)], &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0])]);
}

#[test]
fn literals_hold_each_type() {
    let mut build = Build::new();
    for (dtype, data) in
        [(DType::F32, vec![0.1, -1.5]), (DType::I32, vec![-3.0, 16777217.0]), (DType::Bool, vec![0.0, 1.0])]
    {
        let literal = build.one(Literal { ty: ty(dtype, &["P=2"]), data }, &[]);
        build.output("literal", literal);
    }
    let results = build.run(&[]).expect("no inputs");
    assert_eq!(results[0], f32s(&[("P", 2)], &[0.1, -1.5]));
    assert_eq!(results[1], i32s(&[("P", 2)], &[-3, 16777217]));
    assert_eq!(results[2].bool(), [false, true]);
}

#[test]
fn past_and_positions_go_on_from_pass_to_pass() {
    let mut build = Build::new();
    let x = build.input("x", DType::F32, &["D=2", "S"]);
    let past = build.one(Past { axis: axis("S"), into: axis("T") }, &[x]);
    let here = build.one(Iota { dim: dim("S") }, &[]);
    let there = build.one(Iota { dim: dim("T=past(S)") }, &[]);
    for (name, value) in [("past", past), ("here", here), ("there", there)] {
        build.output(name, value);
    }
    let mut session = Session::new(&build.module, &build.weights);
    let first = session.run(&[("x", f32s(&[("D", 2), ("S", 1)], &[1.0, 2.0]))], None).expect("a pass");
    assert_eq!(first[0].1, f32s(&[("D", 2), ("T", 1)], &[1.0, 2.0]));
    // A pass that fails leaves no trace.
    session.run(&[("x", f32s(&[("D", 3), ("S", 1)], &[0.0; 3]))], None).expect_err("three is not two");
    let second = session.run(&[("x", f32s(&[("S", 2), ("D", 2)], &[3.0, 4.0, 5.0, 6.0]))], None).expect("a pass");
    assert_eq!(second[0].1, f32s(&[("D", 2), ("T", 3)], &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0]));
    assert_eq!(second[1].1, i32s(&[("S", 2)], &[1, 2]));
    assert_eq!(second[2].1, i32s(&[("T", 3)], &[0, 1, 2]));
}

#[test]
fn linear_is_contractions_and_an_epilogue() {
    let gate_times_up = Expr::binary(
        BinaryOp::Add,
        Expr::binary(BinaryOp::Mul, Expr::unary(UnaryOp::Neg, Expr::Arg(0)), Expr::Arg(1)),
        Expr::Arg(2),
    );
    let op = Linear { over: vec![axis("D")], branches: 2, epilogue: gate_times_up };
    let result = apply(
        op,
        &[
            (&["S", "D=2"], f32s(&[("S", 1), ("D", 2)], &[1.0, 2.0])),
            (&["F=1", "D=2"], f32s(&[("F", 1), ("D", 2)], &[3.0, 4.0])),
            (&["D=2", "F=1"], f32s(&[("D", 2), ("F", 1)], &[5.0, 6.0])),
            (&["F=1"], f32s(&[("F", 1)], &[0.5])),
        ],
    );
    assert_eq!(result, [f32s(&[("S", 1), ("F", 1)], &[-11.0 * 17.0 + 0.5])]);
}

/// q[S, KV, Rep, Dh], k[T, KV, Dh], v[T, KV, Dv]: scores scaled and masked, softmax, weighted sum.
#[test]
fn attention_is_what_it_stands_for() {
    let mut random = Random(5);
    let (s, t) = (2, 3);
    let q = f32s(&[("S", s), ("KV", 2), ("Rep", 2), ("Dh", 2)], &random.floats(16));
    let k = f32s(&[("T", t), ("KV", 2), ("Dh", 2)], &random.floats(12));
    let v = f32s(&[("T", t), ("KV", 2), ("Dv", 1)], &random.floats(6));
    let allowed = Tensor::named(&[("S", s), ("T", t)], vec![true, true, false, true, true, true]);
    let scaled = Expr::binary(BinaryOp::Mul, Expr::Arg(0), Expr::F32(0.7));
    let score = Expr::select(Expr::Arg(1), scaled, Expr::F32(f32::NEG_INFINITY));
    let op = Attention { over: vec![axis("Dh")], keys: axis("T"), score, sink: None, lookups: Vec::new() };
    let inputs: [(&[&str], Tensor); 4] = [
        (&["S", "KV=2", "Rep=2", "Dh=2"], q.clone()),
        (&["T", "KV=2", "Dh=2"], k.clone()),
        (&["T", "KV=2", "Dv=1"], v.clone()),
        (&["S", "T"], allowed),
    ];
    let result = apply(op, &inputs).remove(0);

    let mut wanted = Vec::new();
    for position in 0..s {
        for head in 0..4 {
            let kv = head / 2;
            let query = &q.f32()[(position * 4 + head) * 2..][..2];
            let keys = if position == 0 { 2 } else { 3 };
            let powers: Vec<f64> = (0..keys)
                .map(|key| {
                    let key = &k.f32()[(key * 2 + kv) * 2..][..2];
                    (0.7 * f64::from(query[0] * key[0] + query[1] * key[1])).exp()
                })
                .collect();
            let sum: f64 = powers.iter().sum();
            wanted.push(
                powers.iter().enumerate().map(|(key, p)| p / sum * f64::from(v.f32()[key * 2 + kv])).sum::<f64>()
                    as f32,
            );
        }
    }
    near(&result, &f32s(&[("S", 2), ("KV", 2), ("Rep", 2), ("Dv", 1)], &wanted), 1e-6);
}

#[test]
fn rows_are_what_their_region_is() {
    let mut build = Build::new();
    let x = build.input("x", DType::F32, &["S", "D=2"]);
    let region = build.region_like(x, |build, x| build.one(Reduce { op: ReduceOp::Sum, over: vec![axis("D")] }, &[x]));
    let sum = build.one(Rows { region }, &[x]);
    build.output("sum", sum);
    let result = build.run(&[("x", f32s(&[("S", 2), ("D", 2)], &[1.0, 2.0, 3.0, 4.0]))]).expect("a pass");
    assert_eq!(result, [f32s(&[("S", 2)], &[3.0, 7.0])]);
}
