//! Attention over cached keys and values: what the template in kernels/cuda/attention.cuh asks of a step.

use std::fmt::Write;

use moec_plan::{Attention, Plan, Rows, View};

use crate::{
    expr::{self, storage_type},
    launch::{Kernel, instance},
    place::{self, Seen},
};

pub fn kernel(plan: &Plan, name: &str, attention: &Attention) -> Kernel {
    let Attention { groups, queries, width, values, causal, .. } = *attention;
    let mut text =
        format!("  static constexpr int GROUPS = {groups}, QUERIES = {queries}, WIDTH = {width}, VALUES = {values};\n");
    let window = attention.window.unwrap_or(0);
    let sink = attention.sink.is_some();
    let _ = writeln!(text, "  static constexpr bool CAUSAL = {causal}, SINK = {sink};");
    let _ = writeln!(text, "  static constexpr i64 WINDOW = {window}ll;");
    let [key, value] = [attention.k, attention.v].map(|id| storage_type(plan.buffer(id).dtype));
    let _ = writeln!(text, "  using Key = {key};\n  using Value = {value};");
    let [first, end] = place::range(attention.rows);
    let keys = match attention.keys_of {
        None => "pass.past + pass.tokens".to_owned(),
        Some(sequence) => format!("pass.pasts[{sequence}]"),
    };
    let mut function = |result: &str, rest: &str, body: &str| {
        let _ = writeln!(text, "  static MOEC_DEVICE {result}{rest} {{\n    {body}\n  }}");
    };
    function("i64 ", "first(const Pass &pass)", &format!("return {first};"));
    function("i64 ", "end(const Pass &pass)", &format!("return {end};"));
    function("i64 ", "position(const Pass &pass, i64 row)", "return pass.past + row;");
    function("i64 ", "keys(const Pass &pass)", &format!("return {keys};"));
    let row = |id| format!("return {} + row * {}ll;", place::elements(plan, id), plan.buffer(id).row);
    function("const float *", "q(const Pass &pass, int rank, i64 row)", &row(attention.q));
    function("float *", "out(const Pass &pass, int rank, i64 row)", &row(attention.out));
    let start = |id| format!("return {};", place::elements(plan, id));
    function("const Key *", "k(const Pass &pass, int rank)", &start(attention.k));
    function("const Value *", "v(const Pass &pass, int rank)", &start(attention.v));

    let seen = Seen { plan, rows: Rows::ONE, part: "0ll", expert: None, locals: &[] };
    let head = ["group", "query", "place"].map(str::to_owned);
    let extras = attention.extras.iter().map(|view| seen.read(view, &head[..2]));
    let ends = ["dot", "query_position", "key_position"].map(str::to_owned);
    let mut args: Vec<String> = ends.iter().cloned().chain(extras).collect();
    let without_keys = args.clone();
    let mut body = String::new();
    for (at, lookup) in attention.lookups.iter().enumerate() {
        let view = View { strides: [&lookup.view.strides[..], &[lookup.stride]].concat(), ..lookup.view.clone() };
        let place = expr::print(&lookup.index, &ends);
        let read = seen.read(&view, &head);
        let _ = write!(body, "float looked_{at}; {{ const i64 place = {place}; looked_{at} = {read}; }}\n    ");
        args.push(format!("looked_{at}"));
    }
    let _ = write!(body, "return {};", expr::print(&attention.score, &args));
    let given = "const Pass &pass, int rank, int group, int query";
    let positions = "float dot, int query_position, int key_position";
    function("float ", &format!("score({given}, {positions})"), &body);
    let none = "const float dot = 0.0f; const int query_position = 0, key_position = 0; (void)dot; (void)query_position; (void)key_position;";
    let sink = attention.sink.as_ref().map_or("-infinity()".to_owned(), |sink| expr::print(sink, &without_keys));
    function("float ", &format!("sink({given})"), &format!("{none}\n    return {sink};"));
    instance("Attention", name, &text, attention.rows)
}
