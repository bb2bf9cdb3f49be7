//! The meaning of each op, one file each, and the walk over regions that applies them.

mod assign;
mod attention;
mod combine;
mod concat;
mod contract;
mod cumsum;
mod dispatch;
mod each;
mod experts;
mod gather;
mod iota;
mod layers;
mod linear;
mod literal;
mod map;
mod merge;
mod param;
mod past;
mod reduce;
mod rename;
mod route;
mod scan;
mod scatter_add;
mod slice;
mod split;
mod top_k;
mod unfold;

use std::collections::BTreeMap;
use std::sync::Arc;

use moec_ir::{Module, Node, Op, OpId, RegionId, ValueId, ValueType};
use moec_types::{Axis, Size};

use crate::error::EvalError;
use crate::session::NodeKey;
use crate::shake::{Shake, rounds};
use crate::tensor::Tensor;
use crate::trace::Trace;
use crate::weights::Weights;
pub(crate) use route::Choices;

/// What a value is while a pass runs.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Tensor(Arc<Tensor>),
    Route(Arc<Choices>),
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Self {
        Value::Tensor(Arc::new(tensor))
    }
}

/// How long an input axis is: positions of earlier passes and of this one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub before: usize,
    pub now: usize,
}

/// What goes on from pass to pass.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// What every `past` has seen.
    pub past: BTreeMap<NodeKey, Arc<Tensor>>,
    /// The states of every `scan`.
    pub states: BTreeMap<NodeKey, Vec<Arc<Tensor>>>,
}

/// The layer that is being evaluated.
#[derive(Clone, Copy, Debug)]
struct Layer {
    number: u32,
    /// How often its kind was executed before: the instance of the kind's parameters.
    execution: u32,
}

/// One pass in progress.
pub(crate) struct Pass<'a> {
    module: &'a Module,
    weights: &'a dyn Weights,
    values: Vec<Option<Value>>,
    extents: BTreeMap<Axis, Extent>,
    /// Outermost first.
    layers: Vec<Layer>,
    /// Which expert of its bank member is being evaluated, and its number of rows.
    expert: Option<(u32, usize)>,
    before: &'a Kept,
    after: Kept,
    trace: Option<&'a mut Trace>,
    /// The errors that results are given.
    pub shake: Option<Shake>,
}

impl<'a> Pass<'a> {
    pub fn new(
        module: &'a Module,
        weights: &'a dyn Weights,
        before: &'a Kept,
        extents: BTreeMap<Axis, Extent>,
        trace: Option<&'a mut Trace>,
    ) -> Self {
        Pass {
            module,
            weights,
            values: Vec::new(),
            extents,
            layers: Vec::new(),
            expert: None,
            before,
            after: Kept::default(),
            trace,
            shake: None,
        }
    }

    pub fn finish(self) -> (Kept, BTreeMap<Axis, Extent>) {
        (self.after, self.extents)
    }

    pub fn set(&mut self, at: ValueId, value: Value) {
        if self.values.len() <= at.index() {
            self.values.resize(at.index() + 1, None);
        }
        self.values[at.index()] = Some(value);
    }

    fn value(&self, at: ValueId) -> &Value {
        let value = self.values.get(at.index()).and_then(Option::as_ref);
        value.unwrap_or_else(|| panic!("value {} is read before it is made", at.0))
    }

    pub fn tensor(&self, at: ValueId) -> &Arc<Tensor> {
        let Value::Tensor(tensor) = self.value(at) else { panic!("value {} is a route, a tensor was verified", at.0) };
        tensor
    }

    fn route(&self, at: ValueId) -> &Arc<Choices> {
        let Value::Route(route) = self.value(at) else { panic!("value {} is a tensor, a route was verified", at.0) };
        route
    }

    /// Positions along a symbolic or fixed axis in this pass.
    fn size(&self, size: &Size) -> usize {
        let extent = |axis: &Axis| *self.extents.get(axis).unwrap_or_else(|| panic!("no input has the axis `{axis}`"));
        match (size, self.expert) {
            (Size::Fixed(size), _) => usize::try_from(*size).expect("fixed sizes fit the address space"),
            (Size::Input(axis), _) => extent(axis).now,
            (Size::Past(axis), _) => extent(axis).before + extent(axis).now,
            (Size::Share { of, times, per, up }, _) => {
                let whole = extent(of).now as u64 * times;
                (if *up { whole.div_ceil(*per) } else { whole / per }) as usize
            }
            (Size::Slots { .. }, Some((_, rows))) => rows,
            (Size::Slots { tokens, choices }, None) => self.size(tokens) * *choices as usize,
        }
    }

    /// Evaluates the nodes of a region whose arguments are set, and returns its results. What its nodes made is let go.
    pub fn region(&mut self, at: RegionId) -> Result<Vec<Value>, EvalError> {
        let module = self.module;
        let region = module.region(at);
        for id in &region.nodes {
            let node = module.node(*id);
            for (result, value) in node.results.iter().zip(self.evaluate(*id, node)?) {
                let value = self.conformed(*result, value);
                let value = self.shaken(*result, &node.op, value);
                self.set(*result, value);
            }
        }
        let results = region.results.iter().map(|result| self.value(*result).clone()).collect();
        // The body's values stay: the outputs are among them.
        if at != module.body {
            let made = region.nodes.iter().flat_map(|id| &module.node(*id).results);
            made.for_each(|result| self.values[result.index()] = None);
        }
        Ok(results)
    }

    /// With the axes in the declared order.
    fn conformed(&self, at: ValueId, value: Value) -> Value {
        match (self.module.ty(at), value) {
            (ValueType::Tensor(ty), Value::Tensor(tensor)) => {
                if ty.axes().eq(tensor.axes().iter().map(|(axis, _)| axis)) {
                    return Value::Tensor(tensor);
                }
                assert!(
                    ty.dims.len() == tensor.axes().len() && ty.axes().all(|axis| tensor.size(axis).is_some()),
                    "evaluated to {tensor}, declared as {ty}"
                );
                tensor.arranged(ty.axes()).into_owned().into()
            }
            (ValueType::Route(_), Value::Route(route)) => Value::Route(route),
            (ty, _) => panic!("value {} is not what it was declared as: {ty:?}", at.0),
        }
    }

    /// With an error, where the op rounds and errors are asked for.
    fn shaken(&self, at: ValueId, op: &Op, value: Value) -> Value {
        match (self.shake, value) {
            (Some(shake), Value::Tensor(tensor)) if rounds(op) => {
                let layers = self.layers.iter().map(|layer| u64::from(layer.number));
                let expert = self.expert.map_or(0, |(expert, _)| u64::from(expert) + 1);
                Value::Tensor(shake.applied(tensor, [u64::from(at.0), expert].into_iter().chain(layers)))
            }
            (_, value) => value,
        }
    }

    fn evaluate(&mut self, id: OpId, node: &Node) -> Result<Vec<Value>, EvalError> {
        let operand = |at: usize| node.operands[at];
        let one = |tensor: Tensor| Ok(vec![tensor.into()]);
        match &node.op {
            Op::ParamRef(op) => Ok(vec![Value::Tensor(self.param(op.param)?)]),
            Op::Stack(op) => one(self.stack(op)?),
            Op::Literal(op) => one(literal::eval_literal(op)),
            Op::Iota(op) => one(self.iota(op)),
            Op::Count(op) => one(Tensor::new(Vec::new(), vec![self.size(&op.size) as i32])),
            Op::Map(op) => one(map::eval_map(&op.expr, &self.tensors(&node.operands))?),
            Op::Contract(op) => {
                one(contract::eval_contract(self.tensor(operand(0)), self.tensor(operand(1)), &op.over)?)
            }
            Op::Linear(op) => one(linear::eval_linear(op, &self.tensors(&node.operands))?),
            Op::Reduce(op) => one(reduce::eval_reduce(op.op, self.tensor(operand(0)), &op.over)),
            Op::TopK(op) => {
                let choices = self.size(&op.choices.size);
                let (values, indices) = top_k::eval_top_k(op, choices, self.tensor(operand(0)))?;
                Ok(vec![values.into(), indices.into()])
            }
            Op::Assign(op) => one(assign::eval_assign(op, self.size(&op.most), self.tensor(operand(0)))),
            Op::Cumsum(op) => one(cumsum::eval_cumsum(&op.over, self.tensor(operand(0)))),
            Op::ScatterAdd(op) => {
                let into = (op.into.axis.clone(), self.size(&op.into.size));
                one(scatter_add::eval_scatter_add(&op.axes, into, self.tensor(operand(0)), self.tensor(operand(1)))?)
            }
            Op::Gather(op) => one(self.gather(op, operand(0), operand(1))?),
            Op::Split(op) => one(self.split(op, self.tensor(operand(0)))),
            Op::Merge(op) => one(merge::eval_merge(op, self.tensor(operand(0)))),
            Op::Rename(op) => one(rename::eval_rename(op, self.tensor(operand(0)))),
            Op::Slice(op) => one(slice::eval_slice(op, self.tensor(operand(0)))),
            Op::Unfold(op) => one(unfold::eval_unfold(op, self.tensor(operand(0)))),
            Op::Concat(op) => one(concat::eval_concat(&op.over, &self.tensors(&node.operands))),
            Op::Past(op) => Ok(vec![Value::Tensor(self.past(id, op, operand(0))?)]),
            Op::Scan(op) => self.scan(id, op, node),
            Op::Attention(op) => one(attention::eval_attention(op, &self.tensors(&node.operands))?),
            Op::Route(op) => Ok(vec![Value::Route(Arc::new(self.choose(op, node)))]),
            Op::Dispatch(op) => {
                one(dispatch::eval_dispatch(&op.slots, self.tensor(operand(0)), self.route(operand(1))))
            }
            Op::Experts(op) => one(self.experts(op, node)?),
            Op::Combine(_) => {
                let slots = self.slot_axis(operand(0));
                one(combine::eval_combine(&slots, self.tensor(operand(0)), self.route(operand(1))))
            }
            Op::Each(_) => {
                let slots = self.slot_axis(operand(0));
                one(each::eval_each(&slots, self.tensor(operand(0)), self.route(operand(1))))
            }
            Op::Layers(op) => self.layers(op, node),
            Op::Rows(op) => {
                let args = node.operands.iter().map(|operand| self.value(*operand).clone()).collect();
                self.call(op.region, args)
            }
        }
    }

    fn tensors(&self, values: &[ValueId]) -> Vec<&Tensor> {
        values.iter().map(|value| self.tensor(*value).as_ref()).collect()
    }

    /// Evaluates a region with these arguments.
    fn call(&mut self, region: RegionId, args: Vec<Value>) -> Result<Vec<Value>, EvalError> {
        let names = &self.module.region(region).args;
        assert_eq!(names.len(), args.len(), "a region is given as many values as it takes");
        names.iter().zip(args).for_each(|(name, value)| self.set(*name, value));
        self.region(region)
    }

    /// The axis of a value that counts slots.
    fn slot_axis(&self, at: ValueId) -> Axis {
        let ty = self.module.tensor(at);
        let slots = ty.dims.iter().find(|dim| matches!(dim.size, Size::Slots { .. }));
        slots.unwrap_or_else(|| panic!("{ty} has no axis of slots")).axis.clone()
    }
}

/// The largest value that is evaluated: 8 GiB of f32.
const MAX_ELEMENTS: u128 = 1 << 31;

/// Refuses a value that would exhaust the memory.
fn bounded(axes: &[(Axis, usize)]) -> Result<usize, EvalError> {
    let elements = axes.iter().fold(1u128, |product, (_, size)| product.saturating_mul(*size as u128));
    if elements > MAX_ELEMENTS { Err(EvalError::TooLarge { elements }) } else { Ok(elements as usize) }
}
