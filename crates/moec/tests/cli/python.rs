//! The Python module, by its own tests.

use std::process::Command;

use crate::command::{built_bard, repository, run};

/// A Python that has NumPy: the one on the path, or the system's.
fn python() -> Option<&'static str> {
    let has_numpy = |python: &&str| {
        Command::new(python).args(["-c", "import numpy"]).output().is_ok_and(|output| output.status.success())
    };
    ["python3", "/usr/bin/python3"].into_iter().find(has_numpy)
}

#[test]
fn the_module_does_what_it_says() {
    let Some(python) = python() else {
        eprintln!("not run: no Python with NumPy (apt-get install python3-numpy)");
        return;
    };
    let folder = built_bard();
    let mut command = Command::new(python);
    command.args(["-m", "unittest", "discover", "tests"]).current_dir(repository().join("crates/moec/python"));
    command.env("MOEC", env!("CARGO_BIN_EXE_moec")).env("BARD", folder.path().join("bard.moe")).env("PYTHONPATH", ".");
    // What is imported leaves nothing in the repository.
    run(command.env("PYTHONDONTWRITEBYTECODE", "1")).fine();
}
