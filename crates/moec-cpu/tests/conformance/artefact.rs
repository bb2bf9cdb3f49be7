//! A whole library: entry, passes of all levels, run time, header and weight file, used by a C program.

use std::{borrow::Cow, error::Error, fmt::Write, fs, path::Path, process::Command};

use moec_codegen::{Backend, Instance, Instances, Values, header, link, write_weights};
use moec_cpu::{Cpu, Level, Marks};
use moec_interpreter::Machine;
use moec_plan::{Gemm, Indirect, Layout, RowOp, Rows, Source, StepKind, View};
use moec_types::DType;

use crate::{
    build::{Building, arg, fixed, mul, row, rows, silu, view},
    host::levels,
};

const LIMIT: u64 = 9;
const WIDTH: u64 = 24;
const HIDDEN: u64 = 40;
const VOCAB: u64 = 33;

/// The values of a [`Building`], as tensors `[n, k]`.
struct Given<'a>(&'a Building);

impl Instances for Given<'_> {
    fn load(&self, param: u32, layer: u32, expert: u32) -> Result<Instance<'_>, Box<dyn Error + Send + Sync>> {
        let Building { plan, weights, .. } = self.0;
        let (place, branch) = (param as usize / 10, param as usize % 10);
        let packed = &plan.params[place];
        let axes = match packed.layout {
            Layout::Plain { elements } => vec![("N".to_owned(), elements)],
            Layout::Panels { k, n, .. } => vec![("N".to_owned(), n), ("K".to_owned(), k)],
        };
        let size = axes.iter().map(|(_, size)| *size as usize).product::<usize>();
        let instance = (layer * packed.experts + expert) as usize;
        let start = (instance * packed.sources.len() + branch) * size;
        let values = weights[place][start..start + size].iter().map(|value| *value as f32).collect();
        Ok(Instance { axes, values: Values::F32(Cow::Owned(values)) })
    }
}

/// Embedding, a gated product, an output.
fn model() -> Building {
    let mut b = Building::new(77);
    let ids = b.input(DType::I32, Rows::Tokens, 1);
    b.plan.inputs[0].index_limit = Some(LIMIT);
    let table = b.param(Layout::Plain { elements: LIMIT * WIDTH }, DType::F32, 1, 1);
    let wide = b.param(Layout::Panels { k: WIDTH, n: HIDDEN, branches: 2 }, DType::Bf16, 1, 1);
    let head = b.param(Layout::Panels { k: HIDDEN, n: VOCAB, branches: 1 }, DType::F32, 1, 1);
    let embedded = b.workspace(DType::F32, Rows::Tokens, WIDTH);
    let hidden = b.workspace(DType::F32, Rows::Tokens, HIDDEN);
    let logits = b.output(DType::F32, Rows::Tokens, VOCAB);
    let looked_up = View {
        index: Some(Box::new(Indirect { view: row(ids, &[0]), stride: WIDTH })),
        ..view(Source::Param(table), 0, &[1])
    };
    let embed = RowOp::Map { extents: fixed(&[WIDTH]), expr: arg(0), args: vec![looked_up], into: row(embedded, &[1]) };
    b.step(rows(Rows::Tokens, vec![embed]));
    let gemm = |rows, a, weights, epilogue, out| {
        StepKind::Gemm(Gemm { rows, batch: 1, a, weights, epilogue, extras: vec![], out, group: None })
    };
    b.step(gemm(Rows::Tokens, embedded, wide, mul(silu(arg(0)), arg(1)), hidden));
    b.step(gemm(Rows::Outputs, hidden, head, arg(0), logits));
    for (place, param) in b.plan.params.iter_mut().enumerate() {
        let plain = matches!(param.layout, Layout::Plain { .. });
        for (branch, source) in param.sources.iter_mut().enumerate() {
            source.param = (place * 10 + branch) as u32;
            source.columns.truncate(usize::from(!plain));
        }
    }
    b
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, said[1]);
    said[0].clone()
}

#[test]
fn a_c_program_uses_it() {
    let b = model();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let objects = Cpu { levels: Level::ALL.to_vec(), image: None, marks: Marks::Routes }.emit(&b.plan).unwrap();
    link(&objects, "test", folder.path()).unwrap();
    write_weights(&b.plan, &Given(&b), &path("test.weights"), &mut |_, _| ()).unwrap();
    fs::write(path("test.h"), header(&b.plan).unwrap()).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/artefact.c");
    let flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-I.", "-o", "program"];
    run(Command::new("cc").args(flags).arg(source).args(["libtest.a", "-lm", "-lpthread"]).current_dir(folder.path()));

    let ids: Vec<u64> = (0..23).map(|at| at * 5 % LIMIT).collect();
    let inputs = vec![ids.iter().map(|id| *id as f64).collect()];
    let expected = &Machine::new(&b.plan, &b, 23, 23).run(inputs, ids.len() as u64, 0).outputs[0];
    for (number, level) in (1..).zip(levels()) {
        let mut arguments = format!("{number} {}", level.name());
        ids.iter().for_each(|id| write!(arguments, " {id}").unwrap());
        let said = run(Command::new(path("program")).args(arguments.split(' ')).current_dir(folder.path()));
        let found: Vec<f64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
        crate::compare(&found, expected, 1e-5, level.name());
    }
}
