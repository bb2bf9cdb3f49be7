//! Attention and the caches that it reads.

use moec_diag::Span;
use moec_ir::{Node as ModelNode, Op, ValueId, ops};
use moec_plan::{Attention, BufferId, Extent, Lookup, Rows, StepKind, View};
use moec_types::{Axis, Expr, Size};

use crate::{
    Unsupported,
    access::{RowDim, elements, extents},
    context::{Lowering, Place},
    mask::{KEY_POSITION, KeyBounds, QUERY_POSITION, key_bounds},
};

/// Extras of a score follow the dot product and the two positions.
const FIRST_EXTRA: usize = 3;

/// A score as the plan has it.
struct Score {
    score: Expr,
    sink: Option<Expr>,
    extras: Vec<View>,
    lookups: Vec<Lookup>,
}

/// How a past value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Keys,
    Values,
}

impl Lowering<'_> {
    /// `x` goes into the caches of all attentions that read the past value.
    pub fn past(&mut self, _: &ops::Past, node: &ModelNode) -> Result<(), Unsupported> {
        let (x, past) = (node.operands[0], node.results[0]);
        if let Some(Place::Past { .. }) = self.places.get(&past) {
            return Ok(()); // its producer wrote straight into the cache
        }
        let mut keys = None;
        let mut values = None;
        for role in self.roles(past, node)? {
            let buffer = self.cache(past, role);
            let order = self.role_order(past, role);
            let target = crate::access::Access::view(
                moec_types::DType::F32,
                order.clone(),
                crate::access::whole(moec_plan::Source::Row(buffer), &order),
            );
            let dims = self.row_dims(x);
            self.copy(x, Rows::Tokens, &dims, target.over(&dims), node.at)?;
            match role {
                Role::Keys => keys = Some(buffer),
                Role::Values => values = Some(buffer),
            }
        }
        self.places.insert(past, Place::Past { keys, values });
        Ok(())
    }

    /// The cache that a value whose only reader is a `past` is written to by its own step; a workspace buffer when the past
    /// value is read as keys and as values.
    pub fn past_buffer(&mut self, x: ValueId, past: ValueId, at: Span) -> Result<BufferId, Unsupported> {
        let reader = self.only_reader(x).expect("asked for a value that only a `past` reads");
        let roles = self.roles(past, reader)?;
        let [role] = roles[..] else { return self.buffer_for(x, at) };
        // A GEMM writes its own order; a row program any.
        let by_gemm =
            matches!(self.module.producer(x), Some(node) if matches!(node.op, Op::Linear(_) | Op::Contract(_)));
        if by_gemm && (role == Role::Keys || self.role_order(past, role) != self.row_dims(x)) {
            return self.buffer_for(x, at);
        }
        let buffer = self.cache(past, role);
        let (keys, values) = match role {
            Role::Keys => (Some(buffer), None),
            Role::Values => (None, Some(buffer)),
        };
        self.places.insert(past, Place::Past { keys, values });
        Ok(buffer)
    }

    /// The order of a cache's row, for a value that goes straight into one.
    pub fn cache_order(&self, x: ValueId) -> Option<Vec<RowDim>> {
        let reader = self.only_reader(x)?;
        let (Op::Past(_), [past]) = (&reader.op, &reader.results[..]) else { return None };
        match self.places.get(past)? {
            Place::Past { keys: Some(_), values: None } => Some(self.role_order(*past, Role::Keys)),
            Place::Past { keys: None, values: Some(_) } => Some(self.role_order(*past, Role::Values)),
            Place::Past { .. }
            | Place::Buffer(_)
            | Place::Gathered { .. }
            | Place::Param(_)
            | Place::Stack(_)
            | Place::Literal(_)
            | Place::Iota(_)
            | Place::Count(_) => None,
        }
    }

    fn cache(&mut self, past: ValueId, role: Role) -> BufferId {
        let row = elements(&self.row_dims(past));
        let name = self.module.name_of(past).unwrap_or(match role {
            Role::Keys => "keys",
            Role::Values => "values",
        });
        let name = name.to_owned();
        self.new_cache(&name, row, role == Role::Keys)
    }

    fn roles(&self, past: ValueId, node: &ModelNode) -> Result<Vec<Role>, Unsupported> {
        let mut roles = Vec::new();
        for reader in self.readers.get(&past).into_iter().flatten().map(|at| self.module.node(*at)) {
            let places = (0..reader.operands.len()).filter(|at| reader.operands[*at] == past);
            for place in places {
                let role = match (&reader.op, place) {
                    (Op::Attention(_), 1) => Role::Keys,
                    (Op::Attention(_), 2) => Role::Values,
                    _ => {
                        let reason = format!("what `past` gives is read by `{}`", reader.op.mnemonic());
                        let way_round =
                            "write attention as a softmax over the keys between two contractions, so that it fuses";
                        return Err(self.unsupported(node, reason, way_round));
                    }
                };
                if !roles.contains(&role) {
                    roles.push(role);
                }
            }
        }
        Ok(roles)
    }

    /// Heads first, then what is summed over (keys) or what is averaged (values), as the reading attention has them.
    fn role_order(&self, past: ValueId, role: Role) -> Vec<RowDim> {
        let dims = self.row_dims(past);
        let reader = self.readers[&past].iter().map(|at| self.module.node(*at)).find_map(|node| match &node.op {
            Op::Attention(op) => Some((op, node)),
            _ => None,
        });
        let (op, node) = reader.expect("`roles` found an attention");
        let q = self.row_dims(node.operands[0]);
        let inner = |axis: &Axis| match role {
            Role::Keys => op.over.contains(axis),
            Role::Values => !q.iter().any(|(name, _)| name == axis) || op.over.contains(axis),
        };
        // Heads in the order of q, which the step walks.
        let heads = q.iter().filter(|dim| dims.contains(dim) && !inner(&dim.0)).cloned();
        let mut order: Vec<RowDim> = heads.collect();
        match role {
            Role::Keys => {
                order.extend(op.over.iter().filter_map(|axis| dims.iter().find(|dim| dim.0 == *axis)).cloned())
            }
            Role::Values => order.extend(dims.iter().filter(|(axis, _)| inner(axis)).cloned()),
        }
        order
    }

    pub fn attention(&mut self, op: &ops::Attention, node: &ModelNode) -> Result<(), Unsupported> {
        let [q, k, v] = node.operands[..3] else { panic!("verified: q, k and v") };
        let caches = (self.places.get(&k).cloned(), self.places.get(&v).cloned());
        let (Some(Place::Past { keys: Some(keys), .. }), Some(Place::Past { values: Some(values), .. })) = caches
        else {
            let reason = "its keys or values are not what `past` gives";
            return Err(self.unsupported(node, reason, "pass the keys and values through `past(…, S as T)`"));
        };
        let has = |value, axis: &Axis| self.module.tensor(value).has(axis);
        let q_dims = self.row_dims(q);
        let heads: Vec<RowDim> = q_dims.iter().filter(|(axis, _)| !op.over.contains(axis)).cloned().collect();
        let (groups, queries): (Vec<RowDim>, Vec<RowDim>) = heads.iter().cloned().partition(|(axis, _)| has(k, axis));
        if groups.iter().any(|(axis, _)| !has(v, axis)) || queries.iter().any(|(axis, _)| has(v, axis)) {
            let reason = "keys and values are shared by different heads";
            return Err(self.unsupported(node, reason, "give keys and values the same head axes"));
        }
        let summed: Vec<RowDim> = q_dims.iter().filter(|(axis, _)| op.over.contains(axis)).cloned().collect();
        let key_order: Vec<RowDim> = self.role_order(k, Role::Keys);
        let averaged: Vec<RowDim> =
            self.role_order(v, Role::Values).into_iter().filter(|dim| !groups.contains(dim)).collect();

        // The step walks groups, then queries, then what is summed over, in the order of the keys' cache.
        let key_inner = key_order.into_iter().filter(|dim| summed.contains(dim));
        let wanted: Vec<RowDim> = groups.iter().chain(&queries).cloned().chain(key_inner).collect();
        let q_buffer = self.in_order(q, &q_dims, &wanted, node)?;
        let out_dims = self.row_dims(node.results[0]);
        let out_order: Vec<RowDim> = groups.iter().chain(&queries).chain(&averaged).cloned().collect();
        let Score { score, sink, extras, lookups } = self.score(op, node, &groups, &queries)?;
        let keys_of = self.module.tensor(k).dim(&op.keys).and_then(|dim| self.sequences.kept_elsewhere(&dim.size));
        // Positions of two sequences are not the same ones.
        let bounds = if keys_of.is_none() { key_bounds(&score) } else { KeyBounds::default() };
        let direct = out_order == out_dims;
        let out = if direct {
            self.result_buffer(node.results[0], node.at)?
        } else {
            self.new_buffer("heads", moec_types::DType::F32, Rows::Tokens, elements(&out_order))
        };
        let step = Attention {
            rows: Rows::Tokens,
            q: q_buffer,
            k: keys,
            v: values,
            out,
            groups: elements(&groups),
            queries: elements(&queries),
            width: elements(&summed),
            values: elements(&averaged),
            score,
            extras,
            sink,
            lookups,
            keys_of,
            causal: bounds.causal,
            window: bounds.window,
        };
        self.step(StepKind::Attention(Box::new(step)), node.at, "attention");
        let place = if direct { out } else { self.reorder(out, &out_order, &out_dims, node) };
        self.places.insert(node.results[0], Place::Buffer(place));
        Ok(())
    }

    /// A value's buffer with the dims of its rows in a given order.
    fn in_order(
        &mut self,
        value: ValueId,
        dims: &[RowDim],
        order: &[RowDim],
        node: &ModelNode,
    ) -> Result<BufferId, Unsupported> {
        if let Some(Place::Buffer(buffer)) = self.places.get(&value)
            && same_order(dims, order)
        {
            return Ok(*buffer);
        }
        let buffer = self.new_buffer("queries", moec_types::DType::F32, Rows::Tokens, elements(order));
        let target = crate::access::whole(moec_plan::Source::Row(buffer), order);
        self.copy(value, Rows::Tokens, order, target, node.at)?;
        Ok(buffer)
    }

    fn reorder(&mut self, from: BufferId, order: &[RowDim], dims: &[RowDim], node: &ModelNode) -> BufferId {
        let to = self.new_buffer("heads", moec_types::DType::F32, Rows::Tokens, elements(dims));
        let whole = |buffer, dims: &[RowDim]| crate::access::whole(moec_plan::Source::Row(buffer), dims);
        let source = crate::access::Access::view(moec_types::DType::F32, order.to_vec(), whole(from, order));
        let copy = moec_plan::RowOp::Map {
            extents: extents(dims),
            expr: Expr::Arg(0),
            args: vec![source.over(dims)],
            into: whole(to, dims),
        };
        let program = moec_plan::RowProgram { locals: Vec::new(), ops: vec![copy] };
        self.step(StepKind::Rows { rows: Rows::Tokens, program, group: None }, node.at, "reorder");
        to
    }

    /// The score and the sink with their operands numbered as the plan has them.
    fn score(
        &mut self,
        op: &ops::Attention,
        node: &ModelNode,
        groups: &[RowDim],
        queries: &[RowDim],
    ) -> Result<Score, Unsupported> {
        let mut args = vec![Expr::Arg(0)];
        let mut extras = Vec::new();
        let (plain, tables) = node.operands[3..].split_at(node.operands.len() - 3 - op.lookups.len());
        for operand in plain {
            let place = self.places.get(operand).cloned();
            args.push(match place {
                Some(Place::Iota(dim)) if matches!(dim.size, Size::Input(_)) => Expr::Arg(QUERY_POSITION),
                Some(Place::Iota(dim)) if matches!(dim.size, Size::Past(_)) => Expr::Arg(KEY_POSITION),
                Some(Place::Param(_) | Place::Stack(_) | Place::Literal(_)) => {
                    let access = self.access(*operand, node.at)?;
                    let heads = [groups, queries].map(|dims| {
                        let view = access.over(dims);
                        crate::access::merged_stride(&view.strides, &extents(dims))
                    });
                    let ([Some(group), Some(query)], Some(view)) = (heads, access.memory()) else {
                        let reason = "an operand of the score lies across heads";
                        return Err(self.unsupported(
                            node,
                            reason,
                            "give it the head axes in the order of the queries",
                        ));
                    };
                    extras.push(View { strides: vec![group, query], ..view.clone() });
                    Expr::Arg(FIRST_EXTRA + extras.len() - 1)
                }
                Some(
                    Place::Buffer(_) | Place::Gathered { .. } | Place::Iota(_) | Place::Count(_) | Place::Past { .. },
                )
                | None => {
                    let reason = "the score reads a value computed for each position";
                    return Err(self.unsupported(
                        node,
                        reason,
                        "let the score read positions, parameters and constants",
                    ));
                }
            });
        }
        let mut lookups = Vec::new();
        for (table, (axis, index)) in tables.iter().zip(&op.lookups) {
            let index = index.substitute(&|at| args[at].clone());
            lookups.push(self.lookup(*table, axis, index, node, [groups, queries])?);
        }
        args.extend((0..lookups.len()).map(|at| Expr::Arg(FIRST_EXTRA + extras.len() + at)));
        let numbered = |expr: &Expr| expr.substitute(&|at| args[at].clone());
        Ok(Score { score: numbered(&op.score), sink: op.sink.as_ref().map(numbered), extras, lookups })
    }

    /// A table of the score: its heads, and its places.
    fn lookup(
        &mut self,
        table: ValueId,
        axis: &Axis,
        index: Expr,
        node: &ModelNode,
        [groups, queries]: [&[RowDim]; 2],
    ) -> Result<Lookup, Unsupported> {
        let places = self.module.tensor(table).dim(axis).and_then(|dim| dim.size.fixed());
        let places = places.expect("verified: a table has the axis that it is read along");
        let access = match self.places.get(&table) {
            Some(Place::Param(_) | Place::Stack(_) | Place::Literal(_)) => Some(self.access(table, node.at)?),
            _ => None,
        };
        let place = [(axis.clone(), Extent::Fixed(places))];
        let stride = |dims: &[RowDim]| {
            let view = access.as_ref()?.over(dims);
            crate::access::merged_stride(&view.strides, &extents(dims))
        };
        let view = access.as_ref().and_then(crate::access::Access::memory);
        let (Some(group), Some(query), Some(stride), Some(view)) =
            (stride(groups), stride(queries), stride(&place), view)
        else {
            let reason = "a table of the score is computed, or lies across heads";
            let way_round = "let it be a parameter that has the head axes in the order of the queries";
            return Err(self.unsupported(node, reason, way_round));
        };
        let mut positions_only = true;
        index.visit(&mut |expr| {
            positions_only &= !matches!(expr, Expr::Arg(at) if ![QUERY_POSITION, KEY_POSITION].contains(at));
        });
        if !positions_only {
            let reason = "the place in a table depends on more than positions";
            return Err(self.unsupported(node, reason, "let it depend on the positions of query and key alone"));
        }
        Ok(Lookup { view: View { strides: vec![group, query], ..view.clone() }, stride, places, index })
    }
}

/// Equal but for axes of size 1.
fn same_order(a: &[RowDim], b: &[RowDim]) -> bool {
    let real = |dims: &[RowDim]| dims.iter().filter(|(_, size)| *size != Extent::Fixed(1)).cloned().collect::<Vec<_>>();
    real(a) == real(b)
}
