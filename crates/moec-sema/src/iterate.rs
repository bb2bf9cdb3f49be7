//! `iterate 8 (z = l) { f(z) }`: an expression applied to its own result, as often as is known when the file is checked.
//!
//! ```text
//! before   iterate 3 (z = l, until = 1e-4) { f(z) }
//! after    z1 = f(l);  still1 = mean |z1 - l| >= 1e-4
//!          z2 = where(still1, f(z1), z1);  still2 = still1 and mean |z2 - z1| >= 1e-4;  …
//! ```

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::ops::{Reduce, ReduceOp};
use moec_syntax::tree::{Expr, Name};
use moec_types::{Axis, BinaryOp, UnaryOp};
use thiserror::Error;

use crate::{
    evaluator::{Evaluator, limits},
    scope::{Frame, Origin},
    value::{Operand, Value},
};

/// What the author wrote.
pub(crate) struct Iterate<'t> {
    pub steps: &'t Expr,
    pub name: &'t Name,
    pub initial: &'t Expr,
    pub until: Option<&'t Expr>,
    pub body: &'t Expr,
}

impl Evaluator {
    pub fn iterate(&mut self, frame: &mut Frame, written: &Iterate, at: Span) -> Value {
        let steps = self.operand(frame, written.steps);
        let initial = self.operand(frame, written.initial);
        let until = written.until.map(|until| self.operand(frame, until));
        let Some(count) = self.int(&steps, "the number of steps") else { return Value::Error };
        if !(0..=limits::ITERATIONS).contains(&count) {
            return self.fail(StepsOutOfRange { count, at: steps.at });
        }
        if self.already_named(frame, written.name) || initial.value.is_error() {
            return Value::Error;
        }
        let mut value = initial.value;
        let mut still: Option<Operand> = None;
        for step in 0..count {
            let outside = frame.names.len();
            self.call_it(&value, &written.name.text);
            frame.bind(written.name, value.clone(), Origin::Index);
            self.note_bound(frame, written.name);
            let next = self.operand(frame, written.body);
            frame.names.truncate(outside);
            if next.value.is_error() {
                return Value::Error;
            }
            let next = match &still {
                None => next,
                Some(still) => {
                    let kept = Operand { value: value.clone(), at: next.at };
                    let at = next.at;
                    Operand { value: self.select(frame, still.clone(), next, kept, at), at }
                }
            };
            if let Some(until) = until.as_ref().filter(|_| step + 1 < count) {
                let before = Operand { value: value.clone(), at: next.at };
                let moves = self.moves(frame, before, next.clone(), until, at);
                let both = match still.take() {
                    None => moves,
                    Some(still) => self.binary_op(frame, BinaryOp::And, still, Operand { value: moves, at }, at),
                };
                still = Some(Operand { value: both, at });
            }
            value = next.value;
        }
        value
    }

    /// Whether the mean absolute change is not yet below `until`.
    fn moves(&mut self, frame: &mut Frame, before: Operand, after: Operand, until: &Operand, at: Span) -> Value {
        let change = self.binary_op(frame, BinaryOp::Sub, after, before, at);
        let change = self.unary_op(frame, UnaryOp::Abs, Operand { value: change, at }, at);
        let mean = match &change {
            Value::Tensor(value) => {
                let over: Vec<Axis> = self.module.tensor(*value).axes().cloned().collect();
                if over.is_empty() {
                    change
                } else {
                    self.emit1(frame, Reduce { op: ReduceOp::Mean, over }, &[(*value, at)], at)
                }
            }
            _ => change,
        };
        self.binary_op(frame, BinaryOp::Ge, Operand { value: mean, at }, until.clone(), at)
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("`iterate` over {count} steps")]
#[diagnostic(
    code(moec::sema::steps_out_of_range),
    help("every step is written out when the file is checked: from 0 to {} of them", limits::ITERATIONS)
)]
struct StepsOutOfRange {
    count: i64,
    #[label("this is {count}")]
    at: Span,
}
