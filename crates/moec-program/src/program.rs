//! A program with a model inside: text in and text out for models of language, arrays in and out for others.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    io::{self, IsTerminal, Read, Write},
    os::fd::{AsRawFd, FromRawFd},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use miette::Diagnostic;

use crate::{
    generate::{Prompt, Request, generate, sampling},
    manifest::{Manifest, chosen_inputs},
    native::{Model, NamedTensor, Options},
    npy,
    parts::{self, LIBRARY, MANIFEST, Part, TOKENIZER, WEIGHTS},
    text::Text,
};

/// This program's own file.
const ITSELF: &str = "/proc/self/exe";

/// A sentence for whoever runs the program, and what to do about it.
struct Problem {
    what: String,
    help: String,
}

impl Problem {
    fn new(what: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem { what: what.into(), help: help.into() }
    }
}

impl<T: Diagnostic + Error> From<T> for Problem {
    fn from(problem: T) -> Self {
        Problem::new(problem.to_string(), problem.help().map(|help| help.to_string()).unwrap_or_default())
    }
}

/// All of the program.
pub fn main() -> ExitCode {
    // A reader that goes away (`program … | head -1`) ends this program quietly, as it does others.
    // SAFETY: no thread runs yet, and the default action needs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let mut inside = match Inside::open() {
        Ok(inside) => inside,
        Err(problem) => return told("moec-program", &problem, 2),
    };
    let arguments = match command(&inside).try_get_matches() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let done = match inside.manifest.vocabulary {
        Some(_) => continue_text(&mut inside, &arguments),
        None => run_arrays(&mut inside, &arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => told(&inside.manifest.model, &problem, 1),
    }
}

fn told(name: &str, problem: &Problem, code: u8) -> ExitCode {
    eprintln!("{name}: {}", problem.what);
    if !problem.help.is_empty() {
        eprintln!("  help: {}", problem.help);
    }
    ExitCode::from(code)
}

/// What this program has inside.
struct Inside {
    file: File,
    parts: Vec<Part>,
    manifest: Manifest,
}

impl Inside {
    fn open() -> Result<Inside, Problem> {
        let unreadable = |error: io::Error| Problem::new(format!("cannot read {ITSELF}: {error}"), "is /proc there?");
        let mut file = File::open(ITSELF).map_err(unreadable)?;
        let parts = parts::read(&mut file).map_err(unreadable)?;
        let Some(part) = parts.iter().find(|part| part.name == MANIFEST) else {
            return Err(Problem::new("there is no model inside", "`moec build --emit exe` makes a program of one"));
        };
        let bytes = parts::bytes(&mut file, part).map_err(unreadable)?;
        let manifest = serde_json::from_slice(&bytes)
            .map_err(|error| Problem::new(format!("what is inside cannot be read: {error}"), "build it again"))?;
        Ok(Inside { file, parts, manifest })
    }

    fn has(&self, name: &str) -> bool {
        self.parts.iter().any(|part| part.name == name)
    }

    fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, Problem> {
        let Some(part) = self.parts.iter().find(|part| part.name == name) else { return Ok(None) };
        let bytes = parts::bytes(&mut self.file, part);
        bytes.map(Some).map_err(|error| Problem::new(format!("cannot read {ITSELF}: {error}"), ""))
    }

    fn model(&mut self, arguments: &ArgMatches) -> Result<Arc<Model>, Problem> {
        let code = self.bytes(LIBRARY)?.unwrap_or_default();
        let loaded = in_memory(&code).map_err(|error| {
            Problem::new(format!("no memory for the code: {error}"), "this needs Linux 3.17 or newer")
        })?;
        let library = format!("/proc/self/fd/{}", loaded.as_raw_fd());
        let weights = match arguments.get_one::<PathBuf>("weights") {
            Some(path) => path.clone(),
            None => ITSELF.into(),
        };
        let threads = arguments.get_one::<usize>("threads").map_or(0, |n| i32::try_from(*n).unwrap_or(i32::MAX));
        Ok(Model::open(Path::new(&library), &self.manifest.model, &weights, Options { threads, ..Options::default() })?)
    }
}

/// A file that is nowhere but in memory.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    // SAFETY: the name is a C string; the number that comes back is a file of ours.
    let mut file = unsafe {
        match libc::memfd_create(c"model".as_ptr(), libc::MFD_CLOEXEC) {
            -1 => return Err(io::Error::last_os_error()),
            number => File::from_raw_fd(number),
        }
    };
    file.write_all(bytes)?;
    Ok(file)
}

fn command(inside: &Inside) -> Command {
    let manifest = &inside.manifest;
    let weights = Arg::new("weights").long("weights").value_name("FILE").value_parser(value_parser!(PathBuf));
    let weights = match inside.has(WEIGHTS) {
        true => weights.help("Other weights of this model than those inside"),
        false => weights.help("The weight file that was built with this program").required(true),
    };
    let threads = Arg::new("threads").long("threads").value_name("N").value_parser(value_parser!(usize));
    let threads = threads.help("Threads to compute with [default: one for each core this process may use]");
    let command = Command::new(manifest.model.clone())
        .version(format!("compiled by moec {}", manifest.moec))
        .max_term_width(100)
        .after_help("Exit codes: 0 fine, 1 a problem of the input (explained), 2 wrong usage.");
    let command = match manifest.vocabulary {
        Some(_) => for_text(command, inside.has(TOKENIZER)),
        None => for_arrays(command, manifest),
    };
    command.arg(weights).arg(threads)
}

fn for_text(command: Command, has_tokenizer: bool) -> Command {
    let tokenizer = Arg::new("tokenizer").long("tokenizer").value_name("DIR").value_parser(value_parser!(PathBuf));
    let tokenizer = match has_tokenizer {
        true => tokenizer.help("A folder with another tokenizer.json than the one inside"),
        false => tokenizer.help("A folder with the model's tokenizer.json").required(true),
    };
    command
        .about("A language model, compiled by moec: text in, text out.")
        .arg(Arg::new("prompt").value_name("PROMPT").help("The text to continue [default: what standard input has]"))
        .arg(number("max-new", "N", "The most tokens to add").default_value("128").value_parser(value_parser!(usize)))
        .arg(
            number("temperature", "T", "Divides the logits before sampling: below 1 is bolder, above 1 wilder")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(f32)),
        )
        .arg(number("top-k", "K", "Sample among the K likeliest tokens only").value_parser(value_parser!(usize)))
        .arg(
            number("seed", "SEED", "The same seed gives the same text; without any of these three, the likeliest")
                .value_parser(value_parser!(u64)),
        )
        .arg(Arg::new("stats").long("stats").action(ArgAction::SetTrue).help("Say on standard error how fast it went"))
        .arg(tokenizer)
}

fn number(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn for_arrays(command: Command, manifest: &Manifest) -> Command {
    let file = |name: &'static str, short, help: &'static str| {
        Arg::new(name).long(name).short(short).value_name("NAME=FILE.npy").action(ArgAction::Append).help(help)
    };
    let line = |tensor: &crate::manifest::Tensor| {
        let first = tensor.positions.then(|| "positions".to_owned());
        let axes = first.into_iter().chain(tensor.axes.iter().map(|(axis, size)| format!("{axis}={size}")));
        format!("  {}: {}[{}]\n", tensor.name, tensor.dtype, axes.collect::<Vec<_>>().join(", "))
    };
    let inputs: String = manifest.inputs.iter().map(line).collect();
    let outputs: String = manifest.outputs.iter().map(line).collect();
    command
        .about("A model, compiled by moec: arrays in, arrays out (NumPy's .npy files).")
        .after_help(format!(
            "Inputs:\n{inputs}Outputs:\n{outputs}\nExit codes: 0 fine, 1 a problem of the input (explained), 2 wrong usage."
        ))
        .arg(file("input", 'i', "An input; where there is one only, `FILE.npy` does").required(true))
        .arg(file("output", 'o', "Where to write an output; without any, all are printed"))
}

fn continue_text(inside: &mut Inside, arguments: &ArgMatches) -> Result<(), Problem> {
    let prompt = match arguments.get_one::<String>("prompt") {
        Some(prompt) => prompt.clone(),
        None => from_standard_input()?,
    };
    let (temperature, top_k, seed) =
        (arguments.get_one("temperature"), arguments.get_one("top-k"), arguments.get_one("seed"));
    let request = Request {
        prompt: &prompt,
        max_new: arguments.get_one("max-new").copied().unwrap_or(128),
        sampling: sampling(temperature.copied(), top_k.copied(), seed.copied())?,
        seed: seed.copied().unwrap_or(0),
        traced: false,
    };
    let text = match (arguments.get_one::<PathBuf>("tokenizer"), inside.bytes(TOKENIZER)?) {
        (Some(folder), _) => Text::open(folder)?,
        (None, Some(bytes)) => Text::from_bytes(&bytes, Path::new("the tokenizer inside"))?,
        (None, None) => return Err(Problem::new("there is no tokenizer inside", "give `--tokenizer DIR`")),
    };
    let tokens = Prompt::new(&inside.manifest, &text, &request)?;
    let model = inside.model(arguments)?;
    let mut out = io::stdout().lock();
    let mut written = Ok(());
    let mut show = |piece: &str| {
        if written.is_ok() {
            written = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
        }
    };
    let told = generate(&model, &inside.manifest, &text, tokens, &request, &mut show)?;
    show("\n");
    written.map_err(|error| Problem::new(format!("cannot write: {error}"), ""))?;
    if arguments.get_flag("stats") {
        let rate = told.steps as f64 / told.decode.as_secs_f64().max(1e-9);
        eprintln!("{} + {} tokens, {rate:.0} tokens/s ({})", told.prompt_tokens, told.new_tokens, model.level());
    }
    Ok(())
}

fn from_standard_input() -> Result<String, Problem> {
    if io::stdin().is_terminal() {
        return Err(Problem::new("there is no prompt", "give one in quotes, or on standard input"));
    }
    let mut text = String::new();
    let read = io::stdin().read_to_string(&mut text);
    read.map_err(|error| Problem::new(format!("standard input: {error}"), "a prompt is UTF-8"))?;
    Ok(text)
}

fn run_arrays(inside: &mut Inside, arguments: &ArgMatches) -> Result<(), Problem> {
    let manifest = inside.manifest.clone();
    let mut given = BTreeMap::new();
    let inputs: Vec<&str> = manifest.inputs.iter().map(|input| input.name.as_str()).collect();
    for word in arguments.get_many::<String>("input").into_iter().flatten() {
        let (at, path) = named(word, &inputs, "input")?;
        let input = &manifest.inputs[at];
        let tensor = npy::read(Path::new(path), &input.name, input.dtype());
        let tensor = tensor.map_err(|why| Problem::new(format!("{path}: {why}"), "an input is one .npy file"))?;
        given.insert(input.name.clone(), tensor);
    }
    let names: Vec<&str> = manifest.outputs.iter().map(|output| output.name.as_str()).collect();
    let wanted: Vec<&String> = arguments.get_many("output").into_iter().flatten().collect();
    let wanted = wanted.into_iter().map(|word| named(word, &names, "output")).collect::<Result<Vec<_>, _>>()?;

    let (taken, positions) = chosen_inputs(&manifest, &given, "the command line")?;
    let rows = positions.first().copied().unwrap_or(1);
    let mut results: Vec<NamedTensor> = manifest.outputs.iter().map(|output| output.zeros(rows)).collect();
    let model = inside.model(arguments)?;
    let mut session = model.session(positions.iter().copied().max().unwrap_or(1).max(1))?;
    session.run(&taken, &mut results)?;
    for (at, path) in &wanted {
        npy::write(Path::new(path), &results[*at])
            .map_err(|error| Problem::new(format!("cannot write {path}: {error}"), "is there such a folder?"))?;
    }
    if wanted.is_empty() {
        let mut out = io::stdout().lock();
        let written = results.iter().try_for_each(|result| print(&mut out, result));
        written.map_err(|error| Problem::new(format!("cannot write: {error}"), ""))?;
    }
    Ok(())
}

/// The place in `names` of `NAME=FILE`, or of `FILE` where there is one name only; and the file.
fn named<'w>(word: &'w str, names: &[&str], what: &str) -> Result<(usize, &'w str), Problem> {
    if let Some((name, path)) = word.split_once('=')
        && let Some(at) = names.iter().position(|known| *known == name)
    {
        return Ok((at, path));
    }
    match names {
        [_] => Ok((0, word)),
        _ => {
            let known: Vec<String> = names.iter().map(|name| format!("`{name}=FILE.npy`")).collect();
            let what = format!("`{word}` does not say which {what} it is");
            Err(Problem::new(what, format!("one of {}", known.join(", "))))
        }
    }
}

/// A line of the shape, then a line of numbers for each row.
fn print(out: &mut impl Write, tensor: &NamedTensor) -> io::Result<()> {
    use moec_types::DType;
    writeln!(out, "{}: {}{:?}", tensor.name, tensor.dtype, tensor.shape)?;
    let width = tensor.dtype.bytes() as usize;
    let numbers: Vec<String> = tensor
        .bytes
        .chunks_exact(width)
        .map(|bytes| match (tensor.dtype, bytes) {
            (DType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).to_string(),
            (DType::I32, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]).to_string(),
            (DType::Bf16, &[a, b]) => f32::from_le_bytes([0, 0, a, b]).to_string(),
            (DType::F32 | DType::I32 | DType::Bf16 | DType::F16 | DType::Bool, bytes) => {
                bytes.iter().rev().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)).to_string()
            }
        })
        .collect();
    let row = tensor.shape.last().copied().unwrap_or(1).max(1);
    numbers.chunks(row).try_for_each(|row| writeln!(out, "{}", row.join(" ")))
}
