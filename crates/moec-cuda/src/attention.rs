//! Attention over cached keys and values: what the template in kernels/cuda/attention.cuh asks of a step.

use std::fmt::Write;

use moec_plan::{Attention, BufferId, PAGE, Plan, View};

use crate::{
    expr::{self, storage_type},
    launch::{Counted, Instances, Kernel, Sessions, Taken, Ways, instances},
    place::{self, Seen},
};

pub fn kernel(plan: &Plan, name: &str, attention: &Attention, wanted: Ways) -> Kernel {
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
        None => "segment.past + segment.tokens".to_owned(),
        Some(sequence) => format!("segment.pasts[{sequence}]"),
    };
    let mut function = |result: &str, rest: &str, body: &str| {
        let _ = writeln!(text, "  static MOEC_DEVICE {result}{rest} {{\n    {body}\n  }}");
    };
    function("i64 ", "first(const Pass &pass)", &format!("return {first};"));
    function("i64 ", "end(const Pass &pass)", &format!("return {end};"));
    function("i64 ", "keys(const Pass &pass, const Segment &segment)", &format!("return {keys};"));
    let row = |id| format!("return {} + row * {}ll;", place::elements(plan, id), plan.buffer(id).row);
    function("const float *", "q(const Pass &pass, int rank, i64 row)", &row(attention.q));
    function("float *", "out(const Pass &pass, int rank, i64 row)", &row(attention.out));
    let given = "(const Pass &pass, int rank, const Segment &segment, i64 position)";
    let in_page = |id: BufferId| {
        let (dtype, start) = (storage_type(plan.buffer(id).dtype), place::start_in_page(plan, id));
        let within = format!("position % {PAGE} * {}ll", plan.buffer(id).row);
        format!("return ({dtype} *)(segment.pages[position / {PAGE}] + {start}) + {within};")
    };
    function("const Key *", &format!("k{given}"), &in_page(attention.k));
    function("const Value *", &format!("v{given}"), &in_page(attention.v));

    let seen = Seen { plan, part: "0ll", expert: None, locals: &[] };
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
    let counted = Counted { rows: attention.rows, each: 1, sessions: Sessions::Apart };
    let any = Instances::one("Attention", &[], Taken::ALWAYS);
    let (ways, scratch_bytes) = match wanted {
        Ways::All => ways(attention),
        Ways::Last => (Vec::new(), 0),
    };
    Kernel { scratch_bytes, ..instances(name, &text, counted, ways.into_iter().chain([any]).collect()) }
}

/// Rows of the tiles for few positions.
const FEW: u64 = 16;

/// Blocks that run at once, about.
const BLOCKS: u64 = 132;

/// Besides the way for any rows: keys split over blocks where rows are so few that blocks are missing, and small tiles where
/// sessions have few rows each. And the scratch that the first needs.
fn ways(attention: &Attention) -> (Vec<Instances>, u64) {
    let Attention { groups, queries, values, window, .. } = *attention;
    let heads = groups * queries.div_ceil(FEW);
    let (rows, splits) = (BLOCKS / heads, if heads >= 8 { 16 } else { 32 });
    // A short window has no keys to split.
    let is_split = rows > 0 && window.is_none_or(|window| window > 8 * PAGE);
    let split = is_split.then(|| Instances {
        chain: vec![("Attention", vec![FEW, splits]), ("AttentionEnd", vec![FEW, splits])],
        taken: Taken::up_to(rows),
        hopper: false,
    });
    // Tiles are small anyway where values are wide.
    let few = (values <= 256).then(|| {
        let of_tile = Taken { of_session: true, ..Taken::up_to((FEW / queries).max(1)) };
        Instances::one("Attention", &[FEW], of_tile)
    });
    let partials = if is_split { rows * heads * splits * FEW * (values + 2) * 4 } else { 0 };
    (split.into_iter().chain(few).collect(), partials)
}
