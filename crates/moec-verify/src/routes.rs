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
    /// `[sequences * positions, choices]`, in no particular order within a position.
    pub experts: Vec<i32>,
}

/// Of a routing module's parts, those that carry its choice; what remains of a path without them is the module itself.
const PARTS: [&str; 3] = ["experts", "gate", "router"];

/// Where a route stands among the others: by layer, attention before the rest of the layer.
type Place = (u64, bool, String);

/// All routes for `rows` positions, in the order of execution.
pub(crate) fn read(file: &TensorFile, rows: usize) -> Result<Vec<ReferenceRoute>, ReferenceError> {
    let mut found: BTreeMap<Place, Vec<(Rank, &str)>> = BTreeMap::new();
    for name in file.names() {
        let Some((place, rank)) = place(name) else { continue };
        found.entry(place).or_default().push((rank, name));
    }
    found.into_iter().map(|((_, _, path), names)| route(file, path, names, rows)).collect()
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
    Some(((layer, !path.contains("attention"), path.to_string()), Rank { of_bank, number }))
}

fn route(
    file: &TensorFile,
    path: String,
    names: Vec<(Rank, &str)>,
    rows: usize,
) -> Result<ReferenceRoute, ReferenceError> {
    let (_, name) = names.into_iter().max().expect("a route has at least one tensor");
    let stored = file.tensor(name).expect("the file lists it");
    match (stored.shape, stored.to_i32()) {
        ([found, choices], Some(experts)) if *found == rows as u64 => {
            Ok(ReferenceRoute { path, choices: *choices as usize, experts })
        }
        (_, _) => Err(wrong(file, name, &format!("integers of shape [{rows}, choices]"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_found_by_layer_and_the_banks_own_index_wins() {
        let of = |name| place(name).map(|((layer, after, path), rank)| (layer, after, path, rank.of_bank, rank.number));
        let mlp = |layer: u64| format!("model.layers.{layer}.mlp");
        assert_eq!(of("router.model.layers.10.mlp.experts.0i"), Some((10, true, mlp(10), true, 0)));
        assert_eq!(of("router.model.layers.2.mlp.gate.2i"), Some((2, true, mlp(2), false, 2)));
        assert_eq!(of("router.model.layers.2.mlp.gate.1f"), None);
        let attention = of("router.model.layers.0.self_attention.experts.router.1i").expect("a route");
        assert_eq!((attention.1, attention.2.as_str()), (false, "model.layers.0.self_attention"));
        let rank = |name| place(name).expect("a route").1;
        assert!(rank("router.m.1.experts.0i") > rank("router.m.1.gate.2i"));
        assert!(rank("router.m.1.router.2i") > rank("router.m.1.router.1i"));
    }
}
