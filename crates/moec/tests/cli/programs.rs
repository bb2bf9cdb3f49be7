//! Programs of one file: what they say is what `moec run` says.

use std::{fs, path::Path, process::Command};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::command::{Ended, bard, built_bard, folder, moec_in, repository, run};

fn program(path: &Path, words: &[&str]) -> Ended {
    // Nothing of the machine is needed but libc.
    run(Command::new(path).args(words).env_clear().current_dir("/"))
}

#[test]
fn a_language_model_in_one_file() {
    let folder = built_bard();
    let path = folder.path();
    moec_in(path, &format!("build bard.moe --weights {} --emit exe -o with", bard().display())).fine();
    // From anywhere, under any name, with nothing beside it.
    fs::create_dir(path.join("elsewhere")).expect("made");
    let alone = path.join("elsewhere/poet");
    fs::rename(path.join("with/bard"), &alone).expect("moved");
    fs::remove_dir_all(path.join("with")).expect("removed");

    let said = moec_in(path, "run build --prompt JULIET. --max-new 24").fine().stdout;
    assert_eq!(program(&alone, &["JULIET.", "--max-new", "24"]).fine().stdout, said);
    let sampled = moec_in(path, "run build --prompt JULIET. --max-new 24 --seed 3 --temperature 0.7").fine().stdout;
    let words = ["JULIET.", "--max-new", "24", "--seed", "3", "--temperature", "0.7", "--threads", "1"];
    assert_eq!(program(&alone, &words).fine().stdout, sampled);
    let piped = run(Command::new("sh").arg("-c").arg(format!("printf JULIET. | {} --max-new 24", alone.display())));
    assert_eq!(piped.fine().stdout, said);

    let help = program(&alone, &["--help"]).fine().stdout;
    assert!(help.contains("[PROMPT]") && help.contains("--max-new") && !help.contains("--input"), "{help}");
    program(&alone, &["A", "--max-new", "256"]).refused(1, &["bard:", "context of 256"]);
    program(&alone, &["A", "--inputs"]).refused(2, &["--inputs"]);

    let whole = fs::read(&alone).expect("there");
    let damaged = |bytes: &[u8]| {
        let copy = path.join("damaged");
        fs::copy(&alone, &copy).expect("copied");
        fs::write(&copy, bytes).expect("written");
        copy
    };
    program(&damaged(&whole[..whole.len() - 1]), &["A"]).refused(2, &["no model inside"]);
    let mut flipped = whole.clone();
    // The weights come last, but for 4 entries of 32 bytes and an end of 24.
    let at = whole.len() - 200;
    flipped[at] ^= 1;
    program(&damaged(&flipped), &["A"]).refused(1, &["corrupt", "checksum"]);
    let mut wild = whole.clone();
    let at = whole.len() - 24 - 32 + 16;
    wild[at..at + 8].fill(0xff);
    program(&damaged(&wild), &["A"]).refused(2, &["makes no sense"]);
}

#[test]
fn the_stem_alone_has_no_model() {
    program(Path::new(env!("CARGO_BIN_EXE_moec-program")), &[]).refused(2, &["no model inside", "--emit exe"]);
}

/// Version 1.0 of the format, by hand.
fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    header.push_str(&" ".repeat((64 - (10 + header.len() + 1) % 64) % 64));
    header.push('\n');
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn any_other_model_takes_and_gives_arrays() {
    let folder = folder();
    let path = folder.path();
    let images = repository().join("examples/images");
    let images = images.display();
    moec_in(path, &format!("build {images}/images.moe --weights {images} --cpu avx2 --emit exe -o build")).fine();
    let exe = path.join("build/images");

    let pixels = |at: usize| (at * 37 % 256) as f32 / 255.0;
    let single: Vec<u8> = (0..2 * 784).flat_map(|at| pixels(at).to_le_bytes()).collect();
    let double: Vec<u8> = (0..2 * 784).flat_map(|at| f64::from(pixels(at)).to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![2, 28, 28], &single).expect("sound");
    let file = safetensors::serialize([("image", view)], None).expect("sound");
    fs::write(path.join("in.safetensors"), file).expect("written");
    moec_in(path, "run build --inputs in.safetensors --outputs out.safetensors").fine();
    let bytes = fs::read(path.join("out.safetensors")).expect("written");
    let scores = SafeTensors::deserialize(&bytes).expect("sound").tensor("scores").expect("there").data().to_vec();

    let place = |name: &str| path.join(name).display().to_string();
    for (kind, data) in [("<f4", &single), ("<f8", &double)] {
        fs::write(path.join("in.npy"), npy(kind, "2, 28, 28", data)).expect("written");
        let words = ["-i", &format!("image={}", place("in.npy")), "-o", &place("out.npy")];
        program(&exe, &words).fine();
        assert_eq!(fs::read(path.join("out.npy")).expect("written"), npy("<f4", "2,10,", &scores));
    }
    let printed = program(&exe, &["-i", &place("in.npy")]).fine().stdout;
    assert_eq!(printed.lines().next(), Some("scores: f32[2, 10]"));
    let numbers = printed.lines().skip(1).flat_map(|line| line.split(' ')).map(|word| word.parse::<f32>().expect(word));
    assert_eq!(numbers.flat_map(f32::to_le_bytes).collect::<Vec<u8>>(), scores);

    let help = program(&exe, &["--help"]).fine().stdout;
    assert!(help.contains("image: f32[positions, Y=28, X=28]"), "{help}");
    program(&exe, &[]).refused(2, &["--input"]);
    program(&exe, &["-i", "nowhere.npy"]).refused(1, &["nowhere.npy"]);
    for (bytes, word) in [
        (npy("<i4", "2, 28, 28", &single), "float32"),
        (npy("<f4", "2, 28", &single), "shape"),
        (npy("<f4", "18446744073709551615, 28", &single), "no .npy"),
        (npy("<f4", "2, 28, 28", &single)[..40].to_vec(), "no .npy"),
        (Vec::new(), "no .npy"),
        (npy("<f4", "1568", &single), "image"),
    ] {
        fs::write(path.join("bad.npy"), bytes).expect("written");
        program(&exe, &["-i", &place("bad.npy")]).refused(1, &[word]);
    }

    // Without weights inside, they are asked for.
    moec_in(path, &format!("build {images}/images.moe --cpu avx2 --emit exe -o bare")).fine();
    let bare = path.join("bare/images");
    program(&bare, &["-i", &place("in.npy")]).refused(2, &["--weights"]);
    let words = ["-i", &place("in.npy"), "--weights", &place("build/images.weights")];
    assert_eq!(program(&bare, &words).fine().stdout, printed);
}
