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

fn module(path: &str, config: Option<&str>) -> Module {
    let text = std::fs::read_to_string(root().join(path)).expect("the example is there");
    let mut sources = SourceMap::default();
    let (file, problems) = moec_syntax::parse(&mut sources, path, &text);
    assert!(problems.is_empty(), "{path}");
    let config = config.map(|config| {
        let text = std::fs::read_to_string(root().join("tests/data/oracles").join(config)).expect("the file is there");
        serde_json::from_str(&text).expect("it is JSON")
    });
    let settings = Settings { config, ..Settings::default() };
    let (checked, problems) = moec_sema::check(&mut sources, &file.expect("a tree"), &settings);
    assert!(problems.is_empty(), "{path}: {}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    checked.expect("sound").module
}

/// Every example that runs in a moment: sizes of a tiny checkpoint where there is one.
fn examples() -> Vec<(&'static str, Module)> {
    [
        ("examples/families/mixtral.moe", Some("mixtral/config.json")),
        ("examples/families/mixtral.moe", Some("mixtral-swa/config.json")),
        ("examples/families/olmoe.moe", Some("olmoe-clip/config.json")),
        ("examples/families/qwen2_moe.moe", Some("qwen2_moe/config.json")),
        ("examples/families/qwen3_moe.moe", Some("qwen3_moe/config.json")),
        ("examples/gates/grouped_softplus.moe", None),
    ]
    .map(|(path, config)| (config.unwrap_or(path), module(path, config)))
    .into()
}

#[test]
fn the_same_numbers_after_every_pass() {
    for (name, before) in examples() {
        let mut after = before.clone();
        for pass in pipeline() {
            after = apply(pass, after, &mut Report::default());
        }
        common::assert_same(name, &before, &after);
    }
}

#[test]
fn everything_fuses() {
    for (name, before) in examples() {
        let (after, report) = run(before.clone(), &Options::default());
        if let Some(folder) = std::env::var_os("MOEC_DUMP") {
            let file = Path::new(&folder).join(name.replace('/', "-"));
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
            assert!(known, "{name}: `{}` is left over in\n{}", op.mnemonic(), print(&after));
        }
        let fused = |pass: &str| {
            report.entries.iter().any(|entry| matches!(entry, Entry::Fused { pass: by, .. } if *by == pass))
        };
        for pass in ["fuse-gather", "fuse-combine", "fuse-router", "fuse-activation", "fuse-rows"] {
            assert!(fused(pass), "{name}: {pass}");
        }
    }
}
