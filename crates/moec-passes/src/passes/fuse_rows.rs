//! Whatever works on each position by itself becomes row programs, as few as may be.
//!
//! Before:  h = map a, b {add($0, $1)};  q = map h {mul($0, $0)};  m = reduce mean q over (D);  n = map h, m {…}
//! After:   h, n = rows a, b { … }
//! Holds for nodes along one symbolic axis (or none) between which no other kind of node stands; products of rows with
//! parameters are of the other kind. Groups are formed by level, the number of other nodes on the longest way to a node: no way leads
//! out of a level and back in. A node that only later rows read moves to the first of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use moec_ir::ops::Contract;
use moec_ir::{Module, Op, OpId, RegionId, ValueId};

use crate::outline::{Outlined, outline, reschedule};
use crate::row_wise::{Row, chooses, is_leaf, regions_around_rows, row_of, sums_rows};
use crate::{Pass, Report};

pub const PASS: Pass = Pass {
    name: "fuse-rows",
    summary: "Join element-wise work, reductions and look-ups along a position into row programs.",
    run,
};

fn run(mut module: Module, report: &mut Report) -> Module {
    for region in regions_around_rows(&module) {
        fuse(&mut module, region, report);
    }
    module
}

fn fuse(module: &mut Module, region: RegionId, report: &mut Report) {
    let nodes = module.region(region).nodes.clone();
    let reads: HashMap<OpId, Vec<ValueId>> = nodes.iter().map(|at| (*at, module.reads(*at))).collect();
    let groups = groups(module, region, &nodes, &reads);
    if groups.is_empty() {
        return;
    }
    let group_of: HashMap<OpId, usize> =
        groups.iter().enumerate().flat_map(|(group, members)| members.iter().map(move |at| (*at, group))).collect();
    let mut read_outside: HashSet<ValueId> = module.region(region).results.iter().copied().collect();
    for at in &nodes {
        let foreign = |value: &&ValueId| {
            module.producer_id(**value).and_then(|producer| group_of.get(&producer)) != group_of.get(at)
        };
        read_outside.extend(reads[at].iter().filter(foreign));
    }
    let mut replaced = HashMap::new();
    let mut outlined: HashMap<OpId, OpId> = HashMap::new();
    for members in &groups {
        let own: Vec<ValueId> = members.iter().flat_map(|at| module.node(*at).results.clone()).collect();
        let (results, inner): (Vec<ValueId>, Vec<ValueId>) = own.iter().partition(|value| read_outside.contains(value));
        if results.is_empty() {
            continue;
        }
        if members.len() > 1 {
            let at = module.node(members[0]).at;
            let stored: Vec<_> = inner.iter().map(|value| module.tensor(*value)).collect();
            let what = format!("{} row-wise operations", members.len());
            report.fused(PASS.name, at, what, stored, members.len() - 1);
        }
        let Outlined { rows, replaced: own } = outline(module, members, &results);
        outlined.insert(members[0], rows);
        replaced.extend(own);
    }
    let order = nodes.iter().filter_map(|at| match group_of.get(at) {
        None => Some(*at),
        Some(_) => outlined.get(at).copied(),
    });
    let order = order.collect();
    module.replace_all(&replaced);
    reschedule(module, region, order);
}

/// What a GEMM computes for all positions at once, and in a bank for each expert's: a row program would read the whole
/// parameter again for each position.
fn is_product_with_param(module: &Module, at: OpId) -> bool {
    let node = module.node(at);
    let Op::Contract(Contract { over }) = &node.op else { return false };
    let [a, b] = node.operands[..] else { return false };
    let param = |value: ValueId| module.producer(value).is_some_and(|node| matches!(node.op, Op::ParamRef(_)));
    (param(b) && sums_rows(module, a, b, over)) || (param(a) && sums_rows(module, b, a, over))
}

/// Row-wise nodes that go together, each group in order.
fn groups(module: &Module, region: RegionId, nodes: &[OpId], reads: &HashMap<OpId, Vec<ValueId>>) -> Vec<Vec<OpId>> {
    let joins = |at: &OpId| !is_leaf(&module.node(*at).op) && !is_product_with_param(module, *at);
    let row = |at: &OpId| row_of(module, *at).filter(|_| joins(at));
    let rows: HashMap<OpId, Row> = nodes.iter().filter_map(|at| Some((*at, row(at)?))).collect();
    let levels = levels(module, region, nodes, reads, &rows);

    // Neighbours of one level and one axis, and readers of one value there, belong together.
    let mut sets = Sets::default();
    let mut reader_of: HashMap<(ValueId, u32, &Row), OpId> = HashMap::new();
    for at in nodes.iter().filter(|at| rows.contains_key(at)) {
        let (level, row) = (levels[at], &rows[at]);
        for value in &reads[at] {
            let producer = module.producer_id(*value);
            let leaf = producer.is_some_and(|producer| is_leaf(&module.node(producer).op));
            if leaf {
                continue;
            }
            if let Some(producer) =
                producer.filter(|producer| rows.get(producer) == Some(row) && levels[producer] == level)
            {
                sets.join(*at, producer);
            }
            let other = *reader_of.entry((*value, level, row)).or_insert(*at);
            sets.join(*at, other);
        }
    }
    let mut groups: BTreeMap<OpId, Vec<OpId>> = BTreeMap::new();
    for at in nodes.iter().filter(|at| rows.contains_key(at)) {
        groups.entry(sets.first(*at)).or_default().push(*at);
    }
    groups.into_values().collect()
}

/// How many nodes of other kinds stand on the longest way to a row-wise node; then as late as its readers allow.
fn levels(
    module: &Module,
    region: RegionId,
    nodes: &[OpId],
    reads: &HashMap<OpId, Vec<ValueId>>,
    rows: &HashMap<OpId, Row>,
) -> HashMap<OpId, u32> {
    let mut levels: HashMap<OpId, u32> = HashMap::new();
    let mut last_choice: Option<u32> = None;
    for at in nodes {
        let level = |value: &ValueId| {
            let producer = module.producer_id(*value)?;
            // A leaf is wherever it is read.
            let leaf = is_leaf(&module.node(producer).op);
            levels.get(&producer).filter(|_| !leaf).map(|level| level + u32::from(!rows.contains_key(&producer)))
        };
        let mut level = reads[at].iter().filter_map(level).max().unwrap_or(0);
        if chooses(&module.node(*at).op) {
            level = level.max(last_choice.map_or(0, |last| last + 1));
            last_choice = Some(level);
        }
        levels.insert(*at, level);
    }
    let results: HashSet<ValueId> = module.region(region).results.iter().copied().collect();
    let mut readers: HashMap<ValueId, Vec<OpId>> = HashMap::new();
    for at in nodes.iter().rev() {
        let node = module.node(*at);
        if let Some(row @ Row::Along(_)) = rows.get(at) {
            let all: Vec<OpId> =
                node.results.iter().flat_map(|value| readers.get(value).into_iter().flatten().copied()).collect();
            let given = node.results.iter().any(|value| results.contains(value));
            if !given && !all.is_empty() && all.iter().all(|reader| rows.get(reader) == Some(row)) {
                let latest = all.iter().map(|reader| levels[reader]).min().unwrap_or(0);
                levels.insert(*at, latest);
            }
        }
        for value in &reads[at] {
            readers.entry(*value).or_default().push(*at);
        }
    }
    levels
}

/// Disjoint sets of nodes.
#[derive(Default)]
struct Sets {
    parent: HashMap<OpId, OpId>,
}

impl Sets {
    /// What stands for the set of a node: always its smallest.
    fn first(&self, at: OpId) -> OpId {
        let mut at = at;
        while let Some(parent) = self.parent.get(&at) {
            at = *parent;
        }
        at
    }

    fn join(&mut self, a: OpId, b: OpId) {
        let (a, b) = (self.first(a), self.first(b));
        if a != b {
            self.parent.insert(a.max(b), a.min(b));
        }
    }
}
