//! Primitives on numbers, element by element, and on what is known when a file is checked.

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::ops::ReduceOp;
use moec_types::{BinaryOp, DType, UnaryOp};
use thiserror::Error;

use super::{Over, Use};
use crate::{
    evaluator::{Evaluator, WrongKind},
    scope::Frame,
    value::Value,
};

impl Evaluator {
    pub(super) fn of_one(&mut self, frame: &mut Frame, used: &Use, op: UnaryOp) -> Option<Value> {
        let [x] = self.exactly(used, Over::None)?;
        Some(self.unary_op(frame, op, x, used.at))
    }

    pub(super) fn of_two(&mut self, frame: &mut Frame, used: &Use, op: BinaryOp) -> Option<Value> {
        let [x, y] = self.exactly(used, Over::None)?;
        Some(self.binary_op(frame, op, x, y, used.at))
    }

    pub(super) fn converted(&mut self, frame: &mut Frame, used: &Use, to: DType) -> Option<Value> {
        let [x] = self.exactly(used, Over::None)?;
        Some(self.cast(frame, to, x, used.at))
    }

    /// Element-wise on two values, a reduction over one.
    pub(super) fn extreme(&mut self, frame: &mut Frame, used: &Use, two: BinaryOp, all: ReduceOp) -> Option<Value> {
        if used.given.over.is_empty() { self.of_two(frame, used, two) } else { self.reduced(frame, used, all) }
    }

    /// `where(condition, yes, no)`
    pub(super) fn chosen_by(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let [condition, yes, no] = self.exactly(used, Over::None)?;
        Some(self.select(frame, condition, yes, no, used.at))
    }

    pub(super) fn item_of(&mut self, _: &mut Frame, used: &Use) -> Option<Value> {
        let [list, at] = self.exactly(used, Over::None)?;
        self.item(&list, &at)
    }

    pub(super) fn vector_of(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let [list] = self.exactly(used, Over::One)?;
        self.vector(frame, &list, &used.given.over[0], used.at)
    }

    /// `fail("why")`
    pub(super) fn failed(&mut self, _: &mut Frame, used: &Use) -> Option<Value> {
        let [why] = self.exactly(used, Over::None)?;
        match why.value {
            // Whether it comes to that may hang on what a use would say.
            Value::Text(_) if self.alone.is_some() => {}
            Value::Text(why) => self.report(Failed { why: why.to_string(), at: used.at }),
            Value::Error => {}
            other => {
                let found = other.describe(&self.module);
                self.report(WrongKind { who: used.who(), wants: "a text", found, at: why.at, help: None });
            }
        }
        None
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("{why}")]
#[diagnostic(code(moec::sema::failed))]
struct Failed {
    why: String,
    #[label("refused here")]
    at: Span,
}
