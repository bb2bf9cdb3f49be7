//! Texts of this repository, mistyped at random: the check ends, without a panic, and every problem shows a place of the text.
//!
//! `MOEC_FUZZ_SEEDS=0..10000 cargo test -p moec-sema --test mutated -- --nocapture` runs other seeds than the usual ones, and
//! says what took longest.

#[path = "../../../tests/random_specs/mutate.rs"]
mod mutate;
#[path = "../../../tests/random_specs/random.rs"]
#[allow(dead_code, reason = "shared with the random specs")]
mod random;

/// Where what is shared looks for its parts.
mod specs {
    pub(crate) use crate::random;
}

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use miette::SourceCode;
use moec_diag::{Problem, SourceMap};
use moec_sema::{Settings, check};
use mutate::mutated;
use random::Random;

const USUAL: std::ops::Range<u64> = 0..300;

fn texts() -> Vec<String> {
    fn add(folder: &Path, texts: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder of specs") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                add(&path, texts);
            } else if path.extension().is_some_and(|extension| extension == "moe") {
                texts.push(path);
            }
        }
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths = Vec::new();
    for folder in ["examples", "crates/moec-sema/std", "crates/moec/templates", "grammar/corpus", "tests/diagnostics"] {
        add(&root.join(folder), &mut paths);
    }
    // These are about running out of work, which takes long each time.
    paths.retain(|path| !path.ends_with("blow-up.moe"));
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).expect("a spec")).collect()
}

/// Characters lost, doubled or put in where no token ends; the text cut off.
fn smudged(text: &str, random: &mut Random) -> String {
    const CHARACTERS: [char; 16] =
        ['(', ')', '{', '}', '[', ']', '"', '\\', '=', '·', '×', '\u{feff}', 'é', '\r', '/', '\u{1f600}'];
    let mut characters: Vec<char> = text.chars().collect();
    for _ in 0..random.within(1, 4) {
        if characters.is_empty() {
            break;
        }
        let at = random.below(characters.len());
        match random.below(8) {
            0 => characters.truncate(at),
            1 | 2 => {
                characters.remove(at);
            }
            3 => characters.insert(at, characters[at]),
            _ => characters.insert(at, *random.pick(&CHARACTERS)),
        }
    }
    characters.into_iter().collect()
}

/// A line missing, doubled, or somewhere else as well.
fn relined(text: &str, random: &mut Random) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    if !lines.is_empty() {
        let at = random.below(lines.len());
        match random.below(3) {
            0 => lines.insert(at, lines[at]),
            1 => lines.insert(random.below(lines.len()), lines[at]),
            _ => {
                lines.remove(at);
            }
        }
    }
    lines.join("\n")
}

/// Whether all labels lie in files of the run, and one of them in the user's.
fn shows_its_place(problem: &Problem, sources: &SourceMap, text: &str) -> bool {
    let labels: Vec<_> = problem.labels().into_iter().flatten().collect();
    let inside = |label: &miette::LabeledSpan| sources.read_span(label.inner(), 0, 0).is_ok();
    labels.iter().all(inside) && labels.iter().any(|label| label.offset() + label.len() <= text.len())
}

fn judge(text: &str) {
    let mut sources = SourceMap::default();
    let (file, problems) = moec_syntax::parse(&mut sources, "mutated.moe", text);
    let mut found = problems.into_vec();
    let sound = found.is_empty();
    if let Some(file) = file {
        // Of layers that many families have many of, two are enough.
        let config = serde_json::json!({ "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2 });
        let (checked, problems) = check(&mut sources, &file, &Settings { config: Some(config), ..Settings::default() });
        assert_eq!(checked.is_none(), !problems.is_empty(), "a module comes exactly when there is no problem");
        if let Some(checked) = checked.filter(|_| sound) {
            moec_ir::verify(&checked.module).unwrap_or_else(|error| panic!("{error}"));
        }
        found.extend(problems.into_vec());
        let lost = found.iter().find(|problem| !shows_its_place(problem, &sources, text));
        assert!(lost.is_none(), "a problem without a place in the text: {lost:?}");
    }
}

#[test]
fn mistyped_texts_end_in_problems_that_show_a_place() {
    let asked = std::env::var("MOEC_FUZZ_SEEDS").ok();
    let range = asked.as_deref().map_or(USUAL, |asked| {
        let range = asked.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
        range.unwrap_or_else(|| panic!("MOEC_FUZZ_SEEDS is `{asked}`, not like `0..100`"))
    });
    let texts = texts();
    let next = AtomicU64::new(range.start);
    let failed: Mutex<Vec<(u64, String)>> = Mutex::default();
    let slowest: Mutex<(Duration, u64)> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= range.end {
                        return;
                    }
                    let mut random = Random::new(seed);
                    let text = random.pick(&texts).clone();
                    let text = match random.below(8) {
                        0 => relined(&text, &mut random),
                        1 | 2 => smudged(&text, &mut random),
                        _ => mutated(&text, &mut random),
                    };
                    let started = Instant::now();
                    if catch_unwind(|| judge(&text)).is_err() {
                        failed.lock().expect("no panic holds it").push((seed, text));
                    }
                    let mut slowest = slowest.lock().expect("no panic holds it");
                    *slowest = (*slowest).max((started.elapsed(), seed));
                }
            });
        }
    });
    println!("{} texts; the slowest {:?}", range.end - range.start, slowest.into_inner().expect("no panic holds it"));
    let failed = failed.into_inner().expect("no panic holds it");
    let shown: String = failed.iter().take(3).map(|(seed, text)| format!("seed {seed}:\n{text}\n")).collect();
    assert!(
        failed.is_empty(),
        "{} failed: {:?}\n{shown}",
        failed.len(),
        failed.iter().map(|f| f.0).collect::<Vec<_>>()
    );
}
