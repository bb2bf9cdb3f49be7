//! The primitives: what a program is made of in the end. Here are their names, their forms, and how arguments are taken; what
//! they do stands in the files of this folder.

mod along;
mod axes;
mod choices;
mod numbers;

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::ops::{Count, ReduceOp};
use moec_syntax::tree::{Argument, ExprKind, Name};
use moec_types::{Axis, BinaryOp, DType, Size, UnaryOp};
use thiserror::Error;

use crate::{
    Phase,
    call::{Arguments, Regroup},
    count::{Fraction, Rounding},
    evaluator::Evaluator,
    scope::Frame,
    value::{Operand, Value},
};

pub(crate) use choices::RouteOutsideGate;

/// The axis that `top_k` makes.
pub(crate) const CHOICES: &str = "K";

/// A primitive and how it is called.
#[derive(Clone, Copy)]
struct Primitive {
    name: &'static str,
    form: &'static str,
    /// `None` once a problem was reported.
    apply: fn(&mut Evaluator, &mut Frame, &Use) -> Option<Value>,
}

/// One use of a primitive.
struct Use {
    primitive: Primitive,
    given: Arguments,
    at: Span,
}

impl Use {
    /// Who speaks, in a problem.
    fn who(&self) -> String {
        format!("`{}`", self.primitive.name)
    }
}

const PRIMITIVES: &[Primitive] = &[
    Primitive { name: "exp", form: "exp(x)", apply: |e, f, u| e.of_one(f, u, UnaryOp::Exp) },
    Primitive { name: "log", form: "log(x)", apply: |e, f, u| e.of_one(f, u, UnaryOp::Log) },
    Primitive { name: "sqrt", form: "sqrt(x)", apply: |e, f, u| e.of_one(f, u, UnaryOp::Sqrt) },
    Primitive { name: "tanh", form: "tanh(x)", apply: |e, f, u| e.of_one(f, u, UnaryOp::Tanh) },
    Primitive { name: "erf", form: "erf(x)", apply: |e, f, u| e.of_one(f, u, UnaryOp::Erf) },
    Primitive { name: "sin", form: "sin(x)", apply: |e, f, u| e.of_one(f, u, UnaryOp::Sin) },
    Primitive { name: "cos", form: "cos(x)", apply: |e, f, u| e.of_one(f, u, UnaryOp::Cos) },
    Primitive { name: "abs", form: "abs(x)", apply: |e, f, u| e.of_one(f, u, UnaryOp::Abs) },
    Primitive { name: "sign", form: "sign(x)", apply: |e, f, u| e.of_one(f, u, UnaryOp::Sign) },
    Primitive { name: "floor", form: "floor(x)", apply: |e, f, u| e.of_one(f, u, UnaryOp::Floor) },
    Primitive { name: "ceil", form: "ceil(x)", apply: |e, f, u| e.of_one(f, u, UnaryOp::Ceil) },
    Primitive { name: "round", form: "round(x)", apply: |e, f, u| e.of_one(f, u, UnaryOp::Round) },
    Primitive { name: "pow", form: "pow(x, y)", apply: |e, f, u| e.of_two(f, u, BinaryOp::Pow) },
    Primitive { name: "mod", form: "mod(x, y)", apply: |e, f, u| e.of_two(f, u, BinaryOp::Mod) },
    Primitive { name: "bit_xor", form: "bit_xor(i, j)", apply: |e, f, u| e.of_two(f, u, BinaryOp::BitXor) },
    Primitive { name: "bit_and", form: "bit_and(i, j)", apply: |e, f, u| e.of_two(f, u, BinaryOp::BitAnd) },
    Primitive { name: "shift_left", form: "shift_left(i, j)", apply: |e, f, u| e.of_two(f, u, BinaryOp::ShiftLeft) },
    Primitive { name: "shift_right", form: "shift_right(i, j)", apply: |e, f, u| e.of_two(f, u, BinaryOp::ShiftRight) },
    Primitive { name: "f32", form: "f32(x)", apply: |e, f, u| e.converted(f, u, DType::F32) },
    Primitive { name: "i32", form: "i32(x)", apply: |e, f, u| e.converted(f, u, DType::I32) },
    Primitive { name: "sum", form: "sum(x over A)", apply: |e, f, u| e.reduced(f, u, ReduceOp::Sum) },
    Primitive { name: "mean", form: "mean(x over A)", apply: |e, f, u| e.reduced(f, u, ReduceOp::Mean) },
    Primitive { name: "prod", form: "prod(x over A)", apply: |e, f, u| e.reduced(f, u, ReduceOp::Prod) },
    Primitive { name: "any", form: "any(x over A)", apply: |e, f, u| e.reduced(f, u, ReduceOp::Any) },
    Primitive { name: "all", form: "all(x over A)", apply: |e, f, u| e.reduced(f, u, ReduceOp::All) },
    Primitive {
        name: "max",
        form: "max(x over A)` or `max(x, y)",
        apply: |e, f, u| e.extreme(f, u, BinaryOp::Max, ReduceOp::Max),
    },
    Primitive {
        name: "min",
        form: "min(x over A)` or `min(x, y)",
        apply: |e, f, u| e.extreme(f, u, BinaryOp::Min, ReduceOp::Min),
    },
    Primitive { name: "where", form: "where(condition, yes, no)", apply: Evaluator::chosen_by },
    Primitive { name: "assign", form: "assign(score, most over (N, E))", apply: Evaluator::assigned },
    Primitive { name: "cumsum", form: "cumsum(x over A)", apply: Evaluator::cumsum },
    Primitive { name: "top_k", form: "top_k(x, k over E)", apply: Evaluator::top_k },
    Primitive { name: "gather", form: "gather(x, i over E)", apply: Evaluator::gathered },
    Primitive { name: "scatter_add", form: "scatter_add(x, i, (E, C) as N)", apply: Evaluator::scattered },
    Primitive { name: "split", form: "split(x, E as (Group = 4, Member))", apply: Evaluator::split },
    Primitive { name: "merge", form: "merge(x, (Group, Member) as E)` or `merge(weights)", apply: Evaluator::merged },
    Primitive { name: "rename", form: "rename(x, K as K2)", apply: Evaluator::renamed_axis },
    Primitive { name: "unfold", form: "unfold(x, Y as (Y, Tap = 3), step = 1)", apply: Evaluator::unfolded },
    Primitive { name: "past", form: "past(x, S as T)", apply: Evaluator::past },
    Primitive { name: "concat", form: "concat(a, b over A)", apply: Evaluator::joined },
    Primitive {
        name: "tokens",
        form: "tokens(indices, weights)` or `tokens(indices, weights, keep)",
        apply: Evaluator::tokens_route,
    },
    Primitive {
        name: "slots",
        form: "slots(positions, weights)` or `slots(positions, weights over N)",
        apply: Evaluator::slots_route,
    },
    Primitive { name: "mix", form: "mix(into, back)` or `mix(into, back over N)", apply: Evaluator::mix_route },
    Primitive { name: "each", form: "each(route, bank, x)", apply: Evaluator::each_of },
    Primitive { name: "combine", form: "combine(route, y)", apply: Evaluator::combined_choices },
    Primitive { name: "weights", form: "weights(route)", apply: Evaluator::weights_of },
    Primitive { name: "indices", form: "indices(route)", apply: Evaluator::indices_of },
    Primitive { name: "item", form: "item(list, 0)", apply: Evaluator::item_of },
    Primitive { name: "vector", form: "vector(list over A)", apply: Evaluator::vector_of },
    Primitive { name: "fail", form: "fail(\"why\")", apply: Evaluator::failed },
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
        let primitive = *PRIMITIVES.iter().find(|primitive| primitive.name == name)?;
        Some((primitive.apply)(self, frame, &Use { primitive, given, at }).unwrap_or(Value::Error))
    }

    /// The positional arguments, when there are exactly `N` and nothing else is amiss.
    fn exactly<const N: usize>(&mut self, used: &Use, over: Over) -> Option<[Operand; N]> {
        self.plain(used, over)?;
        match <[Operand; N]>::try_from(used.given.positional.clone()) {
            Ok(operands) => (!operands.iter().any(|operand| operand.value.is_error())).then_some(operands),
            Err(_) => self.malformed(used),
        }
    }

    /// Refuses named arguments, regroupings, and a wrong number of axes.
    fn plain(&mut self, used: &Use, over: Over) -> Option<()> {
        let axes = match over {
            Over::None => used.given.over.is_empty(),
            Over::One => used.given.over.len() == 1,
            Over::NoneOrOne => used.given.over.len() <= 1,
            Over::Some => !used.given.over.is_empty(),
        };
        if axes && used.given.named.is_empty() && used.given.regroups.is_empty() {
            return Some(());
        }
        self.malformed(used)
    }

    /// The tensor and the one regrouping of `split`, `merge`, `rename`, `past`.
    fn regrouped<'g>(&mut self, used: &'g Use) -> Option<((moec_ir::ValueId, Span), &'g Regroup)> {
        let given = &used.given;
        let ([x], [], [regroup], []) = (&given.positional[..], &given.named[..], &given.regroups[..], &given.over[..])
        else {
            return self.malformed(used);
        };
        let x = self.tensor(x, &used.who())?;
        Some((x, regroup))
    }

    fn malformed<T>(&mut self, used: &Use) -> Option<T> {
        let Use { primitive, given, .. } = used;
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
#[error("an expert does not see how many rows it gets")]
#[diagnostic(code(moec::sema::symbolic_size), help("take the size of another axis than `{axis}`"))]
struct SymbolicSize {
    axis: Axis,
    #[label("as long as the tokens that chose this expert")]
    at: Span,
}
