//! Gates whose routes are slots, mixtures and merges, and layers of experts behind them.

use super::{
    Generator,
    body::{Dim, over},
    routing::{bank, expert},
};

/// `moe { … }` over rows of these axes, in which experts choose tokens, see mixtures of them, or are merged.
pub fn moe(generator: &mut Generator, dims: &[Dim]) -> String {
    let mut members = Vec::new();
    for _ in 0..generator.random.within(1, 2) {
        let count = generator.random.within(1, 3);
        members.push((expert(generator, dims), count));
    }
    let experts: u64 = members.iter().map(|(_, count)| count).sum();
    let (gate, one_kind) = gate(generator, dims, experts, "");
    if one_kind {
        members = vec![(members.swap_remove(0).0, experts)];
    }
    let bank = bank(generator, &members);
    let always =
        if generator.random.percent(25) { format!("; always {}", expert(generator, dims)) } else { String::new() };
    format!("moe {{ gate {gate}; experts {bank}{always} }}")
}

/// A gate given `more` arguments, and whether all of its bank must be of one kind.
///
/// Only where tokens may see each other it is one that needs that.
pub fn gate(generator: &mut Generator, dims: &[Dim], experts: u64, more: &str) -> (String, bool) {
    let usual = dims == generator.embedding();
    // Those that work on each token alone stand last.
    let alone = if generator.crosses { 0 } else { 3 };
    let form = alone + generator.random.below(4 - alone + if usual { 1 } else { 0 });
    match form {
        0 => (slots(generator, dims, experts, more), false),
        1 => (mixtures(generator, dims, experts, more), false),
        2 => (merge_for_all(generator, dims, experts, more), true),
        3 => (merge_for_each(generator, dims, experts, more), true),
        _ => (from_library(generator, experts, more), true),
    }
}

fn from_library(generator: &mut Generator, experts: u64, more: &str) -> String {
    let k = generator.random.within(1, experts);
    let gates = [("merged", String::new()), ("merged_top_k", k.to_string()), ("merged_equally", String::new())];
    let (name, argument) = generator.random.pick(&gates).clone();
    generator.uses(&format!("std::gate::{name}"));
    let arguments: Vec<&str> = [argument.as_str(), more].into_iter().filter(|text| !text.is_empty()).collect();
    if arguments.is_empty() { name.to_owned() } else { format!("{name}({})", arguments.join(", ")) }
}

/// Defines a gate of these lines over the tokens `N`, and uses it over `S`.
fn own(generator: &mut Generator, lines: &[String], end: &str, more: &str) -> String {
    let name = generator.name("gate");
    generator.define(&format!("gate {name}(over N)"), lines, end);
    let more = if more.is_empty() { String::new() } else { format!("{more} ") };
    format!("{name}({more}over S)")
}

/// `param W` that scores rows, and the text of the scores.
fn scores(generator: &mut Generator, dims: &[Dim], experts: u64, lines: &mut Vec<String>) -> String {
    let axes: Vec<String> = dims.iter().map(|dim| generator.axis_of_param(dim)).collect();
    lines.push(format!("param W[E = {experts}, {}]", axes.join(", ")));
    format!("(f32(x) · W {})", over(dims))
}

/// Each expert takes its share of the tokens, or one.
fn slots(generator: &mut Generator, dims: &[Dim], experts: u64, more: &str) -> String {
    let mut lines = Vec::new();
    let score = scores(generator, dims, experts, &mut lines);
    let score = match generator.random.below(3) {
        0 => score,
        1 => format!("softmax({score} over E)"),
        _ => format!("tanh({score})"),
    };
    let (times, per) = (generator.random.within(1, 2), generator.random.within(2, 4));
    let share = match generator.random.below(3) {
        0 => "1".to_owned(),
        1 => format!("ceil(size(N) * {times} / {per})"),
        _ => format!("ceil(size(N) * {times} / {})", experts.max(2)),
    };
    lines.push(format!("let (w, t) = top_k({score}, {share} over N)"));
    let weight =
        *generator.random.pick(&["w", "sigmoid(w)", "where(w > 0.0, w, 0.25)", "normalise(abs(w) + 0.1 over K)"]);
    lines.push("let chosen = rename(t, K as C)".to_owned());
    own(generator, &lines, &format!("route slots(chosen, rename({weight}, K as C) over N)"), more)
}

/// Slots that are mixtures of all tokens.
fn mixtures(generator: &mut Generator, dims: &[Dim], experts: u64, more: &str) -> String {
    let mut lines = Vec::new();
    let places = generator.random.within(1, 3);
    if places > 1 {
        let axes: Vec<String> = dims.iter().map(|dim| generator.axis_of_param(dim)).collect();
        lines.push(format!("param W[E = {experts}, P = {places}, {}]", axes.join(", ")));
        lines.push(format!("let s = x · W {}", over(dims)));
        lines.push(
            "let back = split(softmax(merge(s, (E, P) as Slots) over Slots), Slots as (E, P = ".to_owned()
                + &places.to_string()
                + "))",
        );
    } else {
        let score = scores(generator, dims, experts, &mut lines);
        lines.push(format!("let s = {score}"));
        lines.push("let back = softmax(s over E)".to_owned());
    }
    let into = *generator.random.pick(&["softmax(s over N)", "sigmoid(s) * 0.5", "where(s > 0.0, 0.25, 0.5)"]);
    own(generator, &lines, &format!("route mix({into}, back over N)"), more)
}

/// One expert of all tokens' mean.
fn merge_for_all(generator: &mut Generator, dims: &[Dim], experts: u64, more: &str) -> String {
    let mut lines = Vec::new();
    let score = scores(generator, dims, experts, &mut lines);
    let seen = *generator.random.pick(&["mean", "max"]);
    own(generator, &lines, &format!("route merge(softmax({seen}({score} over N) over E))"), more)
}

/// One expert for each token.
fn merge_for_each(generator: &mut Generator, dims: &[Dim], experts: u64, more: &str) -> String {
    let name = generator.name("gate");
    let mut lines = Vec::new();
    let score = scores(generator, dims, experts, &mut lines);
    let weights =
        *generator.random.pick(&["softmax(SCORE over E)", "tanh(SCORE)", "one_hot(argmax(SCORE over E) over E)"]);
    generator.define(&format!("gate {name}"), &lines, &format!("route merge({})", weights.replace("SCORE", &score)));
    if more.is_empty() { name } else { format!("{name}({more})") }
}
