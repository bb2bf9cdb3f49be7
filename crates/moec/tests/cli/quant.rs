//! `--quant`: what is stored how, and what it costs in errors.

use serde_json::Value;

use crate::command::{Ended, family, moec, oracle};

fn with(command: &str, spec: &str, checkpoint: &str, more: &[&str]) -> Ended {
    let (file, folder) = (family(spec), oracle(checkpoint));
    let mut arguments = vec![command.into(), file.into_os_string(), "--weights".into(), folder.into_os_string()];
    arguments.extend(more.iter().map(Into::into));
    moec(&arguments)
}

/// The formats of parameters whose names contain a text.
fn formats(spec: &str, checkpoint: &str, quant: &str, name: &str) -> Vec<String> {
    // The router as a GEMM of its own, as a large one might be.
    let ended = with("explain", spec, checkpoint, &["--quant", quant, "--disable-pass", "fuse-router", "--json"]);
    let explained: Value = serde_json::from_str(&ended.fine().stdout).expect("JSON");
    let params = explained["plan"]["parameters"].as_array().expect("a list");
    let named = params.iter().filter(|param| param["name"].as_str().is_some_and(|found| found.contains(name)));
    named.map(|param| param["format"].as_str().expect("a word").to_owned()).collect()
}

#[test]
fn routers_stay_and_experts_do_not() {
    assert_eq!(formats("olmoe", "olmoe", "int8", "ffn.gate.W"), ["f32"]);
    assert_eq!(formats("olmoe", "olmoe", "int8", "experts[e]"), ["int8", "int8"]);
    assert_eq!(formats("olmoe", "olmoe", "int4-32", "attn.q"), ["int4_32", "f32"], "the matrix, and the norm");
}

/// Small numbers of a checkpoint stay code by code, so that nothing is lost: the error is that of other weights.
#[test]
fn stored_codes_stay() {
    for (spec, checkpoint, format) in
        [("gpt_oss", "gpt_oss-mxfp4", "mxfp4"), ("deepseek_v3", "deepseek_v3-fp8", "fp8_32")]
    {
        let found = formats(spec, checkpoint, "stored", "experts[e]");
        assert!(found.iter().any(|found| found == format), "{found:?}");
        let reference = oracle(checkpoint).join("oracle.safetensors");
        let reference = reference.to_str().expect("a path of this repository");
        let more = ["--oracle", reference, "--backend", "cpu", "--quant", "stored", "--json"];
        with("verify", spec, checkpoint, &more).fine();
    }
}

/// Every format opens, passes its own test and says how far off it is. The checkpoint is a random one of width 32: what
/// matters is the order of the errors.
#[test]
fn errors_grow_as_bits_go() {
    let reference = oracle("olmoe").join("oracle.safetensors");
    let reference = reference.to_str().expect("a path of this repository");
    let error = |quant: &str| {
        let more = ["--oracle", reference, "--backend", "cpu", "--quant", quant, "--json"];
        let ended = with("verify", "olmoe", "olmoe", &more);
        let verdicts: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{quant}: {ended:#?}"));
        verdicts[0]["logits_mean_error"].as_f64().expect("a number")
    };
    let errors = ["bf16", "int8", "int4-32"].map(error);
    assert!(errors.is_sorted() && errors[0] > 0.0, "{errors:?}");
}
