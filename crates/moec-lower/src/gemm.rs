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
        let of_param = matches!(self.places.get(&node.operands[1]), Some(Place::Param(_)));
        let (_, dims) = self.shape(node.operands[0], node.at)?;
        let whole_row = dims.len() == op.over.len();
        let constant = self.module.tensor(node.operands[0]).elements().is_some();
        if of_param && whole_row && !constant { self.gemm(&as_linear, node, None) } else { self.single(at) }
    }

    /// `group` is given inside an expert: which slots, and where the rows go when this is the expert's result.
    pub fn gemm(&mut self, op: &ops::Linear, node: &ModelNode, result: Option<&Grouping>) -> Result<(), Unsupported> {
        let (x, rest) = node.operands.split_first().expect("verified: x and its parameters");
        let (weights, extras) = rest.split_at(op.branches);
        let params = self.weights_of(node, weights)?;
        let (rows, columns) = self.shape(*x, node.at)?;
        if columns.iter().any(|(axis, _)| !op.over.contains(axis)) {
            let reason = "only some axes of the rows are summed over, so it is a batch of products";
            let way_round =
                "contract over all axes of a position, or keep the parameter small so that it joins a row program";
            return Err(self.unsupported(node, reason, way_round));
        }
        let columns: Vec<Axis> = columns.into_iter().map(|(axis, _)| axis).collect();
        let out_dims = self.row_dims(node.results[0]);
        let out_axes: Vec<Axis> = out_dims.iter().map(|(axis, _)| axis.clone()).collect();
        let packed = self.packing.panels(self.module, &params, &out_axes, &columns);

        // Weights that all experts share need no order by expert: the rows of all slots are one matrix.
        let shared = params.iter().all(|param| self.module.param(*param).experts.is_none());
        let (a, gathered) = match self.places.get(x) {
            Some(Place::Buffer(buffer)) => (*buffer, false),
            Some(Place::Gathered { .. }) if shared => (self.laid_out(*x, rows, node.at)?, false),
            Some(Place::Gathered { tokens, .. }) => (*tokens, true),
            Some(Place::Param(_) | Place::Literal(_) | Place::Iota(_) | Place::Count(_) | Place::Past { .. })
            | None => {
                let reason = "its first operand is not computed for each position";
                return Err(self.unsupported(node, reason, "contract a value of the model with a parameter"));
            }
        };
        let mut views = Vec::new();
        for extra in extras {
            views.push(self.column_view(*extra, &out_dims, node)?);
        }
        let out = match result {
            Some(grouping) => grouping.out,
            None => {
                let out = self.result_buffer(node.results[0], node.at)?;
                self.places.insert(node.results[0], Place::Buffer(out));
                out
            }
        };
        let grouped = matches!(rows, Rows::Slots { .. }) && !shared;
        let group = self.member.clone().filter(|_| grouped).map(|member| {
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
        let gemm =
            Gemm { rows, batch: 1, a, weights: packed, epilogue: op.epilogue.clone(), extras: views, out, group };
        self.step(StepKind::Gemm(gemm), node.at, label);
        Ok(())
    }

    /// A value's rows in a buffer of their own.
    fn laid_out(&mut self, value: ValueId, rows: Rows, at: Span) -> Result<BufferId, Unsupported> {
        let dims = self.row_dims(value);
        let buffer = self.new_buffer("rows", self.module.tensor(value).dtype, rows, elements(&dims));
        self.copy(value, rows, &dims, whole(Source::Row(buffer), &dims), at)?;
        Ok(buffer)
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
        (weights.iter().all(own) && !self.readers.contains_key(&result)).then_some(at)
    }
}
