//! Products with parameters become GEMMs, with the element-wise arithmetic that follows as their epilogue.
//!
//! Before:  g = contract x, gate over (D);  u = contract x, up over (D);  y = map g, u {mul(silu($0), $1)}
//! After:   y = linear x, gate, up over (D) {branches 2, epilogue mul(silu($0), $1)}
//! Holds when each product sums whole rows and has no other reader, and the map's other operands (a bias, a residual) have no
//! axes but the result's. A product without such a map becomes a GEMM that only stores.

use std::collections::{HashMap, HashSet};

use moec_ir::ops::{Contract, Linear};
use moec_ir::{Module, Op, OpId, ValueId};
use moec_types::{Axis, Expr};

use crate::compose::{self, Body};
use crate::{Pass, Report, row_wise};

pub const PASS: Pass = Pass {
    name: "fuse-activation",
    summary: "Compute activations, gates, biases and residuals where a GEMM stores its result.",
    run,
};

fn run(mut module: Module, report: &mut Report) -> Module {
    for region in row_wise::regions_around_rows(&module) {
        let nodes = module.region(region).nodes.clone();
        let here: HashSet<OpId> = nodes.iter().copied().collect();
        for at in &nodes {
            swap(&mut module, *at, report);
        }
        let mut uses = Uses::new(&module);
        for at in nodes {
            // A map may take in a product by way of the GEMM that an earlier map became.
            if let Op::Map(_) = module.node(at).op {
                fuse_map(&mut module, at, &mut uses, &here, report);
            }
        }
        for at in module.region(region).nodes.clone() {
            widen(&mut module, at);
        }
    }
    module
}

/// How many readers each value has, kept up as nodes change. Nodes that lose their last reader read nothing themselves.
struct Uses {
    counts: HashMap<ValueId, usize>,
}

impl Uses {
    fn new(module: &Module) -> Self {
        let mut counts = HashMap::new();
        for region in module.live_regions() {
            let region = module.region(region);
            let operands = region.nodes.iter().flat_map(|at| &module.node(*at).operands);
            operands.chain(&region.results).for_each(|value| *counts.entry(*value).or_default() += 1);
        }
        Uses { counts }
    }

    fn count(&self, value: ValueId) -> usize {
        self.counts.get(&value).copied().unwrap_or(0)
    }

    /// Exchanges a node's op and operands.
    fn exchange(&mut self, module: &mut Module, at: OpId, op: Op, operands: Vec<ValueId>) {
        operands.iter().for_each(|value| *self.counts.entry(*value).or_default() += 1);
        let node = module.node_mut(at);
        node.op = op;
        let mut released = std::mem::replace(&mut node.operands, operands);
        while let Some(value) = released.pop() {
            let count = self.counts.entry(value).or_default();
            *count = count.saturating_sub(1);
            let unread = module.producer(value).filter(|node| node.results.iter().all(|value| self.count(*value) == 0));
            released.extend(unread.into_iter().flat_map(|node| &node.operands));
        }
    }
}

/// A product with parameters: a contraction, or a GEMM that already has an epilogue.
struct Product {
    x: ValueId,
    params: Vec<ValueId>,
    over: Vec<Axis>,
    /// Over the sums (numbered from 0) and then the values of `extras`.
    epilogue: Expr,
    extras: Vec<ValueId>,
}

fn product(module: &Module, value: ValueId) -> Option<Product> {
    let node = module.producer(value)?;
    let is_param = |value: &ValueId| module.producer(*value).is_some_and(|node| matches!(node.op, Op::ParamRef(_)));
    match &node.op {
        Op::Contract(Contract { over }) => {
            let [x, param] = node.operands[..] else { return None };
            let symbolic = |value: ValueId| module.tensor(value).dims.iter().any(|dim| dim.size.fixed().is_none());
            let crosses =
                over.iter().any(|axis| module.tensor(x).dim(axis).is_some_and(|dim| dim.size.fixed().is_none()));
            (is_param(&param) && symbolic(x) && !crosses && row_wise::sums_rows(module, x, param, over)).then(|| {
                Product { x, params: vec![param], over: over.clone(), epilogue: Expr::Arg(0), extras: Vec::new() }
            })
        }
        Op::Linear(linear) => Some(Product {
            x: node.operands[0],
            params: node.operands[1..=linear.branches].to_vec(),
            over: linear.over.clone(),
            epilogue: linear.epilogue.clone(),
            extras: node.operands[1 + linear.branches..].to_vec(),
        }),
        _ => None,
    }
}

/// Makes a map the epilogue of the products it reads.
fn fuse_map(module: &mut Module, at: OpId, uses: &mut Uses, here: &HashSet<OpId>, report: &mut Report) {
    let node = module.node(at);
    let (span, result) = (node.at, node.results[0]);
    // Maps on the way that only this one reads belong to it, unless they would be computed more often here.
    let own = |value: ValueId| uses.count(value) == 1;
    let whole = |value: ValueId| module.tensor(value).dims.len() == module.tensor(result).dims.len();
    let enter = |value: ValueId| {
        value == result
            || own(value)
                && whole(value)
                && module.producer_id(value).is_some_and(|at| here.contains(&at))
                && leads_to_product(module, value, uses)
    };
    let body = Body::of(result).expanded(module, &enter);
    let mut groups: Vec<Vec<ValueId>> = Vec::new();
    for value in &body.operands {
        let Some(found) = product(module, *value) else { continue };
        if !whole(*value) || !module.producer_id(*value).is_some_and(|at| here.contains(&at)) {
            continue;
        }
        if !own(*value) {
            report.blocked(PASS.name, span, "the product has other readers than the arithmetic behind it");
            continue;
        }
        match groups.iter_mut().find(|group| fits(module, &found, group[0])) {
            Some(group) => group.push(*value),
            None => groups.push(vec![*value]),
        }
    }
    // The most branches; of those, the last, so that an epilogue does not wait for a later GEMM.
    let Some(group) = groups.into_iter().max_by_key(Vec::len) else { return };
    match linear(module, &body, &group, result) {
        Ok((linear, operands)) => {
            let stored: Vec<_> = group.iter().map(|value| module.tensor(*value)).collect();
            let what = if group.len() > 1 { "products and activation" } else { "product and element-wise arithmetic" };
            report.fused(PASS.name, span, what, stored, group.len());
            uses.exchange(module, at, linear.into(), operands);
        }
        Err(rule) => report.blocked(PASS.name, span, rule),
    }
}

/// Whether a map has a product behind it, through maps that nothing else reads.
fn leads_to_product(module: &Module, value: ValueId, uses: &Uses) -> bool {
    let Some(node) = module.producer(value).filter(|node| matches!(node.op, Op::Map(_))) else { return false };
    node.operands.iter().any(|operand| {
        uses.count(*operand) == 1 && (product(module, *operand).is_some() || leads_to_product(module, *operand, uses))
    })
}

/// Whether two products can be one GEMM: the same x, parameters of the same axes and with as many instances.
fn fits(module: &Module, a: &Product, b: ValueId) -> bool {
    let Some(b) = product(module, b) else { return false };
    let axes = |product: &Product| {
        let mut axes: Vec<_> = module.tensor(product.params[0]).dims.clone();
        axes.sort_by(|a, b| a.axis.cmp(&b.axis));
        axes
    };
    let instances = |product: &Product| {
        let Op::ParamRef(op) = &module.producer(product.params[0])?.op else { return None };
        let param = module.param(op.param);
        Some((param.layers.clone(), param.experts))
    };
    let same_over = a.over.len() == b.over.len() && a.over.iter().all(|axis| b.over.contains(axis));
    a.x == b.x && same_over && axes(a) == axes(&b) && instances(a) == instances(&b)
}

/// The GEMM whose epilogue is `body`, which reads the products of `group` among other values.
fn linear(
    module: &Module,
    body: &Body,
    group: &[ValueId],
    result: ValueId,
) -> Result<(Linear, Vec<ValueId>), &'static str> {
    if body.expr.operations() > compose::MOST_OPERATIONS {
        return Err("the arithmetic behind the product is too long");
    }
    let products: Vec<Product> = group.iter().filter_map(|value| product(module, *value)).collect();
    let branches: usize = products.iter().map(|product| product.params.len()).sum();
    // Operands of the whole: sums, then extras of GEMMs that had an epilogue, then the body's other operands.
    let mut extras: Vec<ValueId> = products.iter().flat_map(|product| product.extras.iter().copied()).collect();
    extras.extend(body.operands.iter().filter(|value| !group.contains(value)));
    let (mut sum, mut extra) = (0, branches);
    let mut inner = Vec::new();
    for product in &products {
        let (own_sums, first_sum, first_extra) = (product.params.len(), sum, extra);
        inner.push(product.epilogue.substitute(&|arg| match arg.checked_sub(own_sums) {
            None => Expr::Arg(first_sum + arg),
            Some(nth) => Expr::Arg(first_extra + nth),
        }));
        sum += own_sums;
        extra += product.extras.len();
    }
    let mut rest = extra..;
    let places: Vec<Expr> = body
        .operands
        .iter()
        .map(|value| match group.iter().position(|one| one == value) {
            Some(at) => inner[at].clone(),
            None => Expr::Arg(rest.next().unwrap_or(extra)),
        })
        .collect();
    let epilogue = body.expr.substitute(&|arg| places[arg].clone());
    let params = products.iter().flat_map(|product| product.params.iter().copied());
    let operands: Vec<ValueId> = std::iter::once(products[0].x).chain(params).chain(extras).collect();
    let linear = Linear { over: products[0].over.clone(), branches, epilogue };
    match Op::from(linear.clone()).infer(module, &operands) {
        Ok(types) if types[..] == [module.ty(result).clone()] => Ok((linear, operands)),
        Ok(_) => Err("the result's axes lie in another order than the product's"),
        Err(_) => Err("the arithmetic behind the product has axes that the product lacks"),
    }
}

/// A product that nothing fused with is a GEMM all the same.
fn widen(module: &mut Module, at: OpId) {
    let node = module.node(at);
    let Op::Contract(_) = node.op else { return };
    let Some(found) = product(module, node.results[0]) else { return };
    let node = module.node_mut(at);
    node.op = Linear { over: found.over, branches: 1, epilogue: Expr::Arg(0) }.into();
    node.operands = vec![found.x, found.params[0]];
}

/// `w · x` is `x · w` with its axes in another order, if all that reads it can follow.
fn swap(module: &mut Module, at: OpId, report: &mut Report) {
    let node = module.node(at);
    let Op::Contract(_) = node.op else { return };
    let is_param = |value: ValueId| module.producer(value).is_some_and(|node| matches!(node.op, Op::ParamRef(_)));
    let [a, b] = node.operands[..] else { return };
    if !is_param(a) || is_param(b) {
        return;
    }
    let mut changed = module.clone();
    changed.node_mut(at).operands.reverse();
    match changed.retype() {
        Ok(()) => *module = changed,
        Err(_) => {
            let rule = "a product with the parameter in front, whose axes cannot be put in another order";
            report.blocked(PASS.name, module.node(at).at, rule);
        }
    }
}
