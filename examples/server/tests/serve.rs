//! The server over a model written by hand, with clients of all kinds: many, slow, gone, wrong, and asking for too much.

use std::{
    borrow::Cow,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread::JoinHandle,
    time::Duration,
};

use moec_codegen::{Instance, Instances, Values, fingerprint, write_weights};
use moec_plan::Plan;
use moec_server::{Limits, Options, Server};
use serde_json::{Value, json};
use tokio::sync::oneshot;

const FUNCTIONS: [&str; 18] = [
    "close",
    "session_new",
    "session_fork",
    "session_free",
    "session_reset",
    "session_position",
    "session_trace",
    "session_run",
    "forward",
    "step",
    "step_batch",
    "selftest",
    "cache_bytes",
    "level",
    "threads",
    "error_code",
    "error_message",
    "error_free",
];

struct Nothing;

impl Instances for Nothing {
    fn load(&self, _: u32, _: u32, _: u32) -> Result<Instance<'_>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Instance { axes: vec![], values: Values::F32(Cow::Owned(vec![])) })
    }
}

/// What `moec build` would write.
fn build(folder: &Path, abi: u32) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (inputs, outputs, params, literals, buffers, body) = Default::default();
    let plan = Plan { name: "parrot".into(), inputs, outputs, params, literals, buffers, body, sources: Vec::new() };
    write_weights(&plan, &Nothing, &folder.join("parrot.weights"), &mut |_, _| ()).expect("a weight file");
    let about = json!({
        "version": 1, "model": "parrot", "moec": "by hand", "levels": [], "inputs": [], "outputs": [], "weights": true,
        "vocabulary": 256, "context": 256, "end_tokens": [],
    });
    fs::write(folder.join("build.json"), about.to_string()).expect("written");
    fs::copy(here.join("../bard/tokenizer.json"), folder.join("tokenizer.json")).expect("a tokenizer");
    let runtime = here.join("../../kernels/runtime");
    let sources = fs::read_dir(&runtime).expect("the run time").map(|entry| entry.expect("an entry").path());
    let sources: Vec<PathBuf> = sources.filter(|path| path.extension().is_some_and(|end| end == "c")).collect();
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-O1", "-shared", "-fPIC", "-pthread"])
        .arg(format!("-DFINGERPRINT=0x{:x}u", fingerprint(&plan)))
        .arg(format!("-DABI={abi}"));
    cc.args(FUNCTIONS.map(|function| format!("-Dmoec_{function}=parrot_{function}")));
    cc.arg("-I").arg(&runtime).arg(here.join("tests/model.c")).args(sources).arg("-lm");
    assert!(cc.arg("-o").arg(folder.join("libparrot.so")).status().expect("a C compiler").success());
}

/// A server in a thread of its own.
struct Running {
    at: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Running {
    fn start(cache_mib: i32, limits: Limits) -> Running {
        let folder = tempfile::tempdir().expect("a folder");
        build(folder.path(), 1);
        let options = Options { threads: 1, cache_mib };
        let server = Server::open(folder.path(), options, limits).expect("a server");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("as tokio wants it");
        let at = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let stop = async { stopped.await.unwrap_or(()) };
                server.serve(listener, stop).await.expect("it serves");
            });
        };
        Running { at, stop: Some(stop), thread: Some(std::thread::spawn(serve)), _folder: folder }
    }

    fn stop(&mut self) {
        self.stop.take().expect("stopped once").send(()).expect("it runs");
        self.thread.take().expect("it ran").join().expect("it ends well");
    }
}

fn connect(at: SocketAddr, method: &str, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).expect("sent");
    stream
}

/// The status, and the body put together.
fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an answer in time");
    let text = String::from_utf8(all).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return (status, body.to_owned());
    }
    let (mut rest, mut whole) = (body, String::new());
    while let Some((size, more)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        whole += &more[..size];
        rest = more[size..].trim_start_matches("\r\n");
    }
    (status, whole)
}

fn ask(at: SocketAddr, body: &Value) -> (u16, String) {
    answer(connect(at, "POST", "/v1/completions", &body.to_string()))
}

fn request(prompt: &str, tokens: usize, stream: bool) -> Value {
    json!({ "model": "parrot", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": stream })
}

/// The text of a stream that ended as it should.
fn streamed(body: &str) -> String {
    let events: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.last(), Some(&"[DONE]"), "{body}");
    let parts: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert_eq!(parts.last().expect("a part")["choices"][0]["finish_reason"], "length");
    parts.iter().map(|part| part["choices"][0]["text"].as_str().expect("text")).collect()
}

/// What the model says alone.
fn expected(prompt: &str, tokens: usize) -> String {
    let mut text: Vec<char> = prompt.chars().collect();
    for _ in 0..tokens {
        let position = text.len() as u64 - 1;
        text.push(text[((position * 2_654_435_761) >> 7) as usize % text.len()]);
    }
    text[prompt.chars().count()..].iter().collect()
}

fn metric(at: SocketAddr, name: &str) -> u64 {
    let (_, page) = answer(connect(at, "GET", "/metrics", ""));
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("moec_{name} "))).map(str::parse);
    line.unwrap_or_else(|| panic!("no {name} in {page}")).expect("a number")
}

/// 64 at once, streamed and whole, with prompts of all lengths: each gets its own text. Returns what was set back.
fn many_clients(cache_mib: i32, batch: usize) -> u64 {
    let mut server = Running::start(cache_mib, Limits { batch, queue: 64 });
    let at = server.at;
    std::thread::scope(|scope| {
        for number in 0..64usize {
            scope.spawn(move || {
                let prompt: String =
                    format!("{number} and {} make {}; ", number * 31, number * 17).repeat(1 + number % 5);
                let tokens = 60 + number;
                let (status, body) = ask(at, &request(&prompt, tokens, number % 4 != 0));
                assert_eq!(status, 200, "{body}");
                let text = if number % 4 != 0 {
                    streamed(&body)
                } else {
                    let body: Value = serde_json::from_str(&body).expect("JSON");
                    assert_eq!(body["usage"]["completion_tokens"], tokens);
                    body["choices"][0]["text"].as_str().expect("text").to_owned()
                };
                assert_eq!(text, expected(&prompt, tokens), "{prompt}");
            });
        }
    });
    let set_back = metric(at, "set_back_total");
    assert_eq!(metric(at, "finished_total"), 64);
    server.stop();
    set_back
}

#[test]
fn many_clients_get_their_own_text() {
    many_clients(64, 64);
}

/// Two pages of caches for eight at once: most have to wait for others, and are computed anew.
#[test]
fn a_small_budget_makes_it_slower_not_wrong() {
    assert!(many_clients(1, 8) > 0);
}

#[test]
fn what_cannot_be_served_is_refused() {
    let mut server = Running::start(1, Limits { batch: 4, queue: 4 });
    let at = server.at;
    let good = request("abc", 4, false);
    let with = |key: &str, value: Value| {
        let mut request = good.clone();
        request[key] = value;
        request.to_string()
    };
    let cases = [
        ("{", 400, "no such request"),
        ("[]", 400, "no such request"),
        ("\u{0}", 400, "no such request"),
        (&with("prompt", json!("")), 400, "no tokens"),
        (&with("prompt", json!(["a", "b"])), 400, "no such request"),
        (&with("prompt", json!([1, 256])), 400, "in 0 .. 256"),
        (&with("prompt", json!([])), 400, "at least one"),
        (&with("prompt", json!("a".repeat(256))), 400, "256 tokens"),
        (&with("max_tokens", json!(254)), 400, "room for 1 to 253"),
        (&with("max_tokens", json!(-1)), 400, "no such request"),
        (&with("model", json!("other")), 404, "no model `other`"),
        (&with("temperature", json!(9)), 400, "temperature"),
        (&with("n", json!(2)), 400, "one completion"),
        (&with("stop", json!([""])), 400, "stop"),
    ];
    for (body, status, says) in cases {
        let (found, body) = answer(connect(at, "POST", "/v1/completions", body));
        assert_eq!(found, status, "{body}");
        let error: Value = serde_json::from_str(&body).expect("JSON");
        assert!(error["error"]["message"].as_str().expect("a message").contains(says), "{body}");
    }
    let talk = json!([{ "role": "user", "content": "abc" }]);
    let chats = [
        (json!({}), 400, "no such request"),
        (json!({ "messages": [] }), 400, "empty"),
        (json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }), 400, "no such request"),
        (json!({ "messages": talk, "tools": [{}] }), 400, "tools"),
        (json!({ "messages": talk, "response_format": { "type": "json_object" } }), 400, "response_format"),
        (json!({ "messages": talk, "max_tokens": 1000 }), 400, "room for 1 to"),
        (json!({ "messages": talk, "model": "other" }), 404, "no model `other`"),
        (json!({ "messages": [{ "role": "user", "content": "a".repeat(300) }] }), 400, "tokens"),
    ];
    for (body, status, says) in chats {
        let (found, answer) = answer(connect(at, "POST", "/v1/chat/completions", &body.to_string()));
        assert!(found == status && answer.contains(says), "{body}: {found} {answer}");
    }
    assert_eq!(answer(connect(at, "GET", "/elsewhere", "")).0, 404);
    assert!(answer(connect(at, "GET", "/v1/models", "")).1.contains("parrot"));
    let (status, body) = ask(at, &good);
    assert!(status == 200 && body.contains(&expected("abc", 4)), "{body}");
    // Up to a text that ends it, which is not told.
    let whole = expected("abcdefgh", 40);
    let stop = &whole[20..23];
    let mut stopped = request("abcdefgh", 40, false);
    stopped["stop"] = json!(stop);
    let body: Value = serde_json::from_str(&ask(at, &stopped).1).expect("JSON");
    assert_eq!(body["choices"][0]["text"], whole[..whole.find(stop).expect("it is there")]);
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    server.stop();
}

/// Turns become a prompt, in a plain form where the checkpoint has none of its own; an answer says who speaks.
#[test]
fn conversations_are_continued() {
    let mut server = Running::start(1, Limits { batch: 4, queue: 4 });
    let chat = |stream: bool, stop: Value| {
        let messages = json!([
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": [{ "type": "text", "text": "Who " }, { "type": "text", "text": "art thou?" }] },
        ]);
        let body = json!({
            "model": "parrot", "messages": messages, "max_completion_tokens": 30, "temperature": 0, "stop": stop,
            "stream": stream, "stream_options": { "include_usage": true },
        });
        answer(connect(server.at, "POST", "/v1/chat/completions", &body.to_string()))
    };
    let prompt = "system: Be brief.\n\nuser: Who art thou?\n\nassistant:";
    let wanted = expected(prompt, 30);
    let (status, body) = chat(false, Value::Null);
    let whole: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &whole["object"]), (200, &json!("chat.completion")), "{body}");
    assert_eq!(whole["choices"][0]["message"], json!({ "role": "assistant", "content": wanted, "refusal": null }));
    let usage = json!({ "prompt_tokens": prompt.len(), "completion_tokens": 30, "total_tokens": prompt.len() + 30 });
    assert_eq!(whole["usage"], usage);
    let stop = &wanted[9..12];
    let stopped: Value = serde_json::from_str(&chat(false, json!([stop])).1).expect("JSON");
    assert_eq!(stopped["choices"][0]["message"]["content"], wanted[..wanted.find(stop).expect("there")]);
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");

    let (_, body) = chat(true, Value::Null);
    let events: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.last(), Some(&"[DONE]"), "{body}");
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk"), "{body}");
    let [first, middle @ .., end, last] = &chunks[..] else { panic!("{body}") };
    assert_eq!(first["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    let told = middle.iter().map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().expect("text"));
    assert_eq!(told.collect::<String>(), wanted);
    assert_eq!(end["choices"][0]["finish_reason"], "length");
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &usage));
    server.stop();
}

#[test]
fn a_library_of_another_interface_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    build(folder.path(), 7);
    let Err(error) = Server::open(folder.path(), Options::default(), Limits { batch: 1, queue: 1 }) else {
        panic!("it is not refused");
    };
    assert!(error.to_string().contains("version 7 of the interface, and this program calls version 1"), "{error}");
}

/// Clients that go away, or do not read, harm nobody; more than the queue holds are told so; what was begun is ended.
#[test]
fn clients_that_misbehave_and_the_end() {
    let mut server = Running::start(64, Limits { batch: 2, queue: 2 });
    let at = server.at;
    let body = request("once upon a time ", 200, true).to_string();
    for _ in 0..20 {
        drop(connect(at, "POST", "/v1/completions", &body));
    }
    let slow: Vec<TcpStream> = (0..2).map(|_| connect(at, "POST", "/v1/completions", &body)).collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..40).map(|_| scope.spawn(|| ask(at, &request("to be ", 150, false)).0)).collect();
        asking.into_iter().map(|asked| asked.join().expect("an answer")).collect()
    });
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    let busy = std::time::Instant::now();
    while metric(at, "active") + metric(at, "waiting") > 0 {
        assert!(busy.elapsed() < Duration::from_secs(30), "somebody hangs");
        std::thread::sleep(Duration::from_millis(10));
    }
    let last = connect(at, "POST", "/v1/completions", &body);
    while metric(at, "requests_total") == 0 {}
    std::thread::sleep(Duration::from_millis(100));
    let ending = std::thread::spawn(move || answer(last));
    for slow in slow {
        let (status, body) = answer(slow);
        assert!(status == 429 || streamed(&body) == expected("once upon a time ", 200), "{status}");
    }
    server.stop();
    let (status, body) = ending.join().expect("an answer");
    assert_eq!((status, streamed(&body)), (200, expected("once upon a time ", 200)));
    assert!(TcpStream::connect(at).is_err(), "it lets nobody in any more");
}
