//! Which layers hold which bank and gate: every published rule of placement, as `moec explain` lists it.

use serde_json::{Value, json};

use crate::command::{moec_in, repository};

const TOP_2: &str = "moe { gate top_k_softmax(2); experts swiglu(24) × 4 }";
const TOP_1: &str = "moe { gate top_k_softmax(1); experts swiglu(24) × 4 }";

/// The lines under `placement`, with T1 and T2 for the two constants above.
fn listed(example: &str) -> Vec<String> {
    let folder = repository().join("examples/placement");
    let said = moec_in(&folder, &format!("explain {example}.moe")).fine().stdout;
    assert!(!said.contains("no plan"), "{example} cannot be compiled: {said}");
    let lines = said.lines().skip_while(|line| *line != "placement").skip(1).take_while(|line| !line.is_empty());
    lines.map(|line| line.trim().replace(TOP_2, "T2").replace(TOP_1, "T1")).collect()
}

#[test]
fn published_rules_of_placement_are_listed() {
    let rules: [(&str, &[&str]); 11] = [
        ("every_nth", &["layers[l].ffn in layers 0 to 6 by 2: swiglu(24)", "layers[l].ffn in layers 1 to 7 by 2: T2"]),
        ("every_layer", &["layers[l].ffn in layers 0 to 5: T2"]),
        (
            "all_but_first",
            &[
                "layers[l].ffn in layers 0 to 2: swiglu(96)",
                "layers[l].ffn in layers 3 to 7: \
                 moe { gate top_k_softmax(2); experts swiglu(24) × 4; always swiglu(24) }",
            ],
        ),
        (
            "last_of_even",
            &[
                "layers[l].ffn in layers 0 to 8, 10: swiglu(24)",
                "layers[l].ffn in layers 9, 11: moe { gate top_k_softmax(2); experts swiglu(24) × 8 }",
            ],
        ),
        (
            "pyramid",
            &[
                "layers[l].ffn in layers 0 to 1: moe { gate top_k_softmax(1); experts swiglu(24) × 2 }",
                "layers[l].ffn in layer 2: T1",
                "layers[l].ffn in layer 3: moe { gate top_k_softmax(1); experts swiglu(24) × 8 }",
            ],
        ),
        (
            "stages",
            &["layers[l].ffn in layers 0 to 4, 6 to 22 by 2: swiglu(24)", "layers[l].ffn in layers 5 to 23 by 2: T1"],
        ),
        (
            "two_stacks",
            &[
                "layers[encoder].ffn in layers 0 to 4 by 2: swiglu(24)",
                "layers[encoder].ffn in layers 1 to 5 by 2: T2",
                "layers[decoder].ffn in layers 0 to 4: swiglu(24)",
                "layers[decoder].ffn in layer 5: moe { gate top_k_softmax(2); experts swiglu(24) × 8 }",
            ],
        ),
        (
            "attention_too",
            &[
                "layers[l].attn.choose in layers 0 to 3: gate top_k_of_logits(2)",
                "layers[l].attn.query in layers 0 to 3: bank { query_head × 4 }",
                "layers[l].attn.output in layers 0 to 3: bank { output_head × 4 }",
                "layers[l].ffn in layers 0 to 3: T2",
            ],
        ),
        (
            "alternating",
            &[
                "layers[l].ffn in layers 0 to 4 by 2: swiglu(24)",
                "layers[l].ffn in layers 1 to 5 by 2: moe { gate best_tokens(per = 4); experts swiglu(24) }",
            ],
        ),
        ("one_for_all", &["ffn in layers 0 to 5: T2"]),
        (
            "gates_by_layer",
            &[
                "layers[l].ffn in layer 0: moe { gate by_table(…, 64); experts swiglu(24) × 4 }",
                "layers[l].ffn in layers 1 to 3: T1",
                "layers[l].ffn in layers 4 to 5: T2",
            ],
        ),
    ];
    for (example, wanted) in rules {
        assert_eq!(listed(example), wanted, "{example}");
    }
}

#[test]
fn placement_is_json_as_well() {
    let folder = repository().join("examples/placement");
    let said = moec_in(&folder, "explain all_but_first.moe --json").fine().stdout;
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let wanted = json!([
        { "part": "layers[l].ffn", "layers": [0, 1, 2], "block": "swiglu(96)" },
        {
            "part": "layers[l].ffn",
            "layers": [3, 4, 5, 6, 7],
            "gate": "top_k_softmax(2)",
            "experts": [["swiglu(24)", 4]],
            "always": ["swiglu(24)"],
        },
    ]);
    assert_eq!(said["placement"], wanted);
}
