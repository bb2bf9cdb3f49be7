//! `--target cpu,cuda`: the library as a program meets it. No machine here has a GPU: NVRTC and the driver have stand-ins that
//! compile and execute kernels on the CPU (crates/moec-cuda/tests/driver). Whether NVRTC itself takes all kernels, where it is,
//! is asked at the end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::command::{Ended, bard, cc, folder, moec_in, repository, run};

/// A folder with the stand-ins, and room for what they and the cache of kernels write.
struct Bench {
    at: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let at = folder();
        let doubles = repository().join("crates/moec-cuda/tests/driver");
        for (place, library) in [("nvrtc", "libnvrtc.so.0"), ("driver", "libcuda.so.1")] {
            fs::create_dir(at.path().join(place)).expect("made");
            let source = doubles.join(library.split('.').next().expect("a name")).with_extension("c");
            let line = format!("-shared -fPIC -Wl,-soname,{library} -o {place}/{library} {} -ldl", source.display());
            cc(at.path(), &format!("-D_GNU_SOURCE {line}")).fine();
        }
        for place in ["kernels", "cache"] {
            fs::create_dir(at.path().join(place)).expect("made");
        }
        Bench { at }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.at.path().join(name)
    }

    /// A program in the folder, among the stand-ins.
    fn run(&self, program: &Path, line: &str) -> Ended {
        let mut command = Command::new(program);
        command
            .current_dir(self.at.path())
            .args(line.split_whitespace())
            .env("LD_LIBRARY_PATH", format!("{}:{}", self.path("driver").display(), self.path("build").display()))
            .env("MOEC_NVRTC", self.path("nvrtc"))
            .env("MOEC_DOUBLE_FOLDER", self.path("kernels"))
            .env("MOEC_DOUBLE_SHIM", repository().join("kernels/cuda/tests/shim.h"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env_remove("MOEC_DEVICE");
        run(&mut command)
    }

    fn moec(&self, line: &str) -> Ended {
        self.run(Path::new(env!("CARGO_BIN_EXE_moec")), line)
    }
}

/// The kernels that are kept.
fn kept(bench: &Bench) -> Vec<PathBuf> {
    let entries = fs::read_dir(bench.path("cache/moec/kernels")).expect("a cache");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// One build serves all of it: compiling kernels is what takes long here.
#[test]
fn a_library_for_both_gives_the_same_on_both_and_explains_what_fails() {
    let bench = Bench::new();
    let build = format!("build bard.moe --weights {} --target cpu,cuda --cpu avx2 -o build", bard().display());
    bench.moec(&format!("import {} -o bard.moe", bard().display())).fine();
    let said = bench.moec(&build).fine().stderr;
    assert!(said.contains("CUDA kernels for sm_90a") && !said.contains("kept from before"), "{said}");

    // The same again compiles nothing; an entry that is damaged, or cut, is compiled again, and gives the same library.
    let library = fs::read(bench.path("build/libbard.so")).expect("a library");
    assert!(bench.moec(&build).fine().stderr.contains("kept from before"));
    assert_eq!(kept(&bench).len(), 2);
    let kernels = fs::read_dir(bench.path("kernels")).expect("compiled").count();
    for entry in kept(&bench) {
        let bytes = fs::read(&entry).expect("an entry");
        fs::write(&entry, &bytes[..bytes.len() - 1]).expect("cut");
    }
    assert!(!bench.moec(&build).fine().stderr.contains("kept from before"));
    assert_eq!(fs::read_dir(bench.path("kernels")).expect("compiled").count(), kernels + 1);
    assert!(bench.moec(&build).fine().stderr.contains("kept from before"));

    // The C client of tests: results, batches, the self-test, failures.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/devices.c");
    cc(bench.at.path(), &format!("-D_GNU_SOURCE {} -Ibuild -Lbuild -lbard -lm -ldl -o devices", source.display()))
        .fine();
    let told = bench.run(&bench.path("devices"), "build/bard.weights").fine().stdout;
    let lines: Vec<&str> = told.lines().collect();
    let cpu = "to run on the CPU, set options.device, or MOEC_DEVICE=cpu in the environment";
    let expected: [&[&str]; 13] = [
        &["on a CPU and cuda, 1"],
        &["logits agree"],
        &["batches agree"],
        &["forks agree, 0 bytes left"],
        &["11 the GPU could not run a pass", "close the model, and open it again or on the CPU"],
        &["lost: 11 at"],
        &["blocks 0"],
        &["6 the GPU could not take the model's weights: out of memory", cpu],
        &["10 there is no GPU that the CUDA driver may use", cpu],
        &["10 the GPU is of compute capability 7.0, for which this library has no kernels", cpu],
        &["another part: on a CPU"],
        &["1"],
        &["blocks 0"],
    ];
    assert_eq!(lines.len(), expected.len(), "{told}");
    for (line, words) in lines.iter().zip(expected) {
        assert!(
            line.starts_with(words[0]) && words.iter().all(|word| line.contains(word)),
            "{line}: {words:?} in {told}"
        );
    }

    // By the command: the same text; without a driver; an image that makes no sense.
    let prompt = "--prompt JULIET. --max-new 8 --greedy";
    let [on_cpu, on_gpu] =
        ["cpu", "cuda"].map(|device| bench.moec(&format!("run build --device {device} {prompt}")).fine());
    assert_eq!(on_cpu.stdout, on_gpu.stdout);
    assert!(on_gpu.stderr.contains("(cuda,") && !on_cpu.stderr.contains("(cuda,"), "{on_gpu:?}");
    fs::rename(bench.path("driver/libcuda.so.1"), bench.path("driver/elsewhere")).expect("moved");
    assert!(!bench.moec(&format!("run build {prompt}")).fine().stderr.contains("(cuda,"));
    bench.moec(&format!("run build --device cuda {prompt}")).refused(1, &["no CUDA driver", "MOEC_DEVICE=cpu"]);
    fs::rename(bench.path("driver/elsewhere"), bench.path("driver/libcuda.so.1")).expect("moved back");
    let mut spoiled = library;
    let image = spoiled.windows(8).position(|bytes| bytes == b"MOECCUDA").expect("the image");
    spoiled[image + 17] ^= 0x40;
    fs::write(bench.path("build/libbard.so"), spoiled).expect("written");
    bench.moec(&format!("run build {prompt}")).refused(1, &["the library is corrupt", "MOEC_DEVICE=cpu"]);
    bench.moec(&format!("run build --device cpu {prompt}")).fine();
}

#[test]
fn targets_are_chosen_by_name_and_nvrtc_is_asked_for() {
    let bench = Bench::new();
    let spec = repository().join("examples/families/olmoe.moe");
    let build = |target: &str| format!("build {} --target {target} -o build", spec.display());
    bench.moec(&build("cpu,cudo")).refused(2, &["'cudo'", "a similar value exists: 'cuda'"]);
    fs::remove_dir_all(bench.path("nvrtc")).expect("removed");
    bench.moec(&build("cuda")).refused(1, &["needs NVRTC", "pip install", "MOEC_NVRTC", "leave `cuda` out"]);
    assert!(!bench.path("build").exists(), "nothing is half made");
}

/// By NVIDIA's own compiler, where it is; what it compiled before is kept in the user's cache. All families take minutes the first
/// time: by default it is one, with MOEC_CUDA_FAMILIES=all every one.
#[test]
fn families_build_for_both_where_nvrtc_is() {
    let bench = folder();
    let doctor = moec_in(bench.path(), "doctor --json").stdout;
    let findings: serde_json::Value = serde_json::from_str(&doctor).expect("JSON");
    let nvrtc =
        findings.as_array().into_iter().flatten().find(|finding| finding["what"] == "NVRTC").expect("asked for");
    if nvrtc["state"] != "here" {
        eprintln!("no family is built for CUDA: {}; {}", nvrtc["found"], nvrtc["help"]);
        return;
    }
    let all = std::env::var_os("MOEC_CUDA_FAMILIES").is_some();
    let families = fs::read_dir(repository().join("examples/families")).expect("families");
    let mut families: Vec<PathBuf> = families.map(|entry| entry.expect("one").path()).collect();
    families.sort();
    families.retain(|path| all || path.ends_with("mixtral.moe"));
    assert!(!families.is_empty());
    for family in families {
        let name = family.file_stem().expect("a name").to_string_lossy();
        let line = format!("build {} --target cpu,cuda --cpu scalar -o {name}", family.display());
        moec_in(bench.path(), &line).fine();
        let library = fs::read(bench.path().join(format!("{name}/lib{name}.so"))).expect("a library");
        let has = |bytes: &[u8]| library.windows(bytes.len()).any(|window| window == bytes);
        // Machine code is an ELF within an ELF; PTX says what it is for.
        assert!(has(b"MOECCUDA") && has(b".target sm_80") && has(b".nv.info"), "{name}");
    }
}
