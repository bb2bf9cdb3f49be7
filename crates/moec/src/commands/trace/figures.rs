//! What a trace amounts to: loads, entropy, who is chosen together, who never, what found no place.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Route, Traced};

/// Of one route of one layer.
pub struct Figures {
    /// How often each expert was chosen.
    pub load: Vec<u64>,
    /// The sum of the weights with which it was.
    pub weight: Vec<f64>,
    /// Of the loads, in bits; the logarithm of the number of experts where all are chosen equally often.
    pub entropy_bits: f64,
    /// The largest load over the mean one.
    pub imbalance: f64,
    pub dead: Vec<usize>,
    /// Choices without an expert.
    pub dropped: u64,
    /// How often two experts were chosen for one position, the lower first.
    pub together: BTreeMap<(usize, usize), u64>,
}

pub fn of(trace: &Traced) -> Vec<Figures> {
    trace.routes.iter().map(of_route).collect()
}

fn of_route(route: &Route) -> Figures {
    let mut load = vec![0u64; route.experts];
    let mut weight = vec![0.0; route.experts];
    let mut together = BTreeMap::new();
    let mut dropped = 0;
    for position in 0..route.positions() {
        let mut here: Vec<usize> = Vec::new();
        for (expert, share) in route.chosen(position) {
            match expert {
                Some(expert) => {
                    load[expert] += 1;
                    weight[expert] += f64::from(share);
                    here.push(expert);
                }
                None => dropped += 1,
            }
        }
        here.sort_unstable();
        for (at, low) in here.iter().enumerate() {
            for high in &here[at + 1..] {
                *together.entry((*low, *high)).or_insert(0) += 1;
            }
        }
    }
    let all: u64 = load.iter().sum();
    let shares = load.iter().filter(|load| **load > 0).map(|load| *load as f64 / all as f64);
    // Minus nothing would be shown as -0.
    let entropy_bits = shares.map(|share| -share * share.log2()).sum::<f64>() + 0.0;
    let mean = all as f64 / route.experts.max(1) as f64;
    let imbalance = if all == 0 { 0.0 } else { load.iter().copied().max().unwrap_or(0) as f64 / mean };
    let dead = (0..route.experts).filter(|expert| load[*expert] == 0).collect();
    Figures { load, weight, entropy_bits, imbalance, dead, dropped, together }
}

/// Everything that the page shows, for programs.
pub fn json(trace: &Traced, figures: &[Figures]) -> Value {
    let each = trace.routes.iter().zip(figures).enumerate().map(|(number, (route, figures))| {
        let together: Vec<Value> =
            figures.together.iter().map(|((low, high), count)| json!([low, high, count])).collect();
        json!({
            "route": number,
            "number_in_text": route.place.map(|(text, _)| text),
            "rank": route.place.map(|(_, rank)| rank),
            "positions": route.positions(),
            "choices": route.choices,
            "experts": route.experts,
            "load": figures.load,
            "weight": figures.weight,
            "entropy_bits": figures.entropy_bits,
            "imbalance": figures.imbalance,
            "dead": figures.dead,
            "dropped": figures.dropped,
            "together": together,
            "indices": route.indices.chunks(route.choices.max(1)).collect::<Vec<_>>(),
        })
    });
    json!({ "pieces": trace.pieces, "routes": each.collect::<Vec<_>>() })
}
