//! Whatever a file says, the check ends, and with problems rather than a panic.

use std::{fs, path::PathBuf, time::Instant};

use moec_diag::SourceMap;
use moec_sema::{Settings, check};

/// How many problems; a tree with syntax errors is checked as well, as a language server would.
fn problems_of(text: &str, settings: &Settings) -> usize {
    let mut sources = SourceMap::default();
    let (file, problems) = moec_syntax::parse(&mut sources, "test.moe", text);
    let Some(file) = file else { return problems.len() };
    let (checked, found) = check(&mut sources, &file, settings);
    if let Some(checked) = checked {
        moec_ir::verify(&checked.module).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
    problems.len() + found.len()
}

fn texts() -> Vec<String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut texts = Vec::new();
    for folder in ["examples/families", "examples/gates", "tests/diagnostics"] {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "moe"));
        paths.retain(|path| !path.ends_with("blow-up.moe"));
        paths.sort();
        texts.extend(paths.iter().map(|path| fs::read_to_string(path).unwrap()));
    }
    texts
}

/// Few layers, where a file has many, so that many variants can be checked.
fn small(text: &str) -> Settings {
    let layers = text.contains("num_hidden_layers").then(|| ("L".to_owned(), "2".to_owned()));
    Settings { overrides: layers.into_iter().collect(), ..Settings::default() }
}

#[test]
fn a_line_missing_or_doubled() {
    for text in texts() {
        let lines: Vec<&str> = text.lines().collect();
        for at in (lines.len() % 3..lines.len()).step_by(3) {
            problems_of(&[&lines[..at], &lines[at + 1..]].concat().join("\n"), &small(&text));
            problems_of(&[&lines[..=at], &lines[at..]].concat().join("\n"), &small(&text));
        }
    }
}

#[test]
fn a_word_replaced_by_another() {
    let texts = texts();
    let mut state = 12345u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for _ in 0..400 {
        let text = &texts[random(texts.len())];
        let words: Vec<(usize, &str)> = text
            .match_indices(|c: char| c.is_alphanumeric())
            .filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
            .map(|(at, _)| {
                let rest = &text[at..];
                (at, &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())])
            })
            .collect();
        let (at, word) = words[random(words.len())];
        let (_, other) = words[random(words.len())];
        let changed = format!("{}{other}{}", &text[..at], &text[at + word.len()..]);
        problems_of(&changed, &small(text));
    }
}

#[test]
fn absurd_settings() {
    let text = &texts()[0];
    for value in ["0", "-1", "1", "3", "4294967296", "9223372036854775807", "1e300", "true", "\"x\"", "[]"] {
        for name in ["V", "D", "L", "H", "KV", "Hd", "E", "K", "F", "window", "eps", "theta", "act", "tied"] {
            let settings = Settings { overrides: vec![(name.to_owned(), value.to_owned())], ..Settings::default() };
            problems_of(text, &settings);
        }
    }
    for config in
        ["[]", "3", "null", "{\"hidden_size\": []}", "{\"rope_parameters\": 3, \"architectures\": {\"a\": 1}}"]
    {
        let config = serde_json::from_str(config).unwrap();
        problems_of(text, &Settings { config: Some(config), ..Settings::default() });
    }
}

#[test]
fn deep_and_wide_files_end() {
    let started = Instant::now();
    let many = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<Vec<_>>().join("\n");
    let chain = format!(
        "{}\nmodel m(x: f32[S, D = 4]) {{ out y = f0(x) }}",
        many(200, &|at| if at == 199 {
            format!("fn f{at}(x) = x + 1.0")
        } else {
            format!("fn f{at}(x) = f{}(x + 1.0)", at + 1)
        })
    );
    assert!(problems_of(&chain, &Settings::default()) > 0, "calls nested 200 deep");
    let blocks = "block b { part p = b  out p(x) }\nmodel m(x: f32[S, D = 4]) { part p = b  out y = p(x) }";
    assert_eq!(problems_of(blocks, &Settings::default()), 1, "a block within itself");
    let default = "fn f(a = f()) = a\nmodel m(x: f32[S, D = 4]) { out y = f() + x }";
    assert_eq!(problems_of(default, &Settings::default()), 1, "a default that calls its function");
    let long =
        format!("model m(x: f32[S, D = 4]) {{ let h = x\n{}\nout y = h }}", many(5000, &|_| "h = h + x".to_owned()));
    assert_eq!(problems_of(&long, &Settings::default()), 0, "5000 statements");
    let layers =
        "model m(x: f32[S, D = 4]) { let h = x  layers l in 0..20000 { param w[D]  h = h * w + l } out y = h }";
    assert_eq!(problems_of(layers, &Settings::default()), 0, "20000 layers, no two alike");
    let huge = "model m(x: f32[S, D = 4]) { param w[A = 4294967296, B = 4294967296, D]  out y = x · w }";
    assert_eq!(problems_of(huge, &Settings::default()), 1, "a parameter beyond counting");
    assert!(started.elapsed().as_secs() < 60, "took {:?}", started.elapsed());
}
