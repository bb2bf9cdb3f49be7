//! What Rust programs link: by a build script that compiles the spec, and by the crate of a build. Cargo really runs.

use std::{fs, path::Path, process::Command};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::command::{Ended, bard, built_bard, folder, moec_in, repository, run};

/// Any warning of what we generate is an error.
fn cargo(folder: &Path, words: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(folder).args(words).env("CARGO_TARGET_DIR", folder.join("target"));
    command.env("RUSTFLAGS", "-D warnings").env("MOEC", env!("CARGO_BIN_EXE_moec"));
    run(&mut command)
}

#[test]
fn cargo_build_compiles_the_model_of_a_program() {
    let bard = built_bard();
    let manifest = repository().join("examples/clients/rust/Cargo.toml").display().to_string();
    let line = ["run", "--quiet", "--offline", "--locked", "--manifest-path", &manifest, "--", "JULIET.", "24"];
    let said = cargo(bard.path(), &line).fine().stdout;
    assert_eq!(said, moec_in(bard.path(), "run build --prompt JULIET. --max-new 24 --greedy").fine().stdout);
}

#[test]
fn a_build_script_says_what_is_wrong() {
    let folder = folder();
    let path = folder.path();
    fs::create_dir(path.join("src")).expect("made");
    fs::write(path.join("src/main.rs"), "fn main() {}\n").expect("written");
    let build = "fn main() -> Result<(), moec_build::Error> { moec_build::Model::new(\"wrong.moe\").build() }\n";
    fs::write(path.join("build.rs"), build).expect("written");
    fs::write(path.join("wrong.moe"), "model wrong(x: f32[S, D]) { out y: f32[S, D] = z }\n").expect("written");
    let home = repository().join("crates/moec-build");
    let manifest = format!(
        "[package]\nname = \"wrong\"\nedition = \"2024\"\n[build-dependencies]\nmoec-build = {{ path = {home:?} }}\n"
    );
    fs::write(path.join("Cargo.toml"), manifest).expect("written");
    let words = ["moec did not build wrong.moe", "wrong.moe:1:"];
    cargo(path, &["build", "--quiet", "--offline"]).refused(101, &words);
}

#[test]
fn the_crate_of_a_build_is_safe_and_exact() {
    let folder = folder();
    let path = folder.path();
    let images = repository().join("examples/images");
    let images = images.display();
    // Twice: a crate that is there already is replaced.
    moec_in(path, &format!("build {images}/images.moe --cpu scalar --emit rust -o build")).fine();
    moec_in(path, &format!("build {images}/images.moe --weights {images} --cpu avx2 --emit rust -o build")).fine();

    let values: Vec<u8> = (0..3 * 784).flat_map(|at| ((at * 37 % 256) as f32 / 255.0).to_le_bytes()).collect();
    fs::write(path.join("images.f32"), &values).expect("written");
    let view = TensorView::new(Dtype::F32, vec![3, 28, 28], &values).expect("sound");
    fs::write(path.join("in.safetensors"), safetensors::serialize([("image", view)], None).expect("sound"))
        .expect("written");
    moec_in(path, "run build --inputs in.safetensors --outputs out.safetensors").fine();
    let bytes = fs::read(path.join("out.safetensors")).expect("written");
    let outputs = SafeTensors::deserialize(&bytes).expect("sound");
    let scores = outputs.tensor("scores").expect("there").data().to_vec();
    let bits = |four: &[u8]| format!("{:08x}", u32::from_le_bytes(four.try_into().expect("four")));
    let expected: Vec<String> = scores.chunks_exact(4).map(bits).collect();

    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/rust/main.rs");
    fs::create_dir(path.join("src")).expect("made");
    fs::copy(source, path.join("src/main.rs")).expect("copied");
    let manifest =
        "[package]\nname = \"app\"\nedition = \"2024\"\n[dependencies]\nimages = { path = \"build/rust\" }\n";
    fs::write(path.join("Cargo.toml"), manifest).expect("written");
    assert_eq!(cargo(path, &["run", "--quiet", "--offline"]).fine().stdout.trim_end(), expected.join(" "));
}

/// Each says what it says alone, to `moec run`.
#[test]
fn sessions_of_a_crate_step_together() {
    let folder = built_bard();
    let path = folder.path();
    moec_in(path, &format!("build bard.moe --weights {} --emit rust -o build", bard().display())).fine();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/rust/together.rs");
    fs::create_dir(path.join("src")).expect("made");
    fs::copy(source, path.join("src/main.rs")).expect("copied");
    let manifest = "[package]\nname = \"app\"\nedition = \"2024\"\n[dependencies]\nbard = { path = \"build/rust\" }\n";
    fs::write(path.join("Cargo.toml"), manifest).expect("written");
    let said = cargo(path, &["run", "--quiet", "--offline"]).fine().stdout;
    for (line, prompt) in said.lines().zip(["JULIET.", "But soft, what light through yonder window", "K"]) {
        let words = ["run", "build", "--prompt", prompt, "--max-new", "12"];
        let alone = run(Command::new(env!("CARGO_BIN_EXE_moec")).current_dir(path).args(words)).fine().stdout;
        assert_eq!(format!("{:?}", alone.trim_end_matches('\n').strip_prefix(prompt).expect("it begins so")), line);
    }
    assert_eq!(said.lines().count(), 3);
}
