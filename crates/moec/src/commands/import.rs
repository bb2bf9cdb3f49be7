//! `moec import`: the family that serves a checkpoint's architecture, with the checkpoint's sizes as its defaults.

use std::path::{Path, PathBuf};

use miette::Diagnostic;
use moec_diag::SourceMap;
use moec_sema::{Checked, Setting, SettingValue};
use moec_syntax::tree::{File, Item};
use thiserror::Error;

use crate::{
    checkpoint,
    cli::Import,
    commands::explain::short,
    failure::Failure,
    families::{self, Family},
    files, spec,
};

#[derive(Debug, Error, Diagnostic)]
#[error("{} is no checkpoint's folder: it has no config.json", dir.display())]
#[diagnostic(code(moec::import::no_config), help("name the folder that holds config.json and the *.safetensors files"))]
struct NoConfig {
    dir: PathBuf,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{} does not say its architecture", path.display())]
#[diagnostic(
    code(moec::import::no_architecture),
    help("`\"architectures\": [\"…\"]` is expected; moec has specs for {served}")
)]
struct NoArchitecture {
    path: PathBuf,
    served: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("no spec for the architecture `{architecture}`")]
#[diagnostic(
    code(moec::import::unknown_architecture),
    help("moec has specs for {served}. Any other is a .moe file away: `moec new`, and docs/language.md")
)]
struct UnknownArchitecture {
    architecture: String,
    served: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` cannot name a model")]
#[diagnostic(
    code(moec::import::bad_name),
    help("letters, digits and underscores, a letter first, as it becomes a C prefix: `-o {better}.moe`")
)]
pub(super) struct BadName {
    pub name: String,
    pub better: String,
}

pub fn run(arguments: &Import) -> Result<(), Failure> {
    let path = arguments.dir.join("config.json");
    if !path.exists() {
        return Err(NoConfig { dir: arguments.dir.clone() }.into());
    }
    let config = spec::read_config(&path)?;
    let family = find(&path, &config)?.ignoring(&arguments.ignore);
    let name = arguments.output.as_deref().map(model_name).transpose()?;

    let mut sources = family.sources.clone();
    let settings = moec_sema::Settings { config: Some(config), ..moec_sema::Settings::default() };
    let checked = spec::check(&mut sources, &family.tree, &settings)?;
    let folder = arguments.dir.file_name().map_or("the checkpoint".into(), |name| name.to_string_lossy().into_owned());
    let text = fill_in(&family, &checked.settings, name.as_deref(), &folder, &arguments.ignore);
    assert_same(&text, &checked.settings);

    match &arguments.output {
        None => print!("{text}"),
        Some(output) => {
            if output.exists() && !arguments.force {
                return Err(files::Exists { path: output.clone() }.into());
            }
            files::write(output, text.as_bytes())?;
            let params = crate::count::parameters(&checked.module);
            eprintln!("{}: {} ({} parameters)", output.display(), family.name, crate::count::grouped(params.total));
        }
    }
    if checkpoint::is_there(&arguments.dir) {
        return compare(&arguments.dir, &checked, &sources);
    }
    eprintln!("{} holds no tensors yet; `moec build` compares them with the spec", arguments.dir.display());
    Ok(())
}

/// Says which of the checkpoint's tensors are left out, and whatever of the others does not fit. The spec is written by then:
/// it is what would have to be mended.
fn compare(dir: &Path, checked: &Checked, sources: &SourceMap) -> Result<(), Failure> {
    let matched = checkpoint::open(dir, checked.weights.as_ref(), &checked.module, sources)?;
    for (rule, names) in matched.ignored() {
        let others = if names.len() == 1 { String::new() } else { format!(" and {} more", names.len() - 1) };
        eprintln!("leaves out `{}`{others}, by `ignore \"{rule}\"`", names[0]);
    }
    let (used, bytes) = matched.used();
    eprintln!("all other {used} tensors have their place ({})", short(bytes as f64, "B"));
    Ok(())
}

fn find(path: &Path, config: &serde_json::Value) -> Result<Family, Failure> {
    let architecture = config.get("architectures").and_then(|names| names.get(0)).and_then(|name| name.as_str());
    let found = families::all().find(|family| architecture.is_some_and(|name| family.serves(name)));
    match (found, architecture) {
        (Some(family), _) => Ok(family),
        (None, Some(name)) => Err(UnknownArchitecture { architecture: name.into(), served: served() }.into()),
        (None, None) => Err(NoArchitecture { path: path.into(), served: served() }.into()),
    }
}

fn served() -> String {
    let names: Vec<String> =
        families::all().flat_map(|family| family.tree.serves).map(|served| format!("`{}`", served.text)).collect();
    names.join(", ")
}

/// The file's stem, if it can name a model.
pub(super) fn model_name(file: &Path) -> Result<String, BadName> {
    let name = file.file_stem().map_or(String::new(), |stem| stem.to_string_lossy().into_owned());
    if is_identifier(&name) {
        return Ok(name);
    }
    let mut better: String = name
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' })
        .collect();
    if !better.starts_with(|first: char| first.is_ascii_alphabetic()) {
        better.insert_str(0, "model_");
    }
    Err(BadName { name, better })
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// The family's text, with the defaults that the config supplied and the model's name replaced.
fn fill_in(family: &Family, settings: &[Setting], name: Option<&str>, folder: &str, ignored: &[String]) -> String {
    let mut edits: Vec<(usize, usize, String)> = Vec::new();
    let first = family.tree.items.iter().find_map(|item| match item {
        Item::Config(config) => Some(config.at.end as usize - "}".len()),
        Item::Definition(_) | Item::Model(_) | Item::Weights(_) => None,
    });
    if let (Some(end), false) = (first, ignored.is_empty()) {
        let keys: Vec<String> = ignored.iter().map(|key| format!("\"{key}\"")).collect();
        edits.push((end, end, format!("  ignore {}\n", keys.join(", "))));
    }
    for item in &family.tree.items {
        match item {
            Item::Config(config) => {
                for entry in &config.entries {
                    let setting = settings.iter().find(|setting| setting.name == entry.name.text);
                    if let Some(setting) = setting.filter(|setting| setting.key.is_some()) {
                        let at = entry.default.at;
                        edits.push((at.start as usize, at.end as usize, spelled(&setting.value)));
                    }
                }
            }
            Item::Model(model) => {
                if let Some(name) = name {
                    edits.push((model.name.at.start as usize, model.name.at.end as usize, name.into()));
                }
            }
            Item::Definition(_) | Item::Weights(_) => {}
        }
    }
    edits.sort_by_key(|edit| std::cmp::Reverse(edit.0));
    let mut text = family.text.to_owned();
    for (from, to, new) in edits {
        text.replace_range(from..to, &new);
    }
    let head = text.split_inclusive('\n').take_while(|line| line.starts_with("//!")).map(str::len).sum();
    text.insert_str(head, &format!("//! Sizes from the config.json of `{folder}`, by `moec import`.\n"));
    // What stands in columns goes on doing so.
    moec_format::format(&mut SourceMap::default(), "the imported spec", text.as_bytes())
        .expect("an imported spec parses")
}

/// A value in the language's spelling.
fn spelled(value: &SettingValue) -> String {
    match value {
        SettingValue::Int(value) => value.to_string(),
        SettingValue::Float(value) => format!("{value:?}"),
        SettingValue::Bool(value) => value.to_string(),
        SettingValue::Text(value) => quoted(value),
        SettingValue::List(values) => format!("[{}]", values.iter().map(spelled).collect::<Vec<_>>().join(", ")),
    }
}

/// A text between quotes, with the escapes that the language has.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n").replace('\t', r"\t");
    format!("\"{escaped}\"")
}

/// What was written must mean what the checkpoint says.
///
/// # Panics
/// When it does not: a bug here.
fn assert_same(text: &str, settings: &[Setting]) {
    let mut sources = SourceMap::default();
    let (tree, problems) = moec_syntax::parse(&mut sources, "the imported spec", text);
    let tree: File = tree.filter(|_| problems.is_empty()).expect("an imported spec parses");
    let (checked, problems) = moec_sema::check(&mut sources, &tree, &moec_sema::Settings::default());
    let checked = checked.filter(|_| problems.is_empty()).expect("an imported spec is sound");
    for (was, is) in settings.iter().zip(&checked.settings) {
        assert!(was.name == is.name && was.value == is.value, "`{}` changed on import", was.name);
    }
}
