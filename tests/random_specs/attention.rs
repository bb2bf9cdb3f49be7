//! Blocks that look at earlier tokens: heads in many shapes, masks, and arithmetic on scores.

use super::Generator;

/// A new attention block over rows of `D`.
pub fn block(generator: &mut Generator) -> String {
    let name = generator.name("attn");
    let (groups, repeats) = (generator.random.within(1, 3), generator.random.within(1, 3));
    let head = *generator.random.pick(&[2, 4, 4, 6]);
    let value = if generator.random.percent(70) { head } else { generator.random.within(1, 5) };
    let value_axis = if value == head && generator.random.percent(50) { "Dh" } else { "Dv" };
    let (g, r) = (format!("G = {groups}"), format!("R = {repeats}"));
    // The heads of queries, of keys and of values.
    let (queries, keys): (Vec<&str>, Vec<&str>) = match generator.random.below(6) {
        0 => (vec![], vec![]),
        1 => (vec![&r], vec![]),
        2 => (vec![&g], vec![&g]),
        _ => (vec![&g, &r], vec![&g]),
    };
    let (dh, dv) = (format!("Dh = {head}"), format!("{value_axis} = {value}"));
    let mut lines = Vec::new();
    let mut param = |generator: &mut Generator, name: &str, heads: &[&str], last: &str| {
        let mut axes: Vec<&str> = heads.iter().copied().chain([last, "D"]).collect();
        if generator.random.percent(30) {
            generator.random.shuffle(&mut axes);
        }
        lines.push(format!("param {name}[{}]", axes.join(", ")));
        let text = format!("x · {name}");
        if generator.random.percent(25) {
            let axes: Vec<&str> = heads.iter().copied().chain([last]).collect();
            lines.push(format!("param {name}_bias[{}]", axes.join(", ")));
            return format!("({text} + {name}_bias)");
        }
        format!("({text})")
    };
    let mut q = param(generator, "q", &queries, &dh);
    let mut k = param(generator, "k", &keys, &dh);
    let shared = value == head && value_axis == "Dh" && generator.random.percent(20);
    let v = if shared { k.clone() } else { param(generator, "v", &keys, &dv) };
    let latent = generator.random.percent(12).then(|| {
        let q = param(generator, "qr", &queries, "Dr = 2");
        let heads: &[&str] = if generator.random.percent(50) { &keys } else { &[] };
        let k = param(generator, "kr", heads, "Dr = 2");
        (q, k)
    });
    if generator.random.percent(25) {
        generator.uses("std::norm::rms_norm");
        lines.push("part q_norm = rms_norm(1e-5 over Dh)".into());
        lines.push("part k_norm = rms_norm(1e-5 over Dh)".into());
        (q, k) = (format!("q_norm({q})"), format!("k_norm({k})"));
    }
    match generator.random.below(5) {
        0 | 1 => {
            let rope = *generator.random.pick(&["rope_half", "rope_interleaved"]);
            generator.uses(&format!("std::attention::{rope}"));
            (q, k) = (format!("{rope}({q}, 1e4 over Dh)"), format!("{rope}({k}, theta = 1e4 over Dh)"));
        }
        2 if head > 2 => {
            generator.uses("std::attention::rope_half");
            lines.push(format!("let qw = {q}"));
            lines.push(format!("let kw = {k}"));
            let part = |x: &str| {
                let turned = format!("rename(rope_half(rename({x}[Dh = 0..2], Dh as Dr), 100.0 over Dr), Dr as Dh)");
                format!("concat({turned}, {x}[Dh = 2..{head}] over Dh)")
            };
            (q, k) = (part("qw"), part("kw"));
        }
        _ => {}
    }
    lines.push(format!("let qs = {q}"));
    lines.push(format!("let ks = {k}"));
    if shared && generator.random.percent(50) {
        lines.push("let kp = past(ks, S as T)".into());
        lines.push("let vp = kp".into());
    } else {
        lines.push("let kp = past(ks, S as T)".into());
        lines.push(format!("let vp = past({v}, S as T)"));
    }
    let scale = match generator.random.below(3) {
        0 => "0.5".to_owned(),
        1 => format!("{head} ^ -0.5"),
        _ => generator.constant(),
    };
    let window = generator.random.within(1, 5);
    let y = if latent.is_none() && generator.random.percent(35) {
        generator.uses("std::attention::causal_attention");
        let window = if generator.random.percent(40) { format!(", window = {window}") } else { String::new() };
        format!("causal_attention(qs, kp, vp, {scale}{window} over Dh)")
    } else {
        let mut score = "(qs · kp over Dh)".to_owned();
        if let Some((qr, kr)) = latent {
            lines.push(format!("let qt = {qr}"));
            lines.push(format!("let kt = past({kr}, S as T)"));
            score = format!("({score} + (qt · kt over Dr))");
        }
        if generator.random.percent(80) {
            score = format!("{score} * {scale}");
        }
        if generator.random.percent(25) {
            score = format!("4.0 * tanh({score} / 4.0)");
        }
        if let Some(axis) = queries.first().filter(|_| generator.random.percent(25)) {
            lines.push(format!("param slope[{axis}]"));
            score = format!("{score} - slope * f32(S - T) * 0.1");
        } else if let Some(axis) = queries.last().filter(|_| generator.random.percent(15)) {
            let axis = axis.split(' ').next().expect("a name");
            score = format!("{score} - f32({axis}) * 0.2 * f32(S - T)");
        }
        let mask = match generator.random.below(7) {
            0 => format!("T <= S and S < T + {window}"),
            1 => format!("T <= S and T > S - {window}"),
            2 => format!("S >= T and (S - T < {window} or T == 0)"),
            3 => format!("T <= S and (T % 2 == S % 2 or T + {window} > S)"),
            _ => "T <= S".to_owned(),
        };
        lines.push(format!("let scores = where({mask}, {score}, -inf)"));
        "softmax(scores over T) · vp over T".to_owned()
    };
    lines.push(format!("let y = {y}"));
    let mut axes = vec![dv];
    axes.extend(queries.iter().map(|axis| (*axis).to_owned()));
    if generator.random.percent(50) {
        generator.random.shuffle(&mut axes);
    }
    let names: Vec<&str> = axes.iter().map(|axis| axis.split(' ').next().expect("a name")).collect();
    let summed = if names.len() == 1 { names[0].to_owned() } else { format!("({})", names.join(", ")) };
    lines.push(format!("param o[D, {}]", axes.join(", ")));
    let bias = generator.random.percent(20);
    if bias {
        lines.push("param o_bias[D]".into());
    }
    let end = format!("out y · o over {summed}{}", if bias { " + o_bias" } else { "" });
    generator.define(&format!("block {name}"), &lines, &end);
    name
}
