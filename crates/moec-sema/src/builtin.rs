//! The primitives: what a program is made of in the end.

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    ValueId,
    ops::{
        Assign, Concat, Count, Cumsum, Gather, Iota, Map, Merge, Past, Reduce, ReduceOp, Rename, Route, ScatterAdd,
        Split, TopK, Unfold,
    },
};
use moec_syntax::tree::{Argument, AxisExpr, ExprKind, Name};
use moec_types::{Axis, BinaryOp, DType, Dim, Expr, Size, TensorType, UnaryOp};
use thiserror::Error;

use crate::{
    Phase,
    call::{Arguments, Regroup},
    count::{Fraction, Rounding},
    evaluator::{ChosenFrom, Evaluator, WrongKind},
    scope::{Bank, Frame},
    value::{Operand, Value},
};

/// The axis that `top_k` makes.
pub(crate) const CHOICES: &str = "K";

/// A primitive and how it is called.
#[derive(Clone, Copy, Debug)]
struct Primitive {
    name: &'static str,
    form: &'static str,
    takes: Takes,
}

#[derive(Clone, Copy, Debug)]
enum Takes {
    Unary(UnaryOp),
    Binary(BinaryOp),
    Cast(DType),
    Reduce(ReduceOp),
    /// Element-wise on two values, a reduction over one.
    Extreme(BinaryOp, ReduceOp),
    Where,
    Cumsum,
    Assign,
    TopK,
    Gather,
    ScatterAdd,
    Split,
    Merge,
    Rename,
    Unfold,
    Past,
    Concat,
    Tokens,
    Slots,
    Mix,
    Each,
    Combine,
    Weights,
    Indices,
    Item,
    Vector,
    Fail,
}

const PRIMITIVES: &[Primitive] = &[
    Primitive { name: "exp", form: "exp(x)", takes: Takes::Unary(UnaryOp::Exp) },
    Primitive { name: "log", form: "log(x)", takes: Takes::Unary(UnaryOp::Log) },
    Primitive { name: "sqrt", form: "sqrt(x)", takes: Takes::Unary(UnaryOp::Sqrt) },
    Primitive { name: "tanh", form: "tanh(x)", takes: Takes::Unary(UnaryOp::Tanh) },
    Primitive { name: "erf", form: "erf(x)", takes: Takes::Unary(UnaryOp::Erf) },
    Primitive { name: "sin", form: "sin(x)", takes: Takes::Unary(UnaryOp::Sin) },
    Primitive { name: "cos", form: "cos(x)", takes: Takes::Unary(UnaryOp::Cos) },
    Primitive { name: "abs", form: "abs(x)", takes: Takes::Unary(UnaryOp::Abs) },
    Primitive { name: "sign", form: "sign(x)", takes: Takes::Unary(UnaryOp::Sign) },
    Primitive { name: "floor", form: "floor(x)", takes: Takes::Unary(UnaryOp::Floor) },
    Primitive { name: "ceil", form: "ceil(x)", takes: Takes::Unary(UnaryOp::Ceil) },
    Primitive { name: "round", form: "round(x)", takes: Takes::Unary(UnaryOp::Round) },
    Primitive { name: "pow", form: "pow(x, y)", takes: Takes::Binary(BinaryOp::Pow) },
    Primitive { name: "mod", form: "mod(x, y)", takes: Takes::Binary(BinaryOp::Mod) },
    Primitive { name: "bit_xor", form: "bit_xor(i, j)", takes: Takes::Binary(BinaryOp::BitXor) },
    Primitive { name: "bit_and", form: "bit_and(i, j)", takes: Takes::Binary(BinaryOp::BitAnd) },
    Primitive { name: "shift_left", form: "shift_left(i, j)", takes: Takes::Binary(BinaryOp::ShiftLeft) },
    Primitive { name: "shift_right", form: "shift_right(i, j)", takes: Takes::Binary(BinaryOp::ShiftRight) },
    Primitive { name: "f32", form: "f32(x)", takes: Takes::Cast(DType::F32) },
    Primitive { name: "i32", form: "i32(x)", takes: Takes::Cast(DType::I32) },
    Primitive { name: "sum", form: "sum(x over A)", takes: Takes::Reduce(ReduceOp::Sum) },
    Primitive { name: "mean", form: "mean(x over A)", takes: Takes::Reduce(ReduceOp::Mean) },
    Primitive { name: "prod", form: "prod(x over A)", takes: Takes::Reduce(ReduceOp::Prod) },
    Primitive { name: "any", form: "any(x over A)", takes: Takes::Reduce(ReduceOp::Any) },
    Primitive { name: "all", form: "all(x over A)", takes: Takes::Reduce(ReduceOp::All) },
    Primitive {
        name: "max",
        form: "max(x over A)` or `max(x, y)",
        takes: Takes::Extreme(BinaryOp::Max, ReduceOp::Max),
    },
    Primitive {
        name: "min",
        form: "min(x over A)` or `min(x, y)",
        takes: Takes::Extreme(BinaryOp::Min, ReduceOp::Min),
    },
    Primitive { name: "where", form: "where(condition, yes, no)", takes: Takes::Where },
    Primitive { name: "assign", form: "assign(score, most over (N, E))", takes: Takes::Assign },
    Primitive { name: "cumsum", form: "cumsum(x over A)", takes: Takes::Cumsum },
    Primitive { name: "top_k", form: "top_k(x, k over E)", takes: Takes::TopK },
    Primitive { name: "gather", form: "gather(x, i over E)", takes: Takes::Gather },
    Primitive { name: "scatter_add", form: "scatter_add(x, i, (E, C) as N)", takes: Takes::ScatterAdd },
    Primitive { name: "split", form: "split(x, E as (Group = 4, Member))", takes: Takes::Split },
    Primitive { name: "merge", form: "merge(x, (Group, Member) as E)` or `merge(weights)", takes: Takes::Merge },
    Primitive { name: "rename", form: "rename(x, K as K2)", takes: Takes::Rename },
    Primitive { name: "unfold", form: "unfold(x, Y as (Y, Tap = 3), step = 1)", takes: Takes::Unfold },
    Primitive { name: "past", form: "past(x, S as T)", takes: Takes::Past },
    Primitive { name: "concat", form: "concat(a, b over A)", takes: Takes::Concat },
    Primitive {
        name: "tokens",
        form: "tokens(indices, weights)` or `tokens(indices, weights, keep)",
        takes: Takes::Tokens,
    },
    Primitive {
        name: "slots",
        form: "slots(positions, weights)` or `slots(positions, weights over N)",
        takes: Takes::Slots,
    },
    Primitive { name: "mix", form: "mix(into, back)` or `mix(into, back over N)", takes: Takes::Mix },
    Primitive { name: "each", form: "each(route, bank, x)", takes: Takes::Each },
    Primitive { name: "combine", form: "combine(route, y)", takes: Takes::Combine },
    Primitive { name: "weights", form: "weights(route)", takes: Takes::Weights },
    Primitive { name: "indices", form: "indices(route)", takes: Takes::Indices },
    Primitive { name: "item", form: "item(list, 0)", takes: Takes::Item },
    Primitive { name: "vector", form: "vector(list over A)", takes: Takes::Vector },
    Primitive { name: "fail", form: "fail(\"why\")", takes: Takes::Fail },
];

/// Primitives whose arguments are not all values.
const SPECIAL: [(&str, &str); 2] = [("size", "size(A)"), ("phase", "phase(train = a, infer = b)")];

/// Every primitive's name and form, such as `top_k(x, k over E)`.
pub fn primitives() -> impl Iterator<Item = (&'static str, &'static str)> {
    PRIMITIVES.iter().map(|primitive| (primitive.name, primitive.form)).chain(SPECIAL)
}

/// The names of all primitives.
pub(crate) fn names<'n>() -> impl Iterator<Item = &'n str> {
    PRIMITIVES.iter().map(|primitive| primitive.name).chain(SPECIAL.iter().map(|(name, _)| *name))
}

impl Evaluator {
    /// `None` where no primitive has this name.
    pub fn call_builtin(&mut self, frame: &mut Frame, name: &str, given: Arguments, at: Span) -> Option<Value> {
        let primitive = PRIMITIVES.iter().find(|primitive| primitive.name == name)?;
        Some(self.apply(frame, *primitive, given, at).unwrap_or(Value::Error))
    }

    /// `None` once a problem was reported.
    fn apply(&mut self, frame: &mut Frame, primitive: Primitive, given: Arguments, at: Span) -> Option<Value> {
        let who = format!("`{}`", primitive.name);
        Some(match primitive.takes {
            Takes::Unary(op) => {
                let [x] = self.exactly(primitive, &given, Over::None)?;
                self.unary_op(frame, op, x, at)
            }
            Takes::Binary(op) => {
                let [x, y] = self.exactly(primitive, &given, Over::None)?;
                self.binary_op(frame, op, x, y, at)
            }
            Takes::Cast(dtype) => {
                let [x] = self.exactly(primitive, &given, Over::None)?;
                self.cast(frame, dtype, x, at)
            }
            Takes::Extreme(op, _) if given.over.is_empty() => {
                let [x, y] = self.exactly(primitive, &given, Over::None)?;
                self.binary_op(frame, op, x, y, at)
            }
            Takes::Reduce(op) | Takes::Extreme(_, op) => {
                let [x] = self.exactly(primitive, &given, Over::Some)?;
                let x = self.tensor(&x, &who)?;
                let over = given.over.iter().map(|name| frame.axis(&name.text)).collect();
                self.emit1(frame, Reduce { op, over }, &[x], at)
            }
            Takes::Where => {
                let [condition, yes, no] = self.exactly(primitive, &given, Over::None)?;
                self.select(frame, condition, yes, no, at)
            }
            Takes::Assign => {
                let [score, most] = self.exactly(primitive, &given, Over::Some)?;
                let [tokens, experts] = &given.over[..] else {
                    let found = "one axis, or more than two".to_owned();
                    self.report(WrongForm { name: primitive.name, form: primitive.form, found, at: given.at });
                    return None;
                };
                let axes = [frame.axis(&tokens.text), frame.axis(&experts.text)];
                let (score, size) = (self.tensor(&score, &who)?, self.how_many(&most, "the most for an expert")?);
                let experts = self.module.tensor(score.0).dim(&axes[1]).and_then(|dim| dim.size.fixed());
                let result = self.emit1(frame, Assign { axes: axes.clone(), most: size }, &[score], at);
                if let (Value::Tensor(indices), Some(size)) = (&result, experts) {
                    let [_, axis] = axes;
                    self.chosen_from.insert(*indices, ChosenFrom { axis, size, at: score.1 });
                }
                result
            }
            Takes::Cumsum => {
                let [x] = self.exactly(primitive, &given, Over::One)?;
                let x = self.tensor(&x, &who)?;
                self.emit1(frame, Cumsum { over: frame.axis(&given.over[0].text) }, &[x], at)
            }
            Takes::TopK => {
                let [x, k] = self.exactly(primitive, &given, Over::One)?;
                self.top_k(frame, x, k, &given.over[0], at)?
            }
            Takes::Gather => {
                let [x, index] = self.exactly(primitive, &given, Over::One)?;
                let (x, index) = (self.tensor(&x, &who)?, self.tensor(&index, &who)?);
                let result = self.emit1(frame, Gather { over: frame.axis(&given.over[0].text) }, &[x, index], at);
                if let (Value::Tensor(result), Some(from)) = (&result, self.chosen_from.get(&x.0).cloned()) {
                    self.chosen_from.insert(*result, from);
                }
                result
            }
            Takes::ScatterAdd => {
                let ([x, index], [], [regroup], []) =
                    (&given.positional[..], &given.named[..], &given.regroups[..], &given.over[..])
                else {
                    return self.malformed(primitive, &given);
                };
                let ([_, ..], [into]) = (&regroup.from[..], &regroup.to[..]) else {
                    return self.malformed(primitive, &given);
                };
                let (x, index) = (self.tensor(x, &who)?, self.tensor(index, &who)?);
                let axes = regroup.from.iter().map(|name| frame.axis(&name.text)).collect();
                let into = self.sized_axis(frame, into)?;
                self.emit1(frame, ScatterAdd { axes, into }, &[x, index], at)
            }
            Takes::Split => {
                let (x, regroup) = self.regrouped(primitive, &given)?;
                let ([from], [_, ..]) = (&regroup.from[..], &regroup.to[..]) else {
                    return self.malformed(primitive, &given);
                };
                let axis = frame.axis(&from.text);
                let into = self.split_sizes(frame, x.0, &axis, regroup)?;
                self.reshape(frame, Split { axis, into }, x, at)
            }
            Takes::Merge if given.regroups.is_empty() => {
                let [weights] = self.exactly(primitive, &given, Over::None)?;
                self.merge_experts(frame, &weights, at)?
            }
            Takes::Merge => {
                let (x, regroup) = self.regrouped(primitive, &given)?;
                let ([_, ..], [into]) = (&regroup.from[..], &regroup.to[..]) else {
                    return self.malformed(primitive, &given);
                };
                let axes = regroup.from.iter().map(|name| frame.axis(&name.text)).collect();
                let into = frame.axis(&into.name.text);
                self.reshape(frame, Merge { axes, into }, x, at)
            }
            Takes::Rename => {
                let (x, regroup) = self.regrouped(primitive, &given)?;
                let ([from], [to]) = (&regroup.from[..], &regroup.to[..]) else {
                    return self.malformed(primitive, &given);
                };
                let (from, to) = (frame.axis(&from.text), frame.axis(&to.name.text));
                if from == to { Value::Tensor(x.0) } else { self.reshape(frame, Rename { from, to }, x, at) }
            }
            Takes::Unfold => self.unfold(frame, primitive, &given, at)?,
            Takes::Past => {
                let (x, regroup) = self.regrouped(primitive, &given)?;
                let ([from], [to]) = (&regroup.from[..], &regroup.to[..]) else {
                    return self.malformed(primitive, &given);
                };
                let (axis, into) = (frame.axis(&from.text), frame.axis(&to.name.text));
                if self.refused_in_a_scan(frame, "`past`", at) {
                    return None;
                }
                self.emit1(frame, Past { axis, into }, &[x], at)
            }
            Takes::Concat => {
                self.plain(primitive, &given, Over::One)?;
                if given.positional.is_empty() {
                    return self.malformed(primitive, &given);
                }
                let tensors: Option<Vec<_>> =
                    given.positional.iter().map(|operand| self.tensor(operand, &who)).collect();
                self.emit1(frame, Concat { over: frame.axis(&given.over[0].text) }, &tensors?, at)
            }
            Takes::Tokens => {
                let (indices, weights, keep) = self.route_form(primitive, given)?;
                self.tokens(frame, indices, weights, keep, at)?
            }
            Takes::Slots => {
                let [positions, weights] = self.exactly(primitive, &given, Over::NoneOrOne)?;
                self.slots(frame, &positions, &weights, given.over.first(), at)?
            }
            Takes::Mix => {
                let [into, back] = self.exactly(primitive, &given, Over::NoneOrOne)?;
                self.mix(frame, &into, &back, given.over.first(), at)?
            }
            Takes::Each => {
                let [route, bank, x] = self.exactly(primitive, &given, Over::None)?;
                self.each(frame, &route, &bank, &x, at)?
            }
            Takes::Combine => {
                let [route, y] = self.exactly(primitive, &given, Over::None)?;
                self.combine(frame, &route, &y, at)?
            }
            Takes::Weights => {
                let [route] = self.exactly(primitive, &given, Over::None)?;
                self.weights_of_route(frame, &route, at)?
            }
            Takes::Indices => {
                let [route] = self.exactly(primitive, &given, Over::None)?;
                self.indices(&route)?
            }
            Takes::Item => {
                let [list, at] = self.exactly(primitive, &given, Over::None)?;
                self.item(&list, &at)?
            }
            Takes::Vector => {
                let [list] = self.exactly(primitive, &given, Over::One)?;
                self.vector(frame, &list, &given.over[0], at)?
            }
            Takes::Fail => {
                let [why] = self.exactly(primitive, &given, Over::None)?;
                match why.value {
                    // Whether it comes to that may hang on what a use would say.
                    Value::Text(_) if self.alone.is_some() => Value::Error,
                    Value::Text(why) => self.fail(Failed { why: why.to_string(), at }),
                    Value::Error => Value::Error,
                    other => {
                        let found = other.describe(&self.module);
                        self.fail(WrongKind { who, wants: "a text", found, at: why.at, help: None })
                    }
                }
            }
        })
    }

    /// `unfold(x, Y as (Y, Tap = 3), step = 2)`: the first new axis is as long as windows fit.
    fn unfold(&mut self, frame: &mut Frame, primitive: Primitive, given: &Arguments, at: Span) -> Option<Value> {
        let ([x], [regroup], []) = (&given.positional[..], &given.regroups[..], &given.over[..]) else {
            return self.malformed(primitive, given);
        };
        let ([axis], [place, window]) = (&regroup.from[..], &regroup.to[..]) else {
            return self.malformed(primitive, given);
        };
        let step = match &given.named[..] {
            [] => 1,
            [(name, step)] if name.text == "step" => self.size(step, "the step from window to window")?,
            _ => return self.malformed(primitive, given),
        };
        if place.size.is_some() {
            return self.malformed(primitive, given);
        }
        let x = self.tensor(x, "`unfold`")?;
        let window = self.sized_axis(frame, window)?;
        let op = Unfold { axis: frame.axis(&axis.text), place: frame.axis(&place.name.text), window, step };
        Some(self.reshape(frame, op, x, at))
    }

    /// The positional arguments, when there are exactly `N` and nothing else is amiss.
    fn exactly<const N: usize>(&mut self, primitive: Primitive, given: &Arguments, over: Over) -> Option<[Operand; N]> {
        self.plain(primitive, given, over)?;
        match <[Operand; N]>::try_from(given.positional.clone()) {
            Ok(operands) => (!operands.iter().any(|operand| operand.value.is_error())).then_some(operands),
            Err(_) => self.malformed(primitive, given),
        }
    }

    /// Refuses named arguments, regroupings, and a wrong number of axes.
    fn plain(&mut self, primitive: Primitive, given: &Arguments, over: Over) -> Option<()> {
        let axes = match over {
            Over::None => given.over.is_empty(),
            Over::One => given.over.len() == 1,
            Over::NoneOrOne => given.over.len() <= 1,
            Over::Some => !given.over.is_empty(),
        };
        if axes && given.named.is_empty() && given.regroups.is_empty() {
            return Some(());
        }
        self.malformed(primitive, given)
    }

    /// The tensor and the one regrouping of `split`, `merge`, `rename`, `past`.
    fn regrouped<'g>(
        &mut self,
        primitive: Primitive,
        given: &'g Arguments,
    ) -> Option<((moec_ir::ValueId, Span), &'g Regroup)> {
        let ([x], [], [regroup], []) = (&given.positional[..], &given.named[..], &given.regroups[..], &given.over[..])
        else {
            return self.malformed(primitive, given);
        };
        let x = self.tensor(x, &format!("`{}`", primitive.name))?;
        Some((x, regroup))
    }

    fn malformed<T>(&mut self, primitive: Primitive, given: &Arguments) -> Option<T> {
        if given
            .positional
            .iter()
            .chain(given.named.iter().map(|(_, value)| value))
            .all(|given| !given.value.is_error())
        {
            let (found, at) = (given.counted(primitive.form.contains(" over ")), given.at);
            self.report(WrongForm { name: primitive.name, form: primitive.form, found, at });
        }
        None
    }

    fn top_k(&mut self, frame: &mut Frame, x: Operand, k: Operand, over: &Name, at: Span) -> Option<Value> {
        let x = self.tensor(&x, "`top_k`")?;
        let count = self.how_many(&k, "the number of choices")?;
        let axis = frame.axis(&over.text);
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
            self.emit(frame, TopK { over: axis.clone(), choices: Dim::new(Axis::new(CHOICES), count) }, &[x], at)?;
        let [values, indices] = results[..] else { return None };
        if let Some(size) = size {
            self.chosen_from.insert(indices, ChosenFrom { axis, size, at: x.1 });
        }
        Some(Value::Tuple([(Some("values"), Value::Tensor(values)), (Some("indices"), Value::Tensor(indices))].into()))
    }

    /// `tokens(indices, weights)`, `tokens(indices, weights, keep)`, `tokens(indices, weights, keep = …)`.
    fn route_form(
        &mut self,
        primitive: Primitive,
        mut given: Arguments,
    ) -> Option<(Operand, Operand, Option<Operand>)> {
        if given.positional.len() == 2 && given.named.len() == 1 && given.named[0].0.text == "keep" {
            given.positional.extend(given.named.pop().map(|(_, keep)| keep));
        }
        let keep = if given.positional.len() == 3 { given.positional.pop() } else { None };
        let [indices, weights] = self.exactly(primitive, &given, Over::None)?;
        if keep.as_ref().is_some_and(|keep| keep.value.is_error()) {
            return None;
        }
        Some((indices, weights, keep))
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

    /// An axis with the size that is written behind it, else that of the axis of this name.
    fn sized_axis(&mut self, frame: &mut Frame, axis: &AxisExpr) -> Option<Dim> {
        let name = frame.axis(&axis.name.text);
        let Some(size) = &axis.size else { return self.known_dim(frame, &name, axis.name.at) };
        let size = self.operand(frame, size);
        let size = self.how_many(&size, &format!("the size of `{name}`"))?;
        Some(Dim::new(name, size))
    }

    /// The sizes of the axes that `split` makes: written, or known by name, and at most one from what is left.
    fn split_sizes(
        &mut self,
        frame: &mut Frame,
        x: moec_ir::ValueId,
        axis: &Axis,
        regroup: &Regroup,
    ) -> Option<Vec<Dim>> {
        let unwritten = regroup.to.iter().filter(|axis| axis.size.is_none()).count();
        let mut sizes: Vec<Option<u64>> = Vec::new();
        for part in &regroup.to {
            sizes.push(match &part.size {
                Some(size) => {
                    let size = self.operand(frame, size);
                    Some(self.size(&size, &format!("the size of `{}`", part.name.text))?)
                }
                None if unwritten == 1 => None,
                None => self.named_size(frame, &part.name).ok()?,
            });
        }
        let whole = self.module.tensor(x).dim(axis).and_then(|dim| dim.size.fixed());
        let known = sizes.iter().flatten().try_fold(1u64, |product, size| product.checked_mul(*size));
        let open = sizes.iter().filter(|size| size.is_none()).count();
        if open > 0 {
            let left = whole
                .zip(known)
                .filter(|(whole, known)| open == 1 && whole % known == 0)
                .map(|(whole, known)| whole / known);
            match (left, whole) {
                (Some(left), _) => sizes.iter_mut().filter(|size| size.is_none()).for_each(|size| *size = Some(left)),
                // The op itself says that the axis is missing or symbolic.
                (None, None) => sizes.iter_mut().for_each(|size| *size = Some(size.unwrap_or(1))),
                (None, Some(whole)) => {
                    let axis = axis.clone();
                    let known = known.unwrap_or(u64::MAX);
                    let help = match open {
                        1 => format!("`{axis}` has {whole}, which {known} does not divide"),
                        _ => format!("`{axis}` has {whole}: write the sizes, `Name = size`, of all parts but one"),
                    };
                    self.report(SplitUnclear { axis, at: regroup.at, help });
                    return None;
                }
            }
        }
        let dims = regroup.to.iter().zip(sizes);
        Some(dims.map(|(part, size)| Dim::new(frame.axis(&part.name.text), Size::Fixed(size.unwrap_or(1)))).collect())
    }

    /// `phase(train = a, infer = b)`: the one that the file is checked for; the other is not looked at, as with `if`.
    pub fn of_phase(&mut self, frame: &mut Frame, arguments: &[Argument], over: &[Name], at: Span) -> Value {
        let named = |wanted: &str| {
            arguments.iter().find_map(|argument| match argument {
                Argument::Named(name, value) if name.text == wanted => Some(value),
                Argument::Named(..) | Argument::Value(_) | Argument::Regroup { .. } => None,
            })
        };
        let (Some(train), Some(infer), 2, []) = (named("train"), named("infer"), arguments.len(), over) else {
            let found = "something else than the two, by name".to_owned();
            return self.fail(WrongForm { name: SPECIAL[1].0, form: SPECIAL[1].1, found, at });
        };
        match self.phase {
            Phase::Train => self.eval(frame, train),
            Phase::Infer => self.eval(frame, infer),
        }
    }

    /// `size(A)`: how long an axis is, as a number known now, or a count known when the model runs.
    pub fn size_of_axis(&mut self, frame: &mut Frame, arguments: &[Argument], at: Span) -> Value {
        let name = match arguments {
            [Argument::Value(expr)] => match &*expr.kind {
                ExprKind::Name(name) => Some((name, expr.at)),
                _ => None,
            },
            _ => None,
        };
        let Some((name, name_at)) = name else {
            let found = "something else than one axis".to_owned();
            return self.fail(WrongForm { name: SPECIAL[0].0, form: SPECIAL[0].1, found, at });
        };
        let axis = frame.axis(name);
        match self.known_dim(frame, &axis, name_at).map(|dim| dim.size) {
            None => Value::Error,
            Some(Size::Fixed(size)) => Value::Int(size as i64),
            Some(Size::Input(of)) => Value::Count(Fraction::all_of(of, at)),
            Some(Size::Share { of, times, per, up }) => {
                let rounded = Some(if up { Rounding::Up } else { Rounding::Down });
                Value::Count(Fraction { of: Some(of), times, per, rounded, at })
            }
            Some(size @ Size::Past(_)) => self.emit1(frame, Count { size }, &[], at),
            Some(Size::Slots { .. }) => self.fail(SymbolicSize { axis, at: name_at }),
        }
    }
}

/// How many axes a primitive takes after `over`.
#[derive(Clone, Copy)]
enum Over {
    None,
    One,
    NoneOrOne,
    Some,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` is given {found}")]
#[diagnostic(code(moec::sema::wrong_form), help("it is `{form}`"))]
struct WrongForm {
    name: &'static str,
    form: &'static str,
    found: String,
    #[label("does not fit")]
    at: Span,
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

#[derive(Debug, Error, Diagnostic)]
#[error("the parts of `{axis}` are not determined")]
#[diagnostic(code(moec::sema::split_unclear), help("{help}"))]
struct SplitUnclear {
    axis: Axis,
    #[label("cannot be split so")]
    at: Span,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("an expert does not see how many rows it gets")]
#[diagnostic(code(moec::sema::symbolic_size), help("take the size of another axis than `{axis}`"))]
struct SymbolicSize {
    axis: Axis,
    #[label("as long as the tokens that chose this expert")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{why}")]
#[diagnostic(code(moec::sema::failed))]
struct Failed {
    why: String,
    #[label("refused here")]
    at: Span,
}
