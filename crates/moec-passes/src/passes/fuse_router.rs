//! A gate as one row program, whatever its text.
//!
//! Before:  s = contract x, W over (D);  … scores, masks, top-k, weights …;  r = route i, w
//! After:   i, w = rows x { … };  r = route i, w
//! Holds for every node between the gate's contraction and the route that works on rows, and for every other one that only
//! the route depends on. The program starts at what the gate's contraction multiplies, which others read as well.

use std::collections::{HashMap, HashSet};

use moec_ir::{Module, Op, OpId, Readers, RegionId, ValueId};

use crate::outline::{Outlined, outline, reschedule};
use crate::row_wise::{Row, is_leaf, row_of};
use crate::{Pass, Report};

pub const PASS: Pass =
    Pass { name: "fuse-router", summary: "Compute a gate's scores, choice and weights in one row program.", run };

fn run(mut module: Module, report: &mut Report) -> Module {
    for (region, at) in module.walk() {
        if let Op::Route(_) = module.node(at).op {
            fuse(&mut module, region, at, report);
        }
    }
    module
}

fn fuse(module: &mut Module, region: RegionId, route: OpId, report: &mut Report) {
    let nodes = module.region(region).nodes.clone();
    let readers = module.readers();
    let members = members(module, &nodes, route, &readers);
    let span = module.node(route).at;
    if members.is_empty() {
        report.blocked(PASS.name, span, "the choice is made across positions, or not by row-wise arithmetic");
        return;
    }
    let inside: HashSet<OpId> = members.iter().copied().collect();
    let outside = |value: &ValueId| {
        readers.nodes(*value).iter().any(|reader| !inside.contains(reader)) || !readers.results(*value).is_empty()
    };
    let own: Vec<ValueId> = members.iter().flat_map(|at| module.node(*at).results.clone()).collect();
    let results: Vec<ValueId> = own.iter().copied().filter(outside).collect();
    let stored: Vec<_> =
        own.iter().filter(|value| !results.contains(value)).map(|value| module.tensor(*value)).collect();
    report.fused(PASS.name, span, "gate", stored, members.len() - 1);
    let Outlined { rows, replaced } = outline(module, &members, &results);
    let mut nodes: Vec<OpId> = nodes.into_iter().filter(|at| !inside.contains(at)).collect();
    let place = nodes.iter().position(|at| *at == route).unwrap_or(nodes.len());
    nodes.insert(place, rows);
    module.replace_all(&replaced);
    reschedule(module, region, nodes);
}

/// The nodes of the gate, in order.
fn members(module: &Module, nodes: &[OpId], route: OpId, readers: &Readers) -> Vec<OpId> {
    let Some(end) = nodes.iter().position(|at| *at == route) else { return Vec::new() };
    let before = &nodes[..end];
    let place: HashMap<OpId, usize> = before.iter().enumerate().map(|(place, at)| (*at, place)).collect();
    let tokens = module.ty(module.node(route).results[0]).route().map(|route| route.tokens.clone());
    let fits = |at: OpId| match row_of(module, at) {
        Some(Row::Along(dim)) => Some(&dim) == tokens.as_ref() && !is_leaf(&module.node(at).op),
        Some(Row::Constant) => !is_leaf(&module.node(at).op),
        None => false,
    };
    let producer = |value: &ValueId| module.producer_id(*value).filter(|at| place.contains_key(at));

    // What the route depends on, down to what a gate's contraction multiplies: a value that others read, too.
    let mut wanted: HashSet<OpId> = module.node(route).operands.iter().filter_map(producer).collect();
    let mut barrier: HashSet<ValueId> = HashSet::new();
    let mut slice: Vec<OpId> = Vec::new();
    for at in before.iter().rev().copied() {
        let node = module.node(at);
        if !wanted.contains(&at) || !fits(at) || node.results.iter().any(|value| barrier.contains(value)) {
            continue;
        }
        slice.push(at);
        if is_gate_product(module, at) {
            barrier.extend(node.operands.iter().filter(|value| readers.count(**value) > 1));
        }
        wanted.extend(node.operands.iter().filter_map(producer));
    }
    slice.reverse();

    // Of those, the ones behind a gate's contraction, and the ones that nothing else reads.
    let mut behind: HashSet<OpId> = HashSet::new();
    for at in &slice {
        let reads_behind = module.node(*at).operands.iter().filter_map(producer).any(|from| behind.contains(&from));
        if is_gate_product(module, *at) || reads_behind {
            behind.insert(*at);
        }
    }
    let mut chosen: HashSet<OpId> = HashSet::new();
    for at in slice.iter().rev() {
        let results = &module.node(*at).results;
        let own = |value: &ValueId| {
            let reads = readers.nodes(*value).iter().all(|reader| *reader == route || chosen.contains(reader));
            reads && readers.results(*value).is_empty()
        };
        if behind.contains(at) || results.iter().all(own) {
            chosen.insert(*at);
        }
    }
    let chosen = convex_part(module, before, chosen);
    slice.into_iter().filter(|at| chosen.contains(at)).collect()
}

/// A product of something with values made of parameters alone.
fn is_gate_product(module: &Module, at: OpId) -> bool {
    let node = module.node(at);
    let constant = |value: &ValueId| match module.producer_id(*value) {
        Some(producer) => row_of(module, producer) == Some(Row::Constant),
        None => false,
    };
    matches!(node.op, Op::Contract(_)) && node.operands.iter().any(constant)
}

/// The chosen nodes but for those from which a way leads out and back in. What is dropped is in front of what stays.
fn convex_part(module: &Module, before: &[OpId], mut chosen: HashSet<OpId>) -> HashSet<OpId> {
    // Values that something chosen reads, and those that something outside reads on its way to something chosen.
    let mut read_inside: HashSet<ValueId> = HashSet::new();
    let mut read_on_the_way: HashSet<ValueId> = HashSet::new();
    for at in before.iter().rev() {
        let results = &module.node(*at).results;
        let leaves = results.iter().any(|value| read_on_the_way.contains(value));
        let enters = results.iter().any(|value| read_inside.contains(value));
        if chosen.contains(at) && leaves {
            chosen.remove(at);
        }
        if chosen.contains(at) {
            read_inside.extend(module.reads(*at));
        } else if (enters || leaves) && !is_leaf(&module.node(*at).op) {
            read_on_the_way.extend(module.reads(*at));
        }
    }
    chosen
}
