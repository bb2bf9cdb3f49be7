//! `moec doctor`: what this machine has of all that moec uses, and what to do about what is missing.

use std::{process::Command, time::Instant};

use moec_cuda::{Compiler, NvrtcError};
use serde_json::{Value, json};

use crate::{
    artefact::{self, Source},
    cli::{self, Doctor},
    failure::Failure,
    files, spec,
};

/// How something was found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Here,
    /// Nothing here depends on it.
    Absent,
    /// `moec build` needs it.
    Missing,
}

struct Finding {
    what: &'static str,
    state: State,
    found: String,
    /// What to do; empty where nothing is to be done.
    help: String,
}

impl Finding {
    fn here(what: &'static str, found: impl Into<String>) -> Finding {
        Finding { what, state: State::Here, found: found.into(), help: String::new() }
    }

    fn json(&self) -> Value {
        let state = match self.state {
            State::Here => "here",
            State::Absent => "absent",
            State::Missing => "missing",
        };
        json!({ "what": self.what, "state": state, "found": self.found, "help": self.help })
    }
}

pub fn run(arguments: &Doctor) -> Result<(), Failure> {
    let mut findings = vec![
        Finding::here("moec", format!("{}, LLVM inside", env!("CARGO_PKG_VERSION"))),
        processor(),
        levels(),
        stem(),
    ];
    findings.extend(moec_codegen::TOOLS.iter().map(tool));
    findings.push(a_build());
    findings.push(driver());
    findings.push(nvrtc());
    if arguments.json {
        println!("{:#}", Value::Array(findings.iter().map(Finding::json).collect()));
    } else {
        for finding in &findings {
            let mark = match finding.state {
                State::Here => "ok",
                State::Absent => "-",
                State::Missing => "MISSING",
            };
            println!("{mark:8}{:12}{}", finding.what, finding.found);
            if !finding.help.is_empty() {
                println!("{:20}{}", "", finding.help);
            }
        }
    }
    // The table has said all there is to say.
    if findings.iter().any(|finding| finding.state == State::Missing) { Err(Failure::verdict()) } else { Ok(()) }
}

fn processor() -> Finding {
    let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let usable = std::thread::available_parallelism().map_or(1, |count| count.get());
    let name = name.map_or("unknown", |(_, name)| name.trim());
    Finding::here("processor", format!("{name}, {usable} usable here"))
}

/// The names of `--cpu`, by what the processor says of itself.
fn levels() -> Finding {
    let mut known = vec!["scalar"];
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::{is_x86_feature_detected as has, x86_64::__cpuid_count};
        let avx2 = has!("avx2") && has!("fma") && has!("f16c") && has!("bmi1") && has!("bmi2") && has!("lzcnt");
        let avx512 =
            avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
        let dot = avx512 && has!("avx512bf16") && has!("avx512vnni");
        // BF16, TILE and INT8 of AMX.
        const AMX: u32 = 1 << 22 | 1 << 24 | 1 << 25;
        let amx = dot && __cpuid_count(7, 0).edx & AMX == AMX;
        let more = [("avx2", avx2), ("avx512", avx512), ("avx512-dot", dot), ("amx", amx)];
        known.extend(more.into_iter().filter(|(_, has)| *has).map(|(name, _)| name));
    }
    Finding::here("levels", known.join(", "))
}

/// What `--emit exe` puts models into.
fn stem() -> Finding {
    let path = files::parent(&std::env::current_exe().unwrap_or_default()).join("moec-program");
    if path.is_file() {
        return Finding::here("programs", path.display().to_string());
    }
    let help = "`--emit exe` needs `moec-program` beside `moec`: copy it there".to_owned();
    Finding { what: "programs", state: State::Absent, found: format!("{} is not there", path.display()), help }
}

fn tool(tool: &moec_codegen::Tool) -> Finding {
    let Ok(output) = Command::new(tool.name).arg("--version").output() else {
        let help = format!("apt-get install {}", tool.package);
        return Finding { what: tool.name, state: State::Missing, found: "not on the PATH".into(), help };
    };
    let said = String::from_utf8_lossy(&output.stdout);
    Finding::here(tool.name, said.lines().next().unwrap_or("it does not say its version"))
}

/// Whether a library comes out at all.
fn a_build() -> Finding {
    let started = Instant::now();
    let what = "a build";
    match build_a_layer() {
        Ok(()) => Finding::here(what, format!("a layer of experts in {:.1} s", started.elapsed().as_secs_f64())),
        Err(failure) => {
            let found = failure.messages();
            Finding { what, state: State::Missing, found, help: "`moec build` would say the same".into() }
        }
    }
}

fn build_a_layer() -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(|cause| files::CannotWrite { path: std::env::temp_dir(), cause })?;
    let file = folder.path().join("layer.moe");
    files::write(&file, include_bytes!("../../templates/layer.moe"))?;
    let loaded = spec::load(&file, &cli::Settings::default(), None)?;
    let code = cli::Code { cpu: vec![cli::Level::Scalar], ..cli::Code::default() };
    artefact::build_for_now(loaded, Source::Nowhere, &code, &folder.path().join("build")).map(|_| ())
}

/// What `NAME_open` looks for when it is to run on a GPU. A build needs none.
fn driver() -> Finding {
    const LIBRARY: &str = "libcuda.so.1";
    // SAFETY: NVIDIA's library does nothing when it is loaded but set itself up.
    if unsafe { libloading::Library::new(LIBRARY) }.is_ok() {
        return Finding::here("GPU driver", LIBRARY);
    }
    let help =
        "models run on the processor; for a GPU of NVIDIA's, install its driver. `--target cuda` builds without it";
    Finding { what: "GPU driver", state: State::Absent, found: format!("no {LIBRARY}"), help: help.into() }
}

/// What `--target cuda` compiles kernels with.
fn nvrtc() -> Finding {
    let what = "NVRTC";
    match Compiler::find() {
        Ok(compiler) => Finding::here(what, format!("{}, {}", compiler.version(), compiler.path().display())),
        Err(missing) => {
            let help = miette::Diagnostic::help(&missing).map_or_else(String::new, |help| help.to_string());
            let found = match missing {
                NvrtcError::Missing { reason } => reason,
                refused @ NvrtcError::Refused { .. } => refused.to_string(),
            };
            Finding { what, state: State::Absent, found, help }
        }
    }
}
