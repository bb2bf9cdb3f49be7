//! Parameters of published models, to the last one.

use serde_json::Value;

use crate::command::{family, moec};

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
