//! Compiles the C run time of emitted libraries, so that its objects can be embedded: `moec build` then needs a linker, but
//! no sources.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    // As it is now, not when this was compiled: work trees may share a target folder.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let sources = Path::new(&manifest).join("../../kernels/runtime");
    println!("cargo:rerun-if-changed=../../kernels/runtime");
    embed(&sources, &sources, "runtime_objects.rs");
    embed(&sources, &sources.join("cuda"), "cuda_objects.rs");
}

/// Compiles the sources of `folder`, and writes the list of their objects to `list` of OUT_DIR.
fn embed(sources: &Path, folder: &Path, list: &str) {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("kernels/runtime is part of the repository")
        .map(|entry| entry.expect("kernels/runtime can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    // The order of objects reaches the artefact.
    files.sort();
    let objects = cc::Build::new()
        .files(&files)
        .include(sources)
        .std("c11")
        .opt_level(2)
        .debug(false)
        .pic(true)
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true)
        .flag("-fvisibility=hidden")
        .flag(format!("-ffile-prefix-map={}=runtime", sources.display()))
        .compile_intermediates();
    let entry = |(source, object): (&PathBuf, &PathBuf)| {
        let name = source.file_stem().expect("it has an extension").to_string_lossy();
        format!("    ({:?}, include_bytes!({:?})),\n", format!("moec_{name}.o"), object)
    };
    let entries: String = files.iter().zip(&objects).map(entry).collect();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join(list);
    fs::write(out, format!("&[\n{entries}]\n")).expect("OUT_DIR can be written");
}
