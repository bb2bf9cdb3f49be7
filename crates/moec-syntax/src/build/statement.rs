//! The statements of a body.

use pest::iterators::Pair;

use super::{Builder, children, given};
use crate::grammar::Rule;
use crate::tree::{AxisExpr, Pattern, Statement, StatementKind, TypeExpr};

impl Builder<'_> {
    pub(super) fn body(&mut self, pair: Pair<Rule>) -> Vec<Statement> {
        children(pair).flat_map(children).map(|statement| self.statement(statement)).collect()
    }

    fn statement(&mut self, pair: Pair<Rule>) -> Statement {
        let (at, rule) = (self.at(&pair), pair.as_rule());
        let mut parts = children(pair);
        let mut next = || given(&mut parts, rule);
        let kind = match rule {
            Rule::param => {
                let name = self.name(next());
                let (mut axes, mut shared) = (Vec::new(), None);
                for part in parts {
                    match part.as_rule() {
                        Rule::axes => axes = self.axes(part),
                        _ => shared = Some(self.expression(part)),
                    }
                }
                StatementKind::Param { name, axes, shared }
            }
            Rule::buffer => {
                let name = self.name(next());
                let (mut axes, mut value) = (Vec::new(), None);
                for part in parts {
                    match part.as_rule() {
                        Rule::axes => axes = self.axes(part),
                        _ => value = Some(self.expression(part)),
                    }
                }
                StatementKind::Buffer { name, axes, value }
            }
            Rule::state => {
                let name = self.name(next());
                let mut part = next();
                let mut axes = Vec::new();
                if part.as_rule() == Rule::axes {
                    axes = self.axes(part);
                    part = next();
                }
                let initial = self.expression(part);
                let next = parts.next().and_then(|on_step| children(on_step).next());
                StatementKind::State { name, axes, initial, next: next.map(|next| self.expression(next)) }
            }
            Rule::aux => {
                let name = self.name(next());
                let (mut coefficient, mut part) = (None, next());
                if part.as_rule() == Rule::coefficient {
                    coefficient = children(part).next().map(|value| self.expression(value));
                    part = next();
                }
                StatementKind::Aux { name, coefficient, value: self.expression(part) }
            }
            Rule::trace => StatementKind::Trace { name: self.name(next()), value: self.expression(next()) },
            Rule::part => StatementKind::Part { name: self.name(next()), value: self.expression(next()) },
            Rule::let_value => StatementKind::Let { pattern: self.pattern(next()), value: self.expression(next()) },
            Rule::assign => StatementKind::Assign { name: self.name(next()), value: self.expression(next()) },
            Rule::route => StatementKind::Route { value: self.expression(next()) },
            Rule::out => {
                let (mut name, mut ty) = (None, None);
                let mut part = next();
                if part.as_rule() == Rule::out_name {
                    let mut heads = children(part);
                    name = heads.next().map(|pair| self.name(pair));
                    ty = heads.next().map(|pair| self.tensor_type(pair));
                    part = next();
                }
                StatementKind::Out { name, ty, value: self.expression(part) }
            }
            Rule::layers => StatementKind::Layers {
                index: self.name(next()),
                from: self.expression(next()),
                to: self.expression(next()),
                body: self.body(next()),
            },
            other => unreachable!("the grammar has no statement {other:?}"),
        };
        Statement { kind, at }
    }

    fn pattern(&self, pair: Pair<Rule>) -> Pattern {
        let at = self.at(&pair);
        let mut names = Vec::new();
        for child in children(pair) {
            match child.as_rule() {
                Rule::name => return Pattern::Name(self.name(child)),
                _ => {
                    let place = children(child).find(|child| child.as_rule() == Rule::name);
                    names.push(place.map(|name| self.name(name)));
                }
            }
        }
        Pattern::Tuple(names, at)
    }

    pub(super) fn tensor_type(&mut self, pair: Pair<Rule>) -> TypeExpr {
        let (at, rule) = (self.at(&pair), pair.as_rule());
        let mut parts = children(pair);
        let dtype = self.name(given(&mut parts, rule));
        TypeExpr { dtype, axes: parts.next().map_or(Vec::new(), |axes| self.axes(axes)), at }
    }

    fn axes(&mut self, pair: Pair<Rule>) -> Vec<AxisExpr> {
        children(pair).map(|axis| self.axis(axis)).collect()
    }

    pub(super) fn axis(&mut self, pair: Pair<Rule>) -> AxisExpr {
        let rule = pair.as_rule();
        let mut parts = children(pair);
        let name = self.name(given(&mut parts, rule));
        AxisExpr { name, size: parts.next().map(|size| self.expression(size)) }
    }
}
