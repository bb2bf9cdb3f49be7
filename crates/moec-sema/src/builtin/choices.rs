//! Primitives of choice: `top_k`, the routes that a gate makes, and what is done with them.

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    ValueId,
    ops::{Iota, Map, Route, TopK},
};
use moec_types::{Axis, DType, Dim, Expr, TensorType};
use thiserror::Error;

use super::{CHOICES, Over, Use};
use crate::{
    evaluator::{ChosenFrom, Evaluator, WrongKind},
    scope::{Bank, Frame},
    value::{Operand, Value},
};

impl Evaluator {
    /// `top_k(x, k over E)`
    pub(super) fn top_k(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let [x, k] = self.exactly(used, Over::One)?;
        let x = self.tensor(&x, &used.who())?;
        let count = self.how_many(&k, "the number of choices")?;
        let axis = frame.axis(&used.given.over[0].text);
        let ty = self.module.tensor(x.0);
        let size = ty.dim(&axis).and_then(|dim| dim.size.fixed());
        if ty.has(&Axis::new(CHOICES)) && axis.name() != CHOICES {
            let found = ty.to_string();
            self.report(ChoicesTaken { found, at: x.1 });
            return None;
        }
        if let (Some(k_fixed), Some(size)) = (count.fixed(), size)
            && k_fixed > size
        {
            self.report(TopKExceedsExperts { k: k_fixed, size, axis, k_at: k.at, experts_at: x.1 });
            return None;
        }
        let results =
            self.emit(frame, TopK { over: axis.clone(), choices: Dim::new(Axis::new(CHOICES), count) }, &[x], used.at)?;
        let [values, indices] = results[..] else { return None };
        if let Some(size) = size {
            self.chosen_from.insert(indices, ChosenFrom { axis, size, at: x.1 });
        }
        Some(Value::Tuple([(Some("values"), Value::Tensor(values)), (Some("indices"), Value::Tensor(indices))].into()))
    }

    /// `tokens(indices, weights)`, `tokens(indices, weights, keep)`, `tokens(indices, weights, keep = …)`.
    pub(super) fn tokens_route(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let given = &used.given;
        let [indices, weights, ..] = &given.positional[..] else { return self.malformed(used) };
        let keep = match (&given.positional[2..], &given.named[..]) {
            ([], []) => None,
            ([keep], []) => Some(keep),
            ([], [(name, keep)]) if name.text == "keep" => Some(keep),
            _ => return self.malformed(used),
        };
        if !(given.over.is_empty() && given.regroups.is_empty()) {
            return self.malformed(used);
        }
        if [indices, weights].into_iter().chain(keep).any(|operand| operand.value.is_error()) {
            return None;
        }
        self.tokens(frame, indices.clone(), weights.clone(), keep.cloned(), used.at)
    }

    pub(super) fn slots_route(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let [positions, weights] = self.exactly(used, Over::NoneOrOne)?;
        self.slots(frame, &positions, &weights, used.given.over.first(), used.at)
    }

    pub(super) fn mix_route(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let [into, back] = self.exactly(used, Over::NoneOrOne)?;
        self.mix(frame, &into, &back, used.given.over.first(), used.at)
    }

    pub(super) fn each_of(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let [route, bank, x] = self.exactly(used, Over::None)?;
        self.each(frame, &route, &bank, &x, used.at)
    }

    pub(super) fn combined_choices(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let [route, y] = self.exactly(used, Over::None)?;
        self.combine(frame, &route, &y, used.at)
    }

    pub(super) fn weights_of(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let [route] = self.exactly(used, Over::None)?;
        self.weights_of_route(frame, &route, used.at)
    }

    pub(super) fn indices_of(&mut self, _: &mut Frame, used: &Use) -> Option<Value> {
        let [route] = self.exactly(used, Over::None)?;
        self.indices(&route)
    }

    /// What is not kept is no choice: index -1, weight 0. Indices have all axes that weights have; where tokens choose one
    /// expert each, without an axis of choices, the axis is made.
    fn tokens(
        &mut self,
        frame: &mut Frame,
        indices: Operand,
        weights: Operand,
        keep: Option<Operand>,
        at: Span,
    ) -> Option<Value> {
        let Bank { experts, at: bank_at } = self.bank_of_gate(frame, at)?;
        let chosen = self.tensor(&indices, "`tokens`")?;
        if self.module.tensor(chosen.0).dtype != DType::I32 {
            let found = self.module.tensor(chosen.0).to_string();
            let weights = weights.value.tensor_type(&self.module);
            let help = if weights.is_some_and(|ty| ty.dtype == DType::I32) {
                "the indices come first: `tokens(indices, weights)`"
            } else {
                "indices are what `top_k` gives second: `let (w, i) = top_k(p, k over E)`, `tokens(i, w)`"
            };
            let (who, help) = ("`tokens`".to_owned(), Some(help.to_owned()));
            self.report(WrongKind { who, wants: "i32 indices first", found, at: indices.at, help });
            return None;
        }
        if let Some(from) = self.chosen_from.get(&chosen.0).filter(|from| from.size != experts).cloned() {
            let ChosenFrom { axis, size, at: chosen_at } = from;
            self.report(GateAndBankDisagree { axis, size, experts, chosen_at, bank_at });
            return None;
        }
        if let Some(keep) = &keep
            && !matches!(keep.value, Value::Bool(_))
            && keep.value.tensor_type(&self.module).is_none_or(|ty| ty.dtype != DType::Bool)
        {
            let found = keep.value.describe(&self.module);
            let (who, help) = ("`keep`".to_owned(), Some("compare: `keep = w > 0`".to_owned()));
            self.report(WrongKind { who, wants: "a bool for each choice", found, at: keep.at, help });
            return None;
        }
        let mut kept = |indices: Operand, none: Value| match &keep {
            None => indices,
            Some(keep) => {
                let none = Operand { value: none, at: keep.at };
                let at = indices.at;
                Operand { value: self.select(frame, keep.clone(), indices, none, at), at }
            }
        };
        let indices = kept(indices, Value::Int(-1));
        let weights = kept(weights, Value::Float(0.0));
        let indices = self.tensor(&indices, "`tokens`")?;
        let weights = self.materialise_for(frame, &weights, "`tokens`")?;
        let indices = self.over_all_choices(frame, indices, weights)?;
        let tokens = self.fixed_tokens(frame, indices.0);
        let route = self.emit(frame, Route { experts, tokens }, &[indices, weights], at)?;
        Some(Value::Route(*route.first()?))
    }

    /// The axis of the tokens, where none of the indices' axes is as long as the input: the one that x has.
    fn fixed_tokens(&self, frame: &Frame, indices: ValueId) -> Option<Axis> {
        let x = frame.x.as_ref().and_then(|x| x.tensor_type(&self.module))?;
        let dims = &self.module.tensor(indices).dims;
        let mut shared = dims.iter().map(|dim| &dim.axis).filter(|axis| x.has(axis));
        let all_fixed = dims.iter().all(|dim| dim.size.fixed().is_some());
        shared.next().filter(|_| all_fixed && shared.next().is_none()).cloned()
    }

    /// The indices, repeated along axes that only the weights have, along the tokens of x where they are the same for all, and
    /// along an axis of length 1 where they have the tokens only.
    fn over_all_choices(
        &mut self,
        frame: &mut Frame,
        indices: (ValueId, Span),
        weights: (ValueId, Span),
    ) -> Option<(ValueId, Span)> {
        let (has, more) = (self.module.tensor(indices.0), self.module.tensor(weights.0));
        let symbolic = |ty: &TensorType| ty.dims.iter().any(|dim| dim.size.fixed().is_none());
        let tokens = frame.x.as_ref().and_then(|x| x.tensor_type(&self.module)).and_then(|x| {
            let [tokens] = &x.dims.iter().filter(|dim| dim.size.fixed().is_none()).collect::<Vec<_>>()[..] else {
                return None;
            };
            Some((*tokens).clone())
        });
        let with = if let Some(dim) = tokens.filter(|_| !symbolic(has) && !symbolic(more)) {
            let all = self.emit(frame, Iota { dim }, &[], indices.1)?;
            (*all.first()?, indices.1)
        } else if more.axes().any(|axis| !has.has(axis)) {
            weights
        } else if has.dims.len() == 1
            && !has.has(&Axis::new(CHOICES))
            && (symbolic(has) || self.fixed_tokens(frame, indices.0).is_some())
        {
            let one = self.emit(frame, Iota { dim: Dim::fixed(CHOICES, 1) }, &[], indices.1)?;
            (*one.first()?, indices.1)
        } else {
            return Some(indices);
        };
        let result = self.emit(frame, Map { expr: Expr::Arg(0) }, &[indices, with], indices.1)?;
        Some((*result.first()?, indices.1))
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("top-{k} over `{axis}`, which has {size}")]
#[diagnostic(code(moec::sema::top_k_exceeds_experts), help("choose at most {size}, or let `{axis}` have at least {k}"))]
struct TopKExceedsExperts {
    k: u64,
    size: u64,
    axis: Axis,
    #[label("asks for {k}")]
    k_at: Span,
    #[label("`{axis}` has {size} here")]
    experts_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{found} already has an axis `K`, which `top_k` makes")]
#[diagnostic(code(moec::sema::choices_taken), help("rename the older one first: `rename(x, K as K2)`"))]
struct ChoicesTaken {
    found: String,
    #[label("this is {found}")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("a route outside a gate")]
#[diagnostic(code(moec::sema::route_outside_gate), help("write a `gate`, and use it in `moe {{ gate …; experts … }}`"))]
pub(crate) struct RouteOutsideGate {
    #[label("no bank to route to")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the gate chooses among {size} experts, the bank holds {experts}")]
#[diagnostic(
    code(moec::sema::gate_and_bank_disagree),
    help("give `{axis}` the size {experts}, or let the bank hold {size}")
)]
struct GateAndBankDisagree {
    axis: Axis,
    size: u64,
    experts: u64,
    #[label("chooses along `{axis}`, which has {size}")]
    chosen_at: Span,
    #[label("holds {experts}")]
    bank_at: Span,
}
