//! Lists of the configuration, looked into: `item` and `vector`.

use std::rc::Rc;

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::ops::Literal;
use moec_syntax::tree::Name;
use moec_types::{DType, Dim, Size, TensorType};
use thiserror::Error;

use crate::{
    evaluator::{Evaluator, WrongKind},
    scope::Frame,
    value::{Operand, Value},
};

impl Evaluator {
    /// `item(list, 0)`: one of a list's, counted from 0.
    pub fn item(&mut self, list: &Operand, number: &Operand) -> Option<Value> {
        let items = self.list(list, "`item`")?;
        let Value::Int(at) = number.value else {
            let (who, found) = ("`item`".to_owned(), number.value.describe(&self.module));
            let help = Some("the number of an item, counted from 0, is known when the file is checked".to_owned());
            self.report(WrongKind { who, wants: "a whole number", found, at: number.at, help });
            return None;
        };
        let item = usize::try_from(at).ok().and_then(|at| items.get(at)).cloned();
        if item.is_none() {
            self.report(NoSuchItem { number: at, count: items.len(), at: number.at, list_at: list.at });
        }
        item
    }

    /// `vector(list over A)`: a list's numbers along an axis.
    pub fn vector(&mut self, frame: &mut Frame, list: &Operand, over: &Name, at: Span) -> Option<Value> {
        let items = self.list(list, "`vector`")?;
        let whole = items.iter().all(|item| matches!(item, Value::Int(value) if i32::try_from(*value).is_ok()));
        let number = |item: &Value| {
            if let Value::Float(value) = item {
                Some(*value)
            } else if let Value::Int(value) = item {
                Some(*value as f64)
            } else {
                None
            }
        };
        let Some(data) = items.iter().map(number).collect::<Option<Vec<f64>>>().filter(|data| !data.is_empty()) else {
            let (who, found) = ("`vector`".to_owned(), list.value.describe(&self.module));
            self.report(WrongKind { who, wants: "a list of numbers", found, at: list.at, help: None });
            return None;
        };
        let dim = Dim::new(frame.axis(&over.text), Size::Fixed(data.len() as u64));
        let ty = TensorType::new(if whole { DType::I32 } else { DType::F32 }, vec![dim]);
        Some(self.emit1(frame, Literal { ty, data }, &[], at))
    }

    fn list(&mut self, operand: &Operand, who: &str) -> Option<Rc<[Value]>> {
        if let Value::List(items) = &operand.value {
            return Some(items.clone());
        }
        let found = operand.value.describe(&self.module);
        self.report(WrongKind { who: who.to_owned(), wants: "a list", found, at: operand.at, help: None });
        None
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("item {number} of a list of {count}")]
#[diagnostic(code(moec::sema::no_such_item), help("items are counted from 0"))]
struct NoSuchItem {
    number: i64,
    count: usize,
    #[label("number {number}")]
    at: Span,
    #[label("has {count}")]
    list_at: Span,
}
