//! A small editor: it opens documents, asks, and keeps the problems that it was told.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::Duration,
};

use lsp_server::{Connection, Message, Notification, Request, RequestId};
use serde_json::{Value, json};

/// A server that does not answer within this is stuck.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Client {
    connection: Connection,
    server: Option<JoinHandle<()>>,
    asked: i32,
    opened: usize,
    version: i32,
    /// What was told last of each document, and of which version.
    told: BTreeMap<String, (Option<i64>, Value)>,
}

impl Client {
    pub fn start() -> Client {
        let (ours, theirs) = Connection::memory();
        let server = std::thread::spawn(move || moec_lsp::serve(&theirs).expect("a clean end"));
        let mut client =
            Client { connection: ours, server: Some(server), asked: 0, opened: 0, version: 0, told: BTreeMap::new() };
        let hello = json!({ "capabilities": {}, "initializationOptions": { "libraryUri": true } });
        assert!(client.ask("initialize", hello)["capabilities"]["hoverProvider"] == true);
        client.notify("initialized", json!({}));
        client
    }

    /// Opens a document and returns its address.
    pub fn open(&mut self, text: &str) -> String {
        self.opened += 1;
        let uri = format!("file:///specs/number%20{}.moe", self.opened);
        let document = json!({ "uri": uri, "languageId": "moe", "version": 0, "text": text });
        self.notify("textDocument/didOpen", json!({ "textDocument": document }));
        uri
    }

    pub fn change(&mut self, uri: &str, text: &str) {
        self.version += 1;
        let params = json!({
            "textDocument": { "uri": uri, "version": self.version },
            "contentChanges": [{ "text": text }],
        });
        self.notify("textDocument/didChange", params);
    }

    pub fn close(&mut self, uri: &str) {
        self.notify("textDocument/didClose", json!({ "textDocument": { "uri": uri } }));
    }

    pub fn notify(&self, method: &str, params: Value) {
        self.connection.sender.send(Notification::new(method.to_owned(), params).into()).expect("it listens");
    }

    /// # Panics
    /// When the server refuses.
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        self.try_ask(method, params.clone()).unwrap_or_else(|error| panic!("{method} {params}: {error}"))
    }

    pub fn try_ask(&mut self, method: &str, params: Value) -> Result<Value, String> {
        self.asked += 1;
        let id = RequestId::from(self.asked);
        self.connection.sender.send(Request::new(id.clone(), method.to_owned(), params).into()).expect("it listens");
        loop {
            match self.connection.receiver.recv_timeout(PATIENCE).expect("an answer in time") {
                Message::Response(response) => {
                    let answer = serde_json::to_value(&response).expect("JSON");
                    assert_eq!(answer["id"], self.asked, "one answer for each question, in order");
                    return match answer.get("error") {
                        Some(error) => {
                            assert_ne!(error["code"], -32603, "an internal error: {error}");
                            Err(error["message"].to_string())
                        }
                        None => Ok(answer["result"].clone()),
                    };
                }
                Message::Notification(notification) => self.hear(notification),
                Message::Request(request) => panic!("an unexpected {request:?}"),
            }
        }
    }

    fn hear(&mut self, notification: Notification) {
        assert_eq!(notification.method, "textDocument/publishDiagnostics");
        let params = notification.params;
        let uri = params["uri"].as_str().expect("an address").to_owned();
        self.told.insert(uri, (params["version"].as_i64(), params["diagnostics"].clone()));
    }

    /// The problems of the document's last version.
    pub fn problems(&mut self, uri: &str) -> Value {
        // Problems are sent when there is nothing else to do, so this waits for them.
        loop {
            let current = match self.told.get(uri) {
                Some((Some(version), _)) => *version == i64::from(self.version),
                Some((None, _)) => true,
                None => false,
            };
            if current {
                return self.told[uri].1.clone();
            }
            match self.connection.receiver.recv_timeout(PATIENCE).expect("problems in time") {
                Message::Notification(notification) => self.hear(notification),
                other => panic!("an unexpected {other:?}"),
            }
        }
    }

    /// Every problem of a document that was just opened lies in it.
    pub fn assert_ranges(&mut self, uri: &str, text: &str, path: &Path) {
        self.version = 0;
        self.assert_problems_inside(uri, text, path);
    }

    pub fn assert_problems_inside(&mut self, uri: &str, text: &str, path: &Path) {
        let problems = self.problems(uri);
        let widths: Vec<u64> = text.split('\n').map(|line| line.encode_utf16().count() as u64).collect();
        for problem in problems.as_array().expect("a list") {
            let related = problem["relatedInformation"].as_array().into_iter().flatten();
            let ranges = related.map(|related| &related["location"]["range"]).chain([&problem["range"]]);
            for place in ranges.flat_map(|range| [&range["start"], &range["end"]]) {
                let (line, column) = (place["line"].as_u64().unwrap(), place["character"].as_u64().unwrap());
                let width = widths.get(line as usize);
                assert!(width.is_some_and(|width| column <= *width), "{}: {problem}", path.display());
            }
            assert!(!problem["message"].as_str().unwrap().is_empty());
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.ask("shutdown", Value::Null);
        self.notify("exit", Value::Null);
        self.server.take().expect("started").join().expect("a clean end");
    }
}

/// Every `.moe` file of the repository, sound or not.
pub fn files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for folder in ["grammar/corpus", "examples", "crates/moec-sema/std", "tests/diagnostics"] {
        walk(&root.join(folder), &mut found);
    }
    found.sort();
    let texts: Vec<_> =
        found.into_iter().filter_map(|path| Some((path.clone(), std::fs::read_to_string(path).ok()?))).collect();
    assert!(texts.len() > 40, "{} files", texts.len());
    texts
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|end| end == "moe") {
            found.push(path);
        }
    }
}
