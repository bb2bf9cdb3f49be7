//! Every code that a problem of this repository has, has its page, and no page is of a code that is gone.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use moec_diag::pages::pages;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The codes that a source file gives: `code(moec::…)` of a derived problem, `"moec::…"` of one written by hand.
fn codes(text: &str) -> Vec<String> {
    let mut codes = Vec::new();
    for (mark, end) in [("code(moec::", ')'), ("\"moec::", '"')] {
        for (at, _) in text.match_indices(mark) {
            let code = &text[at + mark.len() - "moec::".len()..];
            let code = &code[..code.find(end).unwrap_or(code.len())];
            let whole = |word: &str| {
                !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            };
            if code.split("::").all(whole) {
                codes.push(code.to_owned());
            }
        }
    }
    codes
}

#[test]
fn every_code_has_its_page_and_every_page_its_code() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut used: BTreeMap<String, PathBuf> = BTreeMap::new();
    for member in fs::read_dir(&crates).expect("the crates") {
        let folder = member.expect("a crate").path().join("src");
        let mut files = Vec::new();
        if folder.is_dir() {
            sources(&folder, &mut files);
        }
        for file in files {
            let text = fs::read_to_string(&file).expect("a source file");
            used.extend(codes(&text).into_iter().map(|code| (code, file.clone())));
        }
    }
    assert!(used.len() > 100, "the search for codes finds them");
    let missing: Vec<String> = used
        .iter()
        .filter(|(code, _)| !pages().iter().any(|page| page.code == code.as_str()))
        .map(|(code, file)| format!("{code} ({})", file.file_name().unwrap_or_default().display()))
        .collect();
    let stale: Vec<&str> = pages().iter().map(|page| page.code).filter(|code| !used.contains_key(*code)).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "codes without a page in crates/moec-diag/errors: {missing:#?}\npages without a code: {stale:#?}"
    );
}

#[test]
fn pages_have_a_title_and_a_text() {
    for page in pages() {
        assert!(page.text.starts_with("# ") && page.title().len() > 2, "{}", page.code);
        assert!(page.pieces().len() > 1 || page.text.lines().count() > 3, "{} says little", page.code);
    }
}
