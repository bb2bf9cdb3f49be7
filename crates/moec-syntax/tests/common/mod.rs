//! The corpus, and reports as a user reads them but without colour.

use std::fs;
use std::path::{Path, PathBuf};

use miette::{GraphicalReportHandler, GraphicalTheme, Report};
use moec_diag::{Problems, SourceMap};

pub fn rendered(sources: &SourceMap, problems: Problems) -> String {
    let handler =
        GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(120).with_links(false);
    let mut text = String::new();
    for problem in problems.into_vec() {
        let report = Report::new_boxed(problem).with_source_code(sources.clone());
        handler.render_report(&mut text, report.as_ref()).expect("writing into a string");
        text.push('\n');
    }
    text
}

/// Every file of `grammar/corpus/<folder>`, by name.
#[allow(dead_code)]
pub fn corpus(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../grammar/corpus").join(folder);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "moe")).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    let with_text = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    files.into_iter().map(with_text).collect()
}
