//! Models of several sequences: which nodes the pass over each has to compute.
//!
//! What a decoder reads of its encoder's words is what `past` keeps of them. So the model comes apart: the pass over the words
//! computes what its `past` nodes keep, those within the decoder's layers included; the pass over the tokens computes the
//! outputs, and takes what was kept of the words as it takes a parameter.

use std::collections::{BTreeMap, BTreeSet};

use moec_diag::Span;
use moec_ir::{Module, Op, OpId, RegionId, ValueId, ValueType};
use moec_types::{Axis, Size, TensorType};

use crate::Unsupported;

/// The symbolic axes of the inputs, that of the outputs first.
pub struct Sequences {
    axes: Vec<Axis>,
    /// Which one the pass being lowered goes along.
    pub now: u32,
}

impl Sequences {
    pub fn of(module: &Module) -> Self {
        let mut axes: Vec<Axis> = Vec::new();
        let ports =
            module.outputs.iter().map(|output| output.value).chain(module.inputs.iter().map(|input| input.value));
        for dim in ports.flat_map(|value| &module.tensor(value).dims) {
            if let Some(axis) = dim.size.of_pass().filter(|axis| !axes.contains(axis)) {
                axes.push(axis.clone());
            }
        }
        Sequences { axes, now: 0 }
    }

    /// At least one: a pass without positions is one, too.
    pub fn count(&self) -> u32 {
        self.axes.len().max(1) as u32
    }

    fn number(&self, axis: &Axis) -> Option<u32> {
        self.axes.iter().position(|known| known == axis).map(|at| at as u32)
    }

    /// The sequence whose positions a value has, 0 where it has none.
    pub fn number_of(&self, ty: &TensorType) -> u32 {
        ty.dims.iter().find_map(|dim| self.number(dim.size.of_pass()?)).unwrap_or(0)
    }

    /// The axis of another sequence than that of the pass, where a size counts new positions of it.
    pub fn counted_elsewhere<'s>(&self, size: &'s Size) -> Option<&'s Axis> {
        size.of_pass().filter(|axis| self.number(axis) != Some(self.now))
    }

    /// The number of another sequence than that of the pass, where an axis has all positions of it.
    pub fn kept_elsewhere(&self, size: &Size) -> Option<u32> {
        let Size::Past(axis) = size else { return None };
        self.number(axis).filter(|number| *number != self.now)
    }
}

/// What a pass has to compute.
#[derive(Default)]
pub struct Needed {
    /// Nodes of the model's body and of layers.
    pub nodes: BTreeSet<OpId>,
    pub values: BTreeSet<ValueId>,
}

impl Needed {
    /// Fails where the pass needs positions of another sequence that nothing keeps.
    pub fn of(module: &Module, sequences: &Sequences) -> Result<Needed, Unsupported> {
        let mut found = Needed::default();
        let stacks = stacks(module);
        let mut open: Vec<ValueId> = roots(module, sequences);
        while let Some(value) = open.pop() {
            if !found.values.insert(value) {
                continue;
            }
            if let Some((layers, at)) = stacks.get(&value) {
                // An argument of a layer, or what a stack gives: all that goes from layer to layer there.
                found.nodes.insert(*layers);
                let node = module.node(*layers);
                let inside = node.op.regions().into_iter().flat_map(|region| {
                    let region = module.region(region);
                    [region.args[*at], region.results[*at]]
                });
                open.extend(inside.chain([node.operands[*at], node.results[*at]]));
                continue;
            }
            let Some(at) = module.producer_id(value) else {
                of_this_pass(module, value, sequences, Span::NONE)?;
                continue;
            };
            let node = module.node(at);
            if is_past_of_another(module, at, sequences) {
                continue;
            }
            of_this_pass(module, value, sequences, node.at)?;
            found.nodes.insert(at);
            found.nodes.extend(around(module, at));
            found.nodes.extend(inside(module, at));
            open.extend(module.reads(at));
        }
        Ok(found)
    }
}

/// What goes from layer to layer, by its name inside and outside.
fn stacks(module: &Module) -> BTreeMap<ValueId, (OpId, usize)> {
    let mut found = BTreeMap::new();
    for at in module.regions().flat_map(|region| &module.region(region).nodes) {
        let node = module.node(*at);
        let Op::Layers(layers) = &node.op else { continue };
        for region in &layers.kinds {
            let args = module.region(*region).args.iter().enumerate();
            found.extend(args.map(|(number, arg)| (*arg, (*at, number))));
        }
        found.extend(node.results.iter().enumerate().map(|(number, result)| (*result, (*at, number))));
    }
    found
}

/// The stacks that a node stands in.
fn around(module: &Module, at: OpId) -> Vec<OpId> {
    let mut found = Vec::new();
    let mut inner = at;
    let holds = |region: &RegionId, at: OpId| module.region(*region).nodes.contains(&at);
    while let Some(region) = module.regions().find(|region| holds(region, inner)) {
        let of_region = |outer: &&OpId| module.node(**outer).op.regions().contains(&region);
        let Some(outer) = module.regions().flat_map(|region| &module.region(region).nodes).find(of_region) else {
            break;
        };
        found.push(*outer);
        inner = *outer;
    }
    found
}

/// All nodes of a node's regions.
fn inside(module: &Module, at: OpId) -> Vec<OpId> {
    let regions = module.node(at).op.regions();
    let nodes: Vec<OpId> = regions.into_iter().flat_map(|region| module.region(region).nodes.clone()).collect();
    nodes.iter().flat_map(|at| inside(module, *at)).chain(nodes.clone()).collect()
}

/// The outputs, for the pass over their sequence; what is kept, for all.
fn roots(module: &Module, sequences: &Sequences) -> Vec<ValueId> {
    let outputs = module.outputs.iter().map(|output| output.value).filter(|_| sequences.now == 0);
    let mut roots: Vec<ValueId> = outputs.collect();
    for at in module.live_regions().iter().flat_map(|region| &module.region(*region).nodes) {
        let node = module.node(*at);
        let own = match &node.op {
            Op::Past(_) => !is_past_of_another(module, *at, sequences),
            Op::Scan(op) => op.over.size.of_pass().and_then(|axis| sequences.number(axis)) == Some(sequences.now),
            _ => false,
        };
        roots.extend(node.results.iter().filter(|_| own));
    }
    roots
}

fn is_past_of_another(module: &Module, at: OpId, sequences: &Sequences) -> bool {
    let node = module.node(at);
    matches!(node.op, Op::Past(_)) && sequences.number_of(module.tensor(node.operands[0])) != sequences.now
}

/// A node's own values have positions of this pass' sequence alone.
fn of_this_pass(module: &Module, value: ValueId, sequences: &Sequences, at: Span) -> Result<(), Unsupported> {
    let ValueType::Tensor(ty) = module.ty(value) else { return Ok(()) };
    let other = ty.dims.iter().filter_map(|dim| dim.size.of_pass());
    let Some(other) = other.into_iter().find(|axis| sequences.number(axis) != Some(sequences.now)) else {
        return Ok(());
    };
    let own = &sequences.axes[sequences.now as usize];
    Err(Unsupported {
        op: format!("{ty}, which a pass along `{own}` reads,"),
        reason: format!("a pass along `{own}` has no positions of `{other}` but those that were kept"),
        way_round: format!("read it through `past(…, {other} as …)`"),
        at,
    })
}
