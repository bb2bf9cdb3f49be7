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
    copy_into(checkpoint, copy.path());
    copy
}

/// A copy of bard, built with weights into `build`, beside its spec `bard.moe`.
pub fn built_bard() -> TempDir {
    let copy = folder();
    copy_into(&bard_built_once(), copy.path());
    copy
}

/// Compiling is what takes long here: one build serves all tests of one `moec`, in whatever process they run.
fn bard_built_once() -> PathBuf {
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let about = fs::metadata(env!("CARGO_BIN_EXE_moec")).expect("moec is built");
    let made = about.modified().expect("a time").duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let place = shared.join(format!("bard-{}", made.as_nanos()));
    if !place.exists() {
        let work = tempfile::tempdir_in(shared).expect("a temporary folder");
        let bard = bard();
        moec_in(work.path(), &format!("import {} -o bard.moe", bard.display())).fine();
        moec_in(work.path(), &format!("build bard.moe --weights {} -o build", bard.display())).fine();
        // It appears whole; where another test was quicker, its build does as well.
        if fs::rename(work.path(), &place).is_ok() {
            let _ = work.keep();
        }
        forget_old_builds(shared);
    }
    place
}

/// Builds of earlier compilers; those of the last hour may be in use.
fn forget_old_builds(shared: &Path) {
    for entry in fs::read_dir(shared).into_iter().flatten().filter_map(Result::ok) {
        let old = entry
            .metadata()
            .and_then(|about| about.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() > 3600));
        if old && entry.file_name().to_string_lossy().starts_with("bard-") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn copy_into(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir(&target).expect("made");
            copy_into(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}
