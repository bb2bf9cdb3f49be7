//! The pages of `moec explain-error`: each broken example has its page's problem and no other, each mended one has none.
//! `docs/errors.md` is all pages, with the reports of their examples; `MOEC_BLESS=1` writes it.

mod common;

use std::{fmt::Write, fs, path::PathBuf};

use common::{problems_of, rendered, settings_of};
use moec_diag::{
    Problem, SourceMap,
    pages::{Page, Piece, Side, pages},
};

fn checked(page: &Page, side: Side) -> Option<(SourceMap, Vec<Problem>)> {
    let text = page.example("moe", side)?;
    Some(problems_of("example.moe", text, &settings_of(text, page.example("json", side))))
}

#[test]
fn examples_are_what_they_say() {
    let mut wrong = Vec::new();
    for page in pages() {
        if let Some((sources, problems)) = checked(page, Side::Broken) {
            let codes = problems.iter().map(|problem| problem.code().expect("a code").to_string());
            let codes: std::collections::BTreeSet<String> = codes.collect();
            if codes.iter().map(String::as_str).ne([page.code]) {
                wrong.push(format!("{}, broken:\n{}", page.code, rendered(&sources, problems)));
            }
        }
        if let Some((sources, problems)) = checked(page, Side::Mended).filter(|(_, problems)| !problems.is_empty()) {
            wrong.push(format!("{}, mended:\n{}", page.code, rendered(&sources, problems)));
        }
    }
    assert!(wrong.is_empty(), "{} examples differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// What the text alone has wrong is shown by a text.
#[test]
fn what_a_file_has_wrong_is_shown_by_a_file() {
    let of_a_file = |page: &&Page| page.code.starts_with("moec::sema::") || page.code.starts_with("moec::syntax::");
    for page in pages().iter().filter(of_a_file) {
        let sides = [Side::Broken, Side::Mended];
        let shown = |language| sides.iter().all(|side| page.example(language, *side).is_some());
        assert!(shown("moe") || shown("console"), "{} has no pair of examples", page.code);
    }
}

#[test]
fn the_reference_is_made_of_the_pages() {
    let mut text = String::from(
        "# Problems and their codes\n\n\
         What `moec explain-error CODE` says, with the reports of the broken examples. Made from\n\
         `crates/moec-diag/errors` by `./dev bless`; a test checks the examples.\n",
    );
    for page in pages() {
        write!(text, "\n## {}\n\n**{}**\n", page.code, page.title()).expect("writing to a string");
        for piece in page.pieces() {
            match piece {
                Piece::Prose(prose) => write!(text, "\n{prose}\n"),
                Piece::Example(example) => {
                    // Highlighters would see errors in what is broken.
                    write!(text, "\n```{}\n{}```\n", example.language, example.text).and_then(|()| {
                        let report = (example.language == "moe" && example.side == Side::Broken)
                            .then(|| checked(page, Side::Broken))
                            .flatten();
                        match report {
                            Some((sources, problems)) => {
                                write!(text, "\n```text\n{}```\n", rendered(&sources, problems))
                            }
                            None => Ok(()),
                        }
                    })
                }
            }
            .expect("writing to a string");
        }
    }
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    if std::env::var_os("MOEC_BLESS").is_some() {
        fs::write(&place, &text).unwrap();
    }
    let written = fs::read_to_string(&place).unwrap_or_default();
    assert!(written == text, "docs/errors.md is not what the pages make (MOEC_BLESS=1 writes it)");
}
