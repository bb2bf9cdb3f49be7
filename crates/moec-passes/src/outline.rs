//! Nodes of a region moved into a region of their own, held by a `rows`.

use std::collections::{BTreeMap, HashMap};

use moec_diag::Span;
use moec_ir::ops::Rows;
use moec_ir::{Module, Node, OpId, ValueId};

use crate::row_wise;

/// A `rows` node, not yet in any region, and what its results stand for.
#[derive(Debug)]
pub struct Outlined {
    pub rows: OpId,
    /// From each of `results` to the result of the `rows`.
    pub replaced: HashMap<ValueId, ValueId>,
}

/// Copies nodes into the region of a new `rows`. What they read from elsewhere becomes its operands, but for leaves, which
/// are copied too. `members` are in order, and `results` are values of theirs.
pub fn outline(module: &mut Module, members: &[OpId], results: &[ValueId]) -> Outlined {
    let region = module.add_region();
    let mut inside: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let mut operands = Vec::new();
    let own: Vec<ValueId> = members.iter().flat_map(|at| module.node(*at).results.clone()).collect();
    for at in members {
        let Node { op, operands: reads, results: gives, at: span } = module.node(*at).clone();
        for value in &reads {
            if inside.contains_key(value) {
                continue;
            }
            assert!(!own.contains(value), "members are in order");
            let leaf = module.producer(*value).filter(|node| row_wise::is_leaf(&node.op)).cloned();
            let local = match leaf {
                Some(leaf) => append(module, region, leaf.op, Vec::new(), leaf.at)[0],
                None => {
                    operands.push(*value);
                    let ty = module.ty(*value).clone();
                    module.add_arg(region, ty)
                }
            };
            name_as(module, local, *value);
            inside.insert(*value, local);
        }
        let reads = reads.iter().map(|value| inside[value]).collect();
        let copies = append(module, region, op, reads, span);
        for (copy, original) in copies.into_iter().zip(gives) {
            name_as(module, copy, original);
            inside.insert(original, copy);
        }
    }
    module.region_mut(region).results = results.iter().map(|value| inside[value]).collect();
    let at = members.iter().map(|at| module.node(*at).at).find(|at| *at != Span::NONE).unwrap_or(Span::NONE);
    let rows = module.create(Rows { region }, operands, at).expect("members work along one axis");
    let given = module.node(rows).results.clone();
    for (result, original) in given.iter().zip(results) {
        name_as(module, *result, *original);
    }
    Outlined { rows, replaced: results.iter().copied().zip(given).collect() }
}

fn append(
    module: &mut Module,
    region: moec_ir::RegionId,
    op: moec_ir::Op,
    operands: Vec<ValueId>,
    at: Span,
) -> Vec<ValueId> {
    module.append(region, op, operands, at).expect("a copy has the types of the original")
}

fn name_as(module: &mut Module, value: ValueId, other: ValueId) {
    if let Some(name) = module.name_of(other).map(str::to_owned) {
        module.set_name(value, name);
    }
}

/// The nodes of a region in an order in which each stands behind all that it reads. Nodes keep their order where they may,
/// and those that choose experts always do.
///
/// # Panics
/// When nodes wait for each other in a circle: the caller outlined a group with a way out and back in.
pub fn reschedule(module: &mut Module, region: moec_ir::RegionId, nodes: Vec<OpId>) {
    let place: HashMap<ValueId, usize> = nodes
        .iter()
        .enumerate()
        .flat_map(|(place, at)| module.node(*at).results.iter().map(move |value| (*value, place)))
        .collect();
    let mut waits = vec![0usize; nodes.len()];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (reader, at) in nodes.iter().enumerate() {
        for producer in module.reads(*at).iter().filter_map(|value| place.get(value)) {
            waits[reader] += 1;
            readers[*producer].push(reader);
        }
    }
    let choosing: Vec<usize> = (0..nodes.len()).filter(|at| row_wise::chooses(&module.node(nodes[*at]).op)).collect();
    for pair in choosing.windows(2) {
        waits[pair[1]] += 1;
        readers[pair[0]].push(pair[1]);
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..nodes.len()).filter(|at| waits[*at] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(next) = ready.pop_first() {
        order.push(nodes[next]);
        for reader in &readers[next] {
            waits[*reader] -= 1;
            if waits[*reader] == 0 {
                ready.insert(*reader);
            }
        }
    }
    assert_eq!(order.len(), nodes.len(), "a group of nodes has a way out and back in");
    module.region_mut(region).nodes = order;
}
