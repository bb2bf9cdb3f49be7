//! Folders and files that are not a checkpoint say why.

use std::fs;
use std::io::Write;
use std::path::Path;

use miette::Diagnostic;
use moec_checkpoint::{Checkpoint, CheckpointError};

fn file(tensors: &[(&str, usize)]) -> Vec<u8> {
    let mut at = 0;
    let entries: Vec<_> = tensors
        .iter()
        .map(|(name, bytes)| {
            at += bytes;
            format!(r#""{name}": {{"dtype": "U8", "shape": [{bytes}], "data_offsets": [{}, {at}]}}"#, at - bytes)
        })
        .collect();
    let header = format!("{{{}}}", entries.join(", "));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![7; at]].concat()
}

fn problem(folder: &Path) -> String {
    let problem = Checkpoint::open(folder).expect_err("a problem").to_string();
    problem.replace(&folder.display().to_string(), "FOLDER")
}

fn index(folder: &Path, entries: &str) {
    fs::write(folder.join("model.safetensors.index.json"), format!(r#"{{"weight_map": {{{entries}}}}}"#))
        .expect("written");
}

#[test]
fn one_file_or_several_under_an_index() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    assert_eq!(problem(at), "no checkpoint in FOLDER");
    assert_eq!(problem(&at.join("none")), "no checkpoint in FOLDER");
    fs::write(at.join("model.safetensors"), file(&[("a", 2), ("b", 0)])).expect("written");
    let checkpoint = Checkpoint::open(at).expect("a checkpoint");
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(checkpoint.tensor("a").expect("there").bytes, [7, 7]);
    assert_eq!(checkpoint.bytes(), 2);

    fs::write(at.join("1.safetensors"), file(&[("a", 2)])).expect("written");
    fs::write(at.join("2.safetensors"), file(&[("c", 1)])).expect("written");
    index(at, r#""a": "1.safetensors", "c": "2.safetensors""#);
    let checkpoint = Checkpoint::open(at).expect("a checkpoint");
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(checkpoint.files().count(), 2);
    assert!(Checkpoint::open(&at.join("2.safetensors")).is_ok());
}

#[test]
fn an_index_must_agree_with_its_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    fs::write(at.join("1.safetensors"), file(&[("a", 2)])).expect("written");
    fs::write(at.join("2.safetensors"), file(&[("a", 1)])).expect("written");
    index(at, r#""a": "1.safetensors", "b": "2.safetensors""#);
    assert_eq!(problem(at), "tensor `a` is in two files, FOLDER/1.safetensors and FOLDER/2.safetensors");
    index(at, r#""b": "1.safetensors""#);
    assert_eq!(problem(at), "the index says that `b` is in FOLDER/1.safetensors, which does not hold it");
    index(at, r#""a": "3.safetensors", "b": "1.safetensors", "c": "4.safetensors", "d": "4.safetensors""#);
    let missing = "2 files that FOLDER/model.safetensors.index.json names are not there: 3.safetensors, 4.safetensors";
    assert_eq!(problem(at), missing);
    let help = Checkpoint::open(at).expect_err("a problem").help().expect("help").to_string();
    assert!(help.starts_with("they hold 3 of its tensors, `a` among them"), "{help}");
    index(at, r#""a": "1.safetensors", "a": "2.safetensors""#);
    assert!(problem(at).contains("it lists `a` twice"), "{}", problem(at));
    fs::create_dir(at.join("5.safetensors")).expect("made");
    index(at, r#""a": "5.safetensors""#);
    assert!(problem(at).starts_with("cannot read FOLDER/5.safetensors: "));
    for outside in ["../1.safetensors", "/etc/passwd", "x/../1.safetensors", "..", ""] {
        index(at, &format!(r#""a": "{outside}""#));
        assert!(problem(at).ends_with("which is not beside it"), "{outside}");
    }
    fs::write(at.join("model.safetensors.index.json"), "{}").expect("written");
    assert!(problem(at).contains("missing field `weight_map`"));
    for hostile in
        [&b"\xff\xfe"[..], &b"[".repeat(100_000), br#"{"weight_map": {"a": 1}}"#, b"{\"weight_map\": ", b"[]"]
    {
        fs::write(at.join("model.safetensors.index.json"), hostile).expect("written");
        assert!(problem(at).starts_with("FOLDER/model.safetensors.index.json is not an index"), "{}", problem(at));
    }
}

#[test]
fn files_cut_short_anywhere_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = file(&[("a", 2), ("b", 3)]);
    for length in 0..whole.len() {
        fs::write(folder.path().join("model.safetensors"), &whole[..length]).expect("written");
        let problem = problem(folder.path());
        assert!(problem.contains("FOLDER/model.safetensors"), "{problem}");
    }
    // Any one byte of the header changed: an error or another header, but never a crash.
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x15;
        fs::write(folder.path().join("model.safetensors"), changed).expect("written");
        if let Ok(checkpoint) = Checkpoint::open(folder.path()) {
            checkpoint.names().for_each(|name| assert!(checkpoint.tensor(name).is_some()));
        }
    }
}

/// What is read of a file that changes meanwhile would be of neither state.
#[test]
fn a_file_that_changes_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    fs::write(&path, file(&[("a", 2)])).expect("written");
    let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
    checkpoint.release();
    assert_eq!((checkpoint.unchanged("a"), checkpoint.tensor("a").expect("there").bytes), (Ok(()), &[7, 7][..]));
    let before = checkpoint.identity();
    fs::File::options().append(true).open(&path).and_then(|mut file| file.write_all(&[0])).expect("longer");
    assert_eq!(checkpoint.unchanged("a"), Err(CheckpointError::Changed { file: path.clone() }));
    fs::write(&path, file(&[("a", 3)])).expect("written");
    assert_ne!(Checkpoint::open(folder.path()).expect("a checkpoint").identity(), before);
}
