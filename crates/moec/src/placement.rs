//! Which layers hold which bank and gate: the uses of parts that choose experts somewhere, those that are alike together.

use moec_sema::{PlacedPart, Placement};
use serde_json::{Value, json};

/// One part as it is in some layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// `layers[l].ffn`, or `ffn` where all layers share it.
    pub path: String,
    pub part: PlacedPart,
    /// Ascending; empty outside layers.
    pub layers: Vec<u32>,
}

/// Every part that is a mixture of experts in some layer, as it is in each of its layers.
pub fn groups(placements: &[Placement]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for placement in placements {
        if !placements.iter().any(|other| other.path == placement.path && other.part.chooses()) {
            continue;
        }
        let alike = |group: &&mut Group| group.path == placement.path && group.part == placement.part;
        match groups.iter_mut().find(alike) {
            Some(group) => group.layers.extend(placement.layer),
            None => groups.push(Group {
                path: placement.path.clone(),
                part: placement.part.clone(),
                layers: placement.layer.into_iter().collect(),
            }),
        }
    }
    groups
}

/// `ffn in layers 1 to 27: moe { … }`, a line for each.
pub fn lines(groups: &[Group]) -> Vec<String> {
    let line = |group: &Group| {
        let layers = match &group.layers[..] {
            [] => String::new(),
            [layer] => format!(" in layer {layer}"),
            layers => format!(" in layers {}", ranges(layers)),
        };
        format!("{}{layers}: {}", group.path, group.part)
    };
    groups.iter().map(line).collect()
}

pub fn json(groups: &[Group]) -> Vec<Value> {
    let object = |group: &Group| {
        let mut object = json!({ "part": group.path, "layers": group.layers });
        match &group.part {
            PlacedPart::Block(block) => object["block"] = json!(block),
            PlacedPart::Gate(gate) => object["gate"] = json!(gate),
            PlacedPart::Bank(experts) => object["experts"] = json!(experts),
            PlacedPart::Moe { gate, experts, always } => {
                object["gate"] = json!(gate);
                object["experts"] = json!(experts);
                object["always"] = json!(always);
            }
        }
        object
    };
    groups.iter().map(object).collect()
}

/// `0, 4 to 7, 9 to 17 by 2` of ascending numbers, ends included.
pub fn ranges(numbers: &[u32]) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut left = numbers;
    while let [first, rest @ ..] = left {
        let step = rest.first().map_or(0, |second| second - first);
        let steps = numbers_in_step(left, step);
        // Two numbers apart are no row.
        let taken = if steps > 2 || step == 1 { steps } else { 1 };
        let last = left[taken - 1];
        shown.push(match (taken, step) {
            (1, _) => first.to_string(),
            (_, 1) => format!("{first} to {last}"),
            (_, step) => format!("{first} to {last} by {step}"),
        });
        left = &left[taken..];
    }
    shown.join(", ")
}

/// How many of the first numbers are each `step` after the one before.
fn numbers_in_step(numbers: &[u32], step: u32) -> usize {
    1 + numbers.windows(2).take_while(|pair| pair[1] - pair[0] == step).count()
}
