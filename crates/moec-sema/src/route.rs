//! Routes as values: what they choose and weigh, and the experts of a bank that is a part of its own.

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    RouteType, ValueId,
    ops::{Contract, Map, Op},
};
use moec_types::{BinaryOp, Expr};
use thiserror::Error;

use crate::{
    evaluator::{Evaluator, WrongKind},
    scope::Frame,
    value::{Operand, PartOf, Value},
};

impl Evaluator {
    /// `each(route, bank, x)`: what each choice's expert makes of x, or each expert of its slots.
    pub fn each(&mut self, frame: &mut Frame, route: &Operand, bank: &Operand, x: &Operand, at: Span) -> Option<Value> {
        if self.refused_in_a_scan(frame, "`each`", at) {
            return None;
        }
        let Value::Part(part) = &bank.value else {
            let found = bank.value.describe(&self.module);
            let help = Some("declare it as a part: `part experts = bank { name(F) × 8 }`".to_owned());
            let (who, wants) = ("`each`".to_owned(), "a bank");
            self.report(WrongKind { who, wants, found, at: bank.at, help });
            return None;
        };
        let PartOf::Bank(template) = &part.of else {
            self.report(NotABank { path: part.path.clone(), at: bank.at });
            return None;
        };
        self.place(frame, part);
        let (part, template) = (part.clone(), template.clone());
        if let Value::Shape(shape) = &route.value {
            return self.each_of_shape(frame, &part, &template, x, shape, at);
        }
        let route = self.route(route, "`each`")?;
        self.each_choice(frame, &part, &template, x, route, at)
    }

    /// `combine(route, y)`: y's choices, weighed and summed.
    pub fn combine(&mut self, frame: &mut Frame, route: &Operand, y: &Operand, at: Span) -> Option<Value> {
        let y = self.tensor(y, "`combine`")?;
        if let Value::Shape(shape) = &route.value {
            return self.combine_of_shape(frame, y, shape, at);
        }
        let (value, route_at) = self.route(route, "`combine`")?;
        if let Some(Op::Each(_)) = self.module.producer(y.0).map(|node| &node.op)
            && let Some([rows, chosen]) = self.module.producer(y.0).map(|node| &node.operands[..])
            && *chosen == value
        {
            return self.combined(frame, (*rows, y.1), (value, route_at), at);
        }
        let Value::Tensor(weights) = self.weights_of_route(frame, route, at)? else { return None };
        let RouteType { choices, .. } = self.module.ty(value).route()?.clone();
        Some(self.emit1(frame, Contract { over: vec![choices.axis] }, &[(weights, route_at), y], at))
    }

    /// `weights(route)`: how much each choice counts; 0 for what is no choice.
    pub fn weights_of_route(&mut self, frame: &mut Frame, route: &Operand, at: Span) -> Option<Value> {
        let (value, _) = self.route(route, "`weights`")?;
        let [indices, weights] = self.chosen(value)?;
        let RouteType { experts, .. } = self.module.ty(value).route()?.clone();
        let last = i32::try_from(experts).map_or(i32::MAX, |experts| experts - 1);
        let in_bank = Expr::binary(
            BinaryOp::And,
            Expr::binary(BinaryOp::Ge, Expr::Arg(0), Expr::I32(0)),
            Expr::binary(BinaryOp::Le, Expr::Arg(0), Expr::I32(last)),
        );
        let expr = Expr::select(in_bank, Expr::Arg(1), Expr::F32(0.0));
        Some(self.emit1(frame, Map { expr }, &[(indices, route.at), (weights, route.at)], at))
    }

    /// `indices(route)`: the expert of each choice; outside of the bank where it is no choice.
    pub fn indices(&mut self, route: &Operand) -> Option<Value> {
        let (value, _) = self.route(route, "`indices`")?;
        self.chosen(value).map(|[indices, _]| Value::Tensor(indices))
    }

    fn chosen(&self, route: ValueId) -> Option<[ValueId; 2]> {
        self.module.producer(route)?.operands[..].try_into().ok()
    }

    /// The operand as a route; a problem (or silence) where it is something else.
    fn route(&mut self, operand: &Operand, who: &str) -> Option<(ValueId, Span)> {
        match &operand.value {
            Value::Route(value) => Some((*value, operand.at)),
            Value::Error => None,
            other => {
                let found = other.describe(&self.module);
                let help = match other {
                    Value::Shape(_) => "only where tokens choose experts is there one for each choice",
                    _ => "a gate that is a part gives one: `part choose = name(2)`, `choose(x)`",
                };
                let (who, help) = (who.to_owned(), Some(help.to_owned()));
                self.report(WrongKind { who, wants: "a route of tokens to experts", found, at: operand.at, help });
                None
            }
        }
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("the part `{path}` is no bank")]
#[diagnostic(code(moec::sema::not_a_bank), help("a bank is declared as `part experts = bank {{ name(F) × 8 }}`"))]
struct NotABank {
    path: String,
    #[label("used as one")]
    at: Span,
}
