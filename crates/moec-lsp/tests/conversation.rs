//! An editor's side of the conversation, over every `.moe` file of the repository and at chosen places.

mod client;

use client::{Client, files};
use serde_json::{Value, json};

/// A text in which `|` marks a place; gives the text without it, and the place.
fn marked(text: &str) -> (String, Value) {
    let at = text.find('|').expect("a mark");
    let before = &text[..at];
    let line = before.matches('\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default().encode_utf16().count();
    (text.replacen('|', "", 1), json!({ "line": line, "character": column }))
}

const LAYER: &str = "\
use std::gate::top_k_softmax
use std::expert::swiglu

config {
  /// Width.
  D = 64
  F = 32
}

/// Twice.
fn twice(x, by = 2.0) = x * by

block around(k over A) {
  param w[A]
  out sum(x * w over A) * k
}

model layer(x: f32[S, D]) {
  part ffn = moe { gate top_k_softmax(2); experts swiglu(F) × 8 }
  part about = around(3 over D)
  let y = ffn(x)
  let z = y + twice(y, by = 3.0)
  out result: f32[S, D] = z + about(x)
}
";

/// [`LAYER`] with a mark before the n-th place where `what` stands.
fn layer_at(what: &str, nth: usize) -> (String, Value) {
    let (at, _) = LAYER.match_indices(what).nth(nth).expect("it is there");
    marked(&format!("{}|{}", &LAYER[..at], &LAYER[at..]))
}

fn hover(what: &str, nth: usize) -> String {
    let (text, position) = layer_at(what, nth);
    let mut client = Client::start();
    let uri = client.open(&text);
    let answer = client.ask("textDocument/hover", json!({ "textDocument": { "uri": uri }, "position": position }));
    answer["contents"]["value"].as_str().unwrap_or_default().to_owned()
}

fn labels(text: &str) -> Vec<String> {
    let (text, position) = marked(text);
    let mut client = Client::start();
    let uri = client.open(&text);
    let answer = client.ask("textDocument/completion", json!({ "textDocument": { "uri": uri }, "position": position }));
    answer.as_array().unwrap().iter().map(|item| item["label"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn all_files_everywhere() {
    let mut client = Client::start();
    for (path, text) in files() {
        let uri = client.open(&text);
        client.assert_ranges(&uri, &text, &path);
        let document = json!({ "textDocument": { "uri": uri } });
        for method in ["documentSymbol", "semanticTokens/full", "formatting"] {
            let mut params = document.clone();
            params["options"] = json!({ "tabSize": 2, "insertSpaces": true });
            client.ask(&format!("textDocument/{method}"), params);
        }
        // Long files are sampled.
        let step = 1 + text.len() / 60;
        for (line, content) in text.lines().enumerate() {
            let width = content.encode_utf16().count();
            for character in (line % step..=width).step_by(step) {
                let place =
                    json!({ "textDocument": { "uri": uri }, "position": { "line": line, "character": character } });
                client.ask("textDocument/hover", place.clone());
                client.ask("textDocument/definition", place.clone());
                if (line + character) % 7 == 0 {
                    client.ask("textDocument/completion", place.clone());
                    client.ask("textDocument/prepareRename", place);
                }
            }
        }
        client.close(&uri);
    }
}

#[test]
fn broken_and_back() {
    let mut client = Client::start();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % bound.max(1) as u64) as usize
    };
    // A check takes a while in a debug build.
    for (path, text) in files().into_iter().filter(|(_, text)| text.len() < 3000).step_by(3) {
        let uri = client.open(&text);
        client.assert_ranges(&uri, &text, &path);
        let before = client.problems(&uri);
        for _ in 0..2 {
            // As if something were cut out, or typed half.
            let mut from = below(text.len());
            let mut to = (from + below(40)).min(text.len());
            while !text.is_char_boundary(from) {
                from -= 1;
            }
            while !text.is_char_boundary(to) {
                to += 1;
            }
            let broken = format!("{}{}{}", &text[..from], ["", "{", "\"", "over "][below(4)], &text[to..]);
            client.change(&uri, &broken);
            client.assert_problems_inside(&uri, &broken, &path);
            let document = json!({ "textDocument": { "uri": uri } });
            client.ask("textDocument/documentSymbol", document.clone());
            client.ask("textDocument/semanticTokens/full", document);
            let line = broken[..from].matches('\n').count();
            for character in (0..24).step_by(8) {
                let place =
                    json!({ "textDocument": { "uri": uri }, "position": { "line": line, "character": character } });
                client.ask("textDocument/hover", place.clone());
                client.ask("textDocument/completion", place);
            }
        }
        client.change(&uri, &text);
        assert_eq!(client.problems(&uri), before, "{}", path.display());
        client.close(&uri);
    }
}

#[test]
fn problems_come_and_go() {
    let mut client = Client::start();
    let uri = client.open(LAYER);
    assert_eq!(client.problems(&uri), json!([]));
    client.change(&uri, &LAYER.replace("ffn(x)", "fnn(x)"));
    let problems = client.problems(&uri);
    let [problem] = &problems.as_array().unwrap()[..] else { panic!("{problems}") };
    assert_eq!(problem["range"]["start"], json!({ "line": 20, "character": 10 }));
    assert_eq!(problem["code"], "moec::sema::unknown_name");
    assert!(problem["message"].as_str().unwrap().contains("help:"), "{problem}");
    // Two places that disagree.
    client.change(&uri, &LAYER.replace("let z", "let y"));
    let problems = client.problems(&uri);
    assert_eq!(problems[0]["relatedInformation"][0]["location"]["range"]["start"]["line"], 20, "{problems}");
    client.change(&uri, "model {");
    assert!(!client.problems(&uri).as_array().unwrap().is_empty());
    client.change(&uri, "\u{0}");
    assert_eq!(client.problems(&uri)[0]["code"], "moec::syntax::binary_file");
    client.change(&uri, LAYER);
    assert_eq!(client.problems(&uri), json!([]));
    client.close(&uri);
    assert_eq!(client.problems(&uri), json!([]));
}

#[test]
fn hover_says_what_it_is() {
    for (what, nth, words) in [
        ("D = 64", 0, &["config D", "Width.", "`64`"][..]),
        ("twice(y", 0, &["fn twice(x, by = …)", "Twice.", "gives `f32[S, D=64]`"]),
        ("top_k_softmax(2", 0, &["gate top_k_softmax(", "from `std::gate`"]),
        ("z + about", 0, &["let z", "`f32[S, D=64]`"]),
        ("w[A]", 0, &["param w", "`about.w`: 64 parameters"]),
        ("ffn = moe", 0, &["part ffn", "49 664 parameters"]),
        ("layer(x", 0, &["model layer", "49 728 parameters"]),
        ("sum(x", 0, &["sum(x over A)", "gives `f32[S]`"]),
        ("A) * k", 0, &["axis named by the caller: A", "D=64"]),
        ("* w", 0, &["`f32[S, D=64]`"]),
    ] {
        let text = hover(what, nth);
        for word in words {
            assert!(text.contains(word), "no {word:?} at {what:?}: {text}");
        }
    }
}

#[test]
fn hover_over_a_weight_rule() {
    let (text, position) = marked(
        "model m(x: f32[S, D = 4]) {\n  param up[F = 2, D]  param down[F = 2, D]\n  out y: f32[S, D] = sum(x * up * down over F)\n}\n\
         weights hf { {up,do|wn} = \"{up,down}.weight\" }\n",
    );
    let mut client = Client::start();
    let uri = client.open(&text);
    let answer = client.ask("textDocument/hover", json!({ "textDocument": { "uri": uri }, "position": position }));
    let told = answer["contents"]["value"].as_str().unwrap();
    assert!(told.contains("`up`: `f32[F=2, D=4]`, 8 parameters") && told.contains("`down`:"), "{told}");
}

#[test]
fn definitions_here_and_in_the_library() {
    let mut client = Client::start();
    let (text, position) = layer_at("y + twice", 0);
    let uri = client.open(&text);
    let place = |position: &Value| json!({ "textDocument": { "uri": uri }, "position": position });
    let found = client.ask("textDocument/definition", place(&position));
    assert_eq!(found["range"]["start"], json!({ "line": 20, "character": 6 }));
    let (_, position) = layer_at("swiglu(F)", 0);
    let found = client.ask("textDocument/definition", place(&position));
    assert_eq!(found["uri"], "moec-std:/expert.moe");
    let library = client.ask("moec/libraryText", json!({ "uri": "moec-std:/expert.moe" }));
    let line = library.as_str().unwrap().lines().nth(found["range"]["start"]["line"].as_u64().unwrap() as usize);
    assert!(line.unwrap().starts_with("expert swiglu("), "{line:?}");
}

#[test]
fn completion_fits_the_place() {
    for (text, has, lacks) in [
        ("|", "model", "softmax"),
        ("use |", "std", "model"),
        ("use std::|", "gate", "prelude"),
        ("use std::norm::|", "rms_norm", "swiglu"),
        ("use std::norm::{rms_norm, |", "layer_norm", "swiglu"),
        ("config {\n  |\n}", "require", "model"),
        ("config {\n  |\n}", "ignore", "scaled"),
        ("block b {\n  param w[D]\n  le|\n}", "let", "softmax"),
        ("block b {\n  param w[D]\n  out soft|\n}", "softmax", "param"),
        ("block b {\n  param w[D]\n  out x * |\n}", "w", "param"),
        ("config { D = 4  scale = 1.0 }\nblock b {\n  param w[D]\n  out sum(x * w over |\n}", "D", "scale"),
        ("model m(x: |", "f32", "softmax"),
        ("model m(x: f32[S, D = 4]) {\n  part p = moe { gate |", "top_k_softmax", "swiglu"),
        ("model m(x: f32[S, D = 4]) {\n  part p = moe { gate g; experts |", "swiglu", "top_k_softmax"),
        ("model m(x: f32[S, D = 4]) {\n  part p = moe {\n    |\n  }", "always", "param"),
        ("model m(x: f32[S, D = 4]) {\n  let y = x\n  out |", "y", "param"),
        ("model m(x: f32[S, D = 4]) {\n  layers l in 0..4 {\n    |", "part", "softmax"),
        ("fn f(x, long_name) = if x > 0 { |", "softmax", "param"),
        ("// a comm|", "", "model"),
        ("config { act = \"si|", "", "require"),
    ] {
        let labels = labels(text);
        assert!(has.is_empty() || labels.iter().any(|label| label == has), "no {has} at {text}: {labels:?}");
        assert!(!labels.iter().any(|label| label == lacks), "{lacks} at {text}: {labels:?}");
    }
}

#[test]
fn what_the_library_has_comes_with_its_use() {
    let (text, position) =
        marked("//! A head.\n\nmodel m(x: f32[S, D = 4]) {\n  part n = rms|\n  out y: f32[S, D] = n(x)\n}\n");
    let mut client = Client::start();
    let uri = client.open(&text);
    let answer = client.ask("textDocument/completion", json!({ "textDocument": { "uri": uri }, "position": position }));
    let item = answer.as_array().unwrap().iter().find(|item| item["label"] == "rms_norm").unwrap();
    assert_eq!(item["additionalTextEdits"][0]["newText"], "use std::norm::rms_norm\n\n");
    assert_eq!(item["additionalTextEdits"][0]["range"]["start"]["line"], 2);
}

fn renamed(what: &str, nth: usize, new: &str) -> Result<String, String> {
    let (text, position) = layer_at(what, nth);
    let mut client = Client::start();
    let uri = client.open(&text);
    let params = json!({ "textDocument": { "uri": uri }, "position": position, "newName": new });
    let edits = client.try_ask("textDocument/rename", params)?;
    let mut edits = edits["changes"][&uri].as_array().unwrap().clone();
    edits.sort_by_key(|edit| {
        let start = &edit["range"]["start"];
        std::cmp::Reverse((start["line"].as_u64(), start["character"].as_u64()))
    });
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for edit in edits {
        let place = |end: &str, part: &str| edit["range"][end][part].as_u64().unwrap() as usize;
        // The lines that names stand on are ASCII up to them.
        let line = &mut lines[place("start", "line")];
        line.replace_range(place("start", "character")..place("end", "character"), edit["newText"].as_str().unwrap());
    }
    Ok(lines.join("\n") + "\n")
}

#[test]
fn renaming_keeps_the_meaning() {
    assert_eq!(
        renamed("y = ffn", 0, "value").unwrap(),
        LAYER.replace("let y", "let value").replace("= y + twice(y,", "= value + twice(value,")
    );
    assert_eq!(renamed("by = 2.0", 0, "factor").unwrap(), LAYER.replace("by", "factor"));
    assert_eq!(renamed("around(3", 0, "near").unwrap(), LAYER.replace("around", "near"));
    let axis = LAYER.replace("over A", "over Axis").replace("w[A]", "w[Axis]");
    assert_eq!(renamed("A) {", 0, "Axis").unwrap(), axis);
    for (what, nth, new, why) in [
        ("y = ffn", 0, "z", "already"),
        ("y = ffn", 0, "not", "cannot be a name"),
        ("y = ffn", 0, "1st", "cannot be a name"),
        ("y = ffn", 0, "exp", "means something already"),
        ("swiglu(F)", 0, "mine", "standard library"),
        // The library's experts call the width `D`.
        ("D = 64", 0, "Width", "cannot become"),
    ] {
        let refusal = renamed(what, nth, new).unwrap_err();
        assert!(refusal.contains(why), "{what} to {new}: {refusal}");
    }
}

#[test]
fn formatting_is_one_edit_or_none() {
    let mut client = Client::start();
    let params =
        |uri: &str| json!({ "textDocument": { "uri": uri }, "options": { "tabSize": 2, "insertSpaces": true } });
    let uri = client.open("fn f( x )=x\n");
    assert_eq!(client.ask("textDocument/formatting", params(&uri))[0]["newText"], "fn f(x) = x\n");
    let uri = client.open("fn f(x) = x\n");
    assert_eq!(client.ask("textDocument/formatting", params(&uri)), json!([]));
    let uri = client.open("fn f(x =\n");
    assert_eq!(client.ask("textDocument/formatting", params(&uri)), json!([]));
}

#[test]
fn an_editor_may_ask_anything() {
    let mut client = Client::start();
    assert!(client.try_ask("textDocument/noSuchThing", json!({})).is_err());
    assert!(client.try_ask("textDocument/hover", json!({ "nonsense": 1 })).is_err());
    let place = json!({ "textDocument": { "uri": "file:///not/open.moe" }, "position": { "line": 9, "character": 9 } });
    assert_eq!(client.ask("textDocument/hover", place), Value::Null);
    client.notify("textDocument/didChange", json!({ "nonsense": 1 }));
    let uri = client.open("");
    let place = json!({ "textDocument": { "uri": uri }, "position": { "line": 900, "character": 900 } });
    assert_eq!(client.ask("textDocument/hover", place), Value::Null);
}

#[test]
fn files_of_ones_own_are_read_as_they_stand_in_the_editor() {
    let mut client = Client::start();
    let gates = "gate best {\n  param W[E, D]\n  let (v, i) = top_k(x · W, 1 over E)\n  route tokens(i, v)\n}\n";
    let uses = client.open(gates);
    let model = "use \"number 1.moe\"::best\nuse std::expert::copy\n\
                 model m(x: f32[S, D = 8]) {\n  part ffn = moe { gate best; experts copy × 4 }\n  out y = ffn(x)\n}\n";
    let uri = client.open(model);
    assert_eq!(client.problems(&uri), json!([]));
    client.change(&uses, &gates.replace("best", "worst"));
    client.change(&uri, model);
    let problems = client.problems(&uri).to_string();
    assert!(problems.contains("has no `best`"), "{problems}");
}
