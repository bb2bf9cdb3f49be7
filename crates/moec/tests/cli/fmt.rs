//! `moec fmt`: what changes, what is left alone, and the exit codes.

use std::fs;

use crate::command::{folder, moec_in};

const LOOSE: &str = "model  m(x:f32[ S,D = 4 ]) {  out y : f32[S, D]=x  } // as it is\n";
const CANONICAL: &str = "model m(x: f32[S, D = 4]) { out y: f32[S, D] = x }  // as it is\n";

#[test]
fn files_are_rewritten_once() {
    let folder = folder();
    let file = folder.path().join("m.moe");
    fs::write(&file, LOOSE).unwrap();
    moec_in(folder.path(), "fmt --check m.moe").refused(1, &["m.moe: not in canonical form"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), LOOSE);
    moec_in(folder.path(), "fmt m.moe").fine();
    assert_eq!(fs::read_to_string(&file).unwrap(), CANONICAL);
    moec_in(folder.path(), "fmt --check m.moe").fine();
}

#[test]
fn a_file_with_problems_is_left_alone() {
    let folder = folder();
    fs::write(folder.path().join("bad.moe"), "model m(x: f32[S]) { let }\n").unwrap();
    fs::write(folder.path().join("good.moe"), LOOSE).unwrap();
    moec_in(folder.path(), "fmt bad.moe missing.moe good.moe").refused(1, &["bad.moe", "missing.moe"]);
    assert_eq!(fs::read_to_string(folder.path().join("bad.moe")).unwrap(), "model m(x: f32[S]) { let }\n");
    assert_eq!(fs::read_to_string(folder.path().join("good.moe")).unwrap(), CANONICAL);
}
