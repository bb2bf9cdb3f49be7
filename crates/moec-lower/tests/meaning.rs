//! Lowering by meaning: the plan, interpreted, gives the oracle's numbers — with all passes, and with each left out.

#[path = "../../../tests/from_oracle.rs"]
mod from_oracle;

use std::{collections::BTreeSet, path::Path};

use from_oracle::FromOracle;
use moec_diag::SourceMap;
use moec_interpreter::{Machine, Packing};
use moec_ir::Module;
use moec_oracle::{RandomWeights, Session, Tensor, Trace};
use moec_plan::Plan;
use moec_sema::Settings;
use moec_types::DType;

/// Rounding differs between the two only in the order of sums and in f32 against f64.
const TOLERANCE: f64 = 2e-4;

/// A softmax over the keys cannot be lowered unfused (docs/decisions/0001).
const NEEDED: &str = "fuse-attention";

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn module(spec: &str, config: Option<&str>) -> Module {
    let path = root().join(spec);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut sources = SourceMap::default();
    let (tree, problems) = moec_syntax::parse(&mut sources, spec, &text);
    assert!(problems.is_empty(), "{problems:?}");
    let config = config.map(|config| {
        let text = std::fs::read_to_string(root().join(config)).expect("a test's config is there");
        serde_json::from_str(&text).expect("a test's config is JSON")
    });
    let settings = Settings { config, ..Settings::default() };
    let (checked, problems) = moec_sema::check(&mut sources, &tree.expect("no problems"), &settings);
    assert!(problems.is_empty(), "{problems:?}");
    checked.expect("no problems").module
}

fn lowered(module: &Module, without: Option<&str>) -> Plan {
    let disabled: BTreeSet<String> = without.map(str::to_owned).into_iter().collect();
    let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options { disabled });
    let plan = moec_lower::lower(&fused).unwrap_or_else(|error| panic!("without {without:?}: {error}"));
    let text = plan.to_string();
    let again = moec_plan::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(again.to_string(), text, "a plan's text reads back");
    plan
}

/// Rows of a model's only input for some positions: token ids, or numbers in -1 .. 1.
fn input(module: &Module, plan: &Plan, positions: &[i32]) -> (Tensor, Vec<f64>) {
    let ty = module.tensor(module.inputs[0].value);
    if ty.dtype == DType::I32 {
        let limit = plan.inputs[0].index_limit.expect("ids look up a table") as i32;
        let ids: Vec<i32> = positions.iter().map(|id| id % limit).collect();
        let cells = ids.iter().map(|id| f64::from(*id)).collect();
        return (Tensor::named(&[("S", ids.len())], ids), cells);
    }
    let width = plan.buffer(plan.inputs[0].buffer).row as usize;
    let value = |at: usize| ((positions[at / width] as usize * 131 + at * 7919) % 1009) as f32 / 504.5 - 1.0;
    let values: Vec<f32> = (0..positions.len() * width).map(value).collect();
    let cells = values.iter().map(|value| f64::from(*value)).collect();
    (Tensor::named(&[("S", positions.len()), ("D", width)], values), cells)
}

/// The first pass whole, then two more on top of it: outputs of every position, and the routes.
fn compare(module: &Module, plan: &Plan, what: &str) {
    let weights = RandomWeights::new(module, 11);
    let from_oracle = FromOracle(&weights);
    let mut session = Session::new(module, &weights);
    let packing = Packing { plan, instances: &from_oracle };
    let mut machine = Machine::new(plan, &packing, 7, 20);
    let name = module.inputs[0].name.as_str();
    for (pass, positions) in [&[5, 3, 9, 3, 1, 0, 8][..], &[2], &[7, 7, 6]].into_iter().enumerate() {
        let (tensor, cells) = input(module, plan, positions);
        let mut trace = Trace::default();
        let expected = session.run(&[(name, tensor)], Some(&mut trace)).expect("the oracle runs");
        let first = positions.len() as u64 / 2;
        let found = machine.run(vec![cells], positions.len() as u64, first);
        for (route, (indices, _)) in trace.routes.iter().zip(&found.routes) {
            assert_eq!(&route.indices, indices, "{what}, pass {pass}, {}", route.label);
        }
        assert_eq!(trace.routes.len(), found.routes.len(), "{what}: routes");
        for ((name, tensor), rows) in expected.iter().zip(&found.outputs) {
            let skipped = first as usize * (rows.len() / positions.len());
            for (at, (want, got)) in tensor.f32().iter().zip(rows).enumerate().skip(skipped) {
                let near = (f64::from(*want) - got).abs() <= TOLERANCE * (1.0 + f64::from(want.abs()));
                assert!(near, "{what}, pass {pass}, {name}[{at}]: {want} is wanted, found {got}");
            }
            assert!(rows[..skipped].iter().all(|value| value.is_nan()), "rows not asked for are left alone");
        }
    }
}

fn all_ways(spec: &str, config: &str) {
    with_every_pass_left_out(&module(spec, Some(config)), config);
}

fn with_every_pass_left_out(module: &Module, what: &str) {
    compare(module, &lowered(module, None), what);
    for pass in moec_passes::pipeline().iter().filter(|pass| pass.name != NEEDED) {
        compare(module, &lowered(module, Some(pass.name)), &format!("{what} without {}", pass.name));
    }
}

#[test]
fn gates_and_banks_lower() {
    let folder = std::fs::read_dir(root().join("examples/gates")).expect("the gates are there");
    let mut specs: Vec<_> = folder.map(|entry| entry.expect("a readable folder").file_name()).collect();
    specs.sort();
    for name in specs.iter().filter_map(|name| name.to_str()) {
        with_every_pass_left_out(&module(&format!("examples/gates/{name}"), None), name);
    }
}

#[test]
fn mixtral_lowers() {
    all_ways("examples/families/mixtral.moe", "tests/data/oracles/mixtral/config.json");
}

#[test]
fn a_window_and_tied_tables_lower() {
    all_ways("examples/families/mixtral.moe", "tests/data/oracles/mixtral-swa/config.json");
    all_ways("examples/families/mixtral.moe", "tests/data/oracles/mixtral-tied/config.json");
}

#[test]
fn olmoe_lowers() {
    all_ways("examples/families/olmoe.moe", "tests/data/oracles/olmoe/config.json");
    all_ways("examples/families/olmoe.moe", "tests/data/oracles/olmoe-clip/config.json");
}

#[test]
fn qwen2_moe_lowers() {
    all_ways("examples/families/qwen2_moe.moe", "tests/data/oracles/qwen2_moe/config.json");
}

#[test]
fn qwen3_moe_lowers() {
    all_ways("examples/families/qwen3_moe.moe", "tests/data/oracles/qwen3_moe/config.json");
}
