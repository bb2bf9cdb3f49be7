//! Code size and compile time do not grow with the number of layers or experts.

use std::{fs, path::Path, process::Command};

use crate::command::{folder, moec_in};

/// Bytes of the shared library of the `decoder` template.
fn size(folder: &Path, sets: &str) -> u64 {
    let build = format!("build{}", sets.replace([' ', '-', '='], ""));
    moec_in(folder, &format!("build decoder.moe {sets} -o {build}")).fine();
    fs::metadata(folder.join(build).join("libdecoder.so")).expect("a library").len()
}

#[test]
fn code_is_as_large_for_64_layers_as_for_4_and_for_256_experts_as_for_8() {
    let folder = folder();
    moec_in(folder.path(), "new decoder").fine();
    let small = size(folder.path(), "--set L=4 --set E=8");
    let deep = size(folder.path(), "--set L=64 --set E=8");
    let wide = size(folder.path(), "--set L=4 --set E=256");
    // Tables of layers grow, code does not.
    for (what, size) in [("64 layers", deep), ("256 experts", wide)] {
        assert!(size < small + small / 20 + 8192, "{what}: {size} bytes, the small one has {small}");
    }
}

/// Processor time, so that a busy machine does not count.
#[test]
fn a_large_model_builds_in_seconds() {
    let folder = folder();
    moec_in(folder.path(), "new decoder").fine();
    let line = "build decoder.moe --set L=64 --set E=256 -o build";
    let mut command = Command::new(env!("CARGO_BIN_EXE_moec"));
    let mut child = command.current_dir(folder.path()).args(line.split(' ')).spawn().expect("moec starts");
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let mut status = 0;
    // SAFETY: the child is ours, and both places are valid.
    let waited = unsafe { libc::wait4(child.id() as i32, &mut status, 0, usage.as_mut_ptr()) };
    assert_eq!(waited, child.id() as i32);
    // It has ended and been waited for: this only tells the standard library so.
    let _ = child.try_wait();
    assert_eq!(status, 0);
    // SAFETY: wait4 filled it in.
    let usage = unsafe { usage.assume_init() };
    let seconds = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec;
    assert!(seconds < 20, "{seconds} s of two cores: more than 10 s");
}
