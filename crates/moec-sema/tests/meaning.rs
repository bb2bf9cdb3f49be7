//! What programs come to: small models through the oracle, against the same arithmetic written out in Rust.

use std::{fs, path::PathBuf};

use miette::{GraphicalReportHandler, GraphicalTheme};
use moec_diag::SourceMap;
use moec_ir::{Module, ops::Op};
use moec_oracle::{RandomWeights, Session, Tensor, Trace, Weights};
use moec_sema::{Checked, Settings, check};

fn checked(text: &str) -> Checked {
    let mut sources = SourceMap::default();
    let (file, mut problems) = moec_syntax::parse(&mut sources, "test.moe", text);
    if problems.is_empty() {
        let (checked, found) = check(&mut sources, &file.expect("a tree"), &Settings::default());
        if let Some(checked) = checked {
            moec_ir::verify(&checked.module).unwrap_or_else(|error| panic!("{error}"));
            return checked;
        }
        problems = found;
    }
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
    let mut text = String::new();
    for problem in problems.into_vec() {
        let report = miette::Report::new_boxed(problem).with_source_code(sources.clone());
        handler.render_report(&mut text, report.as_ref()).expect("a report renders");
    }
    panic!("{text}");
}

fn example(name: &str) -> Checked {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/gates").join(name);
    checked(&fs::read_to_string(path).expect("the example is there"))
}

/// The one output for the input `x: f32[S, D]`, with random weights.
fn run(module: &Module, x: &[f32], width: usize) -> Vec<f32> {
    traced(module, x, width).0
}

fn traced(module: &Module, x: &[f32], width: usize) -> (Vec<f32>, Trace) {
    let weights = RandomWeights::new(module, 1);
    let mut trace = Trace::default();
    let input = Tensor::named(&[("S", x.len() / width), ("D", width)], x.to_vec());
    let outputs = Session::new(module, &weights).run(&[("x", input)], Some(&mut trace)).expect("it runs");
    (outputs[0].1.f32().to_vec(), trace)
}

fn near(found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() <= 1e-5 * wanted.abs().max(1.0), "{found} is not {wanted}");
    }
}

fn weight(module: &Module, path: &str) -> Vec<f32> {
    let at = module.params.iter().position(|param| param.path == path).expect("a parameter of this path");
    RandomWeights::new(module, 1).instance(moec_ir::ParamId(at as u32), 0, 0).expect("a value").f32().to_vec()
}

#[test]
fn element_wise_library() {
    let x = [-3.0f32, -0.5, 0.0, 0.25, 1.0, 4.0];
    type Case = (&'static str, fn(f64) -> f64);
    let cases: [Case; 9] = [
        ("sigmoid(x)", |x| 1.0 / (1.0 + (-x).exp())),
        ("softplus(x)", |x| x.exp().ln_1p()),
        ("silu(x)", |x| x / (1.0 + (-x).exp())),
        ("relu(x)", |x| x.max(0.0)),
        ("gelu_tanh(x)", |x| {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }),
        ("clamp(x, -1, 1)", |x| x.clamp(-1.0, 1.0)),
        ("-x ^ 2 + 7 % 4 - 10 / 5", |x| -(x * x) + 3.0 - 2.0),
        ("where(x > 0 and not (x > 2), 1, 0.5) * 2", |x| if x > 0.0 && x <= 2.0 { 2.0 } else { 1.0 }),
        ("x * f32(2 ^ 3 in [8, 9] or false)", |x| x),
    ];
    for (program, wanted) in cases {
        let found =
            run(&checked(&format!("model m(x: f32[S, D = 1]) {{ out y: f32[S, D] = {program} }}")).module, &x, 1);
        let wanted: Vec<f32> = x.iter().map(|x| wanted(f64::from(*x)) as f32).collect();
        near(&found, &wanted);
    }
}

#[test]
fn values_are_ordered_and_added_up_along_an_axis() {
    let nan = f32::NAN;
    let x = [2.0, -1.0, nan, 2.0, 0.5, 3.0, 3.0, -f32::INFINITY, 1.0, 0.0];
    let of = |program: &str| {
        let text = format!("model m(x: f32[S, D = 5]) {{ out y: f32[S, D] = {program} }}");
        let bits = run(&checked(&text).module, &x, 5).into_iter();
        bits.map(|value| if value.is_nan() { "nan".to_owned() } else { value.to_string() })
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(of("cumsum(x over D)"), "2 1 nan nan nan 3 6 -inf -inf -inf");
    assert_eq!(of("f32(cumsum(i32(x > 1.0) over D))"), "1 1 1 2 2 1 2 2 2 2");
    assert_eq!(of("f32(argsort(x over D))"), "1 4 0 3 2 2 4 3 0 1");
    assert_eq!(of("f32(argsort(-x over D))"), "0 3 4 1 2 0 1 3 4 2");
    assert_eq!(of("sort(x over D)"), "-1 0.5 2 2 nan -inf 0 1 3 3");
    assert_eq!(of("f32(powers_of_two(over D)) + where(x > 0, 0.0, 0.0)"), "16 8 4 2 1 16 8 4 2 1");
    let deviation = "deviation(where(x > 0, 1.0, 3.0) over D) + 0.0 * f32(positions(over D))";
    assert_eq!(of(deviation).split(' ').next(), Some("0.9797959"));
}

#[test]
fn axes_are_split_turned_merged_and_renamed() {
    let text = "model m(x: f32[S, D = 4]) {
        let pairs  = split(x, D as (A = 2, B))
        let turned = concat(pairs[A = 1..2], pairs[A = 0] * one_hot(positions(over A) * 0 over A)[A = 0..1] over A)
        out y: f32[S, D] = merge(turned, (A, B) as D) + sum(rename(x, D as E) * one_hot(positions(over D) over E) over E)
    }";
    // one_hot(0 over A) is 1 at A = 0 for every position: what is added is x itself.
    let text = text.replace("positions(over A) * 0 over A)[A = 0..1]", "i32(0.0) over A)[A = 0..1]");
    near(&run(&checked(&text).module, &[1.0, 2.0, 3.0, 4.0], 4), &[3.0 + 1.0, 4.0 + 2.0, 1.0 + 3.0, 2.0 + 4.0]);
}

#[test]
fn a_grid_that_is_shifted_and_cut_is_put_together_as_it_was() {
    let checked = checked(
        "use std::vision::{from_windows, rolled, windows}
        model there_and_back(x: f32[S, D = 64]) {
          let grid  = split(x, D as (Y = 8, X))
          let cut   = windows(rolled(rolled(grid, 2 over Y), 2 over X), 4 over (Y, X))
          let whole = from_windows(cut, 4 over (Y, X))
          out y: f32[S, D] = merge(rolled(rolled(whole, 6 over Y), 6 over X), (Y, X) as D)
        }",
    );
    let x: Vec<f32> = (0..128).map(|at| at as f32).collect();
    assert_eq!(run(&checked.module, &x, 64), x);
}

#[test]
fn rotary_positions_turn_planes() {
    let text = "use std::attention::{rope_half, rope_interleaved}
        model m(x: f32[S, D = 4]) { out y: f32[S, D] = rope_half(x, 100.0 over D) + 10.0 * rope_interleaved(x, 100.0 over D) }";
    let x = [0.5f32, -1.0, 2.0, 3.0, 1.0, 0.0, -2.0, 0.25, 0.1, 0.2, 0.3, 0.4];
    let mut wanted = Vec::new();
    for (position, row) in x.chunks(4).enumerate() {
        let turn = |plane: usize, a: f32, b: f32| {
            let angle = position as f32 / 100f32.powf(plane as f32 * 2.0 / 4.0);
            (a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin())
        };
        let (half, other) =
            ([turn(0, row[0], row[2]), turn(1, row[1], row[3])], [turn(0, row[0], row[1]), turn(1, row[2], row[3])]);
        wanted.extend([
            half[0].0 + 10.0 * other[0].0,
            half[1].0 + 10.0 * other[0].1,
            half[0].1 + 10.0 * other[1].0,
            half[1].1 + 10.0 * other[1].1,
        ]);
    }
    near(&run(&checked(text).module, &x, 4), &wanted);
}

fn inputs(rows: usize, width: usize) -> Vec<f32> {
    (0..rows * width).map(|at| ((at * 37 % 101) as f32 / 50.0 - 1.0) * 1.5).collect()
}

/// Indices of the k largest, lowest index first among equals.
fn best(scores: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order.truncate(k);
    order
}

#[test]
fn an_unpublished_gate_chooses_as_written() {
    let module = example("grouped_softplus.moe").module;
    let (w, bias) = (weight(&module, "ffn.gate.W"), weight(&module, "ffn.gate.bias"));
    let x = inputs(9, 64);
    let (_, trace) = traced(&module, &x, 64);
    let route = &trace.routes[0];
    assert_eq!((route.experts, route.choices), (37, 5));
    for (position, row) in x.chunks(64).enumerate() {
        let score: Vec<f32> = w
            .chunks(64)
            .zip(&bias)
            .map(|(w, bias)| {
                let dot: f64 = w.iter().zip(row).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                ((dot as f32 + bias).exp().ln_1p()).sqrt()
            })
            .collect();
        let two_best = |scores: &[f32]| best(scores, 2).iter().map(|at| scores[*at]).sum::<f32>();
        let left_wins = two_best(&score[..19]) >= two_best(&score[19..]);
        let helped: Vec<f32> = (0..37).map(|e| if (e < 19) == left_wins { 2.0 * score[e] } else { score[e] }).collect();
        let chosen = best(&helped, 5);
        let total: f32 = chosen.iter().map(|e| score[*e]).sum();
        let found: Vec<usize> = route.indices[position * 5..][..5].iter().map(|e| *e as usize).collect();
        assert_eq!(found, chosen, "position {position}");
        near(&route.weights[position * 5..][..5], &chosen.iter().map(|e| score[*e] / total).collect::<Vec<_>>());
    }
}

#[test]
fn experts_outside_the_best_groups_are_never_chosen() {
    let module = example("sigmoid_grouped.moe").module;
    let (w, bias) = (weight(&module, "ffn.gate.W"), weight(&module, "ffn.gate.bias"));
    let x = inputs(9, 64);
    let (_, trace) = traced(&module, &x, 64);
    for (position, row) in x.chunks(64).enumerate() {
        let choose: Vec<f32> = w
            .chunks(64)
            .zip(&bias)
            .map(|(w, bias)| {
                let dot: f64 = w.iter().zip(row).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                (1.0 / (1.0 + (-dot).exp())) as f32 + bias
            })
            .collect();
        let groups: Vec<f32> = choose.chunks(4).map(|group| best(group, 2).iter().map(|at| group[*at]).sum()).collect();
        let kept = best(&groups, 2);
        let allowed: Vec<f32> =
            (0..16).map(|e| if kept.contains(&(e / 4)) { choose[e] } else { f32::NEG_INFINITY }).collect();
        let found: Vec<usize> = trace.routes[0].indices[position * 4..][..4].iter().map(|e| *e as usize).collect();
        assert_eq!(found, best(&allowed, 4), "position {position}");
        let total: f32 = trace.routes[0].weights[position * 4..][..4].iter().sum();
        near(&[total], &[2.5]);
    }
}

#[test]
fn a_bank_may_mix_its_experts() {
    let module = example("mixed_bank.moe").module;
    let paths: Vec<String> = module.params.iter().map(|param| format!("{} {}", param.path, param.ty)).collect();
    assert!(paths.contains(&"ffn.experts[e].up f32[F=48, D=32]".to_owned()), "{paths:?}");
    assert!(paths.contains(&"ffn.experts[e].up f32[F=16, D=32]".to_owned()), "{paths:?}");
    assert!(paths.contains(&"ffn.always1.up f32[F=48, D=32]".to_owned()), "{paths:?}");
    let x = inputs(16, 32);
    let (y, trace) = traced(&module, &x, 32);
    assert!(y.iter().all(|y| y.is_finite()));
    assert!(trace.routes[0].indices.iter().all(|e| (0..7).contains(e)));
}

#[test]
fn layers_may_differ_share_and_count() {
    let text = "use std::expert::swiglu
        use std::norm::rms_norm
        config { D = 8 }
        model m(x: f32[S, D]) {
          part shared = swiglu(4)
          let h = x
          let seen = x * 0
          layers l in 0..6 {
            part own = if l % 2 == 0 { swiglu(8) } else { swiglu(16) }
            h = h + own(h) + shared(h) * (if l < 4 { 1.0 } else { 2.0 })
            seen = seen + 1
          }
          let t = h
          layers m in 0..2 { part norm = rms_norm(1e-6 over D)  t = norm(t) }
          out y: f32[S, D] = t + seen
        }";
    let module = checked(text).module;
    let orders: Vec<Vec<u32>> = module
        .region(module.body)
        .nodes
        .iter()
        .filter_map(|at| match &module.node(*at).op {
            Op::Layers(layers) => Some(layers.order.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(orders, [vec![0, 1, 0, 1, 2, 3], vec![0, 0]]);
    let described: Vec<String> = module
        .params
        .iter()
        .filter(|param| param.path.ends_with("up") || param.path.ends_with('w'))
        .map(|param| format!("{} {} {:?}", param.path, param.ty, param.layers))
        .collect();
    assert_eq!(
        described,
        [
            "layers[l].own.up f32[F=8, D=8] Some([0, 2])",
            "shared.up f32[F=4, D=8] None",
            "layers[l].own.up f32[F=16, D=8] Some([1, 3])",
            "layers[l].own.up f32[F=8, D=8] Some([4])",
            "layers[l].own.up f32[F=16, D=8] Some([5])",
            "layers[m].norm.w f32[D=8] Some([0, 1])",
        ]
    );
    let x = inputs(3, 8);
    assert!(run(&module, &x, 8).iter().all(|y| y.is_finite()));
}

/// Outputs of passes over consecutive parts of x, one after the other.
fn passes(module: &Module, x: &[f32], width: usize, parts: &[usize]) -> Vec<f32> {
    let weights = RandomWeights::new(module, 1);
    let mut session = Session::new(module, &weights);
    let mut rest = x;
    let mut found = Vec::new();
    for part in parts {
        let (now, later) = rest.split_at(part * width);
        rest = later;
        let input = Tensor::named(&[("S", *part), ("D", width)], now.to_vec());
        found.extend_from_slice(session.run(&[("x", input)], None).expect("it runs")[0].1.f32());
    }
    found
}

#[test]
fn a_scan_goes_from_position_to_position_and_from_pass_to_pass() {
    let text = "
        fn mixed(a, b) = 0.5 * a + b
        model m(x: f32[S, D = 2]) {
          param w[D]
          param start[D]
          let twice = 2.0 * x
          let (y, count) = scan over S {
            state h[D]       = start
            state product[D, E = 2] = 1
            state n          = 0
            let before = n
            n          = n + 1
            h          = mixed(h, twice * w)
            product    = product * (1.0 + h * f32(positions(over E)))
            out (sum(product over E) + f32(S), before)
          }
          out y: f32[S, D] = y
          out count: f32[S] = count
        }";
    let checked = checked(text);
    let x = [1.0, 2.0, -3.0, 0.5, 0.25, 4.0, -1.0, -2.0, 0.5, 0.125];
    let (w, start) = (weight(&checked.module, "w"), weight(&checked.module, "start"));
    let (mut h, mut product) = (start.clone(), [1.0f32; 4]);
    let mut wanted = Vec::new();
    for (position, x) in x.chunks(2).enumerate() {
        for d in 0..2 {
            h[d] = 0.5 * h[d] + 2.0 * x[d] * w[d];
            product[2 * d + 1] *= 1.0 + h[d];
            wanted.push(product[2 * d] + product[2 * d + 1] + position as f32);
        }
    }
    near(&passes(&checked.module, &x, 2, &[5]), &wanted);
    near(&passes(&checked.module, &x, 2, &[1, 3, 1]), &wanted);
    near(&passes(&checked.module, &x, 2, &[0, 2, 0, 3]), &wanted);
}

#[test]
fn layers_that_scan_alike_are_one_kind() {
    let text = "model m(x: f32[S, D = 3]) {
        let h = x
        layers l in 0..4 {
          param decay[D]
          h = scan over S { state sum[D] = 0.0; sum = decay * sum + h; out sum }
        }
        out y: f32[S, D] = h
      }";
    let module = checked(text).module;
    let layers = module.walk().into_iter().find_map(|(_, at)| match &module.node(at).op {
        Op::Layers(layers) => Some(layers.kinds.len()),
        _ => None,
    });
    assert_eq!(layers, Some(1));
    // The text comes back, states and all.
    assert_eq!(moec_ir::print(&moec_ir::parse(&moec_ir::print(&module)).expect("it parses")), moec_ir::print(&module));
    let x: Vec<f32> = (0..18).map(|at| (at as f32 * 0.7).sin()).collect();
    near(&passes(&module, &x, 3, &[4, 1, 1]), &passes(&module, &x, 3, &[6]));
}

/// The same text over tokens and over an axis of the configuration: half of the positions, the best ones, are doubled.
#[test]
fn counts_are_the_same_over_fixed_and_symbolic_axes() {
    let text = |size: &str| {
        format!(
            "model m(x: f32[S{size}, D = 2]) {{
              let score = sum(x over D)
              let best = top_k(score, floor(size(S) * 3 / 6) over S).indices
              let rows = gather(x, best over S)
              out y: f32[S, D = 2] = x + scatter_add(rows, best, (K) as S) + cumsum(x * 0.0 + 1.0 over S) * f32(size(S))
            }}"
        )
    };
    let x = [1.0, 2.0, 9.0, -1.0, 0.5, 0.25, 3.0, 4.0, -7.0, 1.0];
    let sums: Vec<f32> = x.chunks(2).map(|row| row[0] + row[1]).collect();
    let mut order: Vec<usize> = (0..5).collect();
    order.sort_by(|a, b| sums[*b].total_cmp(&sums[*a]));
    let wanted: Vec<f32> = x
        .iter()
        .enumerate()
        .map(|(at, x)| x * if order[..2].contains(&(at / 2)) { 2.0 } else { 1.0 } + 5.0 * (at / 2 + 1) as f32)
        .collect();
    for size in ["", " = 5"] {
        near(&run(&checked(&text(size)).module, &x, 2), &wanted);
    }
}

/// What a decoder's pass may not do unless it says so: here it says so, and means it.
#[test]
fn a_decoder_may_accept_that_its_tokens_compete() {
    let text = "use std::expert::copy
        config { D = 2  E = 2 }
        gate first_come(places) {
          let i = argmax(x over D)
          let taken = cumsum(one_hot(i over E) over S)
          route tokens(i, 1.0, keep = gather(taken, i over E) <= f32(places))
        }
        model m(x: f32[S, D]) across S {
          part ffn = moe { gate first_come(2); experts copy × E }
          out y: f32[S, D] = ffn(scan over S { state sum[D] = 0.0; sum = sum + x; out sum })
        }";
    let module = checked(text).module;
    let x = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 9.0];
    near(&passes(&module, &x, 2, &[4]), &[1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 3.0, 9.0]);
    near(&passes(&module, &x, 2, &[2, 2]), &[1.0, 0.0, 2.0, 0.0, 3.0, 0.0, 3.0, 9.0]);
}

/// One bank behind different gates with a capacity.
fn with_room(gate: &str, x: &[f32]) -> (Vec<f32>, Trace) {
    let found = ["S".to_owned(), format!("S = {}", x.len() / 4)].map(|tokens| over_tokens(&tokens, gate, x));
    // Nothing changes where the file says how many tokens there are.
    near(&found[1].0, &found[0].0);
    assert_eq!(found[1].1.routes[0].indices, found[0].1.routes[0].indices);
    found.into_iter().next().expect("two")
}

fn over_tokens(tokens: &str, gate: &str, x: &[f32]) -> (Vec<f32>, Trace) {
    let text = format!(
        "use std::capacity::{{first_come, by_priority, no_token_left_behind}}
        use std::expert::mlp
        config {{ D = 4  E = 3 }}
        model m(x: f32[{tokens}, D]) {{
          part ffn = moe {{ gate {gate}; experts mlp(5, relu, biased = false) × E }}
          out y: f32[S, D] = ffn(x)
        }}"
    );
    traced(&checked(&text).module, x, 4)
}

#[test]
fn without_priorities_the_first_to_come_finds_room() {
    let x = inputs(11, 4);
    let (first, _) = with_room("first_come(1, 0.7)", &x);
    near(&with_room("by_priority(0.7, sum(x * 0.0 over D))", &x).0, &first);
    let (last, _) = with_room("by_priority(0.7, f32(S))", &x);
    assert!(first.iter().zip(&last).any(|(first, last)| first != last), "the last come first");
}

#[test]
fn no_token_is_left_behind_while_there_is_room() {
    let x = inputs(11, 4);
    let chosen = |gate| {
        with_room(gate, &x).1.routes[0]
            .indices
            .chunks(3)
            .map(|row| row.iter().filter(|e| **e >= 0).count())
            .collect::<Vec<_>>()
    };
    assert_eq!(chosen("no_token_left_behind(3, 1.0)"), [1; 11]);
    let dropped = chosen("no_token_left_behind(3, 0.5)").iter().filter(|count| **count == 0).count();
    // Each of three has room for ceil(0.5 * 11 / 3) = 2.
    assert_eq!(dropped, 5);
}
