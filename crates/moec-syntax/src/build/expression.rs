//! Expressions: the grammar gives a flat row of operands and operators; here it becomes a tree by precedence.
//!
//! Nothing here recurses but through brackets, whose nesting the outline has bounded.

use miette::Diagnostic;
use moec_diag::Span;
use pest::iterators::Pair;
use thiserror::Error;

use super::{Builder, children, given};
use crate::grammar::Rule;
use crate::tree::{Argument, BankMember, Binary, Expr, ExprKind, Moe, Name, Unary};

/// Operators over operators deeper than this are refused: whoever walks the tree takes stack for each.
const MOST_DEEP: u32 = 128;

/// An expression with the height of its tree.
struct Built {
    expr: Expr,
    height: u32,
}

/// An operator that waits for its right operand.
#[derive(Clone, Copy)]
enum Waiting {
    Prefix(Unary, Span),
    Infix(Binary, Span),
    Contract,
}

/// How tightly an operator binds; the order in the head of the grammar file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precedence {
    Or,
    And,
    Not,
    Comparison,
    Sum,
    Product,
    Contraction,
    Negation,
    Power,
}

fn precedence(operator: Waiting) -> Precedence {
    match operator {
        Waiting::Prefix(Unary::Not, _) => Precedence::Not,
        Waiting::Prefix(Unary::Negate, _) => Precedence::Negation,
        Waiting::Contract => Precedence::Contraction,
        Waiting::Infix(operator, _) => match operator {
            Binary::Or => Precedence::Or,
            Binary::And => Precedence::And,
            Binary::Eq | Binary::Ne | Binary::Lt | Binary::Le | Binary::Gt | Binary::Ge | Binary::In => {
                Precedence::Comparison
            }
            Binary::Add | Binary::Sub => Precedence::Sum,
            Binary::Mul | Binary::Div | Binary::Mod => Precedence::Product,
            Binary::Pow => Precedence::Power,
        },
    }
}

/// The row being read: operands without an operator yet, and operators without a right operand yet.
#[derive(Default)]
struct Row {
    operands: Vec<Built>,
    waiting: Vec<Waiting>,
    /// Too high a tree was reported.
    too_deep: bool,
}

impl Builder<'_> {
    /// An `expression`, an `argument_value` or a `default_value`.
    pub(super) fn expression(&mut self, pair: Pair<Rule>) -> Expr {
        let built = self.built(pair);
        self.tallest = self.tallest.max(built.height);
        built.expr
    }

    fn built(&mut self, pair: Pair<Rule>) -> Built {
        let at = self.at(&pair);
        let mut row = Row::default();
        for part in children(pair) {
            let part_at = self.at(&part);
            match part.as_rule() {
                Rule::prefix => {
                    let unary = if part.as_str() == "-" { Unary::Negate } else { Unary::Not };
                    row.waiting.push(Waiting::Prefix(unary, part_at));
                }
                Rule::infix => self.infix(&mut row, part.as_str(), part_at),
                Rule::over => {
                    let names = self.names(part);
                    self.contract_over(&mut row, names, part_at);
                }
                _ => {
                    let operand = self.operand(part);
                    row.operands.push(operand);
                }
            }
        }
        while let Some(operator) = row.waiting.pop() {
            self.apply(&mut row, operator);
        }
        row.operands.pop().unwrap_or(Built { expr: nothing(at), height: 1 })
    }

    fn infix(&mut self, row: &mut Row, spelling: &str, at: Span) {
        let operator = match spelling {
            "·" | "@" => Waiting::Contract,
            _ => Waiting::Infix(binary(spelling), at),
        };
        let own = precedence(operator);
        while let Some(&before) = row.waiting.last() {
            let tighter = precedence(before) > own || (precedence(before) == own && own != Precedence::Power);
            if !tighter {
                break;
            }
            if let (Waiting::Infix(_, first_at), Precedence::Comparison, true) =
                (before, own, precedence(before) == Precedence::Comparison)
            {
                self.findings.report(at, ChainedComparison { at, first_at });
            }
            row.waiting.pop();
            self.apply(row, before);
        }
        row.waiting.push(operator);
    }

    /// Gives `over` to the contraction whose right operand stands just before it.
    fn contract_over(&mut self, row: &mut Row, names: Vec<Name>, at: Span) {
        while let Some(&before) = row.waiting.last() {
            if precedence(before) < Precedence::Contraction {
                break;
            }
            row.waiting.pop();
            self.apply(row, before);
            if let Waiting::Contract = before {
                if let Some(done) = row.operands.last_mut()
                    && let ExprKind::Contract { over, .. } = &mut *done.expr.kind
                {
                    *over = names;
                    done.expr.at = done.expr.at.to(at);
                }
                return;
            }
        }
        self.findings.report(at, OverNothing { at });
    }

    /// Takes the operator's operands from the row and puts the result there.
    fn apply(&mut self, row: &mut Row, operator: Waiting) {
        let Some(right) = row.operands.pop() else { return };
        let (kind, at, height) = match operator {
            Waiting::Prefix(unary, at) => (ExprKind::Unary(unary, right.expr), at, right.height),
            Waiting::Infix(..) | Waiting::Contract => {
                let Some(left) = row.operands.pop() else { return };
                let height = left.height.max(right.height);
                let at = left.expr.at.to(right.expr.at);
                let kind = match operator {
                    Waiting::Infix(binary, _) => ExprKind::Binary(binary, left.expr, right.expr),
                    Waiting::Contract | Waiting::Prefix(..) => {
                        ExprKind::Contract { left: left.expr, right: right.expr, over: Vec::new() }
                    }
                };
                (kind, at, height)
            }
        };
        let at = match &kind {
            ExprKind::Unary(_, operand) => at.to(operand.at),
            _ => at,
        };
        row.operands.push(if height >= MOST_DEEP {
            if !std::mem::replace(&mut row.too_deep, true) {
                self.findings.report(at, TooDeep { at });
            }
            Built { expr: nothing(at), height: 1 }
        } else {
            Built { expr: Expr { kind: Box::new(kind), at }, height: height + 1 }
        });
    }

    fn operand(&mut self, pair: Pair<Rule>) -> Built {
        let (whole, rule) = (self.at(&pair), pair.as_rule());
        let mut parts = children(pair);
        let mut of = self.primary(given(&mut parts, rule));
        let mut too_deep = false;
        for postfix in parts {
            if of.height >= MOST_DEEP {
                if !std::mem::replace(&mut too_deep, true) {
                    self.findings.report(whole, TooDeep { at: whole });
                }
                break;
            }
            let at = of.expr.at.to(self.at(&postfix));
            let rule = postfix.as_rule();
            let mut parts = children(postfix);
            let name = self.name(given(&mut parts, rule));
            let mut height = of.height;
            let kind = match rule {
                Rule::field => ExprKind::Field { of: of.expr, field: name },
                _ => {
                    let from = self.counted(given(&mut parts, rule), &mut height);
                    let to = parts.next().map(|to| self.counted(to, &mut height));
                    ExprKind::Index { of: of.expr, axis: name, from, to }
                }
            };
            of = Built { expr: Expr { kind: Box::new(kind), at }, height: height + 1 };
        }
        of
    }

    /// An expression inside another, whose height it adds to.
    fn counted(&mut self, pair: Pair<Rule>, height: &mut u32) -> Expr {
        let built = self.built(pair);
        *height = (*height).max(built.height);
        built.expr
    }

    fn primary(&mut self, pair: Pair<Rule>) -> Built {
        let at = self.at(&pair);
        let spelling = pair.as_str();
        let mut height = 0;
        let kind = match pair.as_rule() {
            Rule::name => ExprKind::Name(spelling.to_owned()),
            Rule::boolean => ExprKind::Bool(spelling == "true"),
            Rule::text => ExprKind::Text(super::unescaped(spelling)),
            Rule::int => ExprKind::Int(spelling.replace('_', "").parse().unwrap_or_else(|_| {
                self.findings.report(at, IntTooLarge { at });
                0
            })),
            Rule::float => {
                let value: f64 = spelling.replace('_', "").parse().unwrap_or(f64::INFINITY);
                if value.is_infinite() {
                    self.findings.report(at, FloatTooLarge { at });
                }
                ExprKind::Float(value)
            }
            Rule::list => ExprKind::List(children(pair).map(|one| self.counted(one, &mut height)).collect()),
            Rule::group => {
                let mut inside: Vec<Expr> = children(pair).map(|one| self.counted(one, &mut height)).collect();
                match inside.len() {
                    // Parentheses leave no trace but in the place, so that a report can show them.
                    1 => {
                        let Some(Expr { kind, .. }) = inside.pop() else { unreachable!("one is there") };
                        return Built { expr: Expr { kind, at }, height };
                    }
                    _ => ExprKind::Tuple(inside),
                }
            }
            Rule::condition => return self.condition(pair),
            Rule::moe => self.moe(pair, &mut height),
            Rule::bank => ExprKind::Bank(self.members(pair, &mut height)),
            Rule::scan => self.scan(pair, &mut height),
            Rule::iterate => self.iterate(pair, &mut height),
            Rule::call => self.call(pair, &mut height),
            other => unreachable!("the grammar has no operand {other:?}"),
        };
        Built { expr: Expr { kind: Box::new(kind), at }, height: height + 1 }
    }

    /// `if a { b } else if c { d } else { e }`, innermost choice first.
    fn condition(&mut self, pair: Pair<Rule>) -> Built {
        let at = self.at(&pair);
        let parts: Vec<Built> = children(pair).map(|part| self.built(part)).collect();
        let mut parts = parts.into_iter().rev();
        let mut otherwise = if parts.len() % 2 == 1 { parts.next() } else { None };
        while let (Some(yes), Some(condition)) = (parts.next(), parts.next()) {
            let height = yes.height.max(condition.height).max(otherwise.as_ref().map_or(0, |no| no.height));
            let end = otherwise.as_ref().map_or(yes.expr.at, |no| no.expr.at);
            let at = Span::new(if parts.len() == 0 { at.start } else { condition.expr.at.start }, end.end.max(at.end));
            if height >= MOST_DEEP {
                self.findings.report(at, TooDeep { at });
                return Built { expr: nothing(at), height: 1 };
            }
            let no = otherwise.map(|no| no.expr);
            let kind = ExprKind::If { condition: condition.expr, yes: yes.expr, no };
            otherwise = Some(Built { expr: Expr { kind: Box::new(kind), at }, height: height + 1 });
        }
        otherwise.unwrap_or(Built { expr: nothing(at), height: 1 })
    }

    fn moe(&mut self, pair: Pair<Rule>, height: &mut u32) -> ExprKind {
        let at = self.at(&pair);
        let mut gate: Option<Expr> = None;
        let (mut experts, mut always) = (Vec::new(), Vec::new());
        for clause in children(pair).flat_map(children) {
            match clause.as_rule() {
                Rule::gate => {
                    let clause_at = self.at(&clause);
                    let found = children(clause).next().map(|value| self.counted(value, height));
                    if let Some(first) = &gate {
                        self.findings.report(clause_at, SecondGate { at: clause_at, first_at: first.at });
                    }
                    gate = gate.or(found);
                }
                Rule::experts => experts.extend(self.members(clause, height)),
                _ => always.extend(children(clause).map(|value| self.counted(value, height))),
            }
        }
        if experts.is_empty() {
            self.findings.report(at, NoExperts { at });
        }
        let gate = gate.unwrap_or_else(|| {
            self.findings.report(at, NoGate { at });
            nothing(at)
        });
        ExprKind::Moe(Moe { gate, experts, always })
    }

    /// `wide(F) × 8, copy`
    fn members(&mut self, pair: Pair<Rule>, height: &mut u32) -> Vec<BankMember> {
        let member = |member: Pair<Rule>| {
            let rule = member.as_rule();
            let mut parts = children(member);
            let expert = self.counted(given(&mut parts, rule), height);
            BankMember { expert, count: parts.next().map(|count| self.counted(count, height)) }
        };
        children(pair).map(member).collect()
    }

    fn scan(&mut self, pair: Pair<Rule>, height: &mut u32) -> ExprKind {
        let rule = pair.as_rule();
        let mut parts = children(pair);
        let over = self.name(given(&mut parts, rule));
        let outside = std::mem::take(&mut self.tallest);
        let body = self.body(given(&mut parts, rule));
        *height = (*height).max(self.tallest);
        self.tallest = self.tallest.max(outside);
        ExprKind::Scan { over, body }
    }

    fn iterate(&mut self, pair: Pair<Rule>, height: &mut u32) -> ExprKind {
        let rule = pair.as_rule();
        let mut parts = children(pair);
        let count = given(&mut parts, rule);
        let at = self.at(&count);
        let steps = match children(count).next() {
            Some(count) => {
                let built = self.primary(count);
                *height = (*height).max(built.height);
                built.expr
            }
            None => nothing(at),
        };
        let name = self.name(given(&mut parts, rule));
        let initial = self.counted(given(&mut parts, rule), height);
        let (mut until, mut body) = (None, given(&mut parts, rule));
        if body.as_rule() == Rule::until {
            until = children(body).next().map(|value| self.counted(value, height));
            body = given(&mut parts, rule);
        }
        ExprKind::Iterate { steps, name, initial, until, body: self.counted(body, height) }
    }

    fn call(&mut self, pair: Pair<Rule>, height: &mut u32) -> ExprKind {
        let rule = pair.as_rule();
        let mut parts = children(pair);
        let function = self.name(given(&mut parts, rule));
        let (mut arguments, mut over) = (Vec::new(), Vec::new());
        for part in parts {
            match part.as_rule() {
                Rule::over => over = self.names(part),
                _ => arguments.extend(children(part).map(|argument| self.argument(argument, height))),
            }
        }
        ExprKind::Call { function, arguments, over }
    }

    fn argument(&mut self, pair: Pair<Rule>, height: &mut u32) -> Argument {
        let (at, rule) = (self.at(&pair), pair.as_rule());
        match rule {
            Rule::named => {
                let mut parts = children(pair);
                Argument::Named(self.name(given(&mut parts, rule)), self.counted(given(&mut parts, rule), height))
            }
            Rule::regroup => {
                let mut parts = children(pair);
                let from = self.names(given(&mut parts, rule));
                let to = children(given(&mut parts, rule)).map(|axis| match axis.as_rule() {
                    Rule::name => crate::tree::AxisExpr { name: self.name(axis), size: None },
                    _ => self.axis(axis),
                });
                Argument::Regroup { from, to: to.collect(), at }
            }
            _ => Argument::Value(self.counted(pair, height)),
        }
    }
}

/// Stands where a problem was reported and there is no expression.
fn nothing(at: Span) -> Expr {
    Expr { kind: Box::new(ExprKind::Int(0)), at }
}

fn binary(spelling: &str) -> Binary {
    match spelling {
        "or" => Binary::Or,
        "and" => Binary::And,
        "in" => Binary::In,
        "==" => Binary::Eq,
        "!=" => Binary::Ne,
        "<" => Binary::Lt,
        "<=" => Binary::Le,
        ">" => Binary::Gt,
        ">=" => Binary::Ge,
        "+" => Binary::Add,
        "-" => Binary::Sub,
        "*" => Binary::Mul,
        "/" => Binary::Div,
        "%" => Binary::Mod,
        "^" => Binary::Pow,
        other => unreachable!("the grammar has no operator {other}"),
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("comparisons do not chain")]
#[diagnostic(code(moec::syntax::chained_comparison), help("write `a < b and b < c`"))]
struct ChainedComparison {
    #[label("second comparison")]
    at: Span,
    #[label("first comparison")]
    first_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`over` with no contraction before it")]
#[diagnostic(
    code(moec::syntax::over_nothing),
    help(
        "`over` stands just after a contraction, `a · b over D`, or last inside a call's parentheses, `sum(a over D)`; \
        several axes stand in parentheses, `over (S, D)`"
    )
)]
struct OverNothing {
    #[label("belongs to nothing")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("operators nest more than {MOST_DEEP} deep")]
#[diagnostic(code(moec::syntax::expression_too_deep), help("name parts of it with `let`"))]
struct TooDeep {
    #[label("this expression is too deep")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("a whole number that does not fit into 64 bits")]
#[diagnostic(
    code(moec::syntax::int_too_large),
    help("the largest is {}; a large float is written like `1e30`", i64::MAX)
)]
struct IntTooLarge {
    #[label("too large")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("a number too large for 64-bit floating point")]
#[diagnostic(code(moec::syntax::float_too_large), help("write `inf` for infinity"))]
struct FloatTooLarge {
    #[label("too large")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("a `moe` without a gate")]
#[diagnostic(code(moec::syntax::no_gate), help("add `gate name(…)`"))]
struct NoGate {
    #[label("says no `gate`")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("a `moe` with two gates")]
#[diagnostic(code(moec::syntax::second_gate), help("keep one"))]
struct SecondGate {
    #[label("second gate")]
    at: Span,
    #[label("first gate")]
    first_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("a `moe` without experts")]
#[diagnostic(code(moec::syntax::no_experts), help("add `experts name(…) × 8`"))]
struct NoExperts {
    #[label("says no `experts`")]
    at: Span,
}
