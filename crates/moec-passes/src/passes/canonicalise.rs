//! One spelling for what can be spelt in several ways.
//!
//! Before:  y = map x {add($0, 1.0)};  z = map y, c {mul($0, $1)}, c the literal 2.0;  w = split v;  u = merge w
//! After:   z = map x {mul(add($0, 1.0), 2.0)};  u = v
//! Holds when the inner map has no other reader and as many elements as the outer (nothing is computed twice). Constants
//! fold where all operands are constants; equal nodes of a region become one (but choices of experts, each of which is
//! reported); what nobody reads goes.

use std::collections::HashMap;

use moec_ir::ops::{Literal, Map, Merge, Rename, Split};
use moec_ir::{Module, Op, OpId, Readers, RegionId, ValueId};
use moec_types::{DType, Expr};

use crate::compose::{self, Body};
use crate::constant::{self, Scalar};
use crate::{Pass, Report, literal, row_wise};

pub const PASS: Pass = Pass {
    name: "canonicalise",
    summary: "Fold constants, compose element-wise maps, drop what changes nothing or is not read.",
    run,
};

/// Each round may open the way for another; in practice three are enough.
const MOST_ROUNDS: usize = 8;

fn run(mut module: Module, _: &mut Report) -> Module {
    for _ in 0..MOST_ROUNDS {
        module = module.without_dead();
        if !round(&mut module) {
            break;
        }
    }
    module
}

/// What a node becomes.
enum Simpler {
    /// Its result is another value.
    Is(ValueId),
    /// Another op of the same result type.
    Becomes(Op, Vec<ValueId>),
}

fn round(module: &mut Module) -> bool {
    let mut round =
        Round { readers: module.readers(), homes: homes(module), replaced: HashMap::new(), changed: false, module };
    for region in round.module.live_regions() {
        round.region(region);
    }
    let Round { module, replaced, changed, .. } = round;
    module.replace_all(&replaced);
    changed
}

fn homes(module: &Module) -> HashMap<OpId, RegionId> {
    module.walk().into_iter().map(|(region, at)| (at, region)).collect()
}

struct Round<'m> {
    module: &'m mut Module,
    readers: Readers,
    homes: HashMap<OpId, RegionId>,
    replaced: HashMap<ValueId, ValueId>,
    changed: bool,
}

impl Round<'_> {
    /// Outer regions come first, so what they replaced is known within inner ones.
    fn region(&mut self, region: RegionId) {
        let mut known: HashMap<(&'static str, Vec<ValueId>), Vec<OpId>> = HashMap::new();
        for at in self.module.region(region).nodes.clone() {
            let replaced = &self.replaced;
            let node = self.module.node_mut(at);
            for operand in &mut node.operands {
                *operand = replaced.get(operand).copied().unwrap_or(*operand);
            }
            while let Some(simpler) = simplify(self.module, at, &self.readers, &self.homes) {
                self.changed = true;
                match simpler {
                    Simpler::Is(value) => {
                        let result = self.module.node(at).results[0];
                        self.replaced.insert(result, value);
                        break;
                    }
                    Simpler::Becomes(op, operands) => {
                        let node = self.module.node_mut(at);
                        node.op = op;
                        node.operands = operands;
                    }
                }
            }
            let node = self.module.node(at);
            if node.results.iter().any(|value| self.replaced.contains_key(value))
                || !node.op.regions().is_empty()
                || row_wise::chooses(&node.op)
            {
                continue;
            }
            let same = known.entry((node.op.mnemonic(), node.operands.clone())).or_default();
            match same.iter().find(|other| self.module.node(**other).op == node.op) {
                None => same.push(at),
                Some(other) => {
                    let other = &self.module.node(*other).results;
                    self.replaced.extend(node.results.iter().copied().zip(other.iter().copied()));
                    self.changed = true;
                }
            }
        }
    }
}

fn simplify(module: &Module, at: OpId, readers: &Readers, homes: &HashMap<OpId, RegionId>) -> Option<Simpler> {
    let node = module.node(at);
    let [result] = node.results[..] else { return None };
    if let Some(literal) = literal::fold(module, &node.op, &node.operands, result) {
        return Some(Simpler::Becomes(literal.into(), Vec::new()));
    }
    match &node.op {
        Op::Map(map) => simpler_map(module, at, map, readers, homes),
        Op::Split(split) => undone(module, node.operands[0], result, |before| match before {
            Op::Merge(Merge { axes, into }) => {
                *into == split.axis && axes.iter().eq(split.into.iter().map(|dim| &dim.axis))
            }
            _ => false,
        }),
        Op::Merge(merge) => undone(module, node.operands[0], result, |before| match before {
            Op::Split(Split { axis, into }) => {
                *axis == merge.into && merge.axes.iter().eq(into.iter().map(|dim| &dim.axis))
            }
            _ => false,
        }),
        Op::Rename(rename) => {
            let before = module.producer(node.operands[0])?;
            let Op::Rename(first) = &before.op else { return None };
            if first.to != rename.from {
                return None;
            }
            if first.from == rename.to {
                return Some(Simpler::Is(before.operands[0]));
            }
            let whole = Rename { from: first.from.clone(), to: rename.to.clone() };
            let fits = !module.tensor(before.operands[0]).has(&rename.to);
            fits.then(|| Simpler::Becomes(whole.into(), before.operands.clone()))
        }
        Op::Slice(slice) => {
            let whole = !slice.drop && module.ty(node.operands[0]) == module.ty(result);
            whole.then_some(Simpler::Is(node.operands[0]))
        }
        Op::Concat(_) => (node.operands.len() == 1).then_some(Simpler::Is(node.operands[0])),
        Op::ParamRef(_)
        | Op::Stack(_)
        | Op::Literal(_)
        | Op::Iota(_)
        | Op::Count(_)
        | Op::Contract(_)
        | Op::Linear(_)
        | Op::Reduce(_)
        | Op::Cumsum(_)
        | Op::Assign(_)
        | Op::TopK(_)
        | Op::ScatterAdd(_)
        | Op::Gather(_)
        | Op::Unfold(_)
        | Op::Past(_)
        | Op::Scan(_)
        | Op::Attention(_)
        | Op::Route(_)
        | Op::Dispatch(_)
        | Op::Experts(_)
        | Op::Combine(_)
        | Op::Each(_)
        | Op::Layers(_)
        | Op::Rows(_) => None,
    }
}

/// The operand of the op before, where that op is undone and the type is as it was, the order of the axes included.
fn undone(module: &Module, operand: ValueId, result: ValueId, is: impl Fn(&Op) -> bool) -> Option<Simpler> {
    let before = module.producer(operand).filter(|node| is(&node.op))?;
    let value = before.operands[0];
    (module.ty(value) == module.ty(result)).then_some(Simpler::Is(value))
}

fn simpler_map(
    module: &Module,
    at: OpId,
    map: &Map,
    readers: &Readers,
    homes: &HashMap<OpId, RegionId>,
) -> Option<Simpler> {
    let node = module.node(at);
    let result = module.tensor(node.results[0]);
    let mut body = Body::new(&node.operands, &map.expr);
    let mut operand = 0;
    while let Some(value) = body.operands.get(operand).copied() {
        if let Some(constant) = splat(module, value) {
            let without = body.with_constant(operand, constant);
            if compose::union_of_axes(module, &without.operands) == result.dims {
                body = without;
                continue;
            }
        }
        match composable(module, at, &body, operand, readers, homes) {
            Some(inner) => body = body.inlined(operand, &inner),
            None => operand += 1,
        }
    }
    let dtypes: Vec<DType> = body.operands.iter().map(|value| module.tensor(*value).dtype).collect();
    body.expr = constant::simplify(&body.expr, &dtypes);
    if body.expr == Expr::Arg(0) && body.operands.len() == 1 {
        return Some(Simpler::Is(body.operands[0]));
    }
    let body = without_unused(module, body);
    // NaN differs from itself, its text does not.
    let same = body.expr == map.expr || body.expr.to_string() == map.expr.to_string();
    let changed = body.operands != node.operands || !same;
    changed.then(|| Simpler::Becomes(Map { expr: body.expr }.into(), body.operands))
}

/// The one value of a constant, if all its elements are equal.
fn splat(module: &Module, value: ValueId) -> Option<Scalar> {
    let Op::Literal(Literal { ty, data }) = &module.producer(value)?.op else { return None };
    let (first, rest) = data.split_first()?;
    rest.iter().all(|other| other.to_bits() == first.to_bits()).then(|| Scalar::from_literal(ty.dtype, *first))?
}

/// The body of an operand that may be computed within its reader.
fn composable(
    module: &Module,
    at: OpId,
    body: &Body,
    operand: usize,
    readers: &Readers,
    homes: &HashMap<OpId, RegionId>,
) -> Option<Body> {
    let value = body.operands[operand];
    let producer = module.producer_id(value)?;
    let inner = compose::body_of(module, value)?;
    let own = readers.nodes(value).iter().all(|reader| *reader == at) && readers.results(value).is_empty();
    let (whole, part) = (module.tensor(module.node(at).results[0]), module.tensor(value));
    let as_many = whole.dims.len() == part.dims.len();
    let operations = inner.expr.operations();
    let repeats = body.mentions(operand).saturating_sub(1) * operations;
    let small = repeats <= 16 && body.expr.operations() + operations + repeats <= compose::MOST_OPERATIONS;
    (own && as_many && small && homes.get(&producer) == homes.get(&at)).then_some(inner)
}

/// Without operands that the expression does not mention, where the result's axes stay the same.
fn without_unused(module: &Module, mut body: Body) -> Body {
    let dims = compose::union_of_axes(module, &body.operands);
    let mut operand = 0;
    while operand < body.operands.len() {
        let nothing = Body { operands: Vec::new(), expr: Expr::Bool(false) };
        if body.mentions(operand) == 0 {
            let without = body.inlined(operand, &nothing);
            if compose::union_of_axes(module, &without.operands) == dims {
                body = without;
                continue;
            }
        }
        operand += 1;
    }
    body
}
