//! What `./dev gpu` carries to a machine with a GPU, run here on the driver's double.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use moec_plan::{Layout, Rows, Source};
use moec_types::DType;

use crate::{
    bench,
    build::{Building, arg, fixed, mul, row, rows, view},
    pack::{self, Case, PackedPass, Weights},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A folder as `./dev gpu pack` makes it, with the double beside it.
pub struct Bundle<'f> {
    folder: &'f Path,
}

impl Bundle<'_> {
    /// The program and the double, in the folder.
    pub fn at(folder: &Path) -> Bundle<'_> {
        let sources = ["tests/driver/libcuda.c", "tests/driver/measure.c"];
        let sources = sources.map(|source| Path::new(env!("CARGO_MANIFEST_DIR")).join(source));
        let double = Command::new("cc")
            .args(["-std=gnu11", "-O1", "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1", "-o"])
            .arg(folder.join("libcuda.so.1"))
            .args(sources)
            .arg("-ldl")
            .status();
        assert!(double.expect("a C compiler").success());
        let program = Command::new(root().join("tests/gpu/compile.sh")).arg(folder.join("gpu")).status();
        assert!(program.expect("a shell").success());
        Bundle { folder }
    }

    /// A command that finds the double where it looks for a driver.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.folder).current_dir(root());
        command
    }

    /// All cases in the folder are right.
    pub fn check(&self) {
        let mut command = self.command(self.folder.join("gpu"));
        command.arg("check").arg(self.folder.join("results.tsv")).args(self.cases());
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", said(&output));
    }

    fn cases(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder).expect("a folder").map(|entry| entry.expect("one").path());
        entries.filter(|path| path.extension().is_some_and(|end| end == "case")).collect()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// `x * scale` and that again as it should be, or with one element that is not.
fn scaled(folder: &Path, name: &str, wrong: bool) {
    let mut b = Building::new(1);
    let x = b.input(DType::F32, Rows::Tokens, 8);
    let scale = b.param(Layout::Plain { elements: 8 }, DType::F32, 1, 1);
    let out = b.output(DType::F32, Rows::Tokens, 8);
    let args = vec![row(x, &[1]), view(Source::Param(scale), 0, &[1])];
    let (extents, expr, into) = (fixed(&[8]), mul(arg(0), arg(1)), row(out, &[1]));
    b.step(rows(Rows::Tokens, vec![moec_plan::RowOp::Map { extents, expr, args, into }]));
    let inputs = vec![b.values(3 * 8)];
    let mut outputs: Vec<f64> = (0..3 * 8).map(|at| inputs[0][at] * b.weights[0][at % 8]).collect();
    if wrong {
        outputs[13] += 1e-3;
    }
    let pass = PackedPass { sequence: 0, tokens: 3, first_output: 0, inputs, outputs: vec![outputs], routes: vec![] };
    let (plan, weights) = (&b.plan, Weights::Values(&b.weights));
    pack::write_for_double(
        folder,
        &Case { name, plan, weights, chunk: 3, capacity: 16, tolerance: 1e-6, passes: &[pass] },
    );
}

/// From cases to tables, by the command that runs on such a machine: right and wrong results, a file that is none, and times.
#[test]
fn a_machine_with_a_gpu_is_told_what_is_right_and_how_fast() {
    let folder = tempfile::tempdir().expect("a folder");
    let [cases, benches] = ["cases", "bench"].map(|name| folder.path().join(name));
    scaled(&cases, "scaled", false);
    scaled(&cases, "scaled-wrongly", true);
    fs::write(cases.join("torn.case"), b"MOECCASE and no more").expect("written");
    bench::small(&benches);
    let bundle = Bundle::at(folder.path());
    let output = bundle
        .command("bash")
        .args(["dev", "gpu", "run", "check", "bench"])
        .env("MOEC_GPU", folder.path())
        .output()
        .expect("it runs");
    let said = said(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("1 of 3 cases are right"), "{said}");
    assert!(said.contains("scaled-wrongly: pass 0, output 0, element 13:"), "{said}");
    assert!(said.contains("torn.case is no case of this version"), "{said}");
    let tables = fs::read_to_string(folder.path().join("cuda.md")).expect("a report");
    assert!(tables.contains("1 of 3 cases are right") && tables.contains("| scaled-wrongly |"), "{tables}");
    let timed = |line: &&str| line.starts_with("| small |") && !line.contains("failed");
    assert_eq!(tables.lines().filter(timed).count(), 2, "{tables}\n{said}");
    let json = fs::read_to_string(folder.path().join("results.json")).expect("a report");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let findings = json["findings"].as_array().expect("an array");
    assert!(findings.iter().any(|one| one["kind"] == "time" && one["peer"] == "moec"), "{json}");
    assert!(findings.iter().any(|one| one["kind"] == "bound" && one["what"] == "copy"), "{json}");
}
