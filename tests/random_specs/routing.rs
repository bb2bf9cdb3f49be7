//! Gates, experts, and the layers of experts made of them.

use super::{
    Generator,
    body::{Body, Dim, Kind, Place, Shape, Value, over},
};

/// `moe { … }` over rows of these axes.
///
/// Parameters that experts share are declared by more `lines` around it.
pub fn moe(generator: &mut Generator, dims: &[Dim], lines: &mut Vec<String>) -> String {
    let mut members: Vec<(String, u64)> = Vec::new();
    for _ in 0..generator.random.within(1, 3) {
        let count = *generator.random.pick(&[1, 1, 2, 3, 4]);
        let adapted = dims == generator.embedding() && generator.random.percent(10);
        let member = if adapted { adapted_expert(generator, lines) } else { expert(generator, dims) };
        members.push((member, count));
    }
    let experts: u64 = members.iter().map(|(_, count)| count).sum();
    let choices = if generator.random.percent(10) { experts } else { generator.random.within(1, experts.min(3)) };
    let gate = gate(generator, dims, experts, choices);
    let bank = bank(generator, &members);
    let always = match generator.random.below(5) {
        0 => format!("; always {}", expert(generator, dims)),
        1 => {
            let block = generator.block(dims, dims);
            format!("; always {}, {block}", expert(generator, dims))
        }
        _ => String::new(),
    };
    format!("moe {{ gate {gate}; experts {bank}{always} }}")
}

/// Experts with how many of each, as in a bank.
pub fn bank(generator: &mut Generator, members: &[(String, u64)]) -> String {
    let spelt = |(expert, count): &(String, u64)| match count {
        1 if generator.random.percent(50) => expert.clone(),
        _ if generator.random.percent(50) => format!("{expert} × {count}"),
        _ => format!("{expert} times {count}"),
    };
    members.iter().map(spelt).collect::<Vec<_>>().join(", ")
}

/// An expert of the standard library.
pub fn library_expert(generator: &mut Generator, dims: &[Dim]) -> String {
    assert!(dims.len() == 1 && dims[0].axis == "D", "the library's experts are written over `D`");
    let wide = generator.random.within(1, 9);
    match generator.random.below(5) {
        0 => {
            generator.uses("std::expert::neuron");
            format!("neuron({})", generator.random.pick(&["relu", "gelu", "square"]))
        }
        1 => {
            generator.uses("std::expert::gated");
            let act = *generator.random.pick(&["silu", "gelu", "relu", "gelu_new"]);
            format!("gated({wide}, {act:?})")
        }
        2 => {
            generator.uses("std::expert::mlp");
            let act = *generator.random.pick(&["relu", "silu", "gelu", "square", "sigmoid"]);
            let biased = *generator.random.pick(&["", ", biased = false"]);
            format!("mlp({wide}, {act}{biased})")
        }
        _ => {
            generator.uses("std::expert::swiglu");
            format!("swiglu({wide})")
        }
    }
}

/// An expert over parameters that all of its bank share, with a few of its own.
fn adapted_expert(generator: &mut Generator, lines: &mut Vec<String>) -> String {
    let name = generator.name("adapted");
    let (up, down) = (generator.name("p"), generator.name("p"));
    let wide = generator.random.within(1, 9);
    lines.push(format!("param {up}[F = {wide}, D]"));
    lines.push(format!("param {down}[D, F = {wide}]"));
    let mut inner = vec!["param a[R = 2, D]".to_owned(), format!("param b[F = {wide}, R = 2]")];
    let hidden = match generator.random.below(3) {
        0 => "relu(x · up)",
        1 => "silu(x · up + (x · a) · b)",
        _ => "tanh(x · up + b[R = 0])",
    };
    inner.push(format!("let h = {hidden}"));
    let end = match generator.random.below(3) {
        0 => "out h · down over F".to_owned(),
        1 => {
            inner.push(format!("param c[R = 2, F = {wide}]"));
            inner.push("param d[D, R = 2]".to_owned());
            "out h · down over F + (h · c over F) · d".to_owned()
        }
        _ => "out x + 0.5 * (h · down over F)".to_owned(),
    };
    generator.define(&format!("expert {name}(up, down)"), &inner, &end);
    format!("{name}({up}, {down})")
}

/// An expert of the library, or a new one, from rows to rows of the same axes.
pub fn expert(generator: &mut Generator, dims: &[Dim]) -> String {
    let usual = dims == generator.embedding();
    let first = if usual { 0 } else { 5 };
    match first + generator.random.below(10 - first) {
        0..=4 => library_expert(generator, dims),
        5 => {
            generator.uses("std::expert::copy");
            "copy".into()
        }
        6 => {
            generator.uses("std::expert::zero");
            "zero".into()
        }
        7 if usual && generator.random.percent(50) => {
            generator.uses("std::expert::constant");
            "constant".into()
        }
        7 => {
            let name = generator.name("constant");
            let end = "out c + 0.0 * x".to_owned();
            let axes: Vec<String> = dims.iter().map(|dim| generator.axis_of_param(dim)).collect();
            generator.define(&format!("expert {name}"), &[format!("param c[{}]", axes.join(", "))], &end);
            name
        }
        _ => {
            let name = generator.name("expert");
            let lines = generator.rows_to_rows(Place::Expert, dims, dims, 7);
            let (end, lines) = lines.split_last().expect("a body ends");
            generator.define(&format!("expert {name}"), lines, end);
            name
        }
    }
}

/// A gate of the standard library.
fn library_gate(generator: &mut Generator, experts: u64, choices: u64) -> String {
    let k = choices;
    let groups: Vec<u64> = (1..experts).filter(|groups| experts.is_multiple_of(*groups)).collect();
    let groups = generator.random.maybe(&groups).copied().unwrap_or(1);
    let kept = generator.random.within(1, groups);
    let (bits, best) = (64 - (experts - 1).leading_zeros(), (experts / groups).min(2));
    let gates: Vec<String> = vec![
        format!("top_k_softmax({k})"),
        format!("top_k_softmax({k}, false)"),
        format!("top_k_of_logits({k})"),
        format!("top_k_sigmoid({k}, scale = 1.5)"),
        format!("independent_sigmoid({k})"),
        "dense_softmax".into(),
        format!("noisy_top_k({k})"),
        format!("noisy_top_k({k}, 0.25)"),
        format!("group_limited_softmax({}, {groups}, {kept}, 2.0)", k.min(experts / groups * kept)),
        format!("group_limited_sigmoid({}, {groups}, {kept}, best = {best})", k.min(experts / groups * kept)),
        "top_p(0.7)".into(),
        format!("cosine({k}, 3)"),
        "cosine_threshold".into(),
        format!("softmax_with_nulls({k}, 1)"),
        format!("prototypes({}, {groups})", k.min(experts / groups)),
        format!("attention_router({k})"),
        format!("normalised_logits({k}, sharpness = 0.5)"),
        format!("laplace({k}, true)"),
        format!("dselect({k}, {})", bits.max(1)),
        if experts > 1 { "sparse_mixer(0.3)".into() } else { "dense_softmax".into() },
        format!("given(positions(over S) % {})", experts + 1),
    ];
    let gate = generator.random.pick(&gates).clone();
    let name = gate.split('(').next().unwrap_or(&gate);
    generator.uses(&format!("std::gate::{name}"));
    gate
}

/// A gate that chooses `choices` of `experts`.
fn gate(generator: &mut Generator, dims: &[Dim], experts: u64, choices: u64) -> String {
    if dims == generator.embedding() && generator.random.percent(40) {
        return library_gate(generator, experts, choices);
    }
    own_gate(generator, dims, experts, choices).0
}

/// A gate of the file's own: its name, and the axis of its choices.
pub fn own_gate(generator: &mut Generator, dims: &[Dim], experts: u64, choices: u64) -> (String, Dim) {
    let name = generator.name("gate");
    let scored = if generator.random.percent(70) {
        Dim { axis: "E".into(), size: experts }
    } else {
        generator.new_axis(experts)
    };
    let x = Value { text: "x".into(), shape: Shape::rows(dims), most: 4.0, index_of: None };
    let mut body = Body::new(generator, Place::Tokens, vec![x]);
    if body.random().percent(15) {
        body.grow();
    }
    let mut axes = vec![format!("{} = {experts}", scored.axis)];
    axes.extend(dims.iter().map(|dim| body.generator.axis_of_param(dim)));
    body.line(format!("param W[{}]", axes.join(", ")));
    let cast = if body.random().percent(70) { "f32(x)" } else { "x" };
    let shape = Shape::rows(std::slice::from_ref(&scored));
    let first = body.define(format!("{cast} · W {}", over(dims)), shape.clone(), 6.0);
    for _ in 0..body.random().below(6) {
        body.grow();
    }
    let score = if body.random().percent(50) { first } else { body.finish(&shape) };
    let score = masked(&mut body, score, &scored);
    let (values, indices) = body.chosen(&score, &scored, choices);
    let choice = indices.shape.dims[0].clone();
    let k = &choice.axis;
    let indices_text = match body.random().below(12) {
        0 => format!("where({} > 0.0, {}, -1)", values.text, indices.text),
        1 => format!("({} + 1) % {experts}", indices.text),
        2 => format!("where({} == 0, {experts}, {})", indices.text, indices.text),
        _ => indices.text.clone(),
    };
    let finite = format!("clamp({}, -3.0, 3.0)", values.text);
    let own = indices_text == indices.text;
    let weights = match body.random().below(8) {
        0 => finite,
        1 => format!("softmax({finite} over {k})"),
        2 => format!("normalise(sigmoid({finite}) over {k}) * 1.5"),
        3 => "0.5".to_owned(),
        4 if own => format!("sigmoid(gather({}, {} over {}))", score_or(&score), indices.text, scored.axis),
        5 => {
            let param = body.param(std::slice::from_ref(&choice));
            format!("{} * sigmoid({finite})", param.text)
        }
        6 => {
            body.values.push(Value { text: finite, most: 3.0, ..values.clone() });
            body.grow();
            body.finish(&Shape::rows(std::slice::from_ref(&choice))).text
        }
        _ => format!("where({} < {}, sigmoid({finite}), 0.25)", indices.text, experts / 2),
    };
    let keep = match body.random().below(10) {
        0 => format!(", keep = {} > -0.5", values.text),
        1 => format!(", keep = {} != 0", indices.text),
        _ => String::new(),
    };
    let lines = std::mem::take(&mut body.lines);
    generator.define(&format!("gate {name}"), &lines, &format!("route tokens({indices_text}, {weights}{keep})"));
    (name, choice)
}

fn score_or(score: &Value) -> String {
    format!("clamp({}, -3.0, 3.0)", score.text)
}

/// Scores of which some are excluded, by a group or by position.
fn masked(body: &mut Body, score: Value, scored: &Dim) -> Value {
    let experts = scored.size;
    match body.random().below(6) {
        0 if experts >= 4 && experts.is_multiple_of(2) => {
            let (group, member) = (body.generator.new_axis(2), body.generator.new_axis(experts / 2));
            let (s, b, m) = (body.generator.name("v"), body.generator.name("v"), body.generator.name("v"));
            let (g, e) = (&group.axis, &member.axis);
            body.line(format!("let {s} = split({}, {} as ({g} = 2, {e}))", score.text, scored.axis));
            let best = match body.random().below(3) {
                0 => format!("max({s} over {e})"),
                1 => format!("sum(top_k({s}, 2 over {e}).values over K)"),
                _ => format!("mean({s} over {e})"),
            };
            body.line(format!("let {b} = one_hot(top_k({best}, 1 over {g}).indices over {g})"));
            body.line(format!("let {m} = any({b} > 0.5 over K)"));
            let text = format!("merge(where({m}, {s}, -inf), ({g}, {e}) as {})", scored.axis);
            body.define(text, score.shape, score.most)
        }
        1 => {
            let (at, low) = (body.random().within(0, experts - 1), *body.random().pick(&["-5.0", "-inf", "-1e9"]));
            let text = format!("where(positions(over {}) == {at}, {low}, {})", scored.axis, score.text);
            let kind = Kind::F32;
            body.define(text, Shape { kind, ..score.shape }, score.most)
        }
        2 => {
            let bias = body.param(std::slice::from_ref(scored));
            body.define(format!("{} + {}", score.text, bias.text), score.shape, score.most + 1.5)
        }
        _ => score,
    }
}
