//! Cases as files that tests/gpu runs on a machine with a GPU: a plan's image and weights, what passes take and what they must
//! give. (The reader, and the format's description: tests/gpu/case.h.)
//!
//! With `MOEC_GPU_PACK=FOLDER` the suite's plans are written there instead of being run here.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use moec_codegen::{PortRows, port_rows};
use moec_cuda::{Compiler, Program, image};
use moec_plan::{Plan, Port, Rows};
use moec_types::DType;

use crate::memory::{Memory, packed, write_ports};

/// Names the folder into which cases are written.
const FOLDER_VARIABLE: &str = "MOEC_GPU_PACK";

/// Names the seed of what is chosen at random for them.
const SEED_VARIABLE: &str = "MOEC_GPU_SEED";

const ARCHITECTURE: &str = "sm_90a";

/// One pass along a sequence: what it takes, and what it must give.
pub struct PackedPass {
    pub sequence: usize,
    pub tokens: u64,
    pub first_output: u64,
    pub inputs: Vec<Vec<f64>>,
    /// Each output's rows, NaN where nothing is written; nothing along other sequences than the first.
    pub outputs: Vec<Vec<f64>>,
    /// For each bin: indices and weights.
    pub routes: Vec<(Vec<i32>, Vec<f32>)>,
}

/// A part of the weights that is filled with numbers where the case is run.
pub struct Fill {
    pub offset: u64,
    pub bytes: u64,
    pub dtype: DType,
    /// The largest.
    pub reach: f64,
}

/// What the weights of a case are.
pub enum Weights<'w> {
    /// Of each parameter, instance by instance.
    Values(&'w [Vec<f64>]),
    Fills(&'w [Fill]),
}

/// A case.
pub struct Case<'c> {
    pub name: &'c str,
    pub plan: &'c Plan,
    pub weights: Weights<'c>,
    pub chunk: u64,
    pub capacity: u64,
    pub tolerance: f64,
    pub passes: &'c [PackedPass],
}

/// The folder that cases are asked for in.
pub fn asked() -> Option<PathBuf> {
    env::var_os(FOLDER_VARIABLE).map(PathBuf::from)
}

/// What is asked for by number, or 0.
pub fn seed() -> u64 {
    let number = |text: String| text.parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE} is `{text}`, no number"));
    env::var(SEED_VARIABLE).map_or(0, number)
}

/// Writes a case for a GPU into the folder.
pub fn write(folder: &Path, case: &Case) {
    let compiler = Compiler::find().unwrap_or_else(|missing| panic!("cases for a GPU need their code: {missing}"));
    write_with(folder, case, |program| machine_code(&compiler, &program.text));
}

/// The same for the driver's double, which takes for code where a library for this machine lies.
pub fn write_for_double(folder: &Path, case: &Case) {
    write_with(folder, case, |program| library(folder, case.name, program));
}

fn write_with(folder: &Path, case: &Case, coder: impl Fn(&Program) -> Vec<u8>) {
    let program = moec_cuda::program(case.plan).expect("a supported plan");
    fs::create_dir_all(folder).expect("a folder can be made");
    let bytes = encoded(case, &image(case.plan, &program, &coder(&program), None));
    fs::write(folder.join(format!("{}.case", case.name)), bytes).expect("written");
}

/// The running test's name, and a number for each of its cases.
pub fn next_name() -> String {
    static NUMBERS: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test").replace("::", "-");
    let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
    let number = numbers.entry(test.clone()).or_insert(0);
    *number += 1;
    format!("{test}-{number}-seed{}", seed())
}

/// Machine code, now or as it was made before for the same text.
fn machine_code(compiler: &Compiler, text: &str) -> Vec<u8> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (text, ARCHITECTURE, env::var_os(moec_cuda::FOLDER_VARIABLE)).hash(&mut hasher);
    let remembered = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gpu-{:016x}.cubin", hasher.finish()));
    fs::read(&remembered).unwrap_or_else(|_| {
        let code = compiler.compile(text, ARCHITECTURE).unwrap_or_else(|error| panic!("{error}")).code;
        let beside = remembered.with_extension(format!("{}", std::process::id()));
        fs::write(&beside, &code).expect("written");
        fs::rename(&beside, &remembered).expect("renamed");
        code
    })
}

/// The path of a library with the kernels for this machine.
fn library(folder: &Path, name: &str, program: &Program) -> Vec<u8> {
    let [text, library] = ["cpp", "so"].map(|end| folder.join(format!("{name}.{end}")));
    fs::write(&text, &program.text).expect("written");
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels/cuda/tests/shim.h");
    let compiled = Command::new("c++")
        .args(["-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-fno-gnu-unique", "-x", "c++", "-include"])
        .arg(shim)
        .arg(&text)
        .arg("-o")
        .arg(&library)
        .status()
        .expect("a C++ compiler");
    assert!(compiled.success());
    library.to_str().expect("a plain path").as_bytes().to_vec()
}

/// Words and blobs.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn word(&mut self, word: impl TryInto<i64>) {
        let word = word.try_into().unwrap_or_else(|_| panic!("a number of 64 bits"));
        self.0.extend(i64::to_le_bytes(word));
    }

    fn number(&mut self, number: f64) {
        self.0.extend(number.to_le_bytes());
    }

    fn blob(&mut self, bytes: &[u8]) {
        self.word(bytes.len());
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }

    fn numbers<const N: usize>(&mut self, numbers: impl Iterator<Item = [u8; N]>) {
        let bytes: Vec<u8> = numbers.flatten().collect();
        self.blob(&bytes);
    }
}

fn encoded(case: &Case, image: &[u8]) -> Vec<u8> {
    let plan = case.plan;
    let mut to = Writer::default();
    to.0.extend(b"MOECCASE");
    to.word(1);
    to.blob(case.name.as_bytes());
    to.number(case.tolerance);
    let (per_token, fixed) = plan.workspace_bytes();
    for word in [
        case.chunk,
        case.capacity.next_multiple_of(16),
        plan.weight_bytes(),
        per_token,
        fixed,
        plan.cache_bytes_per_position(),
        plan.state_bytes(),
        plan.passes().count() as u64,
        plan.inputs.len() as u64,
        plan.outputs.len() as u64,
    ] {
        to.word(word);
    }
    plan.inputs.iter().chain(&plan.outputs).for_each(|each| port(&mut to, plan, each));
    to.blob(image);
    match case.weights {
        Weights::Values(values) => {
            let memory = packed(plan, values);
            to.blob(&memory.bytes()[..plan.weight_bytes() as usize]);
            to.word(0);
        }
        Weights::Fills(fills) => {
            to.blob(&[]);
            to.word(fills.len());
            for fill in fills {
                to.word(fill.offset);
                to.word(fill.bytes);
                to.word(number_of(fill.dtype));
                to.number(fill.reach);
            }
        }
    }
    to.word(case.passes.len());
    case.passes.iter().for_each(|each| pass(&mut to, plan, each));
    to.0
}

fn port(to: &mut Writer, plan: &Plan, port: &Port) {
    let buffer = plan.buffer(port.buffer);
    // Rows of the port in each of those that the run time counts.
    let each = match buffer.rows {
        Rows::Fixed(rows) => rows,
        Rows::Slots { choices } => choices,
        Rows::Tokens | Rows::Outputs | Rows::Share(_) | Rows::Positions => 1,
    };
    to.word(buffer.row * each);
    to.word(buffer.row_bytes() * each);
    to.word(number_of(buffer.dtype));
    to.word(port_rows(plan, port).unwrap_or(PortRows::Tokens) as i32);
    to.word(port.sequence);
}

/// As kernels/runtime/moec.h counts them.
fn number_of(dtype: DType) -> i64 {
    match dtype {
        DType::F32 => 0,
        DType::Bf16 => 1,
        DType::F16 => 2,
        DType::I32 => 3,
        DType::Bool => 4,
    }
}

fn pass(to: &mut Writer, plan: &Plan, pass: &PackedPass) {
    to.word(pass.sequence);
    to.word(pass.tokens);
    to.word(pass.first_output);
    let memory: Vec<Memory> = write_ports(plan, &pass.inputs, pass.tokens);
    for ((port, memory), values) in plan.inputs.iter().zip(&memory).zip(&pass.inputs) {
        let bytes = values.len() * plan.buffer(port.buffer).dtype.bytes() as usize;
        to.blob(&memory.bytes()[..bytes]);
    }
    for at in 0..plan.outputs.len() {
        let values = pass.outputs.get(at).map_or(&[][..], Vec::as_slice);
        to.numbers(values.iter().map(|value| value.to_le_bytes()));
    }
    to.word(pass.routes.len());
    for (indices, weights) in &pass.routes {
        to.word(-1);
        to.numbers(indices.iter().map(|index| index.to_le_bytes()));
        to.numbers(weights.iter().map(|weight| weight.to_le_bytes()));
    }
}
