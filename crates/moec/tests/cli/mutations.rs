//! Families with one thing wrong in each: `verify` must notice. tests/mutations holds them as data, and says how they are written.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::command::{family, folder, moec, oracle, repository};

struct Mutation {
    family: String,
    checkpoint: String,
    name: String,
    /// What is replaced by what.
    edits: Vec<(String, String)>,
    settings: Vec<String>,
}

fn mutations() -> Vec<Mutation> {
    let folder = repository().join("tests/mutations");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("one").path()).collect();
    files.sort();
    files.iter().filter(|path| path.extension().is_some_and(|end| end == "txt")).flat_map(|path| read(path)).collect()
}

fn read(path: &Path) -> Vec<Mutation> {
    let family = path.file_stem().expect("a name").to_string_lossy().into_owned();
    let text = fs::read_to_string(path).expect("text");
    let mut checkpoint = None;
    let mut found = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut lines = paragraph.lines().filter(|line| !line.is_empty());
        let Some(first) = lines.next() else { continue };
        if let Some(name) = first.strip_prefix("checkpoint ") {
            assert_eq!(lines.next(), None, "{family}: an empty line after `{first}`");
            checkpoint = Some(name.to_owned());
            continue;
        }
        let checkpoint = checkpoint.clone().expect("a checkpoint before the first mutation");
        let mut mutation =
            Mutation { family: family.clone(), checkpoint, name: first.to_owned(), edits: vec![], settings: vec![] };
        let mut before = ' ';
        for line in lines {
            let (kind, rest) = (line.chars().next().expect("not empty"), line.get(2..).unwrap_or(""));
            match (kind, before, mutation.edits.last_mut()) {
                ('-', '-', Some((from, _))) => *from = format!("{from}\n{rest}"),
                ('-', ..) => mutation.edits.push((rest.to_owned(), String::new())),
                ('+', '+', Some((_, to))) => *to = format!("{to}\n{rest}"),
                ('+', _, Some((_, to))) => *to = rest.to_owned(),
                _ => mutation.settings.push(line.strip_prefix("set ").expect("`-`, `+` or `set`").replace(" = ", "=")),
            }
            before = kind;
        }
        assert!(!mutation.edits.is_empty() || !mutation.settings.is_empty(), "{family}: {first} changes nothing");
        found.push(mutation);
    }
    found
}

/// What noticed a mutation; `None` where nothing did.
fn noticed(mutation: &Mutation) -> Option<String> {
    let place = folder();
    let mut text = fs::read_to_string(family(&mutation.family)).expect("the family is there");
    for (from, to) in &mutation.edits {
        assert!(text.contains(from), "{}: {}: `{from}` is not in the file", mutation.family, mutation.name);
        text = text.replace(from, to);
    }
    let (spec, checkpoint) = (place.path().join("mutated.moe"), oracle(&mutation.checkpoint));
    fs::write(&spec, text).expect("written");
    let (path, reference) = (|path: &Path| path.display().to_string(), checkpoint.join("oracle.safetensors"));
    let mut arguments: Vec<String> =
        ["verify", &path(&spec), "--weights", &path(&checkpoint), "--oracle", &path(&reference), "--backend", "oracle"]
            .map(str::to_owned)
            .to_vec();
    arguments.push("--json".into());
    for setting in &mutation.settings {
        arguments.extend(["--set".to_owned(), setting.clone()]);
    }
    let ended = moec(&arguments);
    assert!(ended.code == 0 || ended.code == 1, "{}: {}: {ended:#?}", mutation.family, mutation.name);
    if ended.code == 0 {
        return None;
    }
    let Ok(verdicts) = serde_json::from_str::<Value>(&ended.stdout) else {
        // A mutation that the language refuses proves nothing: it must be about the tensors.
        let code = ended.stderr.lines().find(|line| line.starts_with("moec::")).unwrap_or_default().to_owned();
        let about_tensors = ["unclaimed_tensor", "missing_tensor", "wrong_shape", "claimed_twice", "unscalable"];
        let meant = about_tensors.iter().any(|word| code.ends_with(word));
        assert!(meant, "{}: {}: {ended:#?}", mutation.family, mutation.name);
        return Some(format!("`{}`", code.trim_start_matches("moec::")));
    };
    let verdict = &verdicts[0];
    let error = ["logits_max_error", "step_logits_max_error"].map(|key| verdict[key].as_f64().unwrap_or(f64::INFINITY));
    let differs = |key: &str| verdict[key]["equal"] != verdict[key]["total"];
    let words = [("experts", differs("experts")), ("tokens", differs("tokens"))];
    let words = words.iter().filter(|(_, differs)| *differs).map(|(word, _)| format!(", {word}"));
    Some(format!("logits by {:.0e}{}", error[0].max(error[1]), words.collect::<String>()))
}

/// Several at a time: each is a program of its own.
fn all_noticed(mutations: &[Mutation]) -> Vec<Option<String>> {
    let middle = mutations.len() / 2;
    std::thread::scope(|scope| {
        let halves = [&mutations[..middle], &mutations[middle..]]
            .map(|half| scope.spawn(move || half.iter().map(noticed).collect::<Vec<_>>()));
        halves
            .into_iter()
            .flat_map(|half| half.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn first_cells(mutations: &[Mutation]) -> Vec<String> {
    mutations.iter().map(|one| format!("| `{}` | {} |", one.checkpoint, one.name)).collect()
}

fn page() -> PathBuf {
    repository().join("docs/verify.md")
}

const HEAD: &str = include_str!("../../../../tests/mutations/page.md");

#[test]
fn nothing_wrong_goes_unnoticed() {
    let mutations = mutations();
    let everything = std::env::var_os("MOEC_MUTATIONS").is_some_and(|value| value == "all");
    // Of each family a few, and of all kinds.
    let chosen: Vec<Mutation> =
        mutations.into_iter().enumerate().filter(|(at, _)| everything || at % 17 == 0).map(|(_, one)| one).collect();
    let found = all_noticed(&chosen);
    let survived: Vec<String> = chosen
        .iter()
        .zip(&found)
        .filter(|(_, found)| found.is_none())
        .map(|(one, _)| format!("{} ({}): {}", one.family, one.checkpoint, one.name))
        .collect();
    assert!(survived.is_empty(), "nothing noticed\n  {}", survived.join("\n  "));
    if everything && std::env::var_os("MOEC_BLESS").is_some() {
        let mut text = HEAD.replace("@COUNT@", &chosen.len().to_string());
        for (cells, found) in first_cells(&chosen).iter().zip(&found) {
            writeln!(text, "{cells} {} |", found.as_deref().unwrap_or_default()).expect("a String takes everything");
        }
        fs::write(page(), text).expect("written");
    }
}

#[test]
fn the_page_lists_every_mutation() {
    let mutations = mutations();
    let text = fs::read_to_string(page()).expect("the page is there");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let wanted = first_cells(&mutations);
    assert_eq!(rows.len(), wanted.len(), "MOEC_MUTATIONS=all MOEC_BLESS=1 writes docs/verify.md");
    for (row, cells) in rows.iter().zip(&wanted) {
        assert!(row.starts_with(cells), "{row} should be {cells}: MOEC_MUTATIONS=all MOEC_BLESS=1 writes it");
    }
}
