//! GEMMs, plain and grouped by expert: what the template in kernels/cuda/gemm.cuh asks of a step.

use std::fmt::Write;

use moec_plan::{BufferId, Format, Gemm, Home, Layout, ParamId, Plan, Store};
use moec_types::DType;

use crate::{
    expr,
    launch::{Counted, Instances, Kernel, Sessions, Taken, Ways, instances},
    place::{self, Seen},
};

pub fn kernel(plan: &Plan, name: &str, gemm: &Gemm, wanted: Ways) -> Kernel {
    let Sizes { k, n, branches } = Sizes::of(plan, gemm.weights);
    let param = plan.param(gemm.weights);
    let grouped = gemm.group.as_ref();
    let choices = grouped.and_then(|group| match group.store {
        Store::Slots => None,
        Store::Choices { weights } => Some(weights),
    });
    let all_experts = grouped.map_or(0, |group| plan.buffer(group.offsets).row - 1);
    let mut text = format!(
        "  static constexpr int K = {k}, N = {n}, BRANCHES = {branches}, BATCH = {};\n  using Weights = {};\n",
        gemm.batch,
        weights(param.storage, k)
    );
    let _ = writeln!(
        text,
        "  static constexpr bool GROUPED = {}, STORE_CHOICES = {};\n  static constexpr int EXPERTS = {}, FIRST = {}, ALL_EXPERTS = {all_experts};",
        grouped.is_some(),
        choices.is_some(),
        param.experts,
        grouped.map_or(0, |group| group.first),
    );
    let [first, end] = place::range(gemm.rows);
    let function = |text: &mut String, result: &str, rest: &str, body: &str| {
        let _ = writeln!(text, "  static MOEC_DEVICE {result} {rest} {{\n    {body}\n  }}");
    };
    function(&mut text, "i64", "first(const Pass &pass)", &format!("return {first} * {};", gemm.batch));
    function(&mut text, "i64", "end(const Pass &pass)", &format!("return {end} * {};", gemm.batch));
    let offsets = grouped.map_or("0".to_owned(), |group| place::elements(plan, group.offsets));
    function(&mut text, "const int *", "offsets(const Pass &pass, int rank)", &format!("return {offsets};"));
    let a = a(plan, gemm, k);
    function(&mut text, "const float *", "a(const Pass &pass, int rank, i64 row)", &a);
    let panels = place::param(plan, gemm.weights, Some("expert"));
    let given = "weights(const Pass &pass, int rank, int expert)";
    function(&mut text, "const char *", given, &format!("return {panels};"));
    let given =
        format!("store(const Pass &pass, int rank, int expert, i64 row, int n, const float (&sums)[{branches}])");
    function(&mut text, "void", &given, &store(plan, gemm, choices, n, branches));
    let given = "store_zero(const Pass &pass, int rank, i64 row, int n)";
    let zero = choices.map_or(String::new(), |_| target(plan, gemm, To::Choice, n, "0.0f"));
    function(&mut text, "void", given, &zero);
    let counted = Counted { rows: gemm.rows, each: gemm.batch, sessions: Sessions::Alike };
    let is_wide = param.storage == Format::Pairs && branches <= 2 && k * n >= LEAST_WIDE;
    let ways = match wanted {
        Ways::All => ways(grouped.map(|_| all_experts), is_wide),
        Ways::Last => Vec::new(),
    };
    let any = Instances::one("Gemm", &[], Taken::ALWAYS);
    instances(name, &text, counted, ways.into_iter().chain([any]).collect())
}

/// Elements of a matrix for which kernels of warpgroups are worth their code.
const LEAST_WIDE: u64 = 1 << 16;

/// Besides the way for any rows: a block for each panel where there are few, warpgroups where there are many. Of a grouped step,
/// rows are taken to be spread over all experts. (Where one gives way to another is a guess that no measurement stands behind.)
fn ways(experts: Option<u64>, is_wide: bool) -> Vec<Instances> {
    let each = experts.unwrap_or(1).max(1);
    let few = if experts.is_some() { 4 * each } else { 8 };
    let mut ways = vec![Instances::one("GemmFew", &[], Taken::up_to(few))];
    if is_wide {
        let wide =
            |sizes: &[u64], least| Instances { hopper: true, ..Instances::one("GemmWide", sizes, Taken::from(least)) };
        ways.push(wide(&[], 96 * each));
        if experts.is_some() {
            ways.push(wide(&[32], 16 * each));
        }
    }
    ways
}

/// The sizes of the matrix.
pub struct Sizes {
    pub k: u64,
    pub n: u64,
    pub branches: u32,
}

impl Sizes {
    pub fn of(plan: &Plan, id: ParamId) -> Self {
        let Layout::Panels { k, n, branches } = plan.param(id).layout else { unreachable!("checked before") };
        Sizes { k, n, branches }
    }
}

/// How panels are read: kernels/cuda/storage.cuh.
fn weights(format: Format, k: u64) -> String {
    let store = match format {
        Format::Each(DType::F32) => "F32",
        Format::Each(DType::Bf16) => "Bf16",
        Format::Each(DType::F16) => "F16",
        Format::Each(DType::I32 | DType::Bool) => unreachable!("checked before"),
        Format::Pairs => "Pairs",
        Format::Int8 => "Int8",
        Format::Int4 { .. } => "Int4",
        Format::Mxfp4 => "Mxfp4",
        Format::Fp8 { .. } => "Fp8",
    };
    let group = match format {
        Format::Each(_) | Format::Pairs | Format::Int8 => 0,
        Format::Int4 { .. } | Format::Mxfp4 | Format::Fp8 { .. } => format.group(k),
    };
    format!("Panels<Store_{store}, K, BRANCHES, {group}>")
}

fn order(plan: &Plan, gemm: &Gemm) -> String {
    gemm.group.as_ref().map_or(String::new(), |group| place::elements(plan, group.order))
}

/// Where a matrix row of `a` starts.
fn a(plan: &Plan, gemm: &Gemm, k: u64) -> String {
    let pointer = place::elements(plan, gemm.a);
    let row = match &gemm.group {
        Some(group) if group.gather => {
            let (order, batch) = (order(plan, gemm), gemm.batch);
            format!("((i64)({order}[row / {batch}] / {}) * {batch} + row % {batch})", group.choices)
        }
        Some(_) | None => "row".to_owned(),
    };
    format!("return {pointer} + {row} * {k}ll;")
}

fn store(plan: &Plan, gemm: &Gemm, choices: Option<BufferId>, n: u64, branches: u32) -> String {
    let expert = gemm.group.as_ref().map(|_| "expert");
    // Extras count matrix rows, of which a step's row has as many as the batch.
    let seen = Seen { plan, part: "row", expert, locals: &[] };
    let column = ["n".to_owned()];
    let sums = (0..branches).map(|branch| format!("sums[{branch}]"));
    let args: Vec<String> = sums.chain(gemm.extras.iter().map(|view| seen.read(view, &column))).collect();
    let value = expr::print(&gemm.epilogue, &args);
    match choices {
        None => target(plan, gemm, To::Row, n, &value),
        Some(weights) => {
            let (order, batch) = (order(plan, gemm), gemm.batch);
            let weight = format!("{}[{order}[row / {batch}]]", place::elements(plan, weights));
            target(plan, gemm, To::Choice, n, &format!("op_mul({value}, {weight})"))
        }
    }
}

/// Where a matrix row's results go.
enum To {
    Row,
    /// To that of its slot's choice.
    Choice,
}

/// Writes `value` to column n.
fn target(plan: &Plan, gemm: &Gemm, to: To, n: u64, value: &str) -> String {
    let batch = gemm.batch;
    let row = match to {
        To::Choice => format!("((i64){}[row / {batch}] * {batch} + row % {batch})", order(plan, gemm)),
        To::Row => "row".to_owned(),
    };
    match plan.buffer(gemm.out).home {
        Home::Cache { .. } => {
            let element = format!("({row} % {batch}) * {n} + n");
            let position = format!("{row} / {batch}");
            format!("write({}, {value});", place::of_row(plan, gemm.out, &position, &element))
        }
        Home::Input(_) | Home::Output(_) | Home::Workspace { .. } | Home::State { .. } => {
            format!("write({}[{row} * {n}ll + n], {value});", place::elements(plan, gemm.out))
        }
    }
}
