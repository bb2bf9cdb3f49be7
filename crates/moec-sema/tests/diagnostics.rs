//! `tests/diagnostics/NAME.moe` and the whole report in `NAME.expected`; `MOEC_BLESS=1` rewrites the reports.
//!
//! `NAME.json` beside it is the `config.json` of the check; a head line `//! --set NAME=VALUE` sets an entry.

mod common;

use std::{fs, path::PathBuf};

use common::{problems_of, rendered, settings_of};

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
        let config = fs::read_to_string(path.with_extension("json")).ok();
        let (sources, problems) = problems_of(&name, &text, &settings_of(&text, config.as_deref()));
        let found = rendered(&sources, problems);
        let expected = path.with_extension("expected");
        if std::env::var_os("MOEC_BLESS").is_some() {
            fs::write(&expected, &found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            differ.push(format!("{name}\n{found}"));
        }
    }
    assert!(differ.is_empty(), "reports differ (MOEC_BLESS=1 rewrites them):\n{}", differ.join("\n"));
}
