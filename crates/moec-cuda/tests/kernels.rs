//! The templates of kernels/cuda alone. Their text runs here, on a CPU, against plain loops; and is compiled for GPUs, where
//! the compiler is at hand, and the machine code looked at. What was seen once is remembered by the hash of what went in.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use moec_cuda::{Compiler, FOLDER_VARIABLE};

const PARTS: [&str; 9] = ["device", "pass", "storage", "row_tile", "few_rows", "gemm", "gemm_wide", "bin", "attention"];

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels/cuda")
}

fn read(file: PathBuf) -> String {
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// What `make` gave for these inputs, now or before. It panics where there is nothing worth remembering.
fn remembered(name: &str, inputs: &[&str], make: impl FnOnce() -> String) -> String {
    let mut hasher = DefaultHasher::new();
    inputs.hash(&mut hasher);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{:016x}.txt", hasher.finish()));
    fs::read_to_string(&file).unwrap_or_else(|_| {
        let made = make();
        fs::write(&file, &made).expect("a file can be written");
        made
    })
}

/// Compiles a test of kernels/cuda/tests for this machine, and runs it.
fn run(test: &str, optimise: &str) {
    let folder = kernels();
    let mut inputs = vec![optimise.to_owned()];
    for part in PARTS {
        inputs.push(read(folder.join(format!("{part}.cuh"))));
    }
    let source = folder.join(format!("tests/{test}.cpp"));
    inputs.extend([source.clone(), folder.join("tests/shim.h"), folder.join("tests/check.h")].map(read));
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let said = remembered(test, &inputs, || {
        let scratch = tempfile::tempdir().expect("a folder");
        let program = scratch.path().join(test);
        let mut compiler = Command::new("c++");
        let output =
            compiler.args(["-std=c++17", "-w", optimise, "-I"]).arg(&folder).arg(&source).arg("-o").arg(&program);
        let output = output.output().expect("a C++ compiler");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let output = Command::new(&program).output().expect("the test runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    });
    assert!(said.ends_with(" 0 wrong\n"), "{said}");
}

#[test]
fn gemms_are_what_plain_loops_say() {
    run("gemm", "-O0");
}

#[test]
fn bins_are_what_a_stable_sort_says() {
    run("bin", "-O1");
}

#[test]
fn attention_is_what_plain_loops_say() {
    run("attention", "-O1");
}

/// What the assembler and the disassembler say of one kernel.
#[derive(Debug, Default)]
struct Code {
    registers: u32,
    spilled_bytes: u32,
    static_shared_bytes: u32,
    instructions: BTreeMap<String, u32>,
}

/// From the assembler's report: lines on each kernel follow the one that names it.
fn reported(log: &str) -> BTreeMap<String, Code> {
    let mut kernels: BTreeMap<String, Code> = BTreeMap::new();
    let mut name = String::new();
    for line in log.lines() {
        let words: Vec<&str> = line.split([' ', ',', '\'']).filter(|word| !word.is_empty()).collect();
        let number = |word: &str| word.parse::<u32>().ok();
        let before = |unit: &[&str]| {
            let found = words.windows(unit.len() + 1).find(|window| &window[1..] == unit);
            found.and_then(|window| number(window[0])).unwrap_or(0)
        };
        if let Some(at) = words.iter().position(|word| *word == "function")
            && line.contains("Compiling entry")
        {
            name = words[at + 1].to_owned();
        }
        let kernel = kernels.entry(name.clone()).or_default();
        kernel.spilled_bytes += before(&["bytes", "spill", "stores"]) + before(&["bytes", "spill", "loads"]);
        kernel.registers = kernel.registers.max(before(&["registers"]));
        if let Some(at) = words.iter().position(|word| *word == "Used") {
            kernel.registers = number(words[at + 1]).unwrap_or(0);
            kernel.static_shared_bytes = before(&["bytes", "smem"]);
        }
    }
    kernels.remove("");
    kernels
}

/// Counts the instructions of each kernel, by their names up to the first point.
fn count_instructions(disassembly: &str, kernels: &mut BTreeMap<String, Code>) {
    let mut current = String::new();
    for line in disassembly.lines() {
        if let Some(name) = line.strip_prefix(".text.").and_then(|rest| rest.strip_suffix(':')) {
            current = name.to_owned();
        }
        let Some((_, instruction)) = line.trim_start().strip_prefix("/*").and_then(|rest| rest.split_once("*/")) else {
            continue;
        };
        let mut words = instruction.split_whitespace().filter(|word| !word.starts_with('@'));
        let name = words.next().unwrap_or("").split(['.', ';']).next().unwrap_or("");
        if let Some(kernel) = kernels.get_mut(&current) {
            *kernel.instructions.entry(name.to_owned()).or_default() += 1;
        }
    }
}

/// The disassembler: beside the compiler's library in NVIDIA's wheels, or on the path.
fn disassemble(cubin: &[u8]) -> Option<String> {
    let scratch = tempfile::NamedTempFile::new().expect("a file");
    fs::write(scratch.path(), cubin).expect("written");
    let beside = std::env::var_os(FOLDER_VARIABLE).map(|folder| Path::new(&folder).join("../bin/nvdisasm"));
    let program = beside.filter(|program| program.exists()).unwrap_or_else(|| "nvdisasm".into());
    let output = Command::new(program).arg("-c").arg(scratch.path()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Beside dynamic shared memory, whose size gates.cu asserts.
const MOST_STATIC_SHARED_BYTES: u32 = 3 << 10;

#[test]
fn machine_code_has_tensor_cores_and_no_spills() {
    let compiler = match Compiler::find() {
        Ok(compiler) => compiler,
        Err(missing) => return eprintln!("skipped: {missing}"),
    };
    let mut text: String = PARTS.map(|part| read(kernels().join(format!("{part}.cuh")))).concat();
    text += &read(kernels().join("tests/gates.cu"));
    let folder = format!("{:?}", std::env::var_os(FOLDER_VARIABLE));
    let compile = |architecture| compiler.compile(&text, architecture).unwrap_or_else(|error| panic!("{error}"));
    let ptx = remembered("gates-ptx", &[&text, &folder], || {
        let code = compile("compute_80").code;
        let ptx = String::from_utf8(code).expect("PTX is text");
        ["mma.sync", "cp.async"].map(|word| format!("{word} {}\n", ptx.matches(word).count())).concat()
    });
    assert!(ptx.lines().all(|line| !line.ends_with(" 0")), "{ptx}");

    let seen = remembered("gates-cubin", &[&text, &folder], || {
        let compiled = compile("sm_90a");
        let disassembly = disassemble(&compiled.code).unwrap_or_else(|| {
            println!("nvdisasm is not here: instructions are not looked at");
            String::new()
        });
        let mut kernels = reported(&compiled.log);
        count_instructions(&disassembly, &mut kernels);
        let line = |(name, code): (&String, &Code)| {
            let count = |instruction: &str| code.instructions.get(instruction).copied().unwrap_or(0);
            // A warpgroup's products and the copy engine on Hopper, a warp's products and asynchronous copies elsewhere.
            let wide = name.starts_with("wide");
            let tensor = if wide { count("HGMMA") } else { count("HMMA") + count("IMMA") };
            let copies = if wide { count("UBLKCP") } else { count("LDGSTS") };
            let all: u32 = code.instructions.values().sum();
            let [registers, spilled, shared] = [code.registers, code.spilled_bytes, code.static_shared_bytes];
            format!("{name} {registers} {spilled} {shared} {tensor} {copies} {all}\n")
        };
        kernels.iter().map(line).collect()
    });
    let mut kernels = 0;
    for line in seen.lines() {
        println!("{line}");
        let mut words = line.split(' ');
        let name = words.next().expect("a name");
        let numbers: Vec<u32> = words.map(|word| word.parse().expect("a number")).collect();
        let [registers, spilled, shared, tensor, copies, all] = numbers[..] else { panic!("{line}") };
        kernels += 1;
        assert_eq!(spilled, 0, "{name} spills");
        // So that 65536 are enough for two blocks of 128 threads, one of 256, or one of 384; bins have many blocks.
        let ceiling = match name.split('_').next() {
            Some("bin") => 64,
            Some("few") => 192,
            Some("wide") => 168,
            _ => 240,
        };
        assert!((1..=ceiling).contains(&registers), "{name} has {registers} registers");
        assert!(shared <= MOST_STATIC_SHARED_BYTES, "{name} has {shared} bytes of shared memory");
        let multiplies = ["gemm", "wide", "attention"].iter().any(|kind| name.starts_with(kind));
        if all > 0 && multiplies {
            assert!(tensor > 0 && copies > 0, "{name}: {tensor} of tensor cores, {copies} asynchronous copies");
        }
    }
    assert!(kernels >= 14, "{seen}");
}
