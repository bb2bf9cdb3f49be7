//! What a pass costs: operations and bytes, from the model IR before any fusing.
//!
//! Operations: a product of `n` terms counts 2n, an element-wise operation 1 for each element, a reduction 1 for each
//! element that goes in. Attention counts every key that is there, causal or not. Bytes: weights once, experts as many as
//! uniform routing is expected to touch, cached rows once; activations stay near the cores and are not counted.

use moec_ir::{
    Module, OpId, ParamId, ValueId,
    ops::{self, Op},
};
use moec_types::{Size, TensorType};

use crate::count::{self, Choice, Place};

/// A pass of `tokens` new positions after `past` others.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    pub tokens: u64,
    pub past: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Products of tensors: what a GEMM or attention does.
    pub product_flops: f64,
    /// All the rest.
    pub other_flops: f64,
    pub weight_bytes: f64,
    /// Read and written.
    pub cache_bytes: f64,
}

impl Cost {
    pub fn flops(&self) -> f64 {
        self.product_flops + self.other_flops
    }

    pub fn bytes(&self) -> f64 {
        self.weight_bytes + self.cache_bytes
    }
}

/// `stored` are the bytes of one element of each parameter.
pub fn of(module: &Module, pass: Pass, stored: &[f64]) -> Cost {
    let mut cost = Cost::default();
    let mut whole = vec![false; module.params.len()];
    let mut rows_of: Vec<f64> = vec![0.0; module.params.len()];
    count::walk(module, &mut |at, place| {
        let times = times(place, pass);
        let (product, other) = flops(module, at, place, pass);
        cost.product_flops += product * times;
        cost.other_flops += other * times;
        match &module.node(at).op {
            Op::Past(_) => cost.cache_bytes += cache_bytes(module, at, pass) * times,
            Op::Scan(op) => cost.cache_bytes += 2.0 * state_bytes(module, op) * times,
            _ => {}
        }
        for (param, rows) in reads(module, at, pass) {
            match rows {
                Some(elements) => rows_of[param.index()] += elements,
                None => whole[param.index()] = true,
            }
        }
    });
    let chosen = count::choices(module);
    for (at, param) in module.params.iter().enumerate() {
        let elements = if whole[at] {
            expected(param.elements(), chosen.get(&ParamId(at as u32)).copied(), pass.tokens)
        } else {
            rows_of[at].min(param.elements() as f64)
        };
        cost.weight_bytes += elements * stored[at];
    }
    cost
}

/// How often a node's rows are worked on: in a bank member, its share of the slots; in a scan, at each position.
fn times(place: Place, pass: Pass) -> f64 {
    let share = place.choice.map_or(1.0, |choice| choice.count as f64 / choice.experts.max(1) as f64);
    let positions = if place.each_position { pass.tokens } else { 1 };
    place.executions as f64 * share * positions as f64
}

/// Elements of a parameter that `tokens` tokens are expected to meet under uniform routing.
fn expected(total: u64, choice: Option<Choice>, tokens: u64) -> f64 {
    let Some(choice) = choice else { return total as f64 };
    let missed = 1.0 - choice.choices.min(choice.experts) as f64 / choice.experts.max(1) as f64;
    total as f64 * (1.0 - missed.powf(tokens as f64))
}

fn size(size: &Size, pass: Pass) -> f64 {
    match size {
        Size::Fixed(size) => *size as f64,
        Size::Input(_) => pass.tokens as f64,
        Size::Past(_) => (pass.tokens + pass.past) as f64,
        Size::Slots { tokens, choices } => self::size(tokens, pass) * *choices as f64,
        Size::Share { times, per, .. } => pass.tokens as f64 * *times as f64 / *per as f64,
    }
}

fn elements(ty: &TensorType, pass: Pass) -> f64 {
    ty.dims.iter().map(|dim| size(&dim.size, pass)).product()
}

/// `(products, others)` of one execution.
fn flops(module: &Module, at: OpId, place: Place, pass: Pass) -> (f64, f64) {
    let node = module.node(at);
    let of = |value: ValueId| module.ty(value).tensor().map_or(0.0, |ty| elements(ty, pass));
    let result = || node.results.first().map_or(0.0, |value| of(*value));
    let summed = |over: &[moec_types::Axis]| {
        let ty = module.tensor(node.operands[0]);
        over.iter().filter_map(|axis| ty.dim(axis)).map(|dim| size(&dim.size, pass)).product::<f64>()
    };
    // What does not depend on the pass (angles of a rotary embedding) is computed once, when compiling.
    let constant = || {
        !place.each_position
            && node.results.iter().all(|value| module.ty(*value).tensor().is_some_and(|ty| ty.elements().is_some()))
    };
    match &node.op {
        Op::Contract(op) => (2.0 * result() * summed(&op.over), 0.0),
        Op::Linear(op) => {
            let product = 2.0 * result() * summed(&op.over) * op.branches as f64;
            (product, result() * op.epilogue.operations() as f64)
        }
        Op::Attention(op) => {
            let keys = module.tensor(node.operands[1]).dim(&op.keys).map_or(1.0, |dim| size(&dim.size, pass));
            let queries = of(node.operands[0]) / summed(&op.over).max(1.0);
            let scores = queries * keys;
            (2.0 * scores * summed(&op.over) + 2.0 * result() * keys, scores * (op.score.operations() as f64 + 4.0))
        }
        Op::Map(op) if !constant() => (0.0, result() * op.expr.operations() as f64),
        Op::Map(_) => (0.0, 0.0),
        Op::Reduce(_) | Op::Cumsum(_) | Op::Assign(_) | Op::ScatterAdd(_) | Op::TopK(_) => (0.0, of(node.operands[0])),
        Op::Combine(_) => (0.0, 2.0 * node.operands.first().map_or(0.0, |rows| of(*rows))),
        Op::ParamRef(_)
        | Op::Stack(_)
        | Op::Literal(_)
        | Op::Iota(_)
        | Op::Count(_)
        | Op::Gather(_)
        | Op::Split(_)
        | Op::Merge(_)
        | Op::Rename(_)
        | Op::Slice(_)
        | Op::Unfold(_)
        | Op::Concat(_)
        | Op::Past(_)
        | Op::Scan(_)
        | Op::Route(_)
        | Op::Dispatch(_)
        | Op::Experts(_)
        | Op::Each(_)
        | Op::Layers(_)
        | Op::Rows(_) => (0.0, 0.0),
    }
}

fn cache_bytes(module: &Module, at: OpId, pass: Pass) -> f64 {
    let node = module.node(at);
    let written = node.operands.first().and_then(|value| module.ty(*value).tensor());
    let read = node.results.first().and_then(|value| module.ty(*value).tensor());
    let bytes = |ty: Option<&TensorType>| ty.map_or(0.0, |ty| elements(ty, pass) * ty.dtype.bytes() as f64);
    bytes(written) + bytes(read)
}

/// What a scan keeps.
fn state_bytes(module: &Module, op: &ops::Scan) -> f64 {
    let states = module.region(op.region).results.iter().take(op.states);
    states.map(|value| module.tensor(*value)).map(|ty| ty.elements().unwrap_or(0) * ty.dtype.bytes()).sum::<u64>()
        as f64
}

/// Which parameters a node reads: whole, or so many elements (a look-up).
fn reads(module: &Module, at: OpId, pass: Pass) -> Vec<(ParamId, Option<f64>)> {
    let node = module.node(at);
    let param = |value: ValueId| match module.producer(value).map(|node| &node.op) {
        Some(Op::ParamRef(reference)) => Some(reference.param),
        Some(Op::Stack(stack)) => Some(stack.param),
        Some(_) | None => None,
    };
    let looked_up = matches!(node.op, Op::Gather(_));
    let each = node.operands.iter().enumerate().filter_map(|(number, operand)| {
        let rows = looked_up && number == 0;
        let elements =
            || node.results.first().and_then(|value| module.ty(*value).tensor()).map(|ty| elements(ty, pass));
        Some((param(*operand)?, if rows { elements() } else { None }))
    });
    each.collect()
}
