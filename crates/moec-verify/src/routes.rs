//! The chosen experts in a reference: tensors `router.PATH.Jf` and `router.PATH.Ji`, everything that passed through the router
//! or bank at module PATH, in order; `f` float, `i` integer.

use std::collections::BTreeMap;

use moec_checkpoint::TensorFile;

use crate::reference::{ReferenceError, wrong};

/// The chosen experts of one routed layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceRoute {
    /// The module that routes: `model.layers.3.ffn`.
    pub path: String,
    /// Choices for each position.
    pub choices: usize,
    /// Of each sequence.
    pub positions: usize,
    /// `[sequences * positions, choices]`, in no particular order within a position; negative means no choice.
    pub experts: Vec<i32>,
}

/// Of a routing module's parts, those that carry its choice; what remains of a path without them is the module itself.
const PARTS: [&str; 3] = ["experts", "gate", "router"];

/// Where a route stands among the others: a decoder's after its encoder's, by layer, attention before the rest of the layer.
type Place = (bool, u64, bool, String);

/// All routes for so many sequences of one of these lengths, in the order of execution.
pub(crate) fn read(
    file: &TensorFile,
    sequences: usize,
    lengths: &[usize],
) -> Result<Vec<ReferenceRoute>, ReferenceError> {
    let mut found: BTreeMap<Place, Vec<(Rank, &str)>> = BTreeMap::new();
    for name in file.names() {
        let Some((place, rank)) = place(name) else { continue };
        found.entry(place).or_default().push((rank, name));
    }
    found.into_iter().map(|((.., path), names)| route(file, path, names, sequences, lengths)).collect()
}

/// What the bank was given comes before what the router gave; of one module's tensors the last is the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    of_bank: bool,
    number: u32,
}

/// `router.model.layers.3.ffn.gate.2i` belongs to layer 3's `model.layers.3.ffn`.
fn place(name: &str) -> Option<(Place, Rank)> {
    let (module, piece) = name.strip_prefix("router.")?.rsplit_once('.')?;
    let number = piece.strip_suffix('i')?.parse().ok()?;
    let layer = module.split('.').find_map(|part| part.parse().ok())?;
    let mut path = module;
    while let Some((rest, last)) = path.rsplit_once('.')
        && PARTS.contains(&last)
    {
        path = rest;
    }
    let of_bank = module.ends_with(".experts") && number == 0;
    let decodes = module.split('.').any(|part| part == "decoder");
    Some(((decodes, layer, !path.contains("attention"), path.to_string()), Rank { of_bank, number }))
}

fn route(
    file: &TensorFile,
    path: String,
    names: Vec<(Rank, &str)>,
    sequences: usize,
    lengths: &[usize],
) -> Result<ReferenceRoute, ReferenceError> {
    let (_, name) = names.into_iter().max().expect("a route has at least one tensor");
    let stored = file.tensor(name).expect("the file lists it");
    let of_length = |rows: u64| lengths.iter().copied().find(|length| (sequences * length) as u64 == rows);
    let found = match (stored.shape, stored.to_i32()) {
        ([rows, choices], Some(experts)) => of_length(*rows).map(|positions| (positions, *choices, experts)),
        ([rows, choices, experts], Some(marks)) => of_length(*rows)
            .zip(marked(&marks, *experts as usize))
            .map(|(positions, chosen)| (positions, *choices, chosen)),
        (_, _) => None,
    };
    let Some((positions, choices, experts)) = found else {
        let rows: Vec<String> = lengths.iter().map(|length| (sequences * length).to_string()).collect();
        let rows = rows.join(" or ");
        return Err(wrong(
            file,
            name,
            &format!("integers of shape [{rows}, choices], or ones and zeros of [{rows}, choices, experts]"),
        ));
    };
    Ok(ReferenceRoute { path, choices: choices as usize, positions, experts })
}

/// Which expert each row of ones and zeros marks, -1 where it marks none; `None` where it marks several.
fn marked(marks: &[i32], experts: usize) -> Option<Vec<i32>> {
    let row =
        |row: &[i32]| match (row.iter().position(|mark| *mark == 1), row.iter().filter(|mark| **mark != 0).count()) {
            (Some(expert), 1) => Some(expert as i32),
            (None, 0) => Some(-1),
            (Some(_) | None, _) => None,
        };
    marks.chunks_exact(experts.max(1)).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_found_by_layer_and_the_banks_own_index_wins() {
        let of =
            |name| place(name).map(|((_, layer, after, path), rank)| (layer, after, path, rank.of_bank, rank.number));
        let mlp = |layer: u64| format!("model.layers.{layer}.mlp");
        assert_eq!(of("router.model.layers.10.mlp.experts.0i"), Some((10, true, mlp(10), true, 0)));
        assert_eq!(of("router.model.layers.2.mlp.gate.2i"), Some((2, true, mlp(2), false, 2)));
        assert_eq!(of("router.model.layers.2.mlp.gate.1f"), None);
        let attention = of("router.model.layers.0.self_attention.experts.router.1i").expect("a route");
        assert_eq!((attention.1, attention.2.as_str()), (false, "model.layers.0.self_attention"));
        let rank = |name| place(name).expect("a route").1;
        assert!(rank("router.m.1.experts.0i") > rank("router.m.1.gate.2i"));
        assert!(rank("router.m.1.router.2i") > rank("router.m.1.router.1i"));
        let stands = |name| place(name).expect("a route").0;
        assert!(stands("router.encoder.block.5.mlp.experts.0i") < stands("router.decoder.block.1.mlp.experts.0i"));
    }

    #[test]
    fn marks_say_which_expert_or_none() {
        assert_eq!(marked(&[0, 1, 0, 0, 0, 0], 3), Some(vec![1, -1]));
        assert_eq!(marked(&[0, 1, 1], 3), None);
        assert_eq!(marked(&[0, 2, 0], 3), None);
    }
}
