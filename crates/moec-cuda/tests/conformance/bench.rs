//! Layers that are timed on a machine with a GPU: images alone, with weights that are filled in there.

use std::{fmt::Write, fs, path::Path};

use moec_plan::{Format, Layout, Plan};
use moec_sema::Settings;
use moec_types::DType;

use crate::{
    models::module,
    pack::{self, Case, Fill, Weights},
};

/// What is timed: where its text is, what it is called, its sizes, and the workloads.
struct Timed {
    /// Beneath the root of the repository.
    spec: &'static str,
    name: &'static str,
    experts: u64,
    choices: u64,
    width: u64,
    inner: u64,
    /// Tokens, and how they choose (tests/gpu/bench.c).
    workloads: &'static [(u64, &'static str)],
}

const GIVEN: &str = "tests/bench/layers/layer.moe";

const TIMED: [Timed; 7] = [
    Timed {
        spec: "tests/gpu/dense.moe",
        name: "dense",
        experts: 8192,
        choices: 1,
        width: 8192,
        inner: 0,
        workloads: &[(8192, "dense")],
    },
    Timed {
        spec: GIVEN,
        name: "E128-K8-H2048-I768",
        experts: 128,
        choices: 8,
        width: 2048,
        inner: 768,
        workloads: &[(1, "uniform"), (8, "uniform"), (16, "uniform"), (64, "uniform"), (4096, "uniform")],
    },
    Timed {
        spec: GIVEN,
        name: "E128-K8-H4096-I1024",
        experts: 128,
        choices: 8,
        width: 4096,
        inner: 1024,
        workloads: &[(32768, "uniform")],
    },
    Timed {
        spec: GIVEN,
        name: "E256-K8-H4096-I1024",
        experts: 256,
        choices: 8,
        width: 4096,
        inner: 1024,
        workloads: &[(16384, "uniform")],
    },
    // One expert holds half of the rows.
    Timed {
        spec: GIVEN,
        name: "E128-K2-H4096-I1024",
        experts: 128,
        choices: 2,
        width: 4096,
        inner: 1024,
        workloads: &[(32768, "uniform"), (32768, "skewed")],
    },
    Timed {
        spec: "tests/gpu/softmax_top_k.moe",
        name: "softmax-top-k-E128-K8-H2048-I768",
        experts: 128,
        choices: 8,
        width: 2048,
        inner: 768,
        workloads: &[(16, "gate"), (4096, "gate")],
    },
    Timed {
        spec: "examples/gates/grouped_softplus.moe",
        name: "own-gate-E128-K8-H2048-I768",
        experts: 128,
        choices: 8,
        width: 2048,
        inner: 768,
        workloads: &[(16, "gate"), (4096, "gate")],
    },
];

const SMALL: Timed = Timed {
    spec: GIVEN,
    name: "small",
    experts: 4,
    choices: 2,
    width: 32,
    inner: 16,
    workloads: &[(2, "uniform"), (70, "skewed")],
};

fn plan(of: &Timed) -> Plan {
    let sizes = [("E", of.experts), ("K", of.choices), ("D", of.width), ("F", of.inner)];
    // A product alone has no experts that choose.
    let overrides = sizes.into_iter().filter(|(name, _)| of.inner > 0 || ["E", "D"].contains(name));
    let overrides = overrides.map(|(name, size)| (name.to_owned(), size.to_string())).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(of.spec);
    let module = module(&path, &Settings { overrides, ..Settings::default() });
    let (fused, _) = moec_passes::run(module, &moec_passes::Options::default());
    let mut plan = moec_lower::lower(&fused).unwrap_or_else(|error| panic!("{}: {error}", of.name));
    moec_plan::store(&mut plan, |_| Some(Format::Pairs));
    plan
}

/// Weights of a size that keeps that of rows.
fn fills(plan: &Plan) -> Vec<Fill> {
    let fill = |param: &moec_plan::PackedParam| {
        let (dtype, reach) = match (param.storage, &param.layout) {
            (Format::Pairs | Format::Each(DType::Bf16), Layout::Panels { k, .. }) => {
                (DType::Bf16, (3.0 / *k as f64).sqrt())
            }
            (Format::Each(DType::F32), Layout::Panels { k, .. }) => (DType::F32, (3.0 / *k as f64).sqrt()),
            (Format::Each(DType::F32), Layout::Plain { elements }) => (DType::F32, (3.0 / *elements as f64).sqrt()),
            (format, _) => panic!("{}: {format} is not filled in", param.name),
        };
        Fill { offset: param.offset, bytes: param.bytes(), dtype, reach }
    };
    plan.params.iter().map(fill).collect()
}

fn write(folder: &Path, timed: &[Timed], with: fn(&Path, &Case)) {
    fs::create_dir_all(folder).expect("a folder can be made");
    let mut workloads = String::new();
    for one in timed {
        let plan = plan(one);
        let weights = Weights::Fills(&fills(&plan));
        with(
            folder,
            &Case { name: one.name, plan: &plan, weights, chunk: 1, capacity: 16, tolerance: 0.0, passes: &[] },
        );
        for (tokens, routing) in one.workloads {
            let sizes =
                [one.experts, one.choices, one.width, one.inner, *tokens].map(|size| size.to_string()).join(" ");
            writeln!(workloads, "{} {sizes} {routing}", one.name).expect("a string takes it");
        }
    }
    fs::write(folder.join("workloads.txt"), workloads).expect("written");
}

/// What takes no time, for the double.
pub fn small(folder: &Path) {
    write(folder, &[SMALL], pack::write_for_double);
}

#[test]
fn layers_that_are_timed_are_printed() {
    match pack::asked() {
        Some(cases) => write(&cases.with_file_name("bench"), &TIMED, pack::write),
        None => TIMED.iter().for_each(|one| {
            let plan = plan(one);
            assert!(!fills(&plan).is_empty());
            moec_cuda::program(&plan).unwrap_or_else(|unsupported| panic!("{}: {unsupported}", one.name));
        }),
    }
}
