//! tests/c/runtime.c against the sources of the run time, plain and under the compiler's sanitizers.

use std::{fs, path::Path, process::Command};

use moec_codegen::{Checksum, fingerprint};

use crate::{
    c::{STRICT, cc, has_sanitizer, kernels, run, runtime_sources, tests},
    plans::{Table, empty, tiny, write},
};

/// A good weight file, an empty one, and one for each way to be bad that runtime.c knows.
fn write_files(folder: &Path) {
    write(&tiny("tiny"), &folder.join("tiny.weights"));
    moec_codegen::write_weights(&empty("sum"), &Table, &folder.join("empty.weights"), &mut |_, _| ()).unwrap();
    let good = fs::read(folder.join("tiny.weights")).unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    // With a header that has its right checksum all the same.
    let forged = |at: usize, bytes: &[u8]| {
        let mut file = changed(at, bytes);
        let checksum = Checksum::of(&file[..56]);
        file[56..64].copy_from_slice(&checksum.to_le_bytes());
        file
    };
    put("zero-bytes", &[]);
    put("half-header", &good[..40]);
    put("text", "{}\n".repeat(2000).as_bytes());
    put("version", &changed(8, &[2]));
    put("header", &changed(40, &[good[40] ^ 1]));
    put("absurd-offset", &forged(16, &1u64.to_le_bytes()));
    put("huge-offset", &forged(16, &(u64::MAX / 4096 * 4096).to_le_bytes()));
    put("truncated", &good[..good.len() - 1]);
    put("truncated-in-table", &good[..100]);
    put("longer", &[&good[..], &[0]].concat());
    put("flipped-bit", &changed(good.len() - 100, &[good[good.len() - 100] ^ 16]));
}

fn build_and_run(flags: &[&str], folder: &Path) {
    write_files(folder);
    let program = folder.join("runtime");
    let mut command = cc();
    command.args(STRICT).args(flags).arg(tests().join("runtime.c")).args(runtime_sources());
    run(command.arg("-I").arg(kernels()).arg("-o").arg(&program).args(["-lm", "-lpthread"]));
    let fingerprints = [tiny("tiny"), empty("sum")].map(|plan| format!("{:x}", fingerprint(&plan)));
    run(Command::new(program).arg(folder).args(fingerprints));
}

fn sanitized(flag: &str) {
    let folder = tempfile::tempdir().unwrap();
    if !has_sanitizer(flag, folder.path()) {
        eprintln!("skipped: this compiler cannot build and run programs with {flag}");
        return;
    }
    build_and_run(&["-O1", "-g", flag, "-fno-sanitize-recover=all"], folder.path());
}

#[test]
fn as_it_is_shipped() {
    build_and_run(&["-O2"], tempfile::tempdir().unwrap().path());
}

#[test]
fn under_address_and_undefined_sanitizer() {
    sanitized("-fsanitize=address,undefined");
}

#[test]
fn under_thread_sanitizer() {
    sanitized("-fsanitize=thread");
}
