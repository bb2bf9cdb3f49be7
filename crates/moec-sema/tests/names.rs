//! The compiler knows no gate, expert, loss or model by name: what the library and the families define is named in no source
//! file outside tests, not even in a comment or a message.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use moec_diag::SourceMap;
use moec_sema::library;
use moec_syntax::tree::{DefinitionKind, File, Item};

/// Words that mean something else just as well.
const ORDINARY: [&str; 11] =
    ["balance", "chosen", "constant", "copy", "cosine", "entropy", "given", "load", "merged", "soft", "zero"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(name: &str, text: &str) -> File {
    let (file, problems) = moec_syntax::parse(&mut SourceMap::default(), name, text);
    assert!(problems.is_empty(), "{name} parses");
    file.expect("a file that parses has a tree")
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|end| end == extension) {
            found.push(path);
        }
    }
}

/// The gates and experts of the library, the functions of its losses, and the families with what they serve.
fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (name, text) in library() {
        for item in read(name, text).items {
            let Item::Definition(definition) = item else { continue };
            let named = match definition.kind {
                DefinitionKind::Gate | DefinitionKind::Expert => true,
                DefinitionKind::Fn | DefinitionKind::Block => name.contains("loss"),
            };
            names.extend(named.then_some(definition.name.text));
        }
    }
    let mut families = Vec::new();
    files(&root().join("examples/families"), "moe", &mut families);
    for path in families {
        let file = read(&path.display().to_string(), &fs::read_to_string(&path).expect("a spec"));
        names.extend(file.serves.into_iter().map(|served| served.text));
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        names.extend(file.items.into_iter().filter_map(|item| match item {
            Item::Model(model) => Some(model.name.text),
            Item::Config(_) | Item::Definition(_) | Item::Weights(_) => None,
        }));
    }
    names.into_iter().map(|name| name.to_lowercase()).filter(|name| !ORDINARY.contains(&name.as_str())).collect()
}

/// Is the name a word of the line, or a part of one between underscores?
fn names_it(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let joined = |c: char| c.is_alphanumeric();
        !line[..at].ends_with(joined) && !line[at + name.len()..].starts_with(joined)
    })
}

#[test]
fn no_source_file_names_a_gate_an_expert_a_loss_or_a_model() {
    let names = names();
    assert!(names.contains("swiglu") && names.contains("mixtral") && names.len() > 30, "{names:?}");
    let mut sources = Vec::new();
    for member in fs::read_dir(root().join("crates")).expect("the crates") {
        let folder = member.expect("a crate").path().join("src");
        if folder.is_dir() {
            files(&folder, "rs", &mut sources);
        }
    }
    sources.sort();
    let mut found = Vec::new();
    for path in sources {
        let text = fs::read_to_string(&path).expect("a source file");
        // Unit tests come last in a file.
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            for name in names.iter().filter(|name| names_it(&lower, name)) {
                let path = path.strip_prefix(root().join("crates")).unwrap_or(&path).display();
                found.push(format!("{path}:{}: `{name}` in {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "these belong into `.moe` files:\n{}", found.join("\n"));
}
