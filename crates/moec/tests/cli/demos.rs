//! The examples with trained weights do on held-out data what the framework that trained them measured.

use std::{path::Path, process::Command};

use crate::command::{folder, moec_in, repository, run};

/// Their ratings are no part of the repository: `./dev demo recommend` takes them from where they are published.
#[test]
fn recommendations_build_with_all_their_weights() {
    let (folder, recommend) = (folder(), repository().join("examples/recommend"));
    let recommend = recommend.display();
    moec_in(folder.path(), &format!("build {recommend}/recommend.moe --weights {recommend} -o build")).fine();
}

#[test]
fn images_are_classified_as_in_training() {
    let (folder, images) = (folder(), repository().join("examples/images"));
    let evaluate = |words: &[&str]| {
        run(Command::new("python3").current_dir(folder.path()).arg(images.join("evaluate.py")).args(words))
            .fine()
            .stdout
    };
    let build = |folder: &Path| {
        let images = images.display();
        moec_in(folder, &format!("build {images}/images.moe --weights {images} -o build")).fine()
    };
    build(folder.path());
    evaluate(&["inputs", "in.safetensors"]);
    let line = "run build --inputs in.safetensors --outputs out.safetensors --trace trace.safetensors";
    moec_in(folder.path(), line).fine();
    let said = evaluate(&["figures", "out.safetensors", "trace.safetensors"]);
    assert!(said.contains("1000 held-out images: 90.0 % by the compiled library"), "{said}");
    assert!(said.contains("90.0 % by PyTorch"), "{said}");
}
