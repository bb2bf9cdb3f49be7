//! Scores that are never stored.
//!
//! Before:  dots = contract q, k over (Dh);  s = map dots, …;  top = reduce max s over (T);  e = map s, top {exp(sub($0, $1))};
//!          z = reduce sum e over (T);  p = map e, z {div($0, $1)};  y = contract p, v over (T)
//! After:   y = attention q, k, v, … over (Dh) keys T {score}
//!
//! The softmax may have a sink, a score without a value: `e / (sum e + exp(sink - top))`, top the largest of it and the scores.
//!
//! Holds when T is as long as the sequence, as are the queries (few queries store few scores), and every other operand of the score has no axes but those of the dots. Maps along
//! the keys are computed within the score, however many read them. A sum of two products, as latent attention has, is first
//! made one product: `q · k over Dn + r · t over Dr` is `concat(q, r) · concat(k, t) over Dn`.

use std::collections::HashSet;

use moec_ir::ops::{Attention, Concat, Contract, Gather, Literal, Map, Past, Reduce, ReduceOp, Rename};
use moec_ir::{Module, Op, OpId, RegionId, ValueId};
use moec_types::{Axis, BinaryOp, DType, Dim, Expr, TensorType, UnaryOp};

use crate::compose::Body;
use crate::{Pass, Report, row_wise};

pub const PASS: Pass = Pass {
    name: "fuse-attention",
    summary: "Compute scores, softmax and weighted sum in one step that stores no scores.",
    run,
};

fn run(mut module: Module, report: &mut Report) -> Module {
    for region in row_wise::regions_around_rows(&module) {
        let nodes = module.region(region).nodes.clone();
        let here = Here::new(&module, &nodes);
        for at in nodes {
            let Some(found) = weighted_sum(&module, at, &here) else {
                if sums_over_positions(&module, at) {
                    let rule = "the weights of the sum over positions are no softmax: exp(s - max s) / sum of it";
                    report.blocked(PASS.name, module.node(at).at, rule);
                }
                continue;
            };
            match fuse(&mut module, region, at, &found, &here) {
                Ok(()) => {
                    let stored: Vec<TensorType> =
                        found.stored.iter().map(|value| module.tensor(*value).clone()).collect();
                    let span = module.node(at).at;
                    report.fused(PASS.name, span, "scores, softmax and weighted sum", &stored, stored.len() + 2);
                }
                Err(rule) => report.blocked(PASS.name, module.node(at).at, rule),
            }
        }
    }
    module
}

/// A weighted sum over an axis whose size is known at run time only, for each position of another.
fn sums_over_positions(module: &Module, at: OpId) -> bool {
    let node = module.node(at);
    let Op::Contract(Contract { over }) = &node.op else { return false };
    let symbolic =
        |axis: &Axis| module.tensor(node.operands[0]).dim(axis).is_some_and(|dim| dim.size.fixed().is_none());
    over.iter().any(symbolic) && row_wise::symbolic(module, node.results[0]).next().is_some()
}

/// The nodes of a region: what another region computes is not computed again in this one.
struct Here {
    nodes: HashSet<OpId>,
    /// Reductions over one axis: the op, the axis, what is reduced, and the result.
    reductions: Vec<(ReduceOp, Axis, ValueId, ValueId)>,
}

impl Here {
    fn new(module: &Module, nodes: &[OpId]) -> Self {
        let reduction = |at: &OpId| {
            let node = module.node(*at);
            let Op::Reduce(Reduce { op, over }) = &node.op else { return None };
            let [axis] = &over[..] else { return None };
            Some((*op, axis.clone(), node.operands[0], node.results[0]))
        };
        Here { nodes: nodes.iter().copied().collect(), reductions: nodes.iter().filter_map(reduction).collect() }
    }

    fn reductions<'h>(&'h self, op: ReduceOp, over: &'h Axis) -> impl Iterator<Item = (ValueId, ValueId)> + 'h {
        self.reductions.iter().filter(move |(found, axis, ..)| *found == op && axis == over).map(|(.., x, y)| (*x, *y))
    }

    fn has(&self, module: &Module, value: ValueId) -> bool {
        module.producer_id(value).is_some_and(|at| self.nodes.contains(&at))
    }
}

/// `softmax(scores over keys) · values over keys`.
struct WeightedSum {
    keys: Axis,
    scores: ValueId,
    sink: Option<Body>,
    values: ValueId,
    /// What the unfused form stores between its steps.
    stored: Vec<ValueId>,
}

fn weighted_sum(module: &Module, at: OpId, here: &Here) -> Option<WeightedSum> {
    let node = module.node(at);
    let Op::Contract(Contract { over }) = &node.op else { return None };
    let [keys] = &over[..] else { return None };
    let [a, b] = node.operands[..] else { return None };
    if !sums_over_positions(module, at) {
        return None;
    }
    [(a, b), (b, a)].into_iter().find_map(|(weights, values)| {
        let plain = softmax(module, weights, keys, here).map(|(scores, e)| (scores, e, None));
        let (scores, e, sink) = plain.or_else(|| softmax_with_sink(module, weights, keys, here))?;
        if row_wise::symbolic(module, scores).count() < 2 {
            return None;
        }
        Some(WeightedSum { keys: keys.clone(), scores, sink, values, stored: vec![scores, e, weights] })
    })
}

/// The scores of which a value is the softmax over an axis, and their shifted exponentials.
fn softmax(module: &Module, weights: ValueId, over: &Axis, here: &Here) -> Option<(ValueId, ValueId)> {
    let quotient = Expr::binary(BinaryOp::Div, Expr::Arg(0), Expr::Arg(1));
    let (e, _) =
        here.reductions(ReduceOp::Sum, over).find(|(e, z)| is_made_as(module, weights, &[*e, *z], &quotient, here))?;
    let shifted = Expr::unary(UnaryOp::Exp, Expr::binary(BinaryOp::Sub, Expr::Arg(0), Expr::Arg(1)));
    let (scores, _) = here
        .reductions(ReduceOp::Max, over)
        .find(|(scores, top)| is_made_as(module, e, &[*scores, *top], &shifted, here))?;
    Some((scores, e))
}

/// The scores, their shifted exponentials, and the sink of a softmax that has one.
fn softmax_with_sink(
    module: &Module,
    weights: ValueId,
    over: &Axis,
    here: &Here,
) -> Option<(ValueId, ValueId, Option<Body>)> {
    let expanded = |value: ValueId, stop: &[ValueId]| {
        Body::of(value).expanded(module, &|value| !stop.contains(&value) && here.has(module, value))
    };
    let shifted = |e: Expr, top: Expr| Expr::unary(UnaryOp::Exp, Expr::binary(BinaryOp::Sub, e, top));
    let larger = |a: Expr, b: Expr| Expr::binary(BinaryOp::Max, a, b);
    for (e, z) in here.reductions(ReduceOp::Sum, over) {
        for (scores, top) in here.reductions(ReduceOp::Max, over) {
            let body = expanded(weights, &[e, z, top]);
            let arg = |value: ValueId| body.operands.iter().position(|known| *known == value).map(Expr::Arg);
            let (Some(e_arg), Some(z_arg), Some(top_arg)) = (arg(e), arg(z), arg(top)) else { continue };
            let Expr::Binary(BinaryOp::Div, over_all, total) = &body.expr else { continue };
            let Expr::Binary(BinaryOp::Add, sum, power) = &**total else { continue };
            let Expr::Unary(UnaryOp::Exp, less) = &**power else { continue };
            let Expr::Binary(BinaryOp::Sub, sink, largest) = &**less else { continue };
            let tops = [larger(top_arg.clone(), (**sink).clone()), larger((**sink).clone(), top_arg)];
            if **over_all != e_arg || **sum != z_arg || !tops.contains(largest) {
                continue;
            }
            let sink = only_used(&Body { operands: body.operands.clone(), expr: (**sink).clone() });
            let powers = expanded(e, &[scores, top]);
            let order: Vec<ValueId> = [scores, top].into_iter().chain(sink.operands.iter().copied()).collect();
            let same = powers.operands.len() == order.len() && powers.operands.iter().all(|one| order.contains(one));
            let sunk = sink.expr.substitute(&|at| Expr::Arg(at + 2));
            let wanted = [larger(Expr::Arg(1), sunk.clone()), larger(sunk, Expr::Arg(1))];
            let wanted = wanted.map(|largest| shifted(Expr::Arg(0), largest));
            if same && wanted.contains(&powers.reordered(&order).expr) {
                return Some((scores, e, Some(sink)));
            }
        }
    }
    None
}

/// A body without the operands that it does not mention.
fn only_used(body: &Body) -> Body {
    let used: Vec<usize> = (0..body.operands.len()).filter(|at| body.mentions(*at) > 0).collect();
    let place = |at| used.iter().position(|used| *used == at).expect("a used operand");
    Body {
        operands: used.iter().map(|at| body.operands[*at]).collect(),
        expr: body.expr.substitute(&|at| Expr::Arg(place(at))),
    }
}

/// Whether a value is this expression of those others, through however many maps.
fn is_made_as(module: &Module, value: ValueId, of: &[ValueId], expr: &Expr, here: &Here) -> bool {
    let body = Body::of(value).expanded(module, &|value| !of.contains(&value) && here.has(module, value));
    let same = body.operands.len() == of.len() && body.operands.iter().all(|operand| of.contains(operand));
    same && body.reordered(of).expr == *expr
}

fn fuse(module: &mut Module, region: RegionId, at: OpId, found: &WeightedSum, here: &Here) -> Result<(), String> {
    let WeightedSum { keys, scores, sink, values, .. } = found;
    let enter = |value: ValueId| {
        here.has(module, value) && (module.tensor(value).has(keys) || reads_only_leaves(module, value))
    };
    let mut score = Body::of(*scores).expanded(module, &enter);
    let products = products(module, &score, keys, here);
    let product = match &products[..] {
        [] => return Err("the scores are no product of queries and keys".into()),
        [one] => one.clone(),
        [one, two] => {
            score = only_as_sum(&score, one.value, two.value)
                .ok_or("the scores are two products, and not their sum alone is used")?;
            joined(module, region, at, one, two)?
        }
        _ => return Err("the scores are more than two products".into()),
    };
    let mut extras: Vec<ValueId> = score.operands.iter().copied().filter(|value| *value != product.value).collect();
    for value in sink.iter().flat_map(|sink| &sink.operands) {
        if !extras.contains(value) {
            extras.push(*value);
        }
    }
    let found = tables(module, &extras, keys, here);
    // What is read from tables comes last; where, is said by extras, of which there may be new ones.
    extras.retain(|value| !found.iter().any(|table| table.read == *value));
    for value in found.iter().flat_map(|table| &table.place.operands) {
        if !extras.contains(value) {
            extras.push(*value);
        }
    }
    let read = found.iter().map(|table| table.read);
    let order: Vec<ValueId> = std::iter::once(product.value).chain(extras.iter().copied()).chain(read).collect();
    let score = score.reordered(&order).expr;
    let lookup = |table: &Table| {
        let of =
            |at: usize| Expr::Arg(order.iter().position(|value| *value == table.place.operands[at]).expect("an extra"));
        (table.over.clone(), table.place.expr.substitute(&of))
    };
    let lookups = found.iter().map(lookup).collect();
    let place = |value: ValueId| order.iter().position(|known| *known == value).expect("every operand is an extra");
    let sink = sink.as_ref().map(|sink| sink.expr.substitute(&|at| Expr::Arg(place(sink.operands[at]))));
    let attention = Attention { over: product.over, keys: keys.clone(), score, sink, lookups };
    let tables = found.iter().map(|table| table.table);
    let operands: Vec<ValueId> =
        [product.queries, product.keys, *values].into_iter().chain(extras).chain(tables).collect();
    put(module, at, attention.into(), operands)
}

/// A score's operand that is read from a table of each head, at a place that positions alone say.
struct Table {
    read: ValueId,
    table: ValueId,
    over: Axis,
    place: Body,
}

fn tables(module: &Module, extras: &[ValueId], keys: &Axis, here: &Here) -> Vec<Table> {
    let table = |read: &ValueId| {
        let node = module.producer(*read).filter(|_| here.has(module, *read) && module.tensor(*read).has(keys))?;
        let Op::Gather(Gather { over }) = &node.op else { return None };
        let [table, place] = node.operands[..] else { return None };
        let place = Body::of(place).expanded(module, &|value| here.has(module, value));
        let iota = |value: &ValueId| module.producer(*value).is_some_and(|node| matches!(node.op, Op::Iota(_)));
        let fixed = module.tensor(table).elements().is_some();
        (fixed && place.operands.iter().all(iota)).then(|| Table { read: *read, table, over: over.clone(), place })
    };
    extras.iter().filter_map(table).collect()
}

/// Exchanges a node's op. Where the axes then lie in another order, all that reads it follows, if it can.
fn put(module: &mut Module, at: OpId, op: Op, operands: Vec<ValueId>) -> Result<(), String> {
    let types = op.infer(module, &operands).map_err(|error| error.message)?;
    let node = module.node(at);
    let same = node.results.iter().map(|value| module.ty(*value)).eq(&types);
    let mut changed = module.clone();
    let node = changed.node_mut(at);
    node.op = op;
    node.operands = operands;
    if !same {
        changed.retype().map_err(|error| format!("its axes would lie in another order: {}", error.message))?;
    }
    *module = changed;
    Ok(())
}

fn reads_only_leaves(module: &Module, value: ValueId) -> bool {
    let leaf =
        |value: &ValueId| module.producer(*value).is_some_and(|node| matches!(node.op, Op::Iota(_) | Op::Literal(_)));
    module.producer(value).is_some_and(|node| node.operands.iter().all(leaf))
}

/// `queries · keys over …`, each side with its own axes.
#[derive(Clone, Debug)]
struct Product {
    /// What stands for it in the score.
    value: ValueId,
    queries: ValueId,
    keys: ValueId,
    over: Vec<Axis>,
}

fn products(module: &Module, score: &Body, keys: &Axis, here: &Here) -> Vec<Product> {
    let product = |value: &ValueId| {
        let node = module.producer(*value).filter(|_| here.has(module, *value))?;
        let Op::Contract(Contract { over }) = &node.op else { return None };
        let [a, b] = node.operands[..] else { return None };
        let (queries, keys) = match (module.tensor(a).has(keys), module.tensor(b).has(keys)) {
            (false, true) => (a, b),
            (true, false) => (b, a),
            (true, true) | (false, false) => return None,
        };
        Some(Product { value: *value, queries, keys, over: over.clone() })
    };
    score.operands.iter().filter_map(product).collect()
}

/// The score with `a + b` replaced by `a`; `None` where either is used in any other way.
fn only_as_sum(score: &Body, a: ValueId, b: ValueId) -> Option<Body> {
    let place = |value: ValueId| score.operands.iter().position(|operand| *operand == value);
    let (a, b) = (place(a)?, place(b)?);
    fn without(expr: &Expr, a: usize, b: usize) -> Option<Expr> {
        match expr {
            Expr::Arg(at) => (*at != a && *at != b).then(|| expr.clone()),
            Expr::F32(_) | Expr::I32(_) | Expr::Bool(_) => Some(expr.clone()),
            Expr::Binary(BinaryOp::Add, x, y)
                if [&**x, &**y] == [&Expr::Arg(a), &Expr::Arg(b)] || [&**x, &**y] == [&Expr::Arg(b), &Expr::Arg(a)] =>
            {
                Some(Expr::Arg(a))
            }
            Expr::Unary(op, x) => Some(Expr::unary(*op, without(x, a, b)?)),
            Expr::Binary(op, x, y) => Some(Expr::binary(*op, without(x, a, b)?, without(y, a, b)?)),
            Expr::Select(x, y, z) => Some(Expr::select(without(x, a, b)?, without(y, a, b)?, without(z, a, b)?)),
            Expr::Cast(dtype, x) => Some(Expr::cast(*dtype, without(x, a, b)?)),
        }
    }
    let body = Body { operands: score.operands.clone(), expr: without(&score.expr, a, b)? };
    Some(body.inlined(b, &Body { operands: Vec::new(), expr: Expr::F32(0.0) }))
}

/// Two products as one, over the first one's axis made longer. New nodes stand before `at`.
fn joined(module: &mut Module, region: RegionId, at: OpId, one: &Product, two: &Product) -> Result<Product, String> {
    let ([over], [other]) = (&one.over[..], &two.over[..]) else {
        return Err("the scores are two products, one of them over several axes".into());
    };
    let (kept, other_kept) = (past_of(module, one.keys), past_of(module, two.keys));
    let mut build = Build { module, region, at };
    let join = |build: &mut Build, first: ValueId, second: ValueId| -> Result<ValueId, String> {
        let second = if over == other {
            second
        } else {
            build.node(Rename { from: other.clone(), to: over.clone() }, vec![second])?
        };
        let first = build.with_axes_of(first, second, over)?;
        let second = build.with_axes_of(second, first, over)?;
        build.node(Concat { over: over.clone() }, vec![first, second])
    };
    let queries = join(&mut build, one.queries, two.queries)?;
    // What is kept of earlier positions is one tensor then, too: a cache cannot be made of two.
    let keys = match (kept, other_kept) {
        (Some((past, k)), Some((other_past, t))) if past == other_past => {
            let joined = join(&mut build, k, t)?;
            build.node(past, vec![joined])?
        }
        _ => join(&mut build, one.keys, two.keys)?,
    };
    Ok(Product { value: one.value, queries, keys, over: one.over.clone() })
}

/// What a value is every position up to now of.
fn past_of(module: &Module, value: ValueId) -> Option<(Past, ValueId)> {
    let node = module.producer(value)?;
    let Op::Past(past) = &node.op else { return None };
    Some((past.clone(), node.operands[0]))
}

/// Makes nodes in front of another.
struct Build<'m> {
    module: &'m mut Module,
    region: RegionId,
    at: OpId,
}

impl Build<'_> {
    fn node(&mut self, op: impl Into<Op>, operands: Vec<ValueId>) -> Result<ValueId, String> {
        let span = self.module.node(self.at).at;
        let node = self.module.create(op, operands, span).map_err(|error| error.message)?;
        let nodes = &mut self.module.region_mut(self.region).nodes;
        let place = nodes.iter().position(|other| *other == self.at).unwrap_or(nodes.len());
        nodes.insert(place, node);
        Ok(self.module.node(node).results[0])
    }

    /// A value repeated along the axes of another that it lacks, but for `over`.
    fn with_axes_of(&mut self, value: ValueId, other: ValueId, over: &Axis) -> Result<ValueId, String> {
        let own = self.module.tensor(value);
        let lacks = |dim: &&Dim| !own.has(&dim.axis) && dim.axis != *over;
        let missing: Vec<Dim> = self.module.tensor(other).dims.iter().filter(lacks).cloned().collect();
        if missing.is_empty() {
            return Ok(value);
        }
        let ty = TensorType::new(DType::I32, missing);
        let count = ty.elements().ok_or("the scores are two products over different positions")?;
        let zeros = self.node(Literal { ty, data: vec![0.0; count as usize] }, Vec::new())?;
        self.node(Map { expr: Expr::Arg(0) }, vec![value, zeros])
    }
}
