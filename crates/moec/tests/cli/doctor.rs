//! What moec says of the machine, and what is made of its command line.

use std::{fs, process::Command};

use serde_json::Value;

use crate::command::{folder, moec_in, run};

#[test]
fn the_doctor_says_what_is_here_and_what_to_do() {
    let ended = moec_in(&std::env::temp_dir(), "doctor --json").fine();
    let findings: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let findings = findings.as_array().expect("a list");
    let state = |what: &str| {
        findings.iter().find(|finding| finding["what"] == what).map(|finding| finding["state"].clone()).expect(what)
    };
    for what in ["moec", "levels", "programs", "ld", "objcopy", "ar", "cc", "a build"] {
        assert_eq!(state(what), "here", "{ended:#?}");
    }

    // Nothing on the path.
    let mut command = Command::new(env!("CARGO_BIN_EXE_moec"));
    let ended = run(command.arg("doctor").env("PATH", "/nowhere"));
    assert_eq!(ended.code, 1, "{ended:#?}");
    for words in ["MISSING ld", "apt-get install binutils", "MISSING a build"] {
        assert!(ended.stdout.contains(words), "no `{words}`: {ended:#?}");
    }
}

#[test]
fn shells_and_manuals_know_every_command() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish"] {
        let script = moec_in(folder.path(), &format!("completions {shell}")).fine().stdout;
        assert!(script.contains("explain-error") && script.contains("max-new"), "{shell}");
    }
    let bash = moec_in(folder.path(), "completions bash").fine().stdout;
    fs::write(folder.path().join("moec.bash"), bash).expect("written");
    run(Command::new("bash").arg("-n").arg(folder.path().join("moec.bash"))).fine();
    moec_in(folder.path(), "man pages").fine();
    for page in ["moec.1", "moec-build.1", "moec-trace-view.1"] {
        let text = fs::read_to_string(folder.path().join("pages").join(page)).expect(page);
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
}
