//! Contractions with parameters become GEMMs.

use moec_diag::Span;
use moec_ir::{Node as ModelNode, OpId, ParamId as ModelParam, RegionId, ValueId, ops};
use moec_plan::{BufferId, Extent, Gemm, Group, Rows, Source, StepKind, Store, View};
use moec_types::{Axis, Expr};

use crate::{
    Unsupported,
    access::{Access, RowDim, elements, extents, merged_stride, whole},
    context::{Lowering, Place},
};

/// Where a GEMM's rows come from and go to when it belongs to a bank of experts.
#[derive(Clone, Debug)]
pub struct Grouping {
    pub route: ValueId,
    pub store: Store,
    pub out: BufferId,
}

impl Lowering<'_> {
    pub fn linear(&mut self, op: &ops::Linear, node: &ModelNode) -> Result<(), Unsupported> {
        self.gemm(op, node, None)
    }

    /// A contraction that no pass claimed: with a parameter it is a GEMM, else a row program.
    pub fn contract(&mut self, op: &ops::Contract, at: OpId, node: &ModelNode) -> Result<(), Unsupported> {
        let as_linear = ops::Linear { over: op.over.clone(), branches: 1, epilogue: Expr::Arg(0) };
        let [x, weights] = node.operands[..] else { panic!("verified: a product of two") };
        let of_param = matches!(self.places.get(&weights), Some(Place::Param(_)));
        let constant = self.module.tensor(x).elements().is_some();
        // What is the same for all positions is one row, or in a bank one for each slot: no matrix.
        let rows = !constant
            || (self.member.is_none()
                && matches!(self.places.get(&x), Some(Place::Buffer(_)))
                && self.module.tensor(x).dims.len() > op.over.len());
        if of_param && rows && self.shares_weights(x, weights, &op.over) {
            return self.gemm(&as_linear, node, None);
        }
        self.single(at)
    }

    /// Whether all rows of a product have the same weights: `weights` lacks what of x is not summed over.
    fn shares_weights(&self, x: ValueId, weights: ValueId, over: &[Axis]) -> bool {
        let weights = self.module.tensor(weights);
        self.module.tensor(x).axes().all(|axis| over.contains(axis) || !weights.has(axis))
    }

    /// `group` is given inside an expert: which slots, and where the rows go when this is the expert's result.
    pub fn gemm(&mut self, op: &ops::Linear, node: &ModelNode, result: Option<&Grouping>) -> Result<(), Unsupported> {
        let (x, rest) = node.operands.split_first().expect("verified: x and its parameters");
        let (weights, extras) = rest.split_at(op.branches);
        let params = self.weights_of(node, weights)?;
        let (rows, dims) = self.shape(*x, node.at)?;
        if !weights.iter().all(|weights| self.shares_weights(*x, *weights, &op.over)) {
            let reason = "the parameter differs along axes of the rows, so it is a batch of products";
            let way_round = "contract over all axes that both have, or keep the product apart from what follows";
            return Err(self.unsupported(node, reason, way_round));
        }
        // Each row of x is several rows of the matrix, along the axes that stay.
        let (columns, kept): (Vec<RowDim>, Vec<RowDim>) =
            dims.iter().cloned().partition(|(axis, _)| op.over.contains(axis));
        let order: Vec<RowDim> = kept.iter().chain(&columns).cloned().collect();
        let in_order = order == dims;
        let columns: Vec<Axis> = columns.into_iter().map(|(axis, _)| axis).collect();
        let all_dims = self.row_dims(node.results[0]);
        let out_dims: Vec<RowDim> = all_dims.iter().filter(|dim| !kept.contains(dim)).cloned().collect();
        let out_axes: Vec<Axis> = out_dims.iter().map(|(axis, _)| axis.clone()).collect();
        let packed = self.packing.panels(self.module, &params, &out_axes, &columns);

        // Weights that all experts share need no order by expert: the rows of all slots are one matrix.
        let shared = params.iter().all(|param| self.module.param(*param).experts.is_none());
        let (a, gathered) = match self.places.get(x) {
            Some(Place::Buffer(buffer)) if in_order => (*buffer, false),
            Some(Place::Buffer(_)) => (self.laid_out(*x, rows, &order, node.at)?, false),
            Some(Place::Gathered { .. }) if shared || !in_order => (self.laid_out(*x, rows, &order, node.at)?, false),
            Some(Place::Gathered { tokens, .. }) => (*tokens, true),
            Some(
                Place::Param(_)
                | Place::Stack(_)
                | Place::Literal(_)
                | Place::Iota(_)
                | Place::Count(_)
                | Place::Past { .. },
            )
            | None => {
                let reason = "its first operand is not computed for each position";
                return Err(self.unsupported(node, reason, "contract a value of the model with a parameter"));
            }
        };
        let mut views = Vec::new();
        for extra in extras {
            views.push(if kept.is_empty() {
                self.column_view(*extra, &out_dims, node)?
            } else {
                self.part_view(*extra, &all_dims, &out_dims, node)?
            });
        }
        let out = match result {
            Some(grouping) => grouping.out,
            None => {
                let out = self.result_buffer(node.results[0], node.at)?;
                self.places.insert(node.results[0], Place::Buffer(out));
                out
            }
        };
        let group = self.member.clone().filter(|member| member.slots.rows == rows && !shared).map(|member| {
            let route = &self.routes[&member.route];
            Group {
                offsets: route.offsets,
                order: route.order,
                choices: route.choices,
                first: member.first,
                gather: gathered,
                store: result.map_or(Store::Slots, |grouping| grouping.store.clone()),
            }
        });
        let label = params.iter().map(|param| self.module.param(*param).path.clone()).collect::<Vec<_>>().join(", ");
        let rows = if rows == Rows::Tokens { self.tokens } else { rows };
        let (batch, epilogue) = (elements(&kept), op.epilogue.clone());
        let gemm = Gemm { rows, batch, a, weights: packed, epilogue, extras: views, out, group };
        self.step(StepKind::Gemm(gemm), node.at, label);
        Ok(())
    }

    /// A value's rows in a buffer of their own, its dims in the given order.
    fn laid_out(&mut self, value: ValueId, rows: Rows, dims: &[RowDim], at: Span) -> Result<BufferId, Unsupported> {
        let buffer = self.new_buffer("rows", self.module.tensor(value).dtype, rows, elements(dims));
        self.copy(value, rows, dims, whole(Source::Row(buffer), dims), at)?;
        Ok(buffer)
    }

    /// An operand of an epilogue of several matrix rows a row: the same for all of them, or laid out as the result is.
    fn part_view(
        &mut self,
        value: ValueId,
        dims: &[RowDim],
        columns: &[RowDim],
        node: &ModelNode,
    ) -> Result<View, Unsupported> {
        let ty = self.module.tensor(value);
        if ty.axes().all(|axis| columns.iter().any(|(name, _)| name == axis)) {
            let view = self.column_view(value, columns, node)?;
            let source = match view.source {
                Source::Row(buffer) => Source::Whole(buffer),
                other => other,
            };
            return Ok(View { source, ..view });
        }
        let as_result = ty.elements().is_none() == self.module.tensor(node.results[0]).elements().is_none()
            && self.row_dims(value) == dims;
        let buffer = match self.places.get(&value) {
            Some(Place::Buffer(buffer)) if as_result => *buffer,
            _ => {
                let (rows, _) = self.shape(node.results[0], node.at)?;
                self.laid_out(value, rows, dims, node.at)?
            }
        };
        let row = elements(columns);
        Ok(View { source: Source::Whole(buffer), offset: 0, strides: vec![u64::from(row != 1)], row, index: None })
    }

    fn weights_of(&self, node: &ModelNode, weights: &[ValueId]) -> Result<Vec<ModelParam>, Unsupported> {
        let param = |value| match self.places.get(value) {
            Some(Place::Param(param)) => Ok(*param),
            _ => Err(self.unsupported(node, "a weight is computed, not given", "use a `param` as it is")),
        };
        weights.iter().map(param).collect()
    }

    /// The dims of a row of a value.
    pub fn row_dims(&self, value: ValueId) -> Vec<RowDim> {
        let dims = &self.module.tensor(value).dims;
        dims.iter().filter_map(|dim| Some((dim.axis.clone(), Extent::Fixed(dim.size.fixed()?)))).collect()
    }

    /// An operand of an epilogue: one stride along all columns. What lies otherwise is laid out first.
    fn column_view(&mut self, value: ValueId, columns: &[RowDim], node: &ModelNode) -> Result<View, Unsupported> {
        let access = self.access(value, node.at)?;
        let flat = |access: &Access| {
            let view = access.over(columns);
            let stride = merged_stride(&view.strides, &extents(columns))?;
            (stride <= 1 && view.index.is_none()).then(|| View { strides: vec![stride], ..view })
        };
        if let Some(view) = flat(&access) {
            return Ok(view);
        }
        let (rows, _) = self.shape(node.results[0], node.at)?;
        let laid_out = self.new_buffer("epilogue operand", access.dtype, rows, elements(columns));
        let target = whole(Source::Row(laid_out), columns);
        self.copy(value, rows, columns, target.clone(), node.at)?;
        Ok(View { strides: vec![1], ..target })
    }

    /// The last node of a member's region, when it is a GEMM that yields the region's only result, with weights of each
    /// expert's own.
    pub fn final_gemm(&self, region: RegionId) -> Option<OpId> {
        let region = self.module.region(region);
        let [result] = region.results[..] else { return None };
        let at = self.module.producer_id(result)?;
        let node = self.module.node(at);
        let weights = match &node.op {
            moec_ir::Op::Linear(op) => &node.operands[1..=op.branches],
            moec_ir::Op::Contract(_) => &node.operands[1..],
            _ => return None,
        };
        let own = |value: &ValueId| match self.module.producer(*value).map(|node| &node.op) {
            Some(moec_ir::Op::ParamRef(op)) => self.module.param(op.param).experts.is_some(),
            _ => true,
        };
        let shares = match &node.op {
            moec_ir::Op::Contract(op) => self.shares_weights(node.operands[0], node.operands[1], &op.over),
            _ => true,
        };
        (weights.iter().all(own) && shares && !self.readers.contains_key(&result)).then_some(at)
    }
}
