//! Checking a text as `moec check` does, and its report as a user reads it, without colour.
#![allow(dead_code, reason = "each test takes what it needs")]

use miette::{GraphicalReportHandler, GraphicalTheme};
use moec_diag::{Problem, SourceMap};
use moec_sema::{Also, Files, Open, Settings, check};

/// The problems of a file; a tree with syntax errors is not checked.
pub fn problems_of(name: &str, text: &str, settings: &Settings) -> (SourceMap, Vec<Problem>) {
    let mut sources = SourceMap::default();
    let (file, mut problems) = moec_syntax::parse(&mut sources, name, text);
    if problems.is_empty() {
        let (checked, found) = check(&mut sources, &file.expect("a file that parses has a tree"), settings);
        assert_eq!(checked.is_none(), !found.is_empty(), "{name}: a module comes exactly when there is no problem");
        problems = found;
    }
    (sources, problems.into_vec())
}

pub fn rendered(sources: &SourceMap, problems: Vec<Problem>) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    let mut text = String::new();
    for problem in problems {
        let report = miette::Report::new_boxed(problem).with_source_code(sources.clone());
        handler.render_report(&mut text, report.as_ref()).expect("a report renders");
        text.push('\n');
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A `config.json` beside the text, and the lines `//! --set NAME=VALUE` and `//! --also aux,trace,state` at its head.
pub fn settings_of(text: &str, config: Option<&str>) -> Settings {
    let config = config.map(|json| serde_json::from_str(json).expect("the configuration is JSON"));
    let sets = text.lines().filter_map(|line| line.strip_prefix("//! --set ")?.split_once('='));
    let asked = |what: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("//! --also "));
        lines.any(|line| line.split(',').any(|word| word.trim() == what))
    };
    let also = Also { aux: asked("aux"), trace: asked("trace"), state: asked("state") };
    let overrides = sets.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Settings { config, overrides, also, files: Files::new(Used), ..Settings::default() }
}

/// Files that texts use: `used/…`, beside the diagnostics.
struct Used;

impl Open for Used {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        std::fs::read(folder().join(name)).map_err(|error| error.to_string())
    }

    fn near(&self, _: &str) -> Vec<String> {
        let entries = std::fs::read_dir(folder().join("used")).expect("the folder is there");
        let mut names: Vec<String> =
            entries.map(|entry| format!("used/{}", entry.expect("an entry").file_name().to_string_lossy())).collect();
        names.sort();
        names
    }
}

fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/diagnostics")
}
