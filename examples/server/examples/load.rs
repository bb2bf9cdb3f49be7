//! Load on a server of this machine: streams at once for a while, each checked against what the model says alone, and beside
//! them clients that go away, that read slowly, and that ask for nonsense.
//!
//! ```text
//! cargo run --release -p moec-server --example load -- build --seconds 60 --streams 64
//! ```
//!
//! It starts the server itself, with a process of its own, so that its memory can be watched. Ends with 1 where anything went
//! wrong: an error, a text that is not the model's own, a client that hangs.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use moec_program::{
    generate::{self, Prompt},
    manifest::Manifest,
    native::{Model, Options},
    sampling::Sampling,
    text::Text,
};
use serde_json::{Value, json};

#[derive(Parser)]
struct Arguments {
    /// The folder that `moec build` wrote, with weights and tokenizer.
    build: PathBuf,
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Clients that stream one completion after the other.
    #[arg(long, default_value_t = 64)]
    streams: usize,
    /// For the server.
    #[arg(long, default_value_t = 256)]
    cache_mib: u32,
}

/// Speeches to be continued, by their beginnings: some have much in common, as those of one conversation have.
const BEGINNINGS: [&str; 8] = [
    "JULIET.",
    "ROMEO. But soft, what light",
    "ROMEO. But soft, what light through yonder",
    "HAMLET. To be",
    "First Citizen. Before we proceed any further",
    "K",
    "Enter the Ghost.\nHAMLET. Angels",
    "ACT I. SCENE II. ",
];
const NEW: [usize; 3] = [24, 64, 96];
/// Where something hangs.
const TOO_LONG: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Counts {
    streams: AtomicU64,
    tokens: AtomicU64,
    left: AtomicU64,
    slow: AtomicU64,
    refused: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

fn main() -> ExitCode {
    match load(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn load(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let (name, known) = alone(&arguments.build)?;
    let mut server = Server::start(arguments)?;
    let counts = Counts::default();
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let mut memory = Vec::new();
    std::thread::scope(|scope| {
        let (at, name, known, counts) = (&server.at, &name, &known, &counts);
        for number in 0..arguments.streams {
            scope.spawn(move || until(end, counts, number, |turn| stream(at, name, known, counts, number + turn)));
        }
        for number in 0..2 {
            scope.spawn(move || until(end, counts, number, |turn| leave(at, name, counts, turn)));
            scope.spawn(move || until(end, counts, number, |turn| read_slowly(at, name, known, counts, turn)));
            scope.spawn(move || until(end, counts, number, |turn| nonsense(at, name, counts, turn)));
        }
        while Instant::now() < end {
            std::thread::sleep(Duration::from_secs(1).min(end.saturating_duration_since(Instant::now())));
            memory.push(server.resident_kib());
        }
    });
    let metrics = server.metrics()?;
    let stopped = server.stop()?;
    let wrong = counts.wrong.into_inner()?;
    let third = memory.len() / 3;
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    println!(
        "{} streams, {} tokens, each as the model says it alone",
        counts.streams.into_inner(),
        counts.tokens.into_inner()
    );
    println!(
        "{} clients went away, {} read slowly, {} asked for nonsense or too much and were refused",
        counts.left.into_inner(),
        counts.slow.into_inner(),
        counts.refused.into_inner()
    );
    println!(
        "resident memory at most: {} KiB in the first third, {} in the second, {} in the last",
        most(&memory[..third]),
        most(&memory[third..2 * third]),
        most(&memory[2 * third..])
    );
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        println!("{line}");
    }
    println!("{} things went wrong; the server ended {}", wrong.len(), if stopped { "well" } else { "badly" });
    wrong.iter().take(10).for_each(|what| println!("  {what}"));
    Ok(wrong.is_empty() && stopped)
}

/// What the model says to each beginning with nobody else around, and its name.
fn alone(build: &Path) -> Result<(String, Known), Box<dyn Error>> {
    let about: Manifest = serde_json::from_slice(&fs::read(build.join("build.json"))?)?;
    let text = Text::open(build)?;
    let model = Model::open(&about.library(build), &about.model, &about.weights(build), Options::default())?;
    let mut known = BTreeMap::new();
    for (at, prompt) in BEGINNINGS.iter().enumerate() {
        for new in NEW {
            let request =
                generate::Request { prompt, max_new: new, sampling: Sampling::Greedy, seed: 0, traced: false };
            let tokens = Prompt::new(&about, &text, &request)?;
            let mut said = String::new();
            generate::generate(&model, &about, &text, tokens, &request, |piece| said += piece)?;
            known.insert((at, new), said[prompt.len()..].to_owned());
        }
    }
    Ok((about.model, known))
}

/// The server's process.
struct Server {
    child: Child,
    at: String,
}

impl Server {
    fn start(arguments: &Arguments) -> Result<Server, Box<dyn Error>> {
        // An example stands in a folder beside the programs.
        let itself = std::env::current_exe()?;
        let folder = itself.parent().and_then(Path::parent).ok_or("no folder")?;
        let mut command = Command::new(folder.join("moec-server"));
        command.arg(&arguments.build).args([
            "--listen",
            "127.0.0.1:0",
            "--cache-mib",
            &arguments.cache_mib.to_string(),
        ]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let at = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).ok_or("it does not start")?;
        Ok(Server { at: at.to_owned(), child })
    }

    fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    fn metrics(&self) -> Result<String, Box<dyn Error>> {
        let mut stream = TcpStream::connect(&self.at)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    /// As who operates it would.
    fn stop(&mut self) -> Result<bool, Box<dyn Error>> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        let asked = Instant::now();
        while asked.elapsed() < TOO_LONG {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.child.kill()?;
        Ok(false)
    }
}

fn until(end: Instant, counts: &Counts, from: usize, mut work: impl FnMut(usize) -> Result<(), Box<dyn Error>>) {
    let mut turn = from;
    while Instant::now() < end {
        if let Err(error) = work(turn) {
            counts.wrong.lock().expect("no thread panics").push(error.to_string());
        }
        turn += 7;
    }
}

fn ask(at: &str, body: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(TOO_LONG))?;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes())?;
    Ok(stream)
}

fn request(name: &str, prompt: &str, new: usize) -> String {
    json!({ "model": name, "prompt": prompt, "max_tokens": new, "temperature": 0, "stream": true }).to_string()
}

/// Reads a stream's text to its end, waiting `pause` between two events.
fn text_of(stream: TcpStream, pause: Duration) -> Result<String, Box<dyn Error>> {
    let (mut text, mut ended) = (String::new(), false);
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let Some(data) = line.strip_prefix("data: ") else {
            if line.starts_with("HTTP/1.1 ") && !line.contains(" 200 ") {
                return Err(line.into());
            }
            continue;
        };
        if data == "[DONE]" {
            ended = true;
            continue;
        }
        let event: Value = serde_json::from_str(data)?;
        text += event["choices"][0]["text"].as_str().ok_or_else(|| format!("an event without text: {data}"))?;
        std::thread::sleep(pause);
    }
    if ended { Ok(text) } else { Err(format!("a stream broke off after {text:?}").into()) }
}

type Known = BTreeMap<(usize, usize), String>;

fn stream(at: &str, name: &str, known: &Known, counts: &Counts, turn: usize) -> Result<(), Box<dyn Error>> {
    let (which, new) = (turn % BEGINNINGS.len(), NEW[turn / BEGINNINGS.len() % NEW.len()]);
    let text = text_of(ask(at, &request(name, BEGINNINGS[which], new))?, Duration::ZERO)?;
    if text != known[&(which, new)] {
        return Err(format!("{:?} was continued by {text:?}, not {:?}", BEGINNINGS[which], known[&(which, new)]).into());
    }
    counts.streams.fetch_add(1, Relaxed);
    counts.tokens.fetch_add(new as u64, Relaxed);
    Ok(())
}

/// Goes away after some of the answer.
fn leave(at: &str, name: &str, counts: &Counts, turn: usize) -> Result<(), Box<dyn Error>> {
    let mut stream = ask(at, &request(name, BEGINNINGS[turn % BEGINNINGS.len()], NEW[2]))?;
    let mut some = [0; 300];
    if !turn.is_multiple_of(3) {
        let _ = stream.read(&mut some)?;
    }
    drop(stream);
    counts.left.fetch_add(1, Relaxed);
    std::thread::sleep(Duration::from_millis(30));
    Ok(())
}

fn read_slowly(at: &str, name: &str, known: &Known, counts: &Counts, turn: usize) -> Result<(), Box<dyn Error>> {
    let which = turn % BEGINNINGS.len();
    let text = text_of(ask(at, &request(name, BEGINNINGS[which], NEW[0]))?, Duration::from_millis(100))?;
    if text != known[&(which, NEW[0])] {
        return Err(format!("a slow client was told {text:?}").into());
    }
    counts.slow.fetch_add(1, Relaxed);
    Ok(())
}

/// What cannot be served is refused at once, as the client's mistake.
fn nonsense(at: &str, name: &str, counts: &Counts, turn: usize) -> Result<(), Box<dyn Error>> {
    let bodies = [
        "{".to_owned(),
        "[1, 2".repeat(1000),
        request("nobody", "A", 4),
        request(name, "A", 1 << 20),
        request(name, &"to be or not to be ".repeat(1000), 4),
        request(name, "", 4),
    ];
    let mut answer = String::new();
    ask(at, &bodies[turn % bodies.len()])?.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 4") {
        return Err(format!("nonsense was answered: {}", answer.lines().next().unwrap_or("nothing")).into());
    }
    counts.refused.fetch_add(1, Relaxed);
    std::thread::sleep(Duration::from_millis(50));
    Ok(())
}
