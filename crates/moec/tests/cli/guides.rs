//! Every command of the README and the guides does what it says: it runs.

use std::{env, path::Path, process::Command};

use crate::command::{repository, run};

fn commands_run(pages: &[&str]) {
    let python = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let has_numpy = Command::new(python).args(["-c", "import numpy"]).output();
        has_numpy.is_ok_and(|output| output.status.success())
    });
    let home = repository();
    let moec = Path::new(env!("CARGO_BIN_EXE_moec"));
    let mut path = moec.parent().expect("a folder").as_os_str().to_owned();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new(python.unwrap_or("python3"));
    command.arg(home.join("tests/install/run_fences.py")).args(pages.iter().map(|page| home.join(page)));
    run(command.env("PATH", path).env("MOEC", moec).env("PYTHONDONTWRITEBYTECODE", "1")).fine();
}

#[test]
fn of_the_readme() {
    commands_run(&["README.md"]);
}

#[test]
fn of_the_guides() {
    commands_run(&[
        "docs/guides/first-model.md",
        "docs/guides/own-gate.md",
        "docs/guides/import.md",
        "docs/guides/fusion-report.md",
        "docs/guides/deploy.md",
    ]);
}

#[test]
fn of_linking() {
    commands_run(&["docs/guides/link.md", "docs/guides/python.md"]);
}
