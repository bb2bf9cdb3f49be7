//! `moec explain-error`, and that reports say that it is there.

use std::fs;

use crate::command::{folder, moec, moec_in};

#[test]
fn a_code_is_explained_with_and_without_its_prefix() {
    let whole = moec(&["explain-error", "moec::sema::axis_twice"]).fine().stdout;
    let short = moec(&["explain-error", "sema::axis_twice"]).fine().stdout;
    assert_eq!(whole, short);
    for part in ["moec::sema::axis_twice: ", "\nBroken:\n\n    model m(", "\nMended:\n\n    model m("] {
        assert!(whole.contains(part), "no `{part}` in\n{whole}");
    }
    assert!(!whole.contains("```"), "{whole}");
}

#[test]
fn an_unknown_code_leads_to_the_nearest() {
    moec(&["explain-error", "axis_twise"]).refused(1, &["`axis_twise`", "did you mean `moec::sema::axis_twice`?"]);
    moec(&["explain-error", "sema::unclosed"]).refused(1, &["did you mean `moec::syntax::unclosed`?"]);
    moec(&["explain-error", "banana"]).refused(1, &["--list"]);
    moec(&["explain-error"]).refused(2, &["CODE"]);
}

#[test]
fn all_codes_are_listed() {
    let list = moec(&["explain-error", "--list"]).fine().stdout;
    assert!(list.lines().count() > 150 && list.lines().all(|line| line.starts_with("moec::")), "{list}");
}

#[test]
fn a_run_says_once_that_codes_are_explained() {
    let here = folder();
    for name in ["a.moe", "b.moe"] {
        fs::write(here.path().join(name), "model m(x: f32[S, S]) { out y = z }").expect("written");
    }
    let ended = moec_in(here.path(), "check a.moe b.moe")
        .refused(1, &["(`moec explain-error moec::sema::axis_twice` says more)"]);
    assert_eq!(ended.stderr.matches("explain-error").count(), 1, "{}", ended.stderr);
    assert!(!moec_in(here.path(), "check --json a.moe").stderr.contains("explain-error"));
}
