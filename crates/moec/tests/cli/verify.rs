//! Every checkpoint with a reference, by the oracle and by the compiled library.

use serde_json::Value;

use crate::command::{bard, family, moec, oracle};

/// Both backends, on the checkpoint's own configuration.
#[track_caller]
fn verified(spec: &str, checkpoint: &std::path::Path) {
    let (file, reference) = (family(spec), checkpoint.join("oracle.safetensors"));
    let arguments = [
        "verify".as_ref(),
        file.as_os_str(),
        "--weights".as_ref(),
        checkpoint.as_os_str(),
        "--oracle".as_ref(),
        reference.as_os_str(),
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

#[test]
fn mixtral() {
    verified("mixtral", &oracle("mixtral"));
}

#[test]
fn mixtral_with_a_sliding_window() {
    verified("mixtral", &oracle("mixtral-swa"));
}

#[test]
fn mixtral_with_a_tied_head() {
    verified("mixtral", &oracle("mixtral-tied"));
}

#[test]
fn olmoe() {
    verified("olmoe", &oracle("olmoe"));
}

#[test]
fn olmoe_that_clips() {
    verified("olmoe", &oracle("olmoe-clip"));
}

#[test]
fn phimoe() {
    verified("phimoe", &oracle("phimoe"));
}

#[test]
fn qwen2_moe() {
    verified("qwen2_moe", &oracle("qwen2_moe"));
}

#[test]
fn qwen3_moe() {
    verified("qwen3_moe", &oracle("qwen3_moe"));
}

#[test]
fn a_trained_model_in_bf16() {
    verified("qwen3_moe", &bard());
}

#[test]
fn the_older_spelling_of_a_config_means_the_same() {
    for name in ["mixtral", "olmoe", "phimoe", "qwen2_moe", "qwen3_moe"] {
        let (file, folder) = (family(name), oracle(name));
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
