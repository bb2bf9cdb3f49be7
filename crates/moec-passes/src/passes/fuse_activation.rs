//! Products with parameters become GEMMs, with the element-wise arithmetic that follows as their epilogue.
//!
//! Before:  g = contract x, gate over (D);  u = contract x, up over (D);  y = map g, u {mul(silu($0), $1)}
//! After:   y = linear x, gate, up over (D) {branches 2, epilogue mul(silu($0), $1)}
//! Holds when each product has no other reader, and the map's other operands (a bias, a residual) have no axes but the
//! result's. A product without such a map becomes a GEMM that only stores, unless it is so narrow that a row program does
//! it as well.

use std::collections::HashSet;

use moec_ir::ops::{Contract, Linear};
use moec_ir::{Module, Op, OpId, Readers, RegionId, ValueId};
use moec_types::{Axis, Expr};

use crate::compose::{self, Body};
use crate::{Pass, Report, row_wise};

pub const PASS: Pass = Pass {
    name: "fuse-activation",
    summary: "Compute activations, gates, biases and residuals where a GEMM stores its result.",
    run,
};

/// Results narrower than this per position are dot products, not GEMMs.
const NARROWEST: u64 = 8;

fn run(mut module: Module, report: &mut Report) -> Module {
    for region in row_wise::regions_around_rows(&module) {
        let nodes = module.region(region).nodes.clone();
        let here: HashSet<OpId> = nodes.iter().copied().collect();
        for at in &nodes {
            swap(&mut module, *at, report);
        }
        let mut readers = module.readers();
        for at in nodes {
            let Op::Map(_) = module.node(at).op else { continue };
            // A map may take in a product by way of the GEMM that an earlier map became.
            if fuse_map(&mut module, at, &readers, &here, report) {
                module = drop_unread(module, region);
                readers = module.readers();
            }
        }
        for at in module.region(region).nodes.clone() {
            widen(&mut module, at);
        }
    }
    module
}

/// Forgets nodes of a region that nobody reads any more, so that they do not count as readers.
fn drop_unread(mut module: Module, region: RegionId) -> Module {
    let mut nodes = module.region(region).nodes.clone();
    loop {
        let readers = module.readers();
        let before = nodes.len();
        nodes.retain(|at| module.node(*at).results.iter().any(|value| readers.count(*value) > 0));
        if nodes.len() == before {
            return module;
        }
        module.region_mut(region).nodes = nodes.clone();
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
            let wide = width(module, x, param) >= NARROWEST;
            (is_param(&param) && symbolic(x) && !crosses && wide).then(|| Product {
                x,
                params: vec![param],
                over: over.clone(),
                epilogue: Expr::Arg(0),
                extras: Vec::new(),
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

/// How many numbers a product gives for each position of x (and each step along axes that both sides have).
fn width(module: &Module, x: ValueId, param: ValueId) -> u64 {
    let x = module.tensor(x);
    let added = module.tensor(param).dims.iter().filter(|dim| !x.has(&dim.axis));
    added.filter_map(|dim| dim.size.fixed()).fold(1, u64::saturating_mul)
}

/// Makes a map the epilogue of the products it reads; says whether it did.
fn fuse_map(module: &mut Module, at: OpId, readers: &Readers, here: &HashSet<OpId>, report: &mut Report) -> bool {
    let node = module.node(at);
    let (span, result) = (node.at, node.results[0]);
    // Maps on the way that only this one reads belong to it.
    let own = |value: ValueId| readers.count(value) == 1;
    let enter = |value: ValueId| {
        value == result
            || own(value)
                && module.producer_id(value).is_some_and(|at| here.contains(&at))
                && leads_to_product(module, value, readers)
    };
    let body = Body::of(result).expanded(module, &enter);
    let mut groups: Vec<Vec<ValueId>> = Vec::new();
    for value in &body.operands {
        let Some(found) = product(module, *value) else { continue };
        if !module.producer_id(*value).is_some_and(|at| here.contains(&at)) {
            continue;
        }
        if !own(*value) {
            report.blocked(PASS.name, span, "a product has another reader than the map behind it");
            continue;
        }
        match groups.iter_mut().find(|group| fits(module, &found, group[0])) {
            Some(group) => group.push(*value),
            None => groups.push(vec![*value]),
        }
    }
    // The most branches; of those, the last, so that an epilogue does not wait for a later GEMM.
    let Some(group) = groups.into_iter().max_by_key(Vec::len) else { return false };
    match linear(module, &body, &group, result) {
        Ok((linear, operands)) => {
            let stored: Vec<_> = group.iter().map(|value| module.tensor(*value)).collect();
            let what = if group.len() > 1 { "products and activation" } else { "product and element-wise arithmetic" };
            report.fused(PASS.name, span, what, stored, group.len());
            let node = module.node_mut(at);
            node.op = linear.into();
            node.operands = operands;
            true
        }
        Err(rule) => {
            report.blocked(PASS.name, span, rule);
            false
        }
    }
}

/// Whether a map has a product behind it, through maps that nothing else reads.
fn leads_to_product(module: &Module, value: ValueId, readers: &Readers) -> bool {
    let Some(node) = module.producer(value).filter(|node| matches!(node.op, Op::Map(_))) else { return false };
    node.operands.iter().any(|operand| {
        readers.count(*operand) == 1
            && (product(module, *operand).is_some() || leads_to_product(module, *operand, readers))
    })
}

/// Whether two products can be one GEMM: the same x, parameters of the same axes.
fn fits(module: &Module, a: &Product, b: ValueId) -> bool {
    let Some(b) = product(module, b) else { return false };
    let axes = |product: &Product| {
        let mut axes: Vec<_> = module.tensor(product.params[0]).dims.clone();
        axes.sort_by(|a, b| a.axis.cmp(&b.axis));
        axes
    };
    let same_over = a.over.len() == b.over.len() && a.over.iter().all(|axis| b.over.contains(axis));
    a.x == b.x && same_over && axes(a) == axes(&b)
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
