//! `grammar/corpus/accept` is read without a problem; each file of `reject` gives the report beside it.
//!
//! `MOEC_BLESS=1 cargo test -p moec-syntax` rewrites the reports.

mod common;

use std::fs;

use common::{corpus, rendered};
use moec_diag::SourceMap;

#[test]
fn accepted_files_have_no_problems() {
    for (path, text) in corpus("accept") {
        let mut sources = SourceMap::default();
        let (file, problems) = moec_syntax::parse(&mut sources, "file.moe", &text);
        assert!(problems.is_empty(), "{}:\n{}", path.display(), rendered(&sources, problems));
        assert!(file.is_some_and(|file| file != Default::default()), "{} gave nothing", path.display());
    }
}

#[test]
fn rejected_files_are_explained() {
    let bless = std::env::var_os("MOEC_BLESS").is_some_and(|value| value == "1");
    let mut wrong = Vec::new();
    for (path, text) in corpus("reject") {
        let mut sources = SourceMap::default();
        let name = path.file_name().unwrap().to_string_lossy();
        let (_, problems) = moec_syntax::parse(&mut sources, &name, &text);
        assert!(!problems.is_empty(), "{} was accepted", path.display());
        let found = rendered(&sources, problems);
        let expectation = path.with_extension("expected");
        if bless {
            fs::write(&expectation, &found).unwrap();
        } else if fs::read_to_string(&expectation).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "reports differ (MOEC_BLESS=1 rewrites them):\n{}", wrong.join("\n"));
}
