//! The route shapes in which experts meet more than one token, or tokens more than one expert's parameters: slots that each
//! hold a position, slots that each hold a mixture, and experts merged into one. All of them become ordinary tensor work
//! over the parameters of all experts at once.

use std::rc::Rc;

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    ValueId,
    ops::{Concat, Contract, Gather, Iota, Map, Reduce, ReduceOp, Rename, ScatterAdd, Slice},
};
use moec_syntax::tree::Name;
use moec_types::{Axis, BinaryOp, DType, Dim, Expr, Size, TensorType};
use thiserror::Error;

use crate::{
    bank::{ExpertLooksAcross, MembersDiffer},
    builtin::RouteOutsideGate,
    evaluator::{Evaluator, WrongKind},
    scope::{Bank, EXPERTS, Frame, Parameters},
    value::{BankTemplate, MemberTemplate, Operand, Part, Value},
};

/// A tensor and the text that it comes from.
type Given = (ValueId, Span);

/// A route that is none of tokens to experts.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// Which position each slot of an expert is filled from, and how much what comes out counts there.
    Slots { positions: Given, weights: Given, tokens: Dim, slots: Vec<Axis> },
    /// How much of each position is in a slot, and how much of what comes out is in each position.
    Mix { into: Given, back: Given, tokens: Axis, slots: Vec<Axis> },
    /// How much of each expert is in the one that all positions meet.
    Merge { weights: Given },
}

impl Shape {
    pub fn describe(&self) -> &'static str {
        match self {
            Shape::Slots { .. } => "a route of slots to positions",
            Shape::Mix { .. } => "a route of mixtures",
            Shape::Merge { .. } => "a route to experts merged into one",
        }
    }
}

/// The axis of the experts within an expert's body, where it has all of them at once.
const STACKED: &str = "_Expert";

/// The axis of one expert's slots within its body.
fn slot_axis(number: usize) -> Axis {
    Axis::new(&format!("_Slot{number}"))
}

impl Evaluator {
    /// `slots(positions, weights over N)`.
    pub fn slots(
        &mut self,
        frame: &mut Frame,
        positions: &Operand,
        weights: &Operand,
        over: Option<&Name>,
        at: Span,
    ) -> Option<Value> {
        let bank = self.bank_of_gate(frame, at)?;
        let positions = self.tensor(positions, "`slots`")?;
        let weights = self.materialise(frame, weights)?;
        for given in [positions, weights] {
            self.fits_bank(given, bank)?;
        }
        let ty = self.module.tensor(positions.0);
        if ty.dtype != DType::I32 {
            let (found, help) =
                (ty.to_string(), Some("it is what `top_k` over the tokens gives as `.indices`".to_owned()));
            let (who, wants) = ("`slots`".to_owned(), "the positions that fill the slots, as i32");
            self.report(WrongKind { who, wants, found, at: positions.1, help });
            return None;
        }
        let x = self.x_of_gate(frame)?;
        let tokens = match over {
            Some(name) => x
                .dim(&frame.axis(&name.text))
                .cloned()
                .or_else(|| self.known_dim(frame, &frame.axis(&name.text), name.at))?,
            None => match &x.dims.iter().filter(|dim| dim.size.fixed().is_none()).collect::<Vec<_>>()[..] {
                [tokens] => (*tokens).clone(),
                _ => {
                    self.report(TokensUnclear { form: "slots(positions, weights over N)", x: x.to_string(), at });
                    return None;
                }
            },
        };
        let positions = self.with_axes(frame, positions, &[bank_dim(bank)])?;
        // What positions and x have both is aligned: tokens are chosen for each place along it.
        let known: Vec<Axis> = x.axes().cloned().chain([Axis::new(EXPERTS)]).collect();
        let slots = self.axes_without(positions.0, &known);
        Some(Value::Shape(Rc::new(Shape::Slots { positions, weights, tokens, slots })))
    }

    /// `mix(into, back over N)`.
    pub fn mix(
        &mut self,
        frame: &mut Frame,
        into: &Operand,
        back: &Operand,
        over: Option<&Name>,
        at: Span,
    ) -> Option<Value> {
        let bank = self.bank_of_gate(frame, at)?;
        let (into, back) = (self.materialise(frame, into)?, self.materialise(frame, back)?);
        for given in [into, back] {
            self.fits_bank(given, bank)?;
        }
        let x = self.x_of_gate(frame)?;
        let mixed = self.module.tensor(into.0);
        let tokens = match over {
            Some(name) => frame.axis(&name.text),
            None => match &mixed.axes().filter(|axis| x.has(axis) && axis.name() != EXPERTS).collect::<Vec<_>>()[..] {
                [tokens] => (*tokens).clone(),
                _ => {
                    self.report(TokensUnclear { form: "mix(into, back over N)", x: x.to_string(), at });
                    return None;
                }
            },
        };
        let known: Vec<Axis> = x.axes().cloned().chain([Axis::new(EXPERTS), tokens.clone()]).collect();
        let slots = self.axes_without(into.0, &known);
        Some(Value::Shape(Rc::new(Shape::Mix { into, back, tokens, slots })))
    }

    /// `merge(weights)`.
    pub fn merge_experts(&mut self, frame: &mut Frame, weights: &Operand, at: Span) -> Option<Value> {
        let bank = self.bank_of_gate(frame, at)?;
        let weights = self.materialise(frame, weights)?;
        self.fits_bank(weights, bank)?;
        let weights = self.with_axes(frame, weights, &[bank_dim(bank)])?;
        Some(Value::Shape(Rc::new(Shape::Merge { weights })))
    }

    /// What the experts of a bank make of their slots, or the merged expert of all positions.
    pub fn each_of_shape(
        &mut self,
        frame: &mut Frame,
        part: &Rc<Part>,
        bank: &BankTemplate,
        x: &Operand,
        shape: &Shape,
        at: Span,
    ) -> Option<Value> {
        let x = self.tensor(x, "a bank")?;
        match shape {
            Shape::Slots { positions, tokens, slots, .. } => {
                self.fits_bank(*positions, Bank { experts: bank.experts, at: bank.at })?;
                let rows = self.emit1(frame, Gather { over: tokens.axis.clone() }, &[x, *positions], at);
                self.run_stacked(frame, part, bank, (tensor(rows)?, x.1), slots, at)
            }
            Shape::Mix { into, tokens, slots, .. } => {
                self.fits_bank(*into, Bank { experts: bank.experts, at: bank.at })?;
                let rows = if self.module.tensor(into.0).has(tokens) {
                    self.emit1(frame, Contract { over: vec![tokens.clone()] }, &[*into, x], at)
                } else {
                    let sum = Reduce { op: ReduceOp::Sum, over: vec![tokens.clone()] };
                    let sum = tensor(self.emit1(frame, sum, &[x], at))?;
                    self.times(frame, *into, (sum, x.1), at)
                };
                self.run_stacked(frame, part, bank, (tensor(rows)?, x.1), slots, at)
            }
            Shape::Merge { weights } => {
                self.fits_bank(*weights, Bank { experts: bank.experts, at: bank.at })?;
                self.run_merged(frame, part, bank, x, *weights, at)
            }
        }
    }

    /// What came out of the slots, brought back to the positions.
    pub fn combine_of_shape(&mut self, frame: &mut Frame, y: Given, shape: &Shape, at: Span) -> Option<Value> {
        match shape {
            Shape::Slots { positions, weights, tokens, slots } => {
                let weighed = tensor(self.times(frame, *weights, y, at))?;
                let axes = std::iter::once(Axis::new(EXPERTS)).chain(slots.iter().cloned()).collect();
                let op = ScatterAdd { axes, into: tokens.clone() };
                Some(self.emit1(frame, op, &[(weighed, y.1), *positions], at))
            }
            Shape::Mix { back, slots, .. } => {
                let all: Vec<Axis> = std::iter::once(Axis::new(EXPERTS)).chain(slots.iter().cloned()).collect();
                let ty = self.module.tensor(back.0);
                let (over, summed): (Vec<Axis>, Vec<Axis>) = all.into_iter().partition(|axis| ty.has(axis));
                let y = if summed.is_empty() {
                    y
                } else {
                    let sum = Reduce { op: ReduceOp::Sum, over: summed };
                    (tensor(self.emit1(frame, sum, &[y], at))?, y.1)
                };
                Some(if over.is_empty() {
                    self.times(frame, *back, y, at)
                } else {
                    self.emit1(frame, Contract { over }, &[*back, y], at)
                })
            }
            Shape::Merge { .. } => Some(Value::Tensor(y.0)),
        }
    }

    /// Every expert over its own rows: all of them at once, each member of the bank by itself.
    fn run_stacked(
        &mut self,
        frame: &mut Frame,
        part: &Rc<Part>,
        bank: &BankTemplate,
        rows: Given,
        slots: &[Axis],
        at: Span,
    ) -> Option<Value> {
        // Within the experts the axes have names that no body has, so that a body's own axes are its own.
        let stacked = Axis::new(STACKED);
        let mut names = vec![(Axis::new(EXPERTS), stacked.clone())];
        names.extend(slots.iter().enumerate().map(|(number, slot)| (slot.clone(), slot_axis(number))));
        let mut rows = self.with_axes(frame, rows, &[bank_dim(Bank { experts: bank.experts, at: bank.at })])?;
        for (outside, inside) in &names {
            rows.0 = self.renamed(frame, rows, outside, inside, at)?;
        }
        let hidden: Vec<Axis> = names.iter().map(|(_, inside)| inside.clone()).collect();
        let mut results: Vec<Given> = Vec::new();
        for (number, member) in bank.members.iter().enumerate() {
            let own = if bank.members.len() == 1 {
                rows.0
            } else {
                let (start, len) = (u64::from(member.first), u64::from(member.count));
                let slice = Slice { axis: stacked.clone(), start, len, drop: false };
                tensor(self.emit1(frame, slice, &[rows], at))?
            };
            let mut inside = Frame { names: Vec::new(), params: Parameters::Stacked(stacked.clone()), ..frame.clone() };
            let before = self.module.region(frame.region).nodes.len();
            let y = self.run_member(&mut inside, part, member, number, (own, rows.1))?;
            let across = self.module.region(frame.region).nodes[before..].iter().find_map(|node| {
                let node = self.module.node(*node);
                Some((node.at, node.op.along().iter().find(|axis| hidden.contains(axis))?.clone()))
            });
            if let Some((node_at, axis)) = across {
                self.report(ExpertLooksAcross { axis, node_at, expert_at: member.at });
                return None;
            }
            let dims: Vec<Dim> =
                self.module.tensor(own).dims.iter().filter(|dim| hidden.contains(&dim.axis)).cloned().collect();
            let y = self.with_axes(frame, (y, member.at), &dims)?;
            results.push(self.in_order_of(frame, y, results.first().copied(), &bank.members[0], member)?);
        }
        let mut y = match &results[..] {
            [one] => *one,
            several => (tensor(self.emit1(frame, Concat { over: stacked }, several, at))?, bank.at),
        };
        for (outside, inside) in &names {
            y.0 = self.renamed(frame, y, inside, outside, at)?;
        }
        Some(Value::Tensor(y.0))
    }

    /// The one expert that the bank's parameters make, mixed by these weights.
    fn run_merged(
        &mut self,
        frame: &mut Frame,
        part: &Rc<Part>,
        bank: &BankTemplate,
        x: Given,
        weights: Given,
        at: Span,
    ) -> Option<Value> {
        let [member] = &bank.members[..] else {
            self.report(MergesKinds { at: bank.at, weights_at: weights.1 });
            return None;
        };
        let axis = Axis::new(STACKED);
        let weights = (self.renamed(frame, weights, &Axis::new(EXPERTS), &axis, at)?, weights.1);
        let params = Parameters::Merged { weights, axis };
        let mut inside = Frame { names: Vec::new(), params, ..frame.clone() };
        self.run_member(&mut inside, part, member, 0, x).map(Value::Tensor)
    }

    /// The body of a bank's member over these rows.
    fn run_member(
        &mut self,
        inside: &mut Frame,
        part: &Rc<Part>,
        member: &MemberTemplate,
        number: usize,
        x: Given,
    ) -> Option<ValueId> {
        let instance = self.member_part(part, member, number);
        let input = Operand { value: Value::Tensor(x.0), at: x.1 };
        let region = inside.region;
        tensor(self.run(inside, &instance, &member.expert, &input, region, None, member.at))
    }

    /// A member's result with its axes as the first member's.
    fn in_order_of(
        &mut self,
        frame: &mut Frame,
        y: Given,
        first: Option<Given>,
        first_member: &MemberTemplate,
        member: &MemberTemplate,
    ) -> Option<Given> {
        let Some(first) = first else { return Some(y) };
        let (wanted, found) = (self.module.tensor(first.0).clone(), self.module.tensor(y.0).clone());
        let same = |dim: &Dim| found.dim(&dim.axis).is_some_and(|own| own == dim || dim.axis.name() == STACKED);
        if wanted.dims.len() != found.dims.len() || !wanted.dims.iter().all(same) {
            self.report(MembersDiffer {
                first_gives: wanted.to_string(),
                second_gives: found.to_string(),
                first_at: first_member.at,
                second_at: member.at,
            });
            return None;
        }
        let order: Vec<Dim> = wanted.axes().filter_map(|axis| found.dim(axis).cloned()).collect();
        Some((tensor(self.reorder(frame, y.0, &order, member.at))?, y.1))
    }

    /// The tensor, repeated along axes that it lacks.
    fn with_axes(&mut self, frame: &mut Frame, given: Given, dims: &[Dim]) -> Option<Given> {
        let ty = self.module.tensor(given.0);
        let missing: Vec<Dim> = dims.iter().filter(|dim| !ty.has(&dim.axis)).cloned().collect();
        if missing.is_empty() {
            return Some(given);
        }
        let mut operands = Vec::new();
        for dim in missing {
            operands.push((tensor(self.emit1(frame, Iota { dim }, &[], given.1))?, given.1));
        }
        operands.push(given);
        let expr = Expr::Arg(operands.len() - 1);
        Some((tensor(self.emit1(frame, Map { expr }, &operands, given.1))?, given.1))
    }

    fn renamed(&mut self, frame: &mut Frame, given: Given, from: &Axis, to: &Axis, at: Span) -> Option<ValueId> {
        tensor(self.emit1(frame, Rename { from: from.clone(), to: to.clone() }, &[given], at))
    }

    fn times(&mut self, frame: &mut Frame, a: Given, b: Given, at: Span) -> Value {
        let expr = Expr::binary(BinaryOp::Mul, Expr::Arg(0), Expr::Arg(1));
        self.emit1(frame, Map { expr }, &[a, b], at)
    }

    fn axes_without(&self, value: ValueId, known: &[Axis]) -> Vec<Axis> {
        self.module.tensor(value).axes().filter(|axis| !known.contains(axis)).cloned().collect()
    }

    pub fn bank_of_gate(&mut self, frame: &Frame, at: Span) -> Option<Bank> {
        if frame.bank.is_none() && self.alone.is_none() {
            self.report(RouteOutsideGate { at });
        }
        frame.bank
    }

    fn x_of_gate(&self, frame: &Frame) -> Option<TensorType> {
        frame.x.as_ref()?.tensor_type(&self.module).cloned()
    }

    /// A tensor's axis `E` is as long as the bank.
    fn fits_bank(&mut self, given: Given, bank: Bank) -> Option<()> {
        let dim = self.module.tensor(given.0).dim(&Axis::new(EXPERTS));
        let Some(size) = dim.map(|dim| dim.size.to_string()).filter(|size| *size != bank.experts.to_string()) else {
            return Some(());
        };
        self.report(ShapeOfAnotherBank { size, experts: bank.experts, at: given.1, bank_at: bank.at });
        None
    }
}

fn bank_dim(bank: Bank) -> Dim {
    Dim::new(Axis::new(EXPERTS), Size::Fixed(bank.experts))
}

fn tensor(value: Value) -> Option<ValueId> {
    match value {
        Value::Tensor(value) => Some(value),
        _ => None,
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("which axis of {x} the tokens are along is not clear")]
#[diagnostic(code(moec::sema::tokens_unclear), help("say it: `{form}`"))]
struct TokensUnclear {
    form: &'static str,
    x: String,
    #[label("along which axis?")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("experts of several kinds cannot be merged into one")]
#[diagnostic(
    code(moec::sema::merges_kinds),
    help("what is merged is parameters of the same shape: let the bank have one kind of expert")
)]
struct MergesKinds {
    #[label("several kinds")]
    at: Span,
    #[label("merges them")]
    weights_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the route has {size} along `E`, the bank holds {experts}")]
#[diagnostic(code(moec::sema::shape_of_another_bank), help("give `E` the size {experts}, or let the bank hold {size}"))]
struct ShapeOfAnotherBank {
    size: String,
    experts: u64,
    #[label("`E` is {size} here")]
    at: Span,
    #[label("holds {experts}")]
    bank_at: Span,
}
