//! The TextMate grammar knows the words of the language, and no others.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../grammar")
}

fn json(name: &str) -> Value {
    let text = fs::read_to_string(folder().join("vscode").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every lower-case word that the normative grammar has in quotes.
fn words_of_the_language() -> BTreeSet<String> {
    let grammar = fs::read_to_string(folder().join("moe.pest")).unwrap();
    let rules = grammar.lines().filter(|line| !line.trim_start().starts_with("//"));
    let quoted = rules.flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    // `e` and `\n` are parts of numbers and strings.
    quoted.filter(|word| word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase())).collect()
}

/// The alternatives of every `(a|b|c)` in the patterns of a section.
fn words_of(section: &Value) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let mut left = vec![section];
    while let Some(value) = left.pop() {
        match value {
            Value::Array(items) => left.extend(items),
            Value::Object(fields) => {
                for (name, field) in fields {
                    match field {
                        Value::String(pattern) if name == "match" => words.extend(alternatives(pattern)),
                        field => left.push(field),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    words
}

fn alternatives(pattern: &str) -> Vec<String> {
    let groups = pattern.split('(').skip(1).filter_map(|rest| rest.split_once(')')).map(|(group, _)| group);
    let lists = groups.filter(|group| group.chars().all(|c| c.is_ascii_lowercase() || c == '|'));
    lists.flat_map(|group| group.split('|').map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn colours_for_every_word() {
    let grammar = json("moe.tmLanguage.json");
    let coloured = words_of(&grammar["repository"]["words"]);
    let mut wanted = words_of_the_language();
    assert!(wanted.len() > 30, "{wanted:?}");
    // Not a word of the grammar, but of every file.
    wanted.insert("inf".to_owned());
    assert_eq!(coloured, wanted);
    for included in grammar["patterns"].as_array().unwrap() {
        let name = included["include"].as_str().unwrap().trim_start_matches('#');
        assert!(grammar["repository"][name].is_object(), "no {name}");
    }
}

#[test]
fn the_extension_names_files_that_are_there() {
    let package = json("package.json");
    let contributes = &package["contributes"];
    let named = [&package["main"], &contributes["languages"][0]["configuration"], &contributes["grammars"][0]["path"]];
    for file in named {
        let path = folder().join("vscode").join(file.as_str().unwrap());
        assert!(path.is_file(), "{}", path.display());
    }
    json("language-configuration.json");
    assert_eq!(contributes["grammars"][0]["scopeName"], json("moe.tmLanguage.json")["scopeName"]);
}
