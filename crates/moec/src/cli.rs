//! The command line's grammar and help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A compiler for mixture-of-experts architectures: a .moe spec in, a native library out.
#[derive(Debug, Parser)]
#[command(name = "moec", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 fine, 1 a problem of the input (explained), 2 wrong usage, \
3 not supported by the target, 101 a bug in moec, 130 interrupted.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a new spec that builds, with comments.
    New(New),
    /// Report every problem of a spec.
    Check(Check),
    /// Bring specs into canonical form; comments and line ends stay.
    Fmt(Fmt),
    /// Serve an editor over standard input and output (the Language Server Protocol).
    Lsp(Lsp),
    /// Find the spec for a checkpoint's config.json and write it with its sizes.
    Import(Import),
    /// Compile a spec to a native library, its C header and its packed weights.
    Build(Build),
    /// Run a model: text in, text out; or named tensors in, named tensors out.
    Run(Run),
    /// Compare logits, chosen experts and greedy tokens with a reference.
    Verify(Verify),
    /// Count parameters, FLOPs and bytes; show routes, layer kinds, what fuses and what does not.
    Explain(Explain),
    /// Time prefill and decode of a build.
    Bench(Bench),
    /// Show what routes chose.
    Trace(Trace),
    /// Say what a problem's code means, with an example of it and the example mended.
    ExplainError(ExplainError),
    /// Say what this machine has of all that moec uses, and what to do about what is missing.
    Doctor(Doctor),
    /// Print what a shell needs to complete moec's command lines.
    Completions(Completions),
    /// Write manual pages: one for moec, one for each command.
    Man(Man),
}

/// The spec, and where its configuration comes from.
#[derive(Debug, Args)]
pub struct Spec {
    /// The .moe file.
    pub file: PathBuf,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Clone, Debug, Default, Args)]
pub struct Settings {
    /// A config.json that supplies configuration values [default: the one in the folder of --weights, if given].
    #[arg(long, value_name = "JSON")]
    pub config: Option<PathBuf>,
    /// A configuration value in the language's spelling, e.g. `--set L=4`; wins over everything. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub set: Vec<(String, String)>,
    /// What the model is for: `phase(train = …, infer = …)` of a spec is one or the other.
    #[arg(long, value_enum, default_value = "infer")]
    pub phase: Phase,
    /// Give these as further outputs, named by their paths. May be repeated.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT,…")]
    pub also: Vec<Also>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    Train,
    #[default]
    Infer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Also {
    /// Losses, and `aux`, the sum of them all by their coefficients.
    Aux,
    /// What the spec traces.
    Trace,
    /// The next value of every state.
    State,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    match name.trim() {
        "" => Err("the name before `=` is empty".into()),
        name => Ok((name.into(), value.trim().into())),
    }
}

#[derive(Debug, Args)]
pub struct New {
    /// The model's name, and with `.moe` the file's: letters, digits and underscores.
    pub name: String,
    /// What to start from.
    #[arg(long, value_enum, default_value = "decoder")]
    pub template: Template,
    /// Overwrite the file if it is there.
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Template {
    /// One mixture-of-experts layer over f32 rows, with a gate of its own.
    Layer,
    /// A small decoder: embedding, attention, experts, logits.
    Decoder,
}

#[derive(Debug, Args)]
pub struct Check {
    /// The .moe files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
    /// Problems as JSON on standard output, one object a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Fmt {
    /// The .moe files, rewritten in place; `-` is standard input, written to standard output.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Write nothing; name the files that are not in canonical form and exit with 1.
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, Args)]
pub struct Lsp {
    /// The only way there is; editors pass it out of habit.
    #[arg(long, hide = true)]
    pub stdio: bool,
}

#[derive(Debug, Args)]
pub struct ExplainError {
    /// The code as a report shows it, such as moec::sema::axis_twice; `moec::` may be left out.
    #[arg(required_unless_present = "list", conflicts_with = "list")]
    pub code: Option<String>,
    /// All codes, with a line about each.
    #[arg(long)]
    pub list: bool,
}

#[derive(Debug, Args)]
pub struct Import {
    /// The checkpoint's folder, with its config.json.
    pub dir: PathBuf,
    /// Where to write the spec [default: standard output]. The file's name becomes the model's.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Overwrite the file if it is there.
    #[arg(long)]
    pub force: bool,
    /// A key of config.json that changes nothing, though the spec says nothing of it: the new spec does. May be repeated.
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub ignore: Vec<String>,
}

fn key(text: &str) -> Result<String, String> {
    let fits = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.');
    let fine = !text.is_empty() && text.chars().all(fits);
    if fine { Ok(text.into()) } else { Err("a key is spelled `name`, or `outer.name` inside another".into()) }
}

/// What code is made for.
#[derive(Debug, Args)]
pub struct Code {
    /// The machines to build for. A library for both takes the GPU where there is one, unless it is opened otherwise.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "TARGET,…", default_values = ["cpu"])]
    pub target: Vec<Target>,
    /// Instruction levels to emit; the best that the machine has is chosen when the model is opened.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LEVEL,…", default_values = ["scalar", "avx2", "avx512", "avx512-dot", "amx"])]
    pub cpu: Vec<Level>,
    /// Leave an optimisation out (see `moec explain` for their names). May be repeated.
    #[arg(long = "disable-pass", value_name = "NAME")]
    pub disable_pass: Vec<String>,
    #[command(flatten)]
    pub quant: Quantisation,
}

impl Default for Code {
    fn default() -> Self {
        let cpu = vec![Level::Scalar, Level::Avx2, Level::Avx512, Level::Avx512Dot, Level::Amx];
        Code { target: vec![Target::Cpu], cpu, disable_pass: Vec::new(), quant: Quantisation::default() }
    }
}

#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Quantisation {
    /// How weights are stored that rows are multiplied by; what only chooses experts stays as it is, and so do tables, norms
    /// and biases [default: as the checkpoint has them, small numbers as f32 or bf16].
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub quant: Option<Quant>,
}

/// Formats for weights (docs/weight-file.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Quant {
    /// What the checkpoint has in mxfp4 or fp8 stays so, code by code; the rest is as without `--quant`.
    Stored,
    /// 16 bits, times rows rounded to bf16.
    Bf16,
    /// 8-bit integers with a scale for each column, times rows of 8-bit integers.
    Int8,
    /// 4-bit integers with a scale for each 32 weights, times rows of 8-bit integers.
    #[value(name = "int4-32")]
    Int4By32,
    /// The same for each 64.
    #[value(name = "int4-64")]
    Int4By64,
    /// The same for each 128.
    #[value(name = "int4-128")]
    Int4By128,
    /// 4-bit floats with a power of two for each 32.
    Mxfp4,
    /// 8-bit floats (e4m3) with a scale for each 128.
    Fp8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Target {
    /// x86-64, at the levels of `--cpu`.
    Cpu,
    /// NVIDIA GPUs: machine code for Hopper (sm_90a), PTX for others since Ampere; NVRTC compiles them (`moec doctor`).
    Cuda,
}

/// Where a library is to run (`NAME_device_t` of its header).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// On a GPU where the build has code for one and there is one.
    #[default]
    Auto,
    Cpu,
    Cuda,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Level {
    /// x86-64 as of 2003: runs anywhere, slow; the reference of the self-test.
    Scalar,
    /// x86-64-v3: since about 2013.
    Avx2,
    /// x86-64-v4: AVX-512.
    Avx512,
    /// AVX-512 with products of pairs and fours (BF16, VNNI); made only where weights are in formats that have them.
    Avx512Dot,
    /// That, and matrix tiles (AMX) for many rows; likewise.
    Amx,
}

#[derive(Debug, Args)]
pub struct Build {
    #[command(flatten)]
    pub spec: Spec,
    /// The checkpoint's folder; without it there is a library and no weights.
    #[arg(long, value_name = "DIR")]
    pub weights: Option<PathBuf>,
    /// Take weights that are infinite or NaN as they are, with a warning.
    #[arg(long, requires = "weights")]
    pub allow_non_finite: bool,
    #[command(flatten)]
    pub code: Code,
    /// Write more beside the library: intermediate texts, or what else uses it. May be repeated.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT,…")]
    pub emit: Vec<Emit>,
    /// The folder to write to; made if missing.
    #[arg(short, long, value_name = "DIR", default_value = "build")]
    pub output: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Emit {
    /// The model IR after all passes.
    Ir,
    /// The plan: buffers and steps.
    Plan,
    /// MLIR of the best level.
    Mlir,
    /// LLVM IR of the best level.
    Llvm,
    /// Assembly of the best level.
    Asm,
    /// The kernels for GPUs, as the CUDA C++ that NVRTC compiles.
    Cuda,
    /// `rust/`: a crate with safe types over the static library.
    Rust,
    /// NAME: a program, with the weights and the tokenizer inside where there are any.
    Exe,
    /// NAME.d: the files that were read, as make and build scripts have it.
    Deps,
}

#[derive(Clone, Debug, Args)]
pub struct Run {
    /// A .moe file, or a folder that `moec build` wrote.
    pub model: PathBuf,
    #[command(flatten)]
    pub settings: Settings,
    /// The checkpoint's folder, when the model is a .moe file.
    #[arg(long, value_name = "DIR")]
    pub weights: Option<PathBuf>,
    /// Take weights that are infinite or NaN as they are, with a warning.
    #[arg(long, requires = "weights")]
    pub allow_non_finite: bool,
    #[command(flatten)]
    pub quant: Quantisation,
    /// The text to continue.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["inputs", "outputs"])]
    pub prompt: Option<String>,
    /// The most tokens to add.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_new: usize,
    /// Always the likeliest token (the default unless a temperature, top-k or seed is given).
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "seed"])]
    pub greedy: bool,
    /// Divides the logits before sampling: below 1 is bolder, above 1 wilder [default: 1].
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Sample among the K likeliest tokens only.
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// The same seed gives the same text [default: 0].
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Threads to compute with [default: one for each core this process may use].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Where to run; a .moe file is built for that.
    #[arg(long, value_enum, default_value = "auto")]
    pub device: Device,
    /// Named input tensors (and, for a .moe file without --weights, the parameters by their path in the spec).
    #[arg(long, value_name = "SAFETENSORS", requires = "outputs")]
    pub inputs: Option<PathBuf>,
    /// Where to write the named outputs.
    #[arg(long, value_name = "SAFETENSORS", requires = "inputs")]
    pub outputs: Option<PathBuf>,
    /// Where to write what every route chose: `route.N.indices` and `.weights`, in the order in which routes are run
    /// (`moec trace view` shows it).
    #[arg(long, value_name = "SAFETENSORS")]
    pub trace: Option<PathBuf>,
    /// Run so many times on the same inputs, each time with the states that the last one gave; the outputs are the last one's.
    #[arg(long, value_name = "N", requires = "inputs", conflicts_with_all = ["weights", "trace"])]
    pub steps: Option<std::num::NonZeroUsize>,
    /// Who computes on named tensors; `oracle` takes a .moe file.
    #[arg(long, value_enum, default_value = "cpu", requires = "inputs")]
    pub backend: Computer,
}

#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    pub spec: Spec,
    /// The checkpoint's folder.
    #[arg(long, value_name = "DIR")]
    pub weights: PathBuf,
    /// Take weights that are infinite or NaN as they are, with a warning.
    #[arg(long)]
    pub allow_non_finite: bool,
    /// The reference: inputs and what must come out (tests/data/oracles says how it is made).
    #[arg(long, value_name = "SAFETENSORS")]
    pub oracle: PathBuf,
    /// The largest absolute error of a logit.
    #[arg(long, value_name = "T", default_value_t = 1e-4)]
    pub tolerance: f32,
    /// Who computes; may be repeated [default: both].
    #[arg(long, value_enum, value_delimiter = ',')]
    pub backend: Vec<Computer>,
    #[command(flatten)]
    pub code: Code,
    /// Threads to compute with [default: one for each core this process may use].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// The verdicts as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Computer {
    /// The slow, obvious evaluator.
    Oracle,
    /// The compiled library.
    Cpu,
}

#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    pub spec: Spec,
    /// A checkpoint's folder: its config.json is used, and if its tensors are there, their element types.
    #[arg(long, value_name = "DIR")]
    pub weights: Option<PathBuf>,
    /// Costs of a pass over so many tokens; of several numbers, the first, and a roof for each.
    #[arg(long, value_delimiter = ',', value_name = "N,…", default_values_t = [1])]
    pub tokens: Vec<u64>,
    /// Positions that are in the cache already.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub past: u64,
    /// Leave an optimisation out. May be repeated.
    #[arg(long = "disable-pass", value_name = "NAME")]
    pub disable_pass: Vec<String>,
    #[command(flatten)]
    pub quant: Quantisation,
    /// Compile it for this machine, run such a pass (on drawn weights where --weights has none), and set the time of each
    /// group of steps beside what was predicted. Takes a while, and as much memory and disk as the weights.
    #[arg(long)]
    pub check: bool,
    /// Everything as JSON, with all parameters by their paths.
    #[arg(long)]
    pub json: bool,
    /// A page to look at, with the architecture drawn, and the JSON in a file beside it.
    #[arg(long, value_name = "FILE.html", conflicts_with = "json", value_parser = html_file)]
    pub html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Trace {
    #[command(subcommand)]
    pub command: TraceCommand,
}

#[derive(Debug, Subcommand)]
pub enum TraceCommand {
    /// Write a page: load of each expert, tokens to experts over the text, experts chosen together, dead ones, drops.
    View(TraceView),
}

#[derive(Debug, Args)]
pub struct TraceView {
    /// What `moec run --trace` wrote.
    #[arg(value_name = "SAFETENSORS")]
    pub trace: PathBuf,
    /// The page; its data goes into a `.json` beside it [default: the trace's name with `.html`].
    #[arg(short, long, value_name = "FILE.html", value_parser = html_file)]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// The findings as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Completions {
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct Man {
    /// The folder to write to; made if missing.
    pub folder: PathBuf,
}

#[derive(Debug, Args)]
pub struct Bench {
    /// A folder that `moec build` wrote.
    pub build: PathBuf,
    /// Prompt lengths to prefill.
    #[arg(long, value_delimiter = ',', value_name = "N,…", default_values_t = [1, 16, 128])]
    pub tokens: Vec<usize>,
    /// Steps of decoding, one token each.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub steps: usize,
    /// Repetitions; the best and the median are shown.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub rounds: usize,
    /// Threads to compute with [default: one for each core this process may use].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// The times as JSON.
    #[arg(long)]
    pub json: bool,
}

fn html_file(name: &str) -> Result<PathBuf, String> {
    let file = PathBuf::from(name);
    if file.extension().is_some_and(|extension| extension == "html") {
        return Ok(file);
    }
    Err("the page's name ends in `.html`; the data beside it in `.json`".to_owned())
}
