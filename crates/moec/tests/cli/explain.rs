//! Parameters of published models, to the last one.

use serde_json::Value;

use crate::command::{family, folder, moec, moec_in};

fn explained(spec: &str) -> Value {
    let file = family(spec);
    let ended = moec(&["explain".as_ref(), file.as_os_str(), "--json".as_ref()]).fine();
    serde_json::from_str(&ended.stdout).expect("JSON")
}

#[test]
fn mixtral_8x7b() {
    let explained = explained("mixtral");
    assert_eq!(explained["parameters"]["total"], 46_702_792_704u64);
    assert_eq!(explained["parameters"]["active"], 12_879_925_248u64);
    assert_eq!(explained["routes"][0]["choices"], 2);
    assert_eq!(explained["routes"][0]["layers"], 32);
}

#[test]
fn olmoe_1b_7b() {
    let explained = explained("olmoe");
    assert_eq!(explained["parameters"]["total"], 6_919_161_856u64);
    assert_eq!(explained["parameters"]["active"], 1_282_017_280u64);
}

/// One token meets each active weight once: the products are twice the active parameters, less what is looked up or added
/// instead, plus attention, which with one position is nothing to speak of.
#[test]
fn operations_of_a_token_are_twice_its_parameters() {
    let explained = explained("mixtral");
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
