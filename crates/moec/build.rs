//! Embeds the model families of `examples/families`, so that `moec import` needs no files beside itself.

use std::{env, fs, path::Path};

fn main() {
    let families = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets this")).join("../../examples/families");
    println!("cargo::rerun-if-changed={}", families.display());
    let mut files: Vec<_> = fs::read_dir(&families)
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "moe"));
    // The same sources give the same compiler, whatever the order of the folder.
    files.sort();
    let mut list = String::from("pub(crate) const FAMILIES: &[(&str, &str)] = &[\n");
    for path in files {
        println!("cargo::rerun-if-changed={}", path.display());
        let name = path.file_stem().expect("a .moe file has a stem").to_string_lossy().into_owned();
        let path = path.canonicalize().expect("listed a moment ago");
        list.push_str(&format!("    ({name:?}, include_str!({:?})),\n", path.display().to_string()));
    }
    list.push_str("];\n");
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets this")).join("families.rs");
    fs::write(out, list).expect("OUT_DIR is writable");
}
