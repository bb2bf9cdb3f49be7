//! Running `moec` and other programs, and the folders they run in.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// # Panics
    /// When the program did not succeed.
    #[track_caller]
    pub fn fine(self) -> Ended {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// # Panics
    /// When the program ended otherwise, or did not say all of `words`.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) -> Ended {
        assert_eq!(self.code, code, "{self:#?}");
        // Reports are broken into lines; words are looked for in running text.
        let said: String = self.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(said.contains(word), "no `{word}` in {self:#?}");
        }
        assert!(!said.contains("bug in moec"), "{self:#?}");
        self
    }
}

pub fn moec<S: AsRef<OsStr>>(arguments: &[S]) -> Ended {
    run(Command::new(env!("CARGO_BIN_EXE_moec")).args(arguments))
}

/// `moec` in a folder, with words that hold no spaces.
pub fn moec_in(folder: &Path, line: &str) -> Ended {
    run(Command::new(env!("CARGO_BIN_EXE_moec")).current_dir(folder).args(line.split_whitespace()))
}

pub fn run(command: &mut Command) -> Ended {
    let output = command.env("RUST_BACKTRACE", "0").output();
    let output = output.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The C compiler, warnings being errors.
pub fn cc(folder: &Path, line: &str) -> Ended {
    run(Command::new("cc")
        .current_dir(folder)
        .args(["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"])
        .args(line.split_whitespace()))
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

pub fn family(name: &str) -> PathBuf {
    repository().join("examples/families").join(name).with_extension("moe")
}

pub fn oracle(name: &str) -> PathBuf {
    repository().join("tests/data/oracles").join(name)
}

pub fn bard() -> PathBuf {
    repository().join("examples/bard")
}

pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A copy of a checkpoint, to be damaged.
pub fn copy_of(checkpoint: &Path) -> TempDir {
    let copy = folder();
    for entry in fs::read_dir(checkpoint).expect("a checkpoint's folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, copy.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    copy
}

/// Bard, built with weights into `build` of a folder that also holds `bard.moe`.
pub fn built_bard() -> TempDir {
    let folder = folder();
    let bard = bard();
    moec_in(folder.path(), &format!("import {} -o bard.moe", bard.display())).fine();
    moec_in(folder.path(), &format!("build bard.moe --weights {} -o build", bard.display())).fine();
    folder
}
