use std::{fs, path::Path, process::Command};

use moec_codegen::{Artefact, LinkError, Object, fingerprint, header, link};

use crate::{
    c::{STRICT, cc, run, tests},
    plans::{tiny, write},
};

/// A backend's object, made by the C compiler.
fn entry(name: &str, folder: &Path) -> Object {
    let object = folder.join("entry.o");
    let mut command = cc();
    command.args(STRICT).args(["-O2", "-fPIC", "-c", "-Wno-unused"]).arg(tests().join("entry.c"));
    command.arg(format!("-DNAME={name}")).arg(format!("-DFINGERPRINT=0x{:x}u", fingerprint(&tiny(name))));
    run(command.arg("-o").arg(&object));
    Object { name: "entry.o".into(), bytes: fs::read(object).unwrap() }
}

/// A whole build folder.
fn build(name: &str, folder: &Path) -> Artefact {
    fs::write(folder.join(format!("{name}.h")), header(&tiny(name)).unwrap()).unwrap();
    write(&tiny(name), &folder.join(format!("{name}.weights")));
    link(&[entry(name, folder)], name, folder).unwrap()
}

/// Of an object file, by `nm`.
fn symbols(path: &Path, flags: &[&str]) -> Vec<String> {
    let text = run(Command::new("nm").args(flags).arg(path));
    let mut names: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(|name| name.split('@').next().unwrap().into())
        .collect();
    names.retain(|name| !name.ends_with(".o:") && !name.is_empty());
    names.sort();
    names
}

#[test]
fn only_the_models_own_names_are_public() {
    let folder = tempfile::tempdir().unwrap();
    let made = build("first", folder.path());
    let public =
        ["close", "open", "session_free", "session_new", "step", "version"].map(|suffix| format!("first_{suffix}"));
    assert_eq!(symbols(&made.shared, &["-D", "--defined-only"]), public);
    assert_eq!(symbols(&made.archive, &["-g", "--defined-only"]), public);
    let wanted = run(Command::new("objdump").arg("-p").arg(&made.shared));
    let needed: Vec<&str> =
        wanted.lines().filter_map(|line| line.trim().strip_prefix("NEEDED")).map(str::trim).collect();
    assert!(needed.iter().all(|library| ["libc.so.6", "libm.so.6"].contains(library)), "it needs {needed:?}");
    assert!(wanted.contains("libfirst.so"), "it has its name in it");
    let mut left: Vec<String> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["entry.o", "first.h", "first.weights", "libfirst.a", "libfirst.so"]);
}

#[test]
fn two_models_in_one_program() {
    let folder = tempfile::tempdir().unwrap();
    build("first", folder.path());
    build("second", folder.path());
    for (program, libraries) in [("static", ["libfirst.a", "libsecond.a"]), ("shared", ["libfirst.so", "libsecond.so"])]
    {
        let mut command = cc();
        command.args(STRICT).arg("-I.").arg(tests().join("two_models.c")).args(libraries).args(["-o", program]);
        run(command.args(["-Wl,-rpath,$ORIGIN", "-lm", "-lpthread"]).current_dir(folder.path()));
        run(Command::new(folder.path().join(program))
            .args(["first.weights", "second.weights"])
            .current_dir(folder.path()));
    }
}

#[test]
fn the_same_objects_give_the_same_bytes() {
    let folders = [(), ()].map(|()| tempfile::tempdir().unwrap());
    let made = folders.each_ref().map(|folder| build("first", folder.path()));
    for path in [|made: &Artefact| made.shared.clone(), |made: &Artefact| made.archive.clone()] {
        assert!(fs::read(path(&made[0])).unwrap() == fs::read(path(&made[1])).unwrap(), "{:?}", path(&made[0]));
    }
}

#[test]
fn problems_are_said() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(link(&[], "int", folder.path()), Err(LinkError::BadName(_))));
    let nonsense = Object { name: "../x".into(), bytes: b"nonsense".to_vec() };
    let error = link(&[nonsense], "first", folder.path()).unwrap_err();
    assert!(matches!(&error, LinkError::ToolFailed { tool: "ld", output, .. } if !output.is_empty()), "{error}");
    assert!(matches!(link(&[], "first", &folder.path().join("nowhere")), Err(LinkError::Io { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
