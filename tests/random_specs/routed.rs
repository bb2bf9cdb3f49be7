//! Blocks in which gates and banks are parts: a route used more than once, a bank by several routes, arithmetic on choices.

use super::{
    Generator,
    body::{Body, Dim, Kind, Place, Shape, Value},
    routing::{bank, expert, own_gate},
    shapes,
};

/// A new block over rows of `D`.
pub fn block(generator: &mut Generator) -> String {
    let name = generator.name("routed");
    let lines =
        if generator.crosses && generator.random.percent(30) { by_shape(generator) } else { by_choice(generator) };
    let (end, lines) = lines.split_last().expect("a body ends");
    generator.define(&format!("block {name}"), lines, end);
    name
}

/// Some members, `experts` in all, from one type of rows to another.
fn members(generator: &mut Generator, takes: &[Dim], gives: &[Dim], experts: u64) -> String {
    let first = generator.random.within(1, experts);
    let counts = [first, experts - first];
    let mut members = Vec::new();
    for count in counts.into_iter().filter(|count| *count > 0) {
        let member = match takes == gives && generator.random.percent(50) {
            true => expert(generator, takes),
            false => {
                let name = generator.name("expert");
                let lines = generator.rows_to_rows(Place::Expert, takes, gives, 4);
                let (end, lines) = lines.split_last().expect("a body ends");
                generator.define(&format!("expert {name}"), lines, end);
                name
            }
        };
        members.push((member, count));
    }
    bank(generator, &members)
}

/// A gate as a part is, and the axis of its choices.
fn gate(generator: &mut Generator, experts: u64) -> (String, Dim) {
    let (embedding, k) = (generator.embedding(), generator.random.within(1, experts.min(3)));
    if generator.random.percent(60) {
        let (name, choice) = own_gate(generator, &embedding, experts, k);
        return (format!("{name}(E = {experts})"), choice);
    }
    let gates = ["top_k_softmax", "top_k_of_logits", "top_k_sigmoid", "noisy_top_k", "laplace", "attention_router"];
    let gate = *generator.random.pick(&gates);
    generator.uses(&format!("std::gate::{gate}"));
    (format!("{gate}({k}, E = {experts})"), Dim { axis: "K".into(), size: k })
}

/// Choices worked on before they are combined.
fn by_choice(generator: &mut Generator) -> Vec<String> {
    let (embedding, experts) = (generator.embedding(), generator.random.within(1, 5));
    let (gate_text, choice) = gate(generator, experts);
    let between = match generator.random.percent(40) {
        true => embedding.clone(),
        false => {
            let size = generator.random.within(1, 6);
            vec![generator.new_axis(size)]
        }
    };
    let first = members(generator, &embedding, &between, experts);
    let x = Value { text: "x".into(), shape: Shape::rows(&embedding), most: 4.0, index_of: None };
    let mut body = Body::new(generator, Place::Tokens, vec![x]);
    body.line(format!("part choose = {gate_text}"));
    body.line(format!("part first = bank {{ {first} }}"));
    if body.random().percent(40) {
        body.grow();
    }
    let seen = if body.random().percent(70) { "x" } else { "tanh(x)" };
    body.line(format!("let r = choose({seen})"));
    body.line("let each_first = each(r, first, x)".into());
    let of_choices = |dims: &[Dim]| Shape::rows(&[std::slice::from_ref(&choice), dims].concat());
    let made = Value { text: "each_first".into(), shape: of_choices(&between), most: 20.0, index_of: None };
    body.values.push(made.clone());
    if body.random().percent(40) {
        let shape = of_choices(&[]);
        body.values.push(Value { text: "weights(r)".into(), shape: shape.clone(), most: 3.0, index_of: None });
        let shape = Shape { kind: Kind::I32, ..shape };
        body.values.push(Value { text: "indices(r)".into(), shape, most: 8.0, index_of: None });
    }
    let combined = match body.random().below(4) {
        0 => {
            let rows = body.coerced(made, &of_choices(&embedding));
            format!("combine(r, {})", rows.text)
        }
        // What was made of a choice goes to its expert in another bank; of the same route, or of another.
        form => {
            for _ in 0..body.random().below(3) {
                body.grow();
            }
            let rows = body.coerced(made, &of_choices(&between));
            let second = members(body.generator, &between, &embedding, experts);
            body.line(format!("part second = bank {{ {second} }}"));
            let again = "combine(r, each(r, second, after))";
            body.line(format!("let after = {}", rows.text));
            match form {
                1 if between == embedding => {
                    let (other, _) = gate(body.generator, experts);
                    body.line(format!("part other = {other}"));
                    body.line("let q = other(x + 0.5)".into());
                    format!("{again} + combine(q, each(q, first, tanh(x)))")
                }
                2 => format!("{again} + 0.5 * combine(r, each(r, second, each(r, first, x)))"),
                _ => again.to_owned(),
            }
        }
    };
    body.line(format!("let y = {combined}"));
    let mut lines = std::mem::take(&mut body.lines);
    lines.push(if generator.random.percent(50) { "out y".into() } else { "out 0.5 * tanh(y) + 0.25 * x".into() });
    lines
}

/// Routes of the other shapes, as values.
fn by_shape(generator: &mut Generator) -> Vec<String> {
    let (embedding, experts) = (generator.embedding(), generator.random.within(1, 4));
    let (gate, one_kind) = shapes::gate(generator, &embedding, experts, &format!("E = {experts}"));
    let bank = match one_kind {
        true => format!("{} × {experts}", expert(generator, &embedding)),
        false => members(generator, &embedding, &embedding, experts),
    };
    let between = *generator.random.pick(&["made", "tanh(made)", "made * 0.5"]);
    vec![
        format!("part choose = {gate}"),
        format!("part experts = bank {{ {bank} }}"),
        "let r = choose(x)".into(),
        "let made = each(r, experts, x)".into(),
        format!("out combine(r, {between}) + 0.5 * x"),
    ]
}
