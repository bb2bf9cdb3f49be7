//! Every case under `tests/passes/<pass>/`: a module, a line `----`, and what the pass makes of it: the whole module, or
//! facts, one a line:
//!
//! ```text
//! rows 2, linear 1, map 0        nodes outside of row programs after the pass
//! in rows: map 3, reduce 1       nodes within row programs
//! fused: products and activation
//! blocked: … the start of a rule
//! ```
//!
//! And by meaning: the oracle gives the same numbers for every case (and for `tests/ir/*.ir`) before and after. With
//! `MOEC_BLESS=1`, expectations that are whole modules are written anew.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::assert_same;
use moec_ir::{Module, Op, parse, print, verify};
use moec_passes::{Entry, Options, Pass, Report, apply, pipeline, run};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ir"))
        .collect();
    found.sort();
    found
}

struct Case {
    name: String,
    path: PathBuf,
    pass: Pass,
    before: String,
    after: String,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for pass in pipeline() {
        for path in files(&root().join("passes").join(pass.name)) {
            let text = std::fs::read_to_string(&path).expect("the case can be read");
            let (before, after) = text.split_once("----\n").unwrap_or_else(|| panic!("no ---- in {}", path.display()));
            let name = format!("{}/{}", pass.name, path.file_stem().expect("a file").to_string_lossy());
            cases.push(Case { name, path, pass: *pass, before: before.into(), after: after.into() });
        }
    }
    cases
}

fn parsed(name: &str, text: &str) -> Module {
    let module = parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    verify(&module).unwrap_or_else(|error| panic!("{name}: {error}"));
    module
}

/// How many nodes of each op there are: outside of row programs, and within.
fn counts(module: &Module) -> [BTreeMap<&'static str, usize>; 2] {
    let mut counts = [BTreeMap::new(), BTreeMap::new()];
    let nodes = module.walk();
    let row_regions: Vec<_> = nodes
        .iter()
        .filter(|(_, at)| matches!(module.node(*at).op, Op::Rows(_)))
        .flat_map(|(_, at)| module.node(*at).op.regions())
        .collect();
    for (region, at) in nodes {
        *counts[usize::from(row_regions.contains(&region))].entry(module.node(at).op.mnemonic()).or_default() += 1;
    }
    counts
}

fn check_fact(case: &Case, line: &str, after: &Module, report: &Report) {
    let told = || report.entries.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    if let Some(wanted) = line.strip_prefix("fused: ") {
        let fused = |entry: &Entry| matches!(entry, Entry::Fused { what, .. } if what.starts_with(wanted));
        assert!(report.entries.iter().any(fused), "{}: {line}, but:\n{}", case.name, told());
        return;
    }
    if let Some(wanted) = line.strip_prefix("blocked: ") {
        let blocked = |entry: &Entry| matches!(entry, Entry::Blocked { rule, .. } if rule.starts_with(wanted));
        assert!(report.entries.iter().any(blocked), "{}: {line}, but:\n{}", case.name, told());
        return;
    }
    let [outside, inside] = counts(after);
    let (counts, facts) = match line.strip_prefix("in rows: ") {
        Some(facts) => (inside, facts),
        None => (outside, line),
    };
    for fact in facts.split(", ") {
        let (op, count) = fact.split_once(' ').unwrap_or_else(|| panic!("{}: `{fact}`", case.name));
        let found = counts.get(op).copied().unwrap_or(0);
        assert_eq!(found.to_string(), count, "{}: {op} in\n{}\n{}", case.name, print(after), told());
    }
}

#[test]
fn structure() {
    let cases = cases();
    assert!(cases.len() > pipeline().len(), "every pass has cases");
    for case in &cases {
        let mut report = Report::default();
        let after = apply(&case.pass, parsed(&case.name, &case.before), &mut report);
        if !case.after.is_empty() && !case.after.starts_with("module") {
            case.after.lines().filter(|line| !line.is_empty()).for_each(|line| check_fact(case, line, &after, &report));
            continue;
        }
        let printed = print(&after);
        if std::env::var_os("MOEC_BLESS").is_some() {
            std::fs::write(&case.path, format!("{}----\n{printed}", case.before)).expect("the case can be written");
        } else {
            assert_eq!(printed, case.after, "{}", case.name);
        }
    }
}

#[test]
fn meaning() {
    for case in cases() {
        let before = parsed(&case.name, &case.before);
        let after = apply(&case.pass, before.clone(), &mut Report::default());
        assert_same(&case.name, &before, &after);
    }
    for path in files(&root().join("ir")) {
        let name = path.display().to_string();
        let before = parsed(&name, &std::fs::read_to_string(&path).expect("the module can be read"));
        let mut module = before.clone();
        for pass in pipeline() {
            module = apply(pass, module, &mut Report::default());
            assert_same(&format!("{name} after {}", pass.name), &before, &module);
        }
        for pass in pipeline() {
            let options = Options { disabled: [pass.name.to_owned()].into() };
            assert_same(&format!("{name} without {}", pass.name), &before, &run(before.clone(), &options).0);
        }
    }
}

/// After the pipeline, only what a plan knows is left.
#[test]
fn nothing_is_left_over() {
    let path = root().join("ir/decoder.ir");
    let module = parsed("decoder", &std::fs::read_to_string(path).expect("the module can be read"));
    let (module, report) = run(module, &Options::default());
    let [outside, inside] = counts(&module);
    let allowed = ["attention", "experts", "iota", "layers", "linear", "param", "past", "route", "rows", "literal"];
    assert!(outside.keys().all(|op| allowed.contains(op)), "{}", print(&module));
    assert!(!inside.contains_key("rows"));
    assert!(report.entries.iter().any(|entry| matches!(entry, Entry::Fused { pass: "fuse-router", .. })));
}

/// One region of some two thousand nodes: passes must not be quadratic in anything that matters.
#[test]
fn large_modules_are_no_burden() {
    let mut text = String::from(
        "module large\nparam @w: f32[F=8, D=8] stored f32\nparam @v: f32[D=8, F=8] stored f32\nmodel (x %x0: f32[S, D=8]) {\n",
    );
    let blocks = 200;
    for block in 0..blocks {
        let next = block + 1;
        text += &format!(
            "%s{block} = map %x{block} {{mul($0, $0)}} : f32[S, D=8]
             %m{block} = reduce %s{block} {{mean over (D)}} : f32[S]
             %n{block} = map %x{block}, %m{block} {{div($0, sqrt(add($1, 1e-6)))}} : f32[S, D=8]
             %w{block} = param {{@w}} : f32[F=8, D=8]
             %a{block} = contract %n{block}, %w{block} {{over (D)}} : f32[S, F=8]
             %b{block} = map %a{block} {{mul($0, div(1.0, add(1.0, exp(neg($0)))))}} : f32[S, F=8]
             %v{block} = param {{@v}} : f32[D=8, F=8]
             %d{block} = contract %b{block}, %v{block} {{over (F)}} : f32[S, D=8]
             %x{next} = map %x{block}, %d{block} {{add($0, $1)}} : f32[S, D=8]\n"
        );
    }
    text += &format!("give y %x{blocks}\n}}\n");
    let module = parsed("large", &text);
    let (module, _) = run(module, &Options::default());
    let [outside, _] = counts(&module);
    assert_eq!((outside["rows"], outside["linear"]), (blocks, 2 * blocks));
}
