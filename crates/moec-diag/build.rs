//! Embeds `errors/AREA/NAME.md`, what each problem's code means, so that `moec explain-error` needs no files beside itself.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    let errors = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets this")).join("errors");
    let mut list = String::from("const PAGES: &[Page] = &[\n");
    for folder in inside(&errors) {
        for file in inside(&folder) {
            let stem = |path: &Path| path.file_stem().expect("listed by its name").to_string_lossy().into_owned();
            let code = match stem(&folder).as_str() {
                "moec" => format!("moec::{}", stem(&file)),
                area => format!("moec::{area}::{}", stem(&file)),
            };
            let path = file.display().to_string();
            list.push_str(&format!("    Page {{ code: {code:?}, text: include_str!({path:?}) }},\n"));
        }
    }
    list.push_str("];\n");
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets this")).join("pages.rs");
    fs::write(out, list).expect("OUT_DIR is writable");
}

/// What a folder holds, in the order of the names: the same sources give the same compiler.
fn inside(folder: &Path) -> Vec<PathBuf> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry of a folder").path())
        .collect();
    paths.sort();
    paths
}
