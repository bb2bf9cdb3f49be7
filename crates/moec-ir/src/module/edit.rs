//! Changes to a whole module that keep its meaning.

use std::collections::{BTreeMap, HashMap};

use super::{Module, Node, RegionId, Value, ValueId};
use crate::TypeError;

impl Module {
    /// Drops every node that nothing reads, directly or not, and all that no longer hangs together with the body. What
    /// remains is numbered anew, in the order of the text.
    pub fn without_dead(self) -> Module {
        let live = self.live_values();
        let mut fresh = Module {
            name: self.name.clone(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            params: self.params.clone(),
            body: RegionId(0),
            nodes: Vec::new(),
            values: Vec::new(),
            regions: Vec::new(),
        };
        let mut copy = Copy { from: &self, live: &live, values: BTreeMap::new() };
        fresh.body = copy.region(&mut fresh, self.body);
        let renumber = |value: ValueId| copy.values[&value];
        fresh.inputs =
            self.inputs.iter().cloned().map(|one| super::Input { value: renumber(one.value), ..one }).collect();
        fresh.outputs =
            self.outputs.iter().cloned().map(|one| super::Output { value: renumber(one.value), ..one }).collect();
        fresh
    }

    /// Which values some output depends on. A node with regions keeps all that its regions give.
    fn live_values(&self) -> Vec<bool> {
        let mut live = vec![false; self.values.len()];
        self.mark_live(self.body, &mut live);
        live
    }

    fn mark_live(&self, region: RegionId, live: &mut [bool]) {
        let region = self.region(region);
        region.results.iter().for_each(|value| live[value.index()] = true);
        for at in region.nodes.iter().rev() {
            let node = self.node(*at);
            if !node.results.iter().any(|value| live[value.index()]) {
                continue;
            }
            node.operands.iter().for_each(|value| live[value.index()] = true);
            node.op.regions().into_iter().for_each(|inner| self.mark_live(inner, live));
        }
    }

    /// Makes every reader of a key read its value instead, and of a value that is itself a key, that one's.
    pub fn replace_all(&mut self, replaced: &HashMap<ValueId, ValueId>) {
        if replaced.is_empty() {
            return;
        }
        let swap = |value: &mut ValueId| {
            // A chain is no longer than the map; going round in it would be a bug of whoever made it.
            for _ in 0..replaced.len() {
                let Some(next) = replaced.get(value) else { return };
                *value = *next;
            }
        };
        self.nodes.iter_mut().flat_map(|node| &mut node.operands).for_each(swap);
        self.regions.iter_mut().flat_map(|region| &mut region.results).for_each(swap);
        self.outputs.iter_mut().map(|output| &mut output.value).for_each(swap);
    }

    /// Infers every type again, after operands were exchanged for others whose axes lie in another order. Arguments of
    /// regions follow their operands.
    ///
    /// On an error the module is half changed: keep a copy.
    pub fn retype(&mut self) -> Result<(), TypeError> {
        self.retype_region(self.body)
    }

    fn retype_region(&mut self, region: RegionId) -> Result<(), TypeError> {
        for at in self.region(region).nodes.clone() {
            let Node { op, operands, results, .. } = self.node(at).clone();
            for inner in op.regions() {
                let args = self.region(inner).args.clone();
                for (at, (arg, operand)) in args.into_iter().zip(&operands).enumerate() {
                    let ty = match &op {
                        crate::Op::Layers(_) | crate::Op::Rows(_) => self.ty(*operand).clone(),
                        crate::Op::Scan(scan) if at < scan.sequences(operands.len()) => {
                            crate::ops::at_one_position(self.tensor(*operand), &scan.over).into()
                        }
                        _ => continue,
                    };
                    self.values[arg.index()].ty = ty;
                }
                self.retype_region(inner)?;
            }
            for (result, ty) in results.into_iter().zip(op.infer(self, &operands)?) {
                self.values[result.index()].ty = ty;
            }
        }
        Ok(())
    }
}

/// Carries the live part of one module into another.
struct Copy<'m> {
    from: &'m Module,
    live: &'m [bool],
    values: BTreeMap<ValueId, ValueId>,
}

impl Copy<'_> {
    fn value(&mut self, into: &mut Module, value: ValueId, producer: Option<super::OpId>) -> ValueId {
        let fresh = ValueId(into.values.len() as u32);
        into.values.push(Value { producer, ..self.from.values[value.index()].clone() });
        self.values.insert(value, fresh);
        fresh
    }

    fn region(&mut self, into: &mut Module, region: RegionId) -> RegionId {
        let fresh = into.add_region();
        let region = self.from.region(region);
        for arg in &region.args {
            let arg = self.value(into, *arg, None);
            into.region_mut(fresh).args.push(arg);
        }
        for at in &region.nodes {
            let Node { op, operands, results, at } = self.from.node(*at);
            if !results.iter().any(|value| self.live[value.index()]) {
                continue;
            }
            let mut op = op.clone();
            for inner in op.regions_mut() {
                *inner = self.region(into, *inner);
            }
            let id = super::OpId(into.nodes.len() as u32);
            let operands = operands.iter().map(|operand| self.values[operand]).collect();
            let results = results.iter().map(|value| self.value(into, *value, Some(id))).collect();
            into.nodes.push(Node { op, operands, results, at: *at });
            into.region_mut(fresh).nodes.push(id);
        }
        let results = region.results.iter().map(|value| self.values[value]).collect();
        into.region_mut(fresh).results = results;
        fresh
    }
}
