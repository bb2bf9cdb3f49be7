//! `scan over S { … }`: the body is evaluated once, for one position; what goes from each position to the next is its `state`.

use std::collections::BTreeSet;

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    Reach, RegionId, ValueId,
    ops::{Iota, Op, Scan},
};
use moec_syntax::tree::{AxisExpr, Expr, Name, Statement, StatementKind};
use moec_types::{Axis, DType, Dim, Size, TensorType};
use thiserror::Error;

use crate::{
    evaluator::Evaluator,
    scope::{BodyKind, Bound, Frame, Origin},
    value::{Operand, Value},
};

/// What the body sees at one position: the region's argument, and the value around; the number of the position has none yet.
struct Seen {
    arg: ValueId,
    whole: Option<ValueId>,
}

struct State {
    name: Name,
    arg: ValueId,
    initial: (ValueId, Span),
}

impl Evaluator {
    pub fn scan(&mut self, frame: &mut Frame, over: &Name, body: &[Statement], at: Span) -> Value {
        if self.refused_in_a_scan(frame, "a `scan`", at) {
            return Value::Error;
        }
        let Some(dim) = self.known_dim(frame, &frame.axis(&over.text), over.at) else { return Value::Error };
        if !matches!(dim.size, Size::Input(_)) {
            return self.fail(NotASequence { axis: dim.axis.clone(), size: dim.size.to_string(), at: over.at });
        }
        let before = self.problems.len();
        let region = self.module.add_region();
        let mut inside = Frame { kind: BodyKind::Scan, region, ..frame.clone() };
        inside.dims.remove(&dim.axis);
        let seen = self.see_one_position(&mut inside, over, &dim, region);
        let states = self.states(frame, &mut inside, body, region);
        let given = self.body(&mut inside, body, at);
        let (Some(states), Some(mut results)) = (states, self.given(&mut inside, given, at)) else {
            return Value::Error;
        };
        let next: Option<Vec<ValueId>> = states.iter().map(|state| self.next_value(&mut inside, state)).collect();
        let Some(next) = next else { return Value::Error };
        results.splice(0..0, next);
        self.module.region_mut(region).results = results;
        if !self.works_on_a_position(region, &dim.axis, at) || self.problems.len() > before {
            return Value::Error;
        }
        let mut operands = self.used(frame, seen, region, &dim, at);
        operands.extend(states.iter().map(|state| state.initial));
        let op = Scan { over: dim, states: states.len(), region };
        match self.emit(frame, op, &operands, at).as_deref() {
            Some([result]) => Value::Tensor(*result),
            Some(results) => Value::Tuple(results.iter().map(|value| (None, Value::Tensor(*value))).collect()),
            None => Value::Error,
        }
    }

    /// Reports what cannot be done at one position, where this is the body of a scan.
    pub fn refused_in_a_scan(&mut self, frame: &Frame, what: &'static str, at: Span) -> bool {
        let refused = frame.kind == BodyKind::Scan;
        if refused {
            self.report(NotInAScan { what, node_at: at, at: None });
        }
        refused
    }

    /// Every name in scope, as it is at one position: without the axis. The axis itself is the position's number. Nothing of
    /// around can be given a new value.
    fn see_one_position(&mut self, inside: &mut Frame, over: &Name, dim: &Dim, region: RegionId) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut names = std::mem::take(&mut inside.names);
        for bound in &mut names {
            bound.value = self.at_one_position(&bound.value, dim, region, &mut seen);
            if bound.origin == Origin::Let {
                bound.origin = Origin::Around;
            }
            self.call_it(&bound.value, &bound.name);
        }
        if let Some(x) = &inside.x {
            inside.x = Some(self.at_one_position(x, dim, region, &mut seen));
        }
        let number = self.module.add_arg(region, TensorType::scalar(DType::I32));
        self.module.set_name(number, &over.text);
        seen.push(Seen { arg: number, whole: None });
        let number = Value::Tensor(number);
        names.push(Bound { name: over.text.clone(), value: number, origin: Origin::Around, at: Span::NONE });
        inside.names = names;
        seen
    }

    fn at_one_position(&mut self, value: &Value, dim: &Dim, region: RegionId, seen: &mut Vec<Seen>) -> Value {
        match value {
            Value::Tensor(whole) if self.module.tensor(*whole).dim(&dim.axis) == Some(dim) => {
                if let Some(known) = seen.iter().find(|known| known.whole == Some(*whole)) {
                    return Value::Tensor(known.arg);
                }
                let ty = self.module.tensor(*whole);
                let dims = ty.dims.iter().filter(|other| other.axis != dim.axis).cloned().collect();
                let ty = TensorType::new(ty.dtype, dims);
                let arg = self.module.add_arg(region, ty);
                if let Some(from) = self.chosen_from.get(whole).cloned() {
                    self.chosen_from.insert(arg, from);
                }
                seen.push(Seen { arg, whole: Some(*whole) });
                Value::Tensor(arg)
            }
            Value::Tuple(items) => Value::Tuple(
                items.iter().map(|(name, item)| (*name, self.at_one_position(item, dim, region, seen))).collect(),
            ),
            other => other.clone(),
        }
    }

    /// Declares what is carried. Initial values are of before the first position, so they are computed around the scan.
    fn states(
        &mut self,
        frame: &mut Frame,
        inside: &mut Frame,
        body: &[Statement],
        region: RegionId,
    ) -> Option<Vec<State>> {
        let mut states = Vec::new();
        let mut sound = true;
        for statement in body {
            let StatementKind::State { name, axes, initial, next } = &statement.kind else { continue };
            if let Some(next) = next {
                self.report(OnStepInScan { name: name.text.clone(), at: next.at });
                sound = false;
            }
            let state = self.state(frame, inside, (name, axes, initial), region);
            sound &= state.is_some();
            let value = state.as_ref().map_or(Value::Error, |state| Value::Tensor(state.arg));
            inside.bind(name, value, Origin::State);
            states.extend(state);
        }
        sound.then_some(states)
    }

    fn state(
        &mut self,
        frame: &mut Frame,
        inside: &mut Frame,
        (name, axes, initial): (&Name, &[AxisExpr], &Expr),
        region: RegionId,
    ) -> Option<State> {
        if self.already_named(inside, name) {
            return None;
        }
        let ty = self.tensor_type_of(inside, DType::F32, axes).ok()?;
        if let Some(dim) = ty.dims.iter().find(|dim| dim.size.fixed().is_none()) {
            self.report(SymbolicState { name: name.text.clone(), axis: dim.axis.clone(), at: name.at });
            return None;
        }
        let mut first = self.operand(frame, initial);
        if let Value::Int(value) = first.value {
            first.value = Value::Float(value as f64);
        }
        let first = self.materialise(frame, &first)?;
        let found = self.module.tensor(first.0);
        if found.dtype != DType::F32 || found.dims.iter().any(|dim| !ty.dims.contains(dim)) {
            let found = found.to_string();
            let state = ty.to_string();
            self.report(StateStarts { name: name.text.clone(), state, found, at: name.at, initial_at: first.1 });
            return None;
        }
        let arg = self.module.add_arg(region, ty);
        self.module.set_name(arg, &name.text);
        Some(State { name: name.clone(), arg, initial: first })
    }

    /// What the body gives: one value, or several as a tuple.
    fn given(&mut self, inside: &mut Frame, given: Value, at: Span) -> Option<Vec<ValueId>> {
        let items: Vec<Value> = match given {
            Value::Error => return None,
            Value::Tuple(items) => items.iter().map(|(_, item)| item.clone()).collect(),
            one => vec![one],
        };
        items
            .into_iter()
            .map(|value| self.materialise(inside, &Operand { value, at }).map(|(value, _)| value))
            .collect()
    }

    /// What a state is at the next position, with the axes in the state's order.
    fn next_value(&mut self, inside: &mut Frame, state: &State) -> Option<ValueId> {
        let bound = inside.bound(&state.name.text)?.clone();
        let mut next = Operand { value: bound.value, at: state.name.at };
        if let Value::Int(value) = next.value {
            next.value = Value::Float(value as f64);
        }
        let number = matches!(next.value, Value::Float(_));
        let (next, _) = self.materialise(inside, &next)?;
        let (is, becomes) = (self.module.tensor(state.arg), self.module.tensor(next));
        let same = is.dtype == becomes.dtype
            && (number || is.dims.len() == becomes.dims.len())
            && becomes.dims.iter().all(|dim| is.dims.contains(dim));
        if !same {
            let (is, becomes) = (is.to_string(), becomes.to_string());
            self.report(StateChanges { name: state.name.text.clone(), is, becomes, at: state.name.at });
            return None;
        }
        let dims = is.dims.clone();
        match self.reorder(inside, next, &dims, state.name.at) {
            Value::Tensor(next) => Some(next),
            _ => None,
        }
    }

    /// Refuses what one position by itself cannot do.
    fn works_on_a_position(&mut self, region: RegionId, axis: &Axis, at: Span) -> bool {
        let nodes = self.module.region(region).nodes.clone();
        let other = nodes.iter().map(|node| self.module.node(*node)).find(|node| node.op.reach() != Reach::Row);
        if let Some(node) = other {
            let (what, node_at) = (what_it_is(&node.op), node.at);
            self.report(NotInAScan { what, node_at, at: Some(at) });
            return false;
        }
        let whole = self.module.captures(region).into_iter();
        let whole = whole.filter(|value| self.module.ty(*value).tensor().is_some_and(|ty| ty.has(axis)));
        let Some(value) = whole.min() else { return true };
        let reads = |node: &moec_ir::Node| node.operands.contains(&value);
        let reader = nodes.iter().map(|node| self.module.node(*node)).find(|node| reads(node));
        let (found, node_at) = (self.module.tensor(value).to_string(), reader.map_or(at, |node| node.at));
        self.report(SeesWhole { axis: axis.clone(), found, node_at, at });
        false
    }

    /// The values that the body does read position by position; the region's other arguments go.
    fn used(
        &mut self,
        frame: &mut Frame,
        seen: Vec<Seen>,
        region: RegionId,
        dim: &Dim,
        at: Span,
    ) -> Vec<(ValueId, Span)> {
        let body = self.module.region(region);
        let reads = body.nodes.iter().flat_map(|node| &self.module.node(*node).operands);
        let read: BTreeSet<ValueId> = reads.chain(&body.results).copied().collect();
        let (used, unused): (Vec<Seen>, Vec<Seen>) = seen.into_iter().partition(|seen| read.contains(&seen.arg));
        let gone = |arg: &ValueId| unused.iter().any(|seen| seen.arg == *arg);
        self.module.region_mut(region).args.retain(|arg| !gone(arg));
        let whole = |seen: Seen| match seen.whole {
            Some(whole) => Some((whole, at)),
            None => match self.emit1(frame, Iota { dim: dim.clone() }, &[], at) {
                Value::Tensor(positions) => Some((positions, at)),
                _ => None,
            },
        };
        used.into_iter().filter_map(whole).collect()
    }
}

/// In the author's words.
fn what_it_is(op: &Op) -> &'static str {
    match op {
        Op::Past(_) => "`past`",
        Op::Scan(_) => "a `scan`",
        Op::Route(_) | Op::Dispatch(_) | Op::Experts(_) | Op::Combine(_) => "a `moe` layer",
        _ => "this",
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` goes from position to position, and has no steps")]
#[diagnostic(code(moec::sema::on_step_in_scan), help("give it its next value by assigning: `{name} = …`"))]
struct OnStepInScan {
    name: String,
    #[label("not in a scan")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`scan` along `{axis}`, which is {size}")]
#[diagnostic(
    code(moec::sema::scan_not_a_sequence),
    help("a `scan` goes along an axis whose size an input gives, such as `S` of `ids: i32[S]`")
)]
struct NotASequence {
    axis: Axis,
    size: String,
    #[label("not the axis of a sequence")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("state `{name}` has the axis `{axis}`, whose size is not known")]
#[diagnostic(
    code(moec::sema::symbolic_state),
    help("what goes from position to position has a fixed size: use axes that have one")
)]
struct SymbolicState {
    name: String,
    axis: Axis,
    #[label("`{axis}` is as long as the input")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("state `{name}` is {state} and starts as {found}")]
#[diagnostic(
    code(moec::sema::state_starts),
    help("an initial value is a number, or an f32 tensor with some of the state's axes")
)]
struct StateStarts {
    name: String,
    state: String,
    found: String,
    #[label("declared as {state}")]
    at: Span,
    #[label("this is {found}")]
    initial_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("state `{name}` is {is} and becomes {becomes}")]
#[diagnostic(
    code(moec::sema::state_changes),
    help("what goes from position to position keeps its type: give the next value the axes of the state")
)]
struct StateChanges {
    name: String,
    is: String,
    becomes: String,
    #[label("{is} here, {becomes} at the end of the `scan`")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{what} within a `scan`")]
#[diagnostic(
    code(moec::sema::not_in_a_scan),
    help("a `scan` works on one position by itself and its states; put this before or after the `scan`")
)]
struct NotInAScan {
    what: &'static str,
    #[label("cannot be done at one position")]
    node_at: Span,
    #[label("in this `scan`")]
    at: Option<Span>,
}

#[derive(Debug, Error, Diagnostic)]
#[error("a `scan` over `{axis}` reads {found} whole")]
#[diagnostic(
    code(moec::sema::scan_sees_whole),
    help("a `scan` sees one position: give the value a name of its own before the `scan`, and use that name in it")
)]
struct SeesWhole {
    axis: Axis,
    found: String,
    #[label("reads all positions of {found}")]
    node_at: Span,
    #[label("in this `scan`")]
    at: Span,
}
