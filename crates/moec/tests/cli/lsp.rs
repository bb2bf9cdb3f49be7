//! `moec lsp` over real pipes: what it says of a document, and that it ends when its editor does.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

struct Editor {
    server: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Editor {
    fn start() -> Editor {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moec"));
        let mut server = command.args(["lsp", "--stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (server.stdin.take().unwrap(), BufReader::new(server.stdout.take().unwrap()));
        let mut editor = Editor { server, to, from };
        editor.say(json!({ "id": 1, "method": "initialize", "params": { "capabilities": {} } }));
        assert_eq!(editor.hear()["result"]["capabilities"]["documentFormattingProvider"], true);
        editor.say(json!({ "method": "initialized", "params": {} }));
        editor
    }

    fn say(&mut self, mut message: Value) {
        message["jsonrpc"] = "2.0".into();
        let message = message.to_string();
        write!(self.to, "Content-Length: {}\r\n\r\n{message}", message.len()).unwrap();
        self.to.flush().unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.from.read_line(&mut line).unwrap();
            match line.trim().strip_prefix("Content-Length: ") {
                Some(bytes) => length = bytes.parse().unwrap(),
                None if line.trim().is_empty() => break,
                None => {}
            }
        }
        let mut message = vec![0; length];
        self.from.read_exact(&mut message).unwrap();
        serde_json::from_slice(&message).unwrap()
    }
}

#[test]
fn a_short_conversation() {
    let mut editor = Editor::start();
    let document = json!({ "uri": "file:///m.moe", "languageId": "moe", "version": 7, "text": "model m(x: f32[S, D = 4]) { out y = z }\n" });
    editor.say(json!({ "method": "textDocument/didOpen", "params": { "textDocument": document } }));
    let told = editor.hear();
    assert_eq!(told["params"]["version"], 7);
    assert_eq!(told["params"]["diagnostics"][0]["code"], "moec::sema::unknown_name", "{told}");
    editor.say(json!({ "id": 2, "method": "shutdown" }));
    assert_eq!(editor.hear()["id"], 2);
    editor.say(json!({ "method": "exit" }));
    assert_eq!(editor.server.wait().unwrap().code(), Some(0));
}

#[test]
fn an_editor_that_is_gone_ends_it() {
    let Editor { mut server, to, from: _ } = Editor::start();
    drop(to);
    assert!(server.wait().unwrap().code().is_some_and(|code| code != 101));
}
