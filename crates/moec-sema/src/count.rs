//! Exact fractions: how many positions an axis has, known when the model runs, and quotients of whole numbers.
//!
//! `floor(size(N) * c / size(E))` is the same text whether `N` is as long as the input or an axis of the configuration.

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::ops::Count;
use moec_types::{Axis, BinaryOp, Size};
use thiserror::Error;

use crate::{
    elementwise::NotWhole,
    evaluator::{Evaluator, WrongKind},
    scope::Frame,
    value::{Operand, Value},
};

/// `times / per`, times the positions of a symbolic axis where there is one. Kept exact until it is rounded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fraction {
    pub of: Option<Axis>,
    pub times: u64,
    /// Never 0.
    pub per: u64,
    pub rounded: Option<Rounding>,
    /// Where it was made.
    pub at: Span,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rounding {
    Down,
    Up,
}

impl Fraction {
    /// All positions of a symbolic axis.
    pub fn all_of(axis: Axis, at: Span) -> Self {
        Fraction { of: Some(axis), times: 1, per: 1, rounded: None, at }
    }

    /// What it is as a size. `None` where it may be no whole number.
    fn size(&self) -> Option<Size> {
        let Fraction { of, times, per, rounded, .. } = self;
        match (of, rounded) {
            (None, None) => (times % per == 0).then(|| Size::Fixed(times / per)),
            (None, Some(Rounding::Down)) => Some(Size::Fixed(times / per)),
            (None, Some(Rounding::Up)) => Some(Size::Fixed(times.div_ceil(*per))),
            (Some(of), rounded) => {
                let shared = greatest_common_divisor(*times, *per);
                let (times, per) = (times / shared, per / shared);
                let of = of.clone();
                match (times, per, rounded) {
                    (1, 1, _) => Some(Size::Input(of)),
                    (_, 1, _) => Some(Size::Share { of, times, per, up: false }),
                    (_, _, None) => None,
                    (_, _, Some(rounding)) => Some(Size::Share { of, times, per, up: *rounding == Rounding::Up }),
                }
            }
        }
    }

    /// The whole number that it is for certain, else itself.
    fn value(self) -> Value {
        match self.size() {
            Some(Size::Fixed(whole)) => i64::try_from(whole).map_or(Value::Count(self), Value::Int),
            Some(_) | None => Value::Count(self),
        }
    }

    /// `size(S) * 2 / 8`.
    pub fn describe(&self) -> String {
        let exact = match &self.of {
            None => format!("{} / {}", self.times, self.per),
            Some(of) => {
                let times = if self.times == 1 { String::new() } else { format!(" * {}", self.times) };
                let per = if self.per == 1 { String::new() } else { format!(" / {}", self.per) };
                format!("size({of}){times}{per}")
            }
        };
        match self.rounded {
            None => exact,
            Some(Rounding::Down) => format!("floor({exact})"),
            Some(Rounding::Up) => format!("ceil({exact})"),
        }
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { greatest_common_divisor(b, a % b) }
}

/// A value as an unrounded fraction, where it is a whole number above zero or an unrounded fraction.
fn exact(value: &Value, at: Span) -> Option<Fraction> {
    match value {
        Value::Count(fraction) if fraction.rounded.is_none() => Some(fraction.clone()),
        Value::Int(whole) if *whole > 0 => {
            Some(Fraction { of: None, times: whole.unsigned_abs(), per: 1, rounded: None, at })
        }
        _ => None,
    }
}

/// Products and quotients that stay exact. `None`: these operands, or this operation, are for ordinary arithmetic.
pub(crate) fn exact_binary(op: BinaryOp, a: &Value, b: &Value, at: Span) -> Option<Value> {
    if let (Value::Int(a), Value::Int(b)) = (a, b) {
        let leaves_a_rest = op == BinaryOp::Div && a.checked_rem(*b).is_some_and(|rest| rest != 0);
        if !leaves_a_rest {
            return None;
        }
    }
    let (x, y) = (exact(a, at)?, exact(b, at)?);
    let (times, per, of) = if op == BinaryOp::Mul && (x.of.is_none() || y.of.is_none()) {
        (x.times.checked_mul(y.times)?, x.per.checked_mul(y.per)?, x.of.or(y.of))
    } else if op == BinaryOp::Div && y.of.is_none() {
        (x.times.checked_mul(y.per)?, x.per.checked_mul(y.times)?, x.of)
    } else {
        return None;
    };
    Some(Fraction { of, times, per, rounded: None, at }.value())
}

/// `floor` and `ceil` of what is whole already, or a fraction. `None` for other values.
pub(crate) fn rounded(value: &Value, rounding: Rounding, at: Span) -> Option<Value> {
    match value {
        Value::Int(whole) => Some(Value::Int(*whole)),
        Value::Count(fraction) => {
            let rounded = fraction.rounded.or(Some(rounding));
            Some(Fraction { rounded, at, ..fraction.clone() }.value())
        }
        _ => None,
    }
}

impl Evaluator {
    /// The operand where a number or a tensor is wanted: a count becomes an i32 tensor, a fraction a problem.
    pub fn settled(&mut self, frame: &mut Frame, operand: Operand) -> Operand {
        let Value::Count(fraction) = &operand.value else { return operand };
        let at = operand.at;
        let value = match fraction.size() {
            None => self.not_whole(fraction),
            Some(Size::Fixed(whole)) => i64::try_from(whole).map_or(Value::Error, Value::Int),
            Some(size) => self.emit1(frame, Count { size }, &[], at),
        };
        Operand { value, at }
    }

    /// What says how many: a whole number, or a count known when the model runs.
    pub fn how_many(&mut self, operand: &Operand, what: &str) -> Option<Size> {
        match &operand.value {
            Value::Count(fraction) => match fraction.size() {
                None => {
                    self.not_whole(fraction);
                    None
                }
                size => size,
            },
            Value::Tensor(_) => {
                let found = operand.value.describe(&self.module);
                let help = Some(
                    "it must be a whole number, or a count in fractions of a size: `floor(size(N) * 5 / 4)`".to_owned(),
                );
                self.report(WrongKind { who: what.to_owned(), wants: "a count", found, at: operand.at, help });
                None
            }
            _ => self.size(operand, what).map(Size::Fixed),
        }
    }

    pub fn not_whole(&mut self, fraction: &Fraction) -> Value {
        let Fraction { of, times, per, at, .. } = fraction;
        match of {
            None => self.fail(NotWhole { left: *times as i64, right: *per as i64, at: *at }),
            Some(_) => self.fail(CountNotWhole { count: fraction.describe(), at: *at }),
        }
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("{count} is not a whole number for every input")]
#[diagnostic(code(moec::sema::count_not_whole), help("say how it is rounded: `floor({count})` or `ceil({count})`"))]
struct CountNotWhole {
    count: String,
    #[label("may leave a remainder")]
    at: Span,
}
