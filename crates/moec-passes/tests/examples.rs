//! The passes on what `.moe` files really become: the same numbers, and nothing left that a plan has no step for.

mod common;

use std::path::{Path, PathBuf};

use moec_diag::SourceMap;
use moec_ir::{Module, Op, print};
use moec_passes::{Entry, Options, Report, apply, pipeline, run};
use moec_sema::Settings;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn module(path: &Path, config: Option<serde_json::Value>) -> Module {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).expect("the example is there");
    let mut sources = SourceMap::default();
    let (file, problems) = moec_syntax::parse(&mut sources, &name, &text);
    assert!(problems.is_empty(), "{name}");
    let settings = Settings { config, ..Settings::default() };
    let (checked, problems) = moec_sema::check(&mut sources, &file.expect("a tree"), &settings);
    assert!(problems.is_empty(), "{name}: {}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    checked.expect("sound").module
}

fn listed(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).expect("the folder is there");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    found.sort();
    found
}

/// Every tiny checkpoint whose architecture an example serves.
fn families() -> Vec<(String, Module)> {
    let examples: Vec<(PathBuf, String)> = listed("examples/families")
        .into_iter()
        .map(|path| (path.clone(), std::fs::read_to_string(path).expect("an example can be read")))
        .collect();
    let mut found = Vec::new();
    for folder in listed("tests/data/oracles").into_iter().filter(|path| path.join("config.json").is_file()) {
        let text = std::fs::read_to_string(folder.join("config.json")).expect("it can be read");
        let config: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let serves = format!("serves \"{}\"", config["architectures"][0].as_str().unwrap_or_default());
        for (path, _) in examples.iter().filter(|(_, text)| text.contains(&serves)) {
            let name = folder.file_name().expect("a folder has a name").to_string_lossy().into_owned();
            found.push((name, module(path, Some(config.clone()))));
        }
    }
    assert!(found.len() >= 5, "the tiny checkpoints are there");
    found
}

/// Every gate.
fn gates() -> Vec<(String, Module)> {
    let files = listed("examples/gates").into_iter().filter(|path| path.extension().is_some_and(|end| end == "moe"));
    files.map(|path| (path.display().to_string(), module(&path, None))).collect()
}

#[test]
fn the_same_numbers_after_every_pass() {
    for (name, before) in families().into_iter().chain(gates()) {
        let mut after = before.clone();
        for pass in pipeline() {
            after = apply(pass, after, &mut Report::default());
        }
        common::assert_same(&name, &before, &after);
    }
}

#[test]
fn everything_fuses() {
    for (name, before) in families().into_iter().chain(gates()) {
        let (after, report) = run(before.clone(), &Options::default());
        if let Some(folder) = std::env::var_os("MOEC_DUMP") {
            let file = Path::new(&folder).join(&name);
            let told: Vec<String> = report.entries.iter().map(ToString::to_string).collect();
            let text = format!("{}\n{}\n{}\n", print(&before), print(&after), told.join("\n"));
            std::fs::write(file, text).expect("the folder can be written");
        }
        let rows: Vec<_> = after
            .walk()
            .into_iter()
            .filter(|(_, at)| matches!(after.node(*at).op, Op::Rows(_)))
            .flat_map(|(_, at)| after.node(at).op.regions())
            .collect();
        // Where each choice is asked for by itself, the plan has its rows by slot.
        let by_choice = after.walk().into_iter().any(|(_, at)| matches!(after.node(at).op, Op::Each(_)));
        for (_, at) in after.walk().into_iter().filter(|(region, _)| !rows.contains(region)) {
            let op = &after.node(at).op;
            let known = matches!(
                op,
                Op::Rows(_)
                    | Op::Linear(_)
                    | Op::Attention(_)
                    | Op::Past(_)
                    | Op::Route(_)
                    | Op::Experts(_)
                    | Op::Layers(_)
                    | Op::ParamRef(_)
                    | Op::Iota(_)
                    | Op::Literal(_)
            );
            let by_slot = by_choice && matches!(op, Op::Dispatch(_) | Op::Each(_) | Op::Combine(_));
            // Where a choice depends on other tokens, these meet in a step of its own.
            let meeting = after.meets(at).is_some();
            assert!(known || by_slot || meeting, "{name}: `{}` is left over in\n{}", op.mnemonic(), print(&after));
        }
        let fused = |pass: &str| {
            report.entries.iter().any(|entry| matches!(entry, Entry::Fused { pass: by, .. } if *by == pass))
        };
        let of_rows: &[&str] = if by_choice { &[] } else { &["fuse-gather", "fuse-combine"] };
        for pass in of_rows.iter().chain(&["fuse-router", "fuse-activation"]) {
            assert!(fused(pass), "{name}: {pass}");
        }
    }
}
