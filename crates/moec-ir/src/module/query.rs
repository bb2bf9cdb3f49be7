//! Questions about a whole module. Only what hangs together with the body counts: regions whose node is gone do not.

use std::collections::BTreeSet;

use moec_types::Axis;

use super::{Module, OpId, RegionId, ValueId};
use crate::Op;

/// Who reads what, as of the moment it was asked for.
#[derive(Clone, Debug)]
pub struct Readers {
    nodes: Vec<Vec<OpId>>,
    results: Vec<Vec<RegionId>>,
}

impl Readers {
    /// The nodes that have a value among their operands, in order, once for each operand.
    pub fn nodes(&self, value: ValueId) -> &[OpId] {
        self.nodes.get(value.index()).map_or(&[], Vec::as_slice)
    }

    /// The regions that have a value among their results.
    pub fn results(&self, value: ValueId) -> &[RegionId] {
        self.results.get(value.index()).map_or(&[], Vec::as_slice)
    }

    /// How many operands and region results read a value.
    pub fn count(&self, value: ValueId) -> usize {
        self.nodes(value).len() + self.results(value).len()
    }
}

impl Module {
    /// The body and all regions within it, outer before inner, in the order of the text.
    pub fn live_regions(&self) -> Vec<RegionId> {
        let mut found = Vec::new();
        self.visit_regions(self.body, &mut found);
        found
    }

    fn visit_regions(&self, region: RegionId, found: &mut Vec<RegionId>) {
        found.push(region);
        for at in &self.region(region).nodes {
            self.node(*at).op.regions().into_iter().for_each(|inner| self.visit_regions(inner, found));
        }
    }

    /// Every node with the region it stands in, a node before those in its regions, in the order of the text.
    pub fn walk(&self) -> Vec<(RegionId, OpId)> {
        let mut found = Vec::new();
        self.visit_nodes(self.body, &mut found);
        found
    }

    fn visit_nodes(&self, region: RegionId, found: &mut Vec<(RegionId, OpId)>) {
        for at in &self.region(region).nodes {
            found.push((region, *at));
            self.node(*at).op.regions().into_iter().for_each(|inner| self.visit_nodes(inner, found));
        }
    }

    /// The axis of the inputs whose positions of this pass meet in a node: what it gives at one may depend on others. What
    /// looks back at `past` keeps its own order, and regions are asked for themselves.
    pub fn meets(&self, at: OpId) -> Option<&Axis> {
        let node = self.node(at);
        let operand = |number: usize| node.operands.get(number).and_then(|value| self.ty(*value).tensor());
        let (looked_at, axes) = match &node.op {
            Op::Count(op) => return op.size.of_pass(),
            Op::Attention(op) => (operand(1), std::slice::from_ref(&op.keys)),
            op => (operand(0), op.along()),
        };
        axes.iter().find_map(|axis| looked_at?.dim(axis)?.size.of_pass())
    }

    /// The readers of all values.
    pub fn readers(&self) -> Readers {
        let mut readers =
            Readers { nodes: vec![Vec::new(); self.values.len()], results: vec![Vec::new(); self.values.len()] };
        for region in self.live_regions() {
            for at in &self.region(region).nodes {
                for operand in &self.node(*at).operands {
                    readers.nodes[operand.index()].push(*at);
                }
            }
            for result in &self.region(region).results {
                readers.results[result.index()].push(region);
            }
        }
        readers
    }

    /// All that a node reads: its operands, then what its regions take from around them, each once.
    pub fn reads(&self, at: OpId) -> Vec<ValueId> {
        let node = self.node(at);
        let mut reads: Vec<ValueId> = Vec::new();
        let mut add = |value: ValueId| {
            if !reads.contains(&value) {
                reads.push(value);
            }
        };
        node.operands.iter().copied().for_each(&mut add);
        for inner in node.op.regions() {
            self.captures(inner).into_iter().for_each(&mut add);
        }
        reads
    }

    /// The values of outer regions that a region reads, each once, in order of first use.
    pub fn captures(&self, region: RegionId) -> Vec<ValueId> {
        let mut defined = BTreeSet::new();
        let mut captured = Vec::new();
        self.visit_captures(region, &mut defined, &mut captured);
        captured
    }

    fn visit_captures(&self, region: RegionId, defined: &mut BTreeSet<ValueId>, captured: &mut Vec<ValueId>) {
        let region = self.region(region);
        defined.extend(&region.args);
        let read = |values: &[ValueId], defined: &BTreeSet<ValueId>, captured: &mut Vec<ValueId>| {
            for value in values {
                if !defined.contains(value) && !captured.contains(value) {
                    captured.push(*value);
                }
            }
        };
        for at in &region.nodes {
            let node = self.node(*at);
            read(&node.operands, defined, captured);
            node.op.regions().into_iter().for_each(|inner| self.visit_captures(inner, defined, captured));
            defined.extend(&node.results);
        }
        read(&region.results, defined, captured);
    }
}
