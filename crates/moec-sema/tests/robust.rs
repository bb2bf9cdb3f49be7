//! Whatever a file says, the check ends, and with problems rather than a panic.

use std::time::Instant;

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

#[test]
fn absurd_settings() {
    let text = include_str!("../../../examples/families/mixtral.moe");
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
