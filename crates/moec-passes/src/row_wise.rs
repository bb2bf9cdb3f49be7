//! Which nodes work on each position by itself.

use std::collections::HashSet;

use moec_ir::{Module, Op, OpId, Reach, RegionId, ValueId};
use moec_types::{Axis, Dim};

/// Along which axis a node works on each position by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Row {
    /// All that it touches has this symbolic axis or none.
    Along(Dim),
    /// Nothing that it touches has a symbolic axis.
    Constant,
}

/// `None` for nodes that look across positions, and for those that are no arithmetic (routing, regions, `past`, fused ops).
pub fn row_of(module: &Module, at: OpId) -> Option<Row> {
    let node = module.node(at);
    let crosses = |axes: &[Axis]| {
        let symbolic = |axis: &Axis| {
            node.operands.iter().any(|value| {
                module.ty(*value).tensor().and_then(|ty| ty.dim(axis)).is_some_and(|dim| dim.size.fixed().is_none())
            })
        };
        axes.iter().any(symbolic)
    };
    if node.op.reach() != Reach::Row || crosses(node.op.along()) {
        return None;
    }
    let mut row = Row::Constant;
    for value in node.operands.iter().chain(&node.results) {
        for dim in symbolic(module, *value) {
            match &row {
                Row::Constant => row = Row::Along(dim),
                Row::Along(known) if *known == dim => {}
                Row::Along(_) => return None,
            }
        }
    }
    Some(row)
}

/// The axes of a tensor whose size is not known yet.
pub fn symbolic(module: &Module, value: ValueId) -> impl Iterator<Item = Dim> + '_ {
    let dims = module.ty(value).tensor().map_or(&[][..], |ty| &ty.dims);
    dims.iter().filter(|dim| dim.size.fixed().is_none()).cloned()
}

/// Whether all rows of a product with a parameter meet the same weights, as in a GEMM: it lacks all axes of x that are not
/// summed over. Else it is a batch of products.
pub fn sums_rows(module: &Module, x: ValueId, param: ValueId, over: &[Axis]) -> bool {
    let param = module.tensor(param);
    module.tensor(x).axes().all(|axis| over.contains(axis) || !param.has(axis))
}

/// Nodes that choose experts. They keep their order among each other: it is the one in which choices are reported.
pub fn chooses(op: &Op) -> bool {
    matches!(op, Op::Route(_) | Op::Layers(_))
}

/// Nodes without operands: cheap to repeat wherever they are read.
pub fn is_leaf(op: &Op) -> bool {
    matches!(op, Op::ParamRef(_) | Op::Stack(_) | Op::Literal(_) | Op::Iota(_) | Op::Count(_))
}

/// The regions that are not within a `rows` or a `scan`, outer before inner.
pub fn regions_around_rows(module: &Module) -> Vec<RegionId> {
    let within: HashSet<RegionId> = module
        .walk()
        .into_iter()
        .map(|(_, at)| &module.node(at).op)
        .filter_map(|op| match op {
            Op::Rows(rows) => Some(rows.region),
            Op::Scan(scan) => Some(scan.region),
            _ => None,
        })
        .collect();
    module.live_regions().into_iter().filter(|region| !within.contains(region)).collect()
}
