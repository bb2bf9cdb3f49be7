//! Parameters of published models, to the last one.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::command::{folder, moec_in, repository};

fn explained(spec: &str, sets: &str) -> Value {
    let ended = moec_in(&repository().join("examples/families"), &format!("explain {spec}.moe {sets} --json")).fine();
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// Published sizes, with those of a second model of one family by settings.
#[test]
fn published_models_count_to_the_last_parameter() {
    let mixtral_8x22b = "--set L=56 --set D=6144 --set H=48 --set F=16384 --set V=32768";
    let published = [
        ("mixtral", "", 46_702_792_704u64, 12_879_925_248u64),
        ("mixtral", mixtral_8x22b, 140_630_071_296, 39_161_468_928),
        ("olmoe", "", 6_919_161_856, 1_282_017_280),
        ("deepseek", "", 16_375_728_128, 2_828_650_496),
        ("qwen2_moe", "", 14_315_784_192, 2_689_173_504),
    ];
    for (spec, sets, total, active) in published {
        let explained = explained(spec, sets);
        assert_eq!(explained["parameters"]["total"], total, "{spec} {sets}");
        assert_eq!(explained["parameters"]["active"], active, "{spec} {sets}");
    }
}

/// One token meets each active weight once: the products are twice the active parameters, less what is looked up or added
/// instead, plus attention, which with one position is nothing to speak of.
#[test]
fn operations_of_a_token_are_twice_its_parameters() {
    let explained = explained("mixtral", "");
    let products = explained["pass"]["product_flops"].as_f64().expect("a number");
    // Without the embedding, which is a look-up.
    let multiplied = 12_879_925_248.0 - 32_000.0 * 4096.0;
    assert!((products / (2.0 * multiplied) - 1.0).abs() < 1e-3, "{products}");
}

const CROSSING: &str = "
use std::expert::swiglu
config { D = 8  F = 8  E = 4  K = 2 }
gate balanced(k) {
  param W[E, D]
  let s      = x · W
  let (v, i) = top_k(s - mean(s over S), k over E)
  route tokens(i, v)
}
model crossing(x: f32[S, D]) {
  part ffn = moe { gate balanced(K); experts swiglu(F) × E }
  out y: f32[S, D] = ffn(x)
}
";

#[test]
fn what_meets_across_tokens_is_named() {
    let folder = folder();
    std::fs::write(folder.path().join("crossing.moe"), CROSSING).expect("written");
    let ended = moec_in(folder.path(), "explain crossing.moe").fine();
    assert!(ended.stdout.contains("tokens meet in `reduce` over S (crossing.moe:7)"), "{ended:#?}");
}

#[test]
fn a_gate_of_ones_own_is_fused_and_what_is_not_says_why() {
    let folder = folder();
    moec_in(folder.path(), "new layer --template layer").fine();
    let ended = moec_in(folder.path(), "explain layer.moe").fine();
    for pass in ["fuse-router", "fuse-gather", "fuse-combine", "fuse-activation"] {
        assert!(ended.stdout.contains(pass), "no {pass}: {ended:#?}");
    }
    let without = moec_in(folder.path(), "explain layer.moe --disable-pass fuse-router").fine();
    assert!(!without.stdout.contains("fuse-router"), "{without:#?}");
}

#[test]
fn a_reader_that_goes_away_is_no_bug() {
    let file = repository().join("examples/families/mixtral.moe");
    let mut command = Command::new(env!("CARGO_BIN_EXE_moec"));
    let child = command.arg("explain").arg(file).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("moec starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

#[test]
fn a_page_holds_all_that_it_needs() {
    let folder = folder();
    let path = folder.path();
    let spec = repository().join("examples/families/switch_transformers.moe");
    moec_in(path, &format!("explain {} --html page.html", spec.display())).fine();
    let page = std::fs::read_to_string(path.join("page.html")).expect("written");
    for word in ["layers[encoder]", "gate first_to_come", "words_table", "batch", "fuse-"] {
        assert!(page.contains(word), "no `{word}`");
    }
    assert!(!page.contains("http"), "the page asks for something from elsewhere");
    let within = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).expect("data");
    let beside = std::fs::read_to_string(path.join("page.json")).expect("written");
    let printed = moec_in(path, &format!("explain {} --json", spec.display())).fine().stdout;
    let parsed = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(parsed(within), parsed(&printed));
    assert_eq!(parsed(&beside), parsed(&printed));

    let refused = moec_in(path, &format!("explain {} --html page.json", spec.display()));
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains(".html"), "{refused:#?}");
}

/// Of a layer with 8 experts of 3 · 64 · 128 f32 weights, of which each of 4 tokens chooses 2, as many are read as are expected
/// to be met: 8 (1 - (1 - 2/8)^4).
#[test]
fn a_pass_has_a_roof_and_is_measured_against_it() {
    let folder = folder();
    moec_in(folder.path(), "new layer --template layer").fine();
    let roof = |line: &str| {
        let ended = moec_in(folder.path(), line).fine();
        let explained: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        let steps: u64 =
            explained["plan"]["steps"].as_object().expect("steps").values().filter_map(Value::as_u64).sum();
        (explained["roofs"][0].clone(), steps)
    };
    let seconds = |roof: &Value, of: &str| -> Vec<Option<f64>> {
        roof["lines"].as_array().expect("lines").iter().map(|line| line[of].as_f64()).collect()
    };

    let (predicted, steps) = roof("explain layer.moe --tokens 4 --json");
    let lines = predicted["lines"].as_array().expect("lines");
    let executions: u64 = lines.iter().filter_map(|line| line["executions"].as_u64()).sum();
    assert_eq!(executions, steps, "{predicted}");
    let experts = lines.iter().find(|line| line["steps"] == "grouped_gemm").expect("experts");
    assert_eq!(experts["bytes"], 8.0 * (1.0 - 0.75f64.powi(4)) * 3.0 * 64.0 * 128.0 * 4.0);
    assert_eq!(experts["flops"], 2.0 * 4.0 * 2.0 * 3.0 * 64.0 * 128.0);
    assert!(seconds(&predicted, "measured_seconds").iter().all(Option::is_none), "{predicted}");

    let (measured, _) = roof("explain layer.moe --tokens 4 --check --json");
    assert_eq!(measured["machine"]["measured"], true);
    for of in ["measured_seconds", "predicted_seconds", "roof_seconds"] {
        let all = seconds(&measured, of);
        assert_eq!(all.len(), lines.len());
        // Wherever a step is, it was seen: none takes no time.
        assert!(all.iter().all(|seconds| seconds.is_some_and(|seconds| seconds > 0.0)), "{of}: {measured}");
    }
}
