//! Every checkpoint with a reference, by the oracle and by the compiled library.

use std::path::PathBuf;

use serde_json::Value;

use crate::{
    command::{bard, family, moec, oracle},
    families::JUDGED,
};

/// Both backends, on the checkpoint's own configuration; the library at one level.
#[track_caller]
fn verified(spec: &str, checkpoint: &std::path::Path, level: &str) {
    let (file, reference) = (family(spec), checkpoint.join("oracle.safetensors"));
    let arguments = [
        "verify".as_ref(),
        file.as_os_str(),
        "--weights".as_ref(),
        checkpoint.as_os_str(),
        "--oracle".as_ref(),
        reference.as_os_str(),
        "--cpu".as_ref(),
        level.as_ref(),
        "--json".as_ref(),
    ];
    let ended = moec(&arguments);
    let verdicts: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:#?}"));
    let verdicts = verdicts.as_array().expect("a list of verdicts");
    assert_eq!(verdicts.len(), 2, "{verdicts:#?}");
    for verdict in verdicts {
        assert_eq!(verdict["passes"], true, "{verdict:#}");
        // The table must have something in it: all experts and all tokens compared.
        for what in ["experts", "tokens"] {
            assert!(verdict[what]["total"].as_u64() > Some(0), "{verdict:#}");
        }
    }
    assert_eq!(ended.code, 0);
}

/// Those of a family that the repository carries, or, where `MOEC_ORACLES` names a folder, all that it has.
///
/// Each level has its turn: from checkpoint to checkpoint, and from family to family.
#[track_caller]
fn judged(family: &str) {
    let turn = JUDGED.iter().position(|(name, _)| *name == family).expect("a family of the list");
    let checkpoints = JUDGED[turn].1;
    let folder = std::env::var_os("MOEC_ORACLES").map_or_else(|| oracle(""), PathBuf::from);
    let there: Vec<PathBuf> = checkpoints.iter().map(|name| folder.join(name)).filter(|path| path.exists()).collect();
    assert!(!there.is_empty(), "no checkpoint of {family} in {}", folder.display());
    for (checkpoint, level) in there.iter().zip(["avx512", "avx2", "scalar"].iter().cycle().skip(turn % 3)) {
        verified(family, checkpoint, level);
    }
}

#[test]
fn dbrx() {
    judged("dbrx");
}

#[test]
fn deepseek_v2() {
    judged("deepseek_v2");
}

#[test]
fn deepseek_v3() {
    judged("deepseek_v3");
}

#[test]
fn gpt_oss() {
    judged("gpt_oss");
}

#[test]
fn granitemoe() {
    judged("granitemoe");
}

#[test]
fn ernie4_5_moe() {
    judged("ernie4_5_moe");
}

#[test]
fn glm4_moe() {
    judged("glm4_moe");
}

#[test]
fn jetmoe() {
    judged("jetmoe");
}

#[test]
fn llama4_text() {
    judged("llama4_text");
}

#[test]
fn mixtral() {
    judged("mixtral");
}

#[test]
fn olmoe() {
    judged("olmoe");
}

#[test]
fn phimoe() {
    judged("phimoe");
}

#[test]
fn qwen2_moe() {
    judged("qwen2_moe");
}

#[test]
fn qwen3_moe() {
    judged("qwen3_moe");
}

#[test]
fn switch_transformers() {
    judged("switch_transformers");
}

#[test]
fn a_trained_model_in_bf16() {
    verified("qwen3_moe", &bard(), "avx512");
}

#[test]
fn the_older_spelling_of_a_config_means_the_same() {
    let there = JUDGED.iter().flat_map(|(family, names)| names.iter().map(move |name| (family, oracle(name))));
    for (name, folder) in there.filter(|(_, folder)| folder.join("config.legacy.json").exists()) {
        let file = family(name);
        let (reference, config) = (folder.join("oracle.safetensors"), folder.join("config.legacy.json"));
        let ended = moec(&[
            "verify".as_ref(),
            file.as_os_str(),
            "--weights".as_ref(),
            folder.as_os_str(),
            "--oracle".as_ref(),
            reference.as_os_str(),
            "--config".as_ref(),
            config.as_os_str(),
            "--backend".as_ref(),
            "oracle".as_ref(),
        ]);
        ended.fine();
    }
}

#[test]
fn a_tolerance_that_no_float_meets_fails() {
    let (file, folder) = (family("mixtral"), oracle("mixtral"));
    let reference = folder.join("oracle.safetensors");
    let line = format!(
        "verify {} --weights {} --oracle {} --backend oracle --tolerance 1e-12",
        file.display(),
        folder.display(),
        reference.display()
    );
    let ended = moec(&line.split(' ').collect::<Vec<_>>()).refused(1, &["logits differ"]);
    assert!(ended.stdout.contains("FAIL"), "{ended:#?}");
}
