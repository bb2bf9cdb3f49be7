//! From a file's path and the command line's settings to a checked module.

use std::path::{Path, PathBuf};

use miette::{Diagnostic, SourceSpan};
use moec_diag::{Problems, SourceMap};
use moec_sema::Checked;
use thiserror::Error;

use crate::{
    cli,
    failure::Failure,
    files,
    own_files::{OnDisk, ReadFiles},
};

/// Specs beyond this are no specs. The parser has a smaller limit of its own; this bounds what is read at all.
pub const SPEC_BYTES: u64 = 64 << 20;
const CONFIG_BYTES: u64 = 16 << 20;

/// A sound spec, and the text for whatever is still to be said about it.
pub struct Loaded {
    pub checked: Checked,
    pub sources: SourceMap,
    /// The files that it came from: itself, those of one's own that it uses, and the configuration.
    pub read: Vec<PathBuf>,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{} is not JSON: {message}", path.display())]
#[diagnostic(code(moec::config::not_json))]
struct NotJson {
    path: PathBuf,
    message: String,
    #[source_code]
    text: miette::NamedSource<String>,
    #[label("here")]
    at: SourceSpan,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{} is {found}, not a JSON object", path.display())]
#[diagnostic(code(moec::config::not_an_object), help("a config.json holds `{{ \"key\": value, … }}`"))]
struct NotAnObject {
    path: PathBuf,
    found: &'static str,
}

/// Reads and checks a spec. `checkpoint` supplies config.json where the settings name none.
pub fn load(file: &Path, settings: &cli::Settings, checkpoint: Option<&Path>) -> Result<Loaded, Failure> {
    let opened = ReadFiles::default();
    let config = config_path(settings, checkpoint);
    let (mut sources, tree, settings) = read(file, settings, checkpoint, &opened)?;
    let checked = check(&mut sources, &tree, &settings)?;
    let read = [file.to_owned()].into_iter().chain(opened.list()).chain(config).collect();
    Ok(Loaded { checked, sources, read })
}

/// Checks a spec, or a file that only defines what others use.
pub fn sound(file: &Path, settings: &cli::Settings) -> Result<(), Failure> {
    let (mut sources, tree, settings) = read(file, settings, None, &ReadFiles::default())?;
    let settings = moec_sema::Settings { definitions_suffice: true, ..settings };
    let (_, problems) = moec_sema::check(&mut sources, &tree, &settings);
    no_problems(problems, &sources)
}

type Read = (SourceMap, moec_syntax::tree::File, moec_sema::Settings);

fn read(file: &Path, settings: &cli::Settings, checkpoint: Option<&Path>, opened: &ReadFiles) -> Result<Read, Failure> {
    let mut sources = SourceMap::default();
    // A wrong config and a wrong spec are both worth telling, but a check against a config that was not read is not.
    let bytes = files::read(file, SPEC_BYTES)?;
    let (tree, problems) = moec_syntax::parse_bytes(&mut sources, &file.display().to_string(), &bytes);
    let tree = match tree {
        Some(tree) if problems.is_empty() => tree,
        Some(_) | None => return Err(Failure::problems(problems, &sources)),
    };
    let settings = moec_sema::Settings {
        config: config_path(settings, checkpoint).map(|path| read_config(&path)).transpose()?,
        overrides: settings.set.clone(),
        phase: match settings.phase {
            cli::Phase::Train => moec_sema::Phase::Train,
            cli::Phase::Infer => moec_sema::Phase::Infer,
        },
        also: moec_sema::Also {
            aux: settings.also.contains(&cli::Also::Aux),
            trace: settings.also.contains(&cli::Also::Trace),
            state: settings.also.contains(&cli::Also::State),
        },
        definitions_suffice: false,
        files: moec_sema::Files::new(OnDisk::noting(opened)),
    };
    Ok((sources, tree, settings))
}

/// The semantic check alone.
pub fn check(
    sources: &mut SourceMap,
    tree: &moec_syntax::tree::File,
    settings: &moec_sema::Settings,
) -> Result<Checked, Failure> {
    let (checked, problems) = moec_sema::check(sources, tree, settings);
    match checked {
        Some(checked) if problems.is_empty() => Ok(checked),
        Some(_) | None => {
            assert!(!problems.is_empty(), "sema refused a file without saying why");
            Err(Failure::problems(problems, sources))
        }
    }
}

/// Where the configuration is read from: what the settings name must be there.
fn config_path(settings: &cli::Settings, checkpoint: Option<&Path>) -> Option<PathBuf> {
    let beside = || checkpoint.map(|dir| dir.join("config.json")).filter(|path| path.exists());
    settings.config.clone().or_else(beside)
}

/// A config.json, which must be an object.
pub fn read_config(path: &Path) -> Result<serde_json::Value, Failure> {
    let bytes = files::read(path, CONFIG_BYTES)?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let at = offset_of(&text, error.line(), error.column());
        // The place is in the label: serde repeats it at the end of its message.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        NotJson { path: path.into(), message, text: miette::NamedSource::new(path.display().to_string(), text), at }
    })?;
    let found = match &value {
        serde_json::Value::Object(_) => return Ok(value),
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a bool",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a string",
        serde_json::Value::Array(_) => "a list",
    };
    Err(NotAnObject { path: path.into(), found }.into())
}

fn offset_of(text: &str, line: usize, column: usize) -> SourceSpan {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (start + column.saturating_sub(1)).min(text.len()).into()
}

/// Problems found after the check, if any.
pub fn no_problems(problems: Problems, sources: &SourceMap) -> Result<(), Failure> {
    if problems.is_empty() { Ok(()) } else { Err(Failure::problems(problems, sources)) }
}
