//! Running the C compiler and what it makes.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

pub const STRICT: [&str; 5] = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];

pub fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c")
}

pub fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels/runtime")
}

/// The run time's sources.
pub fn runtime_sources() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(kernels()).expect("kernels/runtime").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "c")).collect()
}

/// Runs a program to its end; its output where it succeeds.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{}\n{}", output.status, text[0], text[1]);
    text.concat()
}

/// A command with the include paths of the run time and of the tests.
pub fn cc() -> Command {
    let mut command = Command::new("cc");
    command.arg("-I").arg(kernels()).arg("-I").arg(tests());
    command
}

/// Whether the compiler can build programs with this sanitizer, and they run here.
pub fn has_sanitizer(flag: &str, folder: &Path) -> bool {
    let (source, program) = (folder.join("empty.c"), folder.join("empty"));
    std::fs::write(&source, "int main(void) { return 0; }\n").expect("a source file");
    let built = Command::new("cc").arg(flag).arg(&source).arg("-o").arg(&program).output();
    built.is_ok_and(|built| built.status.success())
        && Command::new(&program).output().is_ok_and(|ran| ran.status.success())
}
