//! A gate that nobody has published (`examples/gates/grouped_softplus.moe`): one fused routing function in the object code,
//! and the oracle's choices over many rows, ties and NaN among them.

use std::process::Command;

use moec_cpu::Level;
use moec_diag::SourceMap;
use moec_interpreter::{Packing, Weights};
use moec_ir::{Module, ParamId as ModelParam};
use moec_oracle::{MemoryWeights, Session as Oracle, Tensor, Trace};
use moec_plan::{Node, ParamId, Plan, StepKind};
use moec_sema::Settings;

use crate::{
    from_oracle::FromOracle,
    host::{Library, Session, levels},
};

const WIDTH: usize = 8;
const ROWS: usize = 100_000;

/// The example, narrow; its gate as it stands, with 37 experts of which 5 are chosen.
fn module() -> Module {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/gates/grouped_softplus.moe");
    let text = std::fs::read_to_string(path).expect("the example is there");
    let mut sources = SourceMap::default();
    let (tree, problems) = moec_syntax::parse(&mut sources, path, &text);
    assert!(problems.is_empty(), "{problems:?}");
    let overrides = [("D", WIDTH.to_string()), ("F", "2".to_owned())].map(|(name, value)| (name.to_owned(), value));
    let settings = Settings { overrides: overrides.to_vec(), ..Settings::default() };
    let (checked, problems) = moec_sema::check(&mut sources, &tree.expect("no problems"), &settings);
    assert!(problems.is_empty(), "{problems:?}");
    checked.expect("no problems").module
}

fn fused(module: &Module) -> Plan {
    let (fused, _) = moec_passes::run(module.clone(), &moec_passes::Options::default());
    moec_lower::lower(&fused).expect("it lowers")
}

/// Halves from -1 to 1: sums of products of them are exact, so equal scores are equal in whatever order they are summed.
fn halves(seed: usize, at: usize) -> f32 {
    let mixed = ((at * 37 + seed) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33;
    (mixed % 5) as f32 / 2.0 - 1.0
}

/// Expert 7 scores as expert 3 does in every row, expert 30 as expert 29, and expert 11 is never a number.
fn weights(module: &Module) -> MemoryWeights {
    let mut weights = MemoryWeights::default();
    for (number, param) in module.params.iter().enumerate() {
        let axes: Vec<_> =
            param.ty.dims.iter().map(|dim| (dim.axis.clone(), dim.size.fixed().unwrap() as usize)).collect();
        let elements: usize = axes.iter().map(|(_, size)| size).product();
        for expert in 0..param.experts.map_or(1, |experts| experts.count) {
            let mut data: Vec<f32> = (0..elements).map(|at| halves(number * 64 + expert as usize, at)).collect();
            match param.path.as_str() {
                "ffn.gate.W" => {
                    data.copy_within(3 * WIDTH..4 * WIDTH, 7 * WIDTH);
                    data.copy_within(29 * WIDTH..30 * WIDTH, 30 * WIDTH);
                }
                "ffn.gate.bias" => {
                    data.fill(0.0);
                    data[11] = f32::NAN;
                }
                _ => {}
            }
            weights.insert(ModelParam(number as u32), 0, expert, Tensor::new(axes.clone(), data));
        }
    }
    weights
}

#[test]
fn it_is_one_routing_function() {
    let plan = fused(&module());
    let words: Vec<&str> = plan
        .body
        .iter()
        .map(|node| match node {
            Node::Step(step) => step.kind.name(),
            Node::Layers(_) => "layers",
        })
        .collect();
    // The router, the order of the slots, the experts' two products, and the residual sum.
    assert_eq!(words, ["rows", "bin", "grouped_gemm", "grouped_gemm", "rows"]);
    let Node::Step(router) = &plan.body[0] else { panic!("a step") };
    assert!(matches!(router.kind, StepKind::Rows { .. }));

    let object = moec_cpu::object(&plan, Level::Scalar, &|_| None).expect("a supported plan");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gate.o");
    std::fs::write(&path, &object.bytes).expect("written");
    let symbols = Command::new("nm").arg(&path).output().expect("nm");
    let symbols = String::from_utf8_lossy(&symbols.stdout).into_owned();
    let routing: Vec<&str> = symbols.lines().filter(|line| line.contains("ffn_gate_W")).collect();
    assert_eq!(routing.len(), 1, "{routing:?}");
}

#[test]
fn it_chooses_as_the_oracle_over_many_rows() {
    let module = module();
    let weights = weights(&module);
    let mut x: Vec<f32> = (0..ROWS * WIDTH).map(|at| halves(1, at)).collect();
    // Some rows are no numbers at all, some in one place, some nothing but ties.
    for row in (0..ROWS).step_by(97) {
        match row % 3 {
            0 => x[row * WIDTH..(row + 1) * WIDTH].fill(f32::NAN),
            1 => x[row * WIDTH + row % WIDTH] = f32::NAN,
            _ => x[row * WIDTH..(row + 1) * WIDTH].fill(0.0),
        }
    }
    let mut trace = Trace::default();
    let input = Tensor::named(&[("S", ROWS), ("D", WIDTH)], x.clone());
    Oracle::new(&module, &weights).run(&[("x", input)], Some(&mut trace)).expect("the oracle runs");
    let expected = &trace.routes[0];
    let tied = expected.weights.chunks(5).filter(|row| row.windows(2).any(|pair| pair[0] == pair[1])).count();
    assert!(tied > 1000, "ties are among the rows: {tied}");

    let plan = fused(&module);
    let from_oracle = FromOracle(&weights);
    let packing = &Packing { plan: &plan, instances: &from_oracle };
    let packed: Vec<Vec<f64>> = (0..plan.params.len() as u32)
        .map(|at| {
            (0..plan.param(ParamId(at)).experts).flat_map(|expert| packing.packed(ParamId(at), 0, expert)).collect()
        })
        .collect();
    let rows = vec![x.iter().map(|value| f64::from(*value)).collect()];
    for level in levels() {
        let library = Library::new(&plan, level);
        let mut session = Session::new(&plan, &packed, ROWS as u64, ROWS as u64, 2);
        session.run(&library, &rows, ROWS as u64, 0);
        let found = &session.traced[0];
        for (row, (want, got)) in expected.indices.chunks(5).zip(found.indices.chunks(5)).enumerate() {
            assert_eq!(want, got, "{level:?}, row {row}");
        }
        for (at, (want, got)) in expected.weights.iter().zip(&found.weights).enumerate() {
            let close = (want - got).abs() <= 1e-5 || want.is_nan() && got.is_nan();
            assert!(close, "{level:?}, row {}: {want}, not {got}", at / 5);
        }
    }
}
