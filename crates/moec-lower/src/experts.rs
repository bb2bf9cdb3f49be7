//! Routes, and the experts that they lead to.

use moec_diag::Span;
use moec_ir::{Node as ModelNode, Op, OpId, ValueId, ops};
use moec_plan::{
    Bin, Buffer, BufferId, Extent, Indirect, Local, LocalId, ReduceOp, RowGroup, RowOp, RowProgram, Rows, Source,
    StepKind, Store, View,
};
use moec_types::{Axis, BinaryOp, DType, Expr, Size};

use crate::{
    Unsupported,
    access::{elements, extents, whole},
    context::{Lowering, Place, RoutePlace},
    gemm::Grouping,
    program::RowAxis,
};

/// The bank member whose region is being lowered.
#[derive(Clone, Debug)]
pub struct MemberPlace {
    pub route: ValueId,
    pub first: u32,
    pub count: u32,
    /// What the rows of its region go along.
    pub slots: RowAxis,
}

/// Rows of slots that a step over tokens reads.
struct BySlot {
    slots: BufferId,
    /// The slot of each choice, or -1.
    slot_of: BufferId,
    /// Elements of a row.
    width: u64,
    out: BufferId,
    place: RoutePlace,
}

/// The slot of each choice, 0 for those that have none.
const CLAMPED: Source = Source::Local(LocalId(0));

impl BySlot {
    /// The rows of a token's choices; strides along the row's elements, and of the slots' places along the choices.
    fn row(&self, strides: Vec<u64>, places: Vec<u64>) -> View {
        let index = Indirect { view: View { strides: places, ..scalar(CLAMPED) }, stride: self.width };
        View { strides, index: Some(Box::new(index)), ..scalar(Source::Whole(self.slots)) }
    }
}

/// Whether an argument is the slot of a choice that has one.
fn there(arg: usize) -> Expr {
    Expr::binary(BinaryOp::Ge, Expr::Arg(arg), Expr::I32(0))
}

fn scalar(source: Source) -> View {
    View { source, offset: 0, strides: Vec::new(), row: 0, index: None }
}

impl Lowering<'_> {
    pub fn route(&mut self, op: &ops::Route, node: &ModelNode) -> Result<(), Unsupported> {
        let module = self.module;
        let ty = module.ty(node.results[0]).route().expect("verified: a route").clone();
        let choices = ty.choices.size.fixed().expect("verified: a fixed number of choices");
        let (tokens, slots) = match &ty.tokens.size {
            Size::Input(_) => (self.tokens, Rows::Slots { choices }),
            Size::Fixed(tokens) => (Rows::Fixed(*tokens), Rows::Fixed(tokens * choices)),
            Size::Past(_) | Size::Share { .. } | Size::Slots { .. } => {
                let reason =
                    format!("its tokens are {}, neither the positions of a pass nor a fixed number", ty.tokens);
                let way_round = format!("let `{}` be as long as the input, or give it a number", ty.tokens.axis);
                return Err(self.unsupported(node, reason, way_round));
            }
        };
        let row = [(ty.choices.axis.clone(), Extent::Fixed(choices))];
        let along = RowAxis { axis: ty.tokens.axis.clone(), rows: tokens };
        let mut in_rows = |value: ValueId, name: &str, dtype| -> Result<BufferId, Unsupported> {
            if let Some(Place::Buffer(buffer)) = self.places.get(&value)
                && self.buffers[buffer.0 as usize].row == choices
                && self.buffers[buffer.0 as usize].rows == tokens
            {
                return Ok(*buffer);
            }
            let buffer = self.new_buffer(name, dtype, tokens, choices);
            let target = whole(Source::Row(buffer), &row);
            self.copy_rows(value, Some(along.clone()), tokens, &row, target, node.at)?;
            Ok(buffer)
        };
        let indices = in_rows(node.operands[0], "indices", DType::I32)?;
        let weights = in_rows(node.operands[1], "weights", DType::F32)?;
        let offsets = self.new_buffer("offsets", DType::I32, Rows::ONE, op.experts + 1);
        let order = self.new_buffer("order", DType::I32, slots, 1);
        let combined = self.readers.get(&node.results[0]).into_iter().flatten();
        let combined = combined.clone().any(|at| matches!(module.node(*at).op, Op::Combine(_) | Op::Each(_)));
        let slot_of = combined.then(|| self.new_buffer("slot of", DType::I32, tokens, choices));
        let (experts, route) = (op.experts, self.route_count);
        let bin = Bin { tokens, indices, weights, experts, choices, offsets, order, slot_of, route };
        self.route_count += 1;
        self.step(StepKind::Bin(bin), node.at, "bin");
        let place = RoutePlace { weights, offsets, order, slot_of, token_of: None, choices, tokens, slots };
        self.routes.insert(node.results[0], place);
        Ok(())
    }

    /// The token of each slot, as a buffer.
    pub fn token_of(&mut self, route: ValueId, at: Span) -> BufferId {
        let place = self.routes[&route].clone();
        if let Some(buffer) = place.token_of {
            return buffer;
        }
        let rows = place.slots;
        let buffer = self.new_buffer("token of", DType::I32, rows, 1);
        let expr = Expr::binary(BinaryOp::Div, Expr::Arg(0), Expr::I32(place.choices as i32));
        let args = vec![scalar(Source::Row(place.order))];
        let divide = RowOp::Map { extents: Vec::new(), expr, args, into: scalar(Source::Row(buffer)) };
        self.step(
            StepKind::Rows { rows, program: RowProgram { locals: Vec::new(), ops: vec![divide] }, group: None },
            at,
            "token of",
        );
        self.routes.get_mut(&route).expect("it is there").token_of = Some(buffer);
        buffer
    }

    /// Unfused: rows laid out by slot.
    pub fn dispatch(&mut self, node: &ModelNode) -> Result<(), Unsupported> {
        let [x, route] = node.operands[..] else { panic!("verified: x and a route") };
        let choices = &self.module.ty(route).route().expect("verified: a route").choices.axis;
        let row_of =
            if self.module.tensor(x).has(choices) { self.routes[&route].order } else { self.token_of(route, node.at) };
        let tokens = self.rows_of_tokens(x, route, node)?;
        let buffer = self.buffer_for(node.results[0], node.at)?;
        let dims = self.row_dims(node.results[0]);
        let index = Indirect {
            view: View { strides: vec![0; dims.len()], ..scalar(Source::Row(row_of)) },
            stride: elements(&dims),
        };
        let from = View { index: Some(Box::new(index)), ..whole(Source::Whole(tokens), &dims) };
        let copy = RowOp::Map {
            extents: extents(&dims),
            expr: Expr::Arg(0),
            args: vec![from],
            into: whole(Source::Row(buffer), &dims),
        };
        let rows = self.routes[&route].slots;
        self.step(
            StepKind::Rows { rows, program: RowProgram { locals: Vec::new(), ops: vec![copy] }, group: None },
            node.at,
            "dispatch",
        );
        self.places.insert(node.results[0], Place::Buffer(buffer));
        Ok(())
    }

    /// A value's buffer in which the tokens' rows follow each other, and within each the rows for its choices.
    fn rows_of_tokens(&mut self, value: ValueId, route: ValueId, node: &ModelNode) -> Result<BufferId, Unsupported> {
        let ty = self.module.ty(route).route().expect("verified: a route");
        let (rows, dims) = self.shape(value, node.at)?;
        let rank = |axis: &Axis| [&ty.tokens.axis, &ty.choices.axis].iter().position(|one| *one == axis).unwrap_or(2);
        let mut ordered = dims.clone();
        ordered.sort_by_key(|(axis, _)| rank(axis));
        if ordered == dims {
            return self.own_rows(value, node);
        }
        let buffer = self.new_buffer("rows of tokens", DType::F32, rows, elements(&dims));
        self.copy(value, rows, &ordered, whole(Source::Row(buffer), &ordered), node.at)?;
        Ok(buffer)
    }

    /// A value's buffer; what has none (a broadcast, say) gets one.
    fn own_rows(&mut self, value: ValueId, node: &ModelNode) -> Result<BufferId, Unsupported> {
        if let Some(Place::Buffer(buffer)) = self.places.get(&value) {
            return Ok(*buffer);
        }
        let buffer = self.buffer_for(value, node.at)?;
        self.copy_into(value, buffer, node.at)?;
        Ok(buffer)
    }

    pub fn experts(&mut self, op: &ops::Experts, node: &ModelNode) -> Result<(), Unsupported> {
        let module = self.module;
        let [x, route] = node.operands[..] else { panic!("verified: rows and a route") };
        let place = match op.input {
            ops::ExpertsInput::Packed => Place::Buffer(self.own_rows(x, node)?),
            ops::ExpertsInput::FromTokens => Place::Gathered { tokens: self.rows_of_tokens(x, route, node)?, route },
        };
        let out = self.buffer_for(node.results[0], node.at)?;
        let store = match op.output {
            ops::ExpertsOutput::PerSlot => Store::Slots,
            ops::ExpertsOutput::WeighedPerChoice => Store::Choices { weights: self.routes[&route].weights },
        };
        let by_gemm = op.bank.iter().any(|member| self.final_gemm(member.region).is_some());
        if store != Store::Slots && !by_gemm {
            // GEMMs clear the rows of choices without an expert; here nothing else would.
            self.clear(out, node);
        }
        let outer = self.member.take();
        for member in &op.bank {
            let region = module.region(member.region);
            // Rows of slots have that axis first.
            let axis = module.tensor(region.args[0]).dims[0].axis.clone();
            let slots = RowAxis { axis, rows: self.routes[&route].slots };
            self.member = Some(MemberPlace { route, first: member.first, count: member.count, slots });
            self.places.insert(region.args[0], place.clone());
            let last = self.final_gemm(member.region);
            for at in region.nodes.iter().copied().filter(|at| Some(*at) != last) {
                self.node(at)?;
            }
            let grouping = Grouping { route, store: store.clone(), out };
            match last {
                Some(at) => self.yielding_gemm(at, &grouping)?,
                None => self.yielding_rows(region.results[0], &grouping, node)?,
            }
        }
        self.member = outer;
        self.places.insert(node.results[0], Place::Buffer(out));
        Ok(())
    }

    fn yielding_gemm(&mut self, at: OpId, grouping: &Grouping) -> Result<(), Unsupported> {
        let node = self.module.node(at);
        match &node.op {
            Op::Linear(op) => self.gemm(op, node, Some(grouping)),
            Op::Contract(op) => {
                let op = ops::Linear { over: op.over.clone(), branches: 1, epilogue: Expr::Arg(0) };
                self.gemm(&op, node, Some(grouping))
            }
            _ => panic!("`final_gemm` finds products only"),
        }
    }

    /// An expert that ends in a row program: its rows are stored by a step of their own.
    fn yielding_rows(&mut self, value: ValueId, grouping: &Grouping, node: &ModelNode) -> Result<(), Unsupported> {
        let place = self.routes[&grouping.route].clone();
        let rows = place.slots;
        let dims = self.row_dims(value);
        let access = self.access(value, node.at)?;
        let along = |source, index_stride: u64, view: View| View {
            source,
            index: Some(Box::new(Indirect {
                view: View { strides: vec![0; dims.len()], ..scalar(Source::Row(place.order)) },
                stride: index_stride,
            })),
            ..view
        };
        let plain = whole(Source::Row(grouping.out), &dims);
        let (expr, args, into) = match &grouping.store {
            Store::Slots => (Expr::Arg(0), vec![access.over(&dims)], plain),
            Store::Choices { weights } => {
                let weight = View { strides: vec![0; dims.len()], ..scalar(Source::Whole(*weights)) };
                let weight = along(Source::Whole(*weights), 1, weight);
                let into = along(Source::Whole(grouping.out), elements(&dims), plain);
                (Expr::binary(BinaryOp::Mul, Expr::Arg(0), Expr::Arg(1)), vec![access.over(&dims), weight], into)
            }
        };
        let extents = extents(&dims);
        let program = RowProgram { locals: Vec::new(), ops: vec![RowOp::Map { extents, expr, args, into }] };
        self.step(StepKind::Rows { rows, program, group: self.row_group(rows) }, node.at, "experts");
        Ok(())
    }

    /// The slots that a row program within a bank member works on.
    pub fn row_group(&self, rows: Rows) -> Option<RowGroup> {
        let member = self.member.as_ref().filter(|member| member.slots.rows == rows)?;
        Some(RowGroup { offsets: self.routes[&member.route].offsets, first: member.first, count: member.count })
    }

    fn clear(&mut self, buffer: BufferId, node: &ModelNode) {
        let Buffer { row, rows, .. } = self.buffers[buffer.0 as usize];
        let into = View { strides: vec![1], ..scalar(Source::Row(buffer)) };
        let zero = RowOp::Map { extents: vec![Extent::Fixed(row)], expr: Expr::F32(0.0), args: Vec::new(), into };
        let program = RowProgram { locals: Vec::new(), ops: vec![zero] };
        self.step(StepKind::Rows { rows, program, group: None }, node.at, "clear");
    }

    /// Unfused: each token sums its slots' rows.
    pub fn combine(&mut self, node: &ModelNode) -> Result<(), Unsupported> {
        let by_slot = self.by_slot(node)?;
        let BySlot { ref place, slot_of, width, out, .. } = by_slot;
        let along_choices = |source| View { strides: vec![0, 1], ..scalar(source) };
        let weighed = Expr::binary(BinaryOp::Mul, Expr::Arg(0), Expr::Arg(1));
        let sum = RowOp::Reduce {
            op: ReduceOp::Sum,
            extents: vec![Extent::Fixed(width)],
            over: vec![Extent::Fixed(place.choices)],
            expr: Expr::select(there(2), weighed, Expr::F32(0.0)),
            args: vec![
                by_slot.row(vec![1, 0], vec![0, 1]),
                along_choices(Source::Row(place.weights)),
                along_choices(Source::Row(slot_of)),
            ],
            into: View { strides: vec![1], ..scalar(Source::Row(out)) },
        };
        self.out_of_slots(by_slot, sum, node);
        Ok(())
    }

    /// Each token takes its slots' rows, one for each choice.
    pub fn each(&mut self, node: &ModelNode) -> Result<(), Unsupported> {
        let by_slot = self.by_slot(node)?;
        let BySlot { ref place, slot_of, width, out, .. } = by_slot;
        let take = RowOp::Map {
            extents: vec![Extent::Fixed(place.choices), Extent::Fixed(width)],
            expr: Expr::select(there(1), Expr::Arg(0), Expr::F32(0.0)),
            args: vec![
                by_slot.row(vec![0, 1], vec![1, 0]),
                View { strides: vec![1, 0], ..scalar(Source::Row(slot_of)) },
            ],
            into: View { strides: vec![width, 1], ..scalar(Source::Row(out)) },
        };
        self.out_of_slots(by_slot, take, node);
        Ok(())
    }

    /// What a step needs that reads rows of slots by token.
    fn by_slot(&mut self, node: &ModelNode) -> Result<BySlot, Unsupported> {
        let [rows, route] = node.operands[..] else { panic!("verified: rows and a route") };
        let slots = self.own_rows(rows, node)?;
        let place = self.routes[&route].clone();
        let slot_of = place.slot_of.expect("a bin whose slots are read by token makes its inverse");
        let width = elements(&self.row_dims(rows));
        let choices = &self.module.ty(route).route().expect("verified: a route").choices.axis;
        let of_choices = self.module.tensor(node.results[0]).has(choices);
        let out = match place.tokens {
            rows @ Rows::Fixed(_) => {
                let row = if of_choices { width * place.choices } else { width };
                self.new_buffer(node.op.mnemonic(), DType::F32, rows, row)
            }
            Rows::Tokens | Rows::Outputs | Rows::Slots { .. } | Rows::Share(_) | Rows::Positions => {
                self.buffer_for(node.results[0], node.at)?
            }
        };
        Ok(BySlot { slots, slot_of, width, out, place })
    }

    /// The place of a choice without an expert is -1: it is clamped for the look-up, and what was looked up is dropped.
    fn out_of_slots(&mut self, by_slot: BySlot, op: RowOp, node: &ModelNode) {
        let choices = by_slot.place.choices;
        let clamp = RowOp::Map {
            extents: vec![Extent::Fixed(choices)],
            expr: Expr::binary(BinaryOp::Max, Expr::Arg(0), Expr::I32(0)),
            args: vec![View { strides: vec![1], ..scalar(Source::Row(by_slot.slot_of)) }],
            into: View { strides: vec![1], ..scalar(CLAMPED) },
        };
        let locals = vec![Local { dtype: DType::I32, elements: choices }];
        let rows = by_slot.place.tokens;
        let kind = StepKind::Rows { rows, program: RowProgram { locals, ops: vec![clamp, op] }, group: None };
        self.step(kind, node.at, node.op.mnemonic());
        self.places.insert(node.results[0], Place::Buffer(by_slot.out));
    }
}
