//! Blocks that go from position to position with states of their own.

use super::{
    Generator,
    body::{Body, Dim, Kind, Place, Shape, Value},
};

/// A new block over rows of `D`.
pub fn block(generator: &mut Generator) -> String {
    let embedding = generator.embedding();
    let name = generator.name("scanned");
    let x = Value { text: "x".into(), shape: Shape::rows(&embedding), most: 4.0, index_of: None };
    let mut body = Body::new(generator, Place::Tokens, vec![x]);
    for _ in 0..body.random().below(5) {
        body.grow();
    }
    let states: Vec<State> = (0..body.random().within(1, 3)).map(|_| state(&mut body)).collect();
    let outside = std::mem::take(&mut body.lines);
    body.place = Place::Scan;
    // What names the axis must stand outside.
    body.values.retain(|value| !value.text.contains("over S"));
    for state in &states {
        body.line(state.declared.clone());
        body.values.push(state.value.clone());
    }
    if body.random().percent(30) {
        let shape = Shape { kind: Kind::I32, rows: true, dims: Vec::new() };
        body.values.push(Value { text: "S".into(), shape, most: 32.0, index_of: None });
    }
    for state in &states {
        for _ in 0..body.random().below(4) {
            body.grow();
        }
        let next = state.next(&mut body);
        body.line(next);
    }
    for _ in 0..body.random().below(3) {
        body.grow();
    }
    let result = match body.random().percent(50) {
        true => body.coerced(states[0].value.clone(), &Shape::rows(&embedding)),
        false => body.finish(&Shape::rows(&embedding)),
    };
    // A second result comes beside the first.
    let second = body.random().percent(20).then(|| body.finish(&Shape::rows(&[])));
    let inside = std::mem::take(&mut body.lines);
    let mut lines = outside;
    let (head, out, end) = match second {
        None => ("let y = scan over S {", result.text, "out y"),
        Some(second) => {
            ("let (y, z) = scan over S {", format!("({}, {})", result.text, second.text), "out y + 0.1 * z")
        }
    };
    lines.push(head.to_owned());
    lines.extend(inside.into_iter().map(|line| format!("  {line}")));
    lines.extend([format!("  out {out}"), "}".to_owned()]);
    generator.define(&format!("block {name}"), &lines, end);
    name
}

struct State {
    declared: String,
    value: Value,
}

/// A state over some axes of what is there, and a new one; beginning as a number, or as a parameter over some of them.
fn state(body: &mut Body) -> State {
    let name = body.generator.name("state");
    if body.random().percent(12) {
        let value = Value { text: name.clone(), shape: Shape::rows(&[]), most: 6.0, index_of: None };
        return State { declared: format!("state {name} = 2"), value };
    }
    let of = body.find(|value| !value.shape.dims.is_empty() && value.shape.dims.iter().all(|dim| dim.axis != "K"));
    let mut dims: Vec<Dim> = of.map_or_else(Vec::new, |value| value.shape.dims);
    if dims.is_empty() || dims.iter().map(|dim| dim.size).product::<u64>() <= 20 && body.random().percent(40) {
        let size = body.random().within(1, 4);
        dims.push(body.generator.new_axis(size));
    }
    body.random().shuffle(&mut dims);
    let first = match body.random().below(4) {
        0 => body.param(&dims).text,
        1 => body.param(&dims[..1]).text,
        _ => (*body.random().pick(&["0.0", "0.5", "-1.0"])).to_owned(),
    };
    let axes: Vec<String> = dims.iter().map(|dim| format!("{} = {}", dim.axis, dim.size)).collect();
    let value = Value { text: name.clone(), shape: Shape::rows(&dims), most: 6.0, index_of: None };
    State { declared: format!("state {name}[{}] = {first}", axes.join(", ")), value }
}

impl State {
    /// The statement that gives it its next value, which stays small.
    fn next(&self, body: &mut Body) -> String {
        let name = &self.value.text;
        let other = body.finish(&self.value.shape);
        let next = match body.random().below(4) {
            0 => format!("0.5 * {name} + 0.25 * tanh({})", other.text),
            1 => format!("tanh({name} + {})", other.text),
            2 => format!("clamp({name} + {}, -2.0, 2.0)", other.text),
            _ => format!("{name} * 0.9 + {} * 0.1", other.text),
        };
        format!("{name} = {next}")
    }
}
