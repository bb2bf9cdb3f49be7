//! `tests/diagnostics/NAME.moe` and the whole report in `NAME.expected`; `MOEC_BLESS=1` rewrites the reports.
//!
//! `NAME.json` beside it is the `config.json` of the check; a head line `//! --set NAME=VALUE` sets an entry.

use std::{fs, path::PathBuf};

use miette::{GraphicalReportHandler, GraphicalTheme};
use moec_diag::SourceMap;
use moec_sema::{Settings, check};

fn report(name: &str, text: &str, settings: &Settings) -> String {
    let mut sources = SourceMap::default();
    let (file, mut problems) = moec_syntax::parse(&mut sources, name, text);
    if problems.is_empty() {
        let (checked, found) = check(&mut sources, &file.expect("a file that parses has a tree"), settings);
        assert_eq!(checked.is_none(), !found.is_empty(), "{name}: a module comes exactly when there is no problem");
        problems = found;
    }
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    let mut text = String::new();
    for problem in problems.into_vec() {
        let report = miette::Report::new_boxed(problem).with_source_code(sources.clone());
        handler.render_report(&mut text, report.as_ref()).expect("a report renders");
        text.push('\n');
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn settings_of(path: &std::path::Path, text: &str) -> Settings {
    let json = fs::read_to_string(path.with_extension("json")).ok();
    let config = json.map(|json| serde_json::from_str(&json).expect("the configuration is JSON"));
    let sets = text.lines().filter_map(|line| line.strip_prefix("//! --set ")?.split_once('='));
    Settings {
        config,
        overrides: sets.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        ..Settings::default()
    }
}

#[test]
fn reports_are_as_expected() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/diagnostics");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("the folder is there").map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "moe"));
    paths.sort();
    assert!(!paths.is_empty());
    let mut differ = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let found = report(&name, &text, &settings_of(&path, &text));
        let expected = path.with_extension("expected");
        if std::env::var_os("MOEC_BLESS").is_some() {
            fs::write(&expected, &found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            differ.push(format!("{name}\n{found}"));
        }
    }
    assert!(differ.is_empty(), "reports differ (MOEC_BLESS=1 rewrites them):\n{}", differ.join("\n"));
}
