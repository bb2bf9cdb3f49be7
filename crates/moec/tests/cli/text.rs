//! Text in, text out.

use std::{fs, path::Path};

use safetensors::SafeTensors;

use crate::command::{bard, built_bard, copy_of, moec, moec_in, oracle};

/// Rows of an i64 tensor of numbers below 256: bard's tokens are bytes.
fn rows(name: &str) -> Vec<Vec<u8>> {
    rows_of(&bard(), name)
}

fn rows_of(checkpoint: &Path, name: &str) -> Vec<Vec<u8>> {
    let bytes = fs::read(checkpoint.join("oracle.safetensors")).expect("the reference");
    let file = SafeTensors::deserialize(&bytes).expect("sound");
    let view = file.tensor(name).expect("there");
    let numbers: Vec<u8> = view.data().chunks_exact(8).map(|eight| eight[0]).collect();
    numbers.chunks(view.shape()[1]).map(<[u8]>::to_vec).collect()
}

#[test]
fn greedy_text_is_the_references() {
    let folder = built_bard();
    let build = folder.path().join("build");
    for (prompt, whole) in rows("generate.input_ids").into_iter().zip(rows("generate.sequences")) {
        let text = String::from_utf8(prompt.clone()).expect("the reference's prompts are text");
        let new = (whole.len() - prompt.len()).to_string();
        let ended =
            moec(&["run", &build.display().to_string(), "--prompt", &text, "--greedy", "--max-new", &new]).fine();
        assert_eq!(ended.stdout, String::from_utf8_lossy(&whole).into_owned() + "\n");
        assert!(ended.stderr.contains("tokens/s"), "{ended:#?}");
    }
}

#[test]
fn a_seed_gives_the_same_text_with_any_number_of_threads() {
    let folder = built_bard();
    let sampled = |seed: u32, threads: u32| {
        let line =
            format!("run build --prompt JULIET. --max-new 60 --seed {seed} --temperature 0.8 --threads {threads}");
        moec_in(folder.path(), &line).fine().stdout
    };
    assert_eq!(sampled(1, 1), sampled(1, 3));
    assert_ne!(sampled(1, 1), sampled(2, 1));
}

#[test]
fn a_spec_with_weights_runs_as_it_stands() {
    let folder = built_bard();
    let bard = bard();
    let line = format!("run bard.moe --weights {} --prompt HAMLET. --max-new 5", bard.display());
    let from_spec = moec_in(folder.path(), &line).fine().stdout;
    assert_eq!(from_spec, moec_in(folder.path(), "run build --prompt HAMLET. --max-new 5").fine().stdout);
}

#[test]
fn more_than_the_context_is_refused() {
    let folder = built_bard();
    moec_in(folder.path(), "run build --prompt A --max-new 256").refused(1, &["context of 256", "--max-new"]);
    moec_in(folder.path(), "run build --prompt A --temperature 0").refused(1, &["temperature"]);
    moec_in(folder.path(), "run bard.moe --prompt A").refused(1, &["--weights"]);
    moec_in(folder.path(), "run build").refused(1, &["--prompt"]);
}

/// An encoder reads the prompt, and the text is the decoder's own. The tokenizer is made here: token 7 is the word `w7`.
#[test]
fn an_encoder_and_its_decoder_say_what_the_reference_says() {
    let checkpoint = oracle("switch_transformers");
    let copy = copy_of(&checkpoint);
    let path = copy.path();
    let vocabulary: Vec<String> = (0..96).map(|id| format!("\"w{id}\": {id}")).collect();
    let tokenizer = format!(
        "{{\"version\": \"1.0\", \"added_tokens\": [], \"pre_tokenizer\": {{\"type\": \"WhitespaceSplit\"}}, \
         \"model\": {{\"type\": \"WordLevel\", \"unk_token\": \"w0\", \"vocab\": {{{}}}}}}}",
        vocabulary.join(", ")
    );
    fs::write(path.join("tokenizer.json"), tokenizer).expect("written");
    moec_in(path, "import . -o pair.moe").fine();
    moec_in(path, "build pair.moe --weights . --cpu avx2 -o build").fine();
    let words = |ids: &[u8]| ids.iter().map(|id| format!("w{id}")).collect::<Vec<_>>().join(" ");
    let build = path.join("build").display().to_string();
    for (prompt, whole) in
        rows_of(&checkpoint, "generate.input_ids").iter().zip(rows_of(&checkpoint, "generate.sequences"))
    {
        // The first token is where every text of the decoder begins.
        let (prompt, said) = (words(prompt), words(&whole[1..]));
        let new = (whole.len() - 1).to_string();
        let ended = moec(&["run", &build, "--prompt", &prompt, "--max-new", &new]).fine();
        assert_eq!(ended.stdout.trim_end(), said);
    }
}
