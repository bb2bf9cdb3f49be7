//! The axes that a text introduces: what has an axis of a name, it has from one of these places.

use crate::tree::{Argument, AxisExpr, BankMember, Expr, ExprKind, Moe, Name, Statement, StatementKind, TypeExpr};

/// Calls `f` with every axis that `statements` declare, or that a regrouping in them (`rename(x, K as J)`) makes.
pub fn introduced<'t>(statements: &'t [Statement], f: &mut impl FnMut(&'t Name)) {
    for statement in statements {
        match &statement.kind {
            StatementKind::Param { name: _, axes, shared: value } | StatementKind::Buffer { name: _, axes, value } => {
                declared(axes, f);
                value.iter().for_each(|value| in_expr(value, f));
            }
            StatementKind::State { name: _, axes, initial, next } => {
                declared(axes, f);
                [initial].into_iter().chain(next).for_each(|value| in_expr(value, f));
            }
            StatementKind::Aux { name: _, coefficient, value } => {
                coefficient.iter().chain([value]).for_each(|value| in_expr(value, f));
            }
            StatementKind::Out { name: _, ty, value } => {
                ty.iter().for_each(|ty| of_type(ty, f));
                in_expr(value, f);
            }
            StatementKind::Part { name: _, value }
            | StatementKind::Let { pattern: _, value }
            | StatementKind::Assign { name: _, value }
            | StatementKind::Route { value }
            | StatementKind::Trace { name: _, value } => in_expr(value, f),
            StatementKind::Layers { index: _, from, to, body } => {
                [from, to].into_iter().for_each(|value| in_expr(value, f));
                introduced(body, f);
            }
        }
    }
}

/// [`introduced`] for the axes of a type.
pub fn of_type<'t>(ty: &'t TypeExpr, f: &mut impl FnMut(&'t Name)) {
    declared(&ty.axes, f);
}

fn declared<'t>(axes: &'t [AxisExpr], f: &mut impl FnMut(&'t Name)) {
    for axis in axes {
        f(&axis.name);
        axis.size.iter().for_each(|size| in_expr(size, f));
    }
}

fn in_expr<'t>(expr: &'t Expr, f: &mut impl FnMut(&'t Name)) {
    match &*expr.kind {
        ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Bool(_) | ExprKind::Text(_) | ExprKind::Name(_) => {}
        ExprKind::List(items) | ExprKind::Tuple(items) => items.iter().for_each(|item| in_expr(item, f)),
        ExprKind::Unary(_, inner) | ExprKind::Field { of: inner, field: _ } => in_expr(inner, f),
        ExprKind::Binary(_, left, right) | ExprKind::Contract { left, right, over: _ } => {
            [left, right].into_iter().for_each(|side| in_expr(side, f));
        }
        ExprKind::Call { function: _, arguments, over: _ } => {
            for argument in arguments {
                match argument {
                    Argument::Value(value) | Argument::Named(_, value) => in_expr(value, f),
                    Argument::Regroup { from: _, to, at: _ } => declared(to, f),
                }
            }
        }
        ExprKind::Index { of, axis: _, from, to } => [of, from].into_iter().chain(to).for_each(|part| in_expr(part, f)),
        ExprKind::If { condition, yes, no } => {
            [condition, yes].into_iter().chain(no).for_each(|part| in_expr(part, f));
        }
        ExprKind::Iterate { steps, name: _, initial, until, body } => {
            [steps, initial, body].into_iter().chain(until).for_each(|part| in_expr(part, f));
        }
        ExprKind::Moe(Moe { gate, experts, always }) => {
            [gate].into_iter().chain(always).for_each(|part| in_expr(part, f));
            in_bank(experts, f);
        }
        ExprKind::Bank(members) => in_bank(members, f),
        ExprKind::Scan { over: _, body } => introduced(body, f),
    }
}

fn in_bank<'t>(members: &'t [BankMember], f: &mut impl FnMut(&'t Name)) {
    for BankMember { expert, count } in members {
        [expert].into_iter().chain(count).for_each(|part| in_expr(part, f));
    }
}

/// The axes that an expression, without those within it, wants something to have: `over A`, `x[A = 0]`, the left of an `as`.
pub fn read(expr: &Expr) -> Vec<&Name> {
    match &*expr.kind {
        ExprKind::Contract { left: _, right: _, over } => over.iter().collect(),
        ExprKind::Call { function: _, arguments, over } => {
            let regrouped = arguments.iter().flat_map(|argument| match argument {
                Argument::Regroup { from, to: _, at: _ } => &from[..],
                Argument::Value(_) | Argument::Named(_, _) => &[],
            });
            over.iter().chain(regrouped).collect()
        }
        ExprKind::Index { of: _, axis, from: _, to: _ } => vec![axis],
        ExprKind::Scan { over, body: _ } => vec![over],
        ExprKind::Int(_)
        | ExprKind::Float(_)
        | ExprKind::Bool(_)
        | ExprKind::Text(_)
        | ExprKind::List(_)
        | ExprKind::Tuple(_)
        | ExprKind::Name(_)
        | ExprKind::Unary(_, _)
        | ExprKind::Binary(_, _, _)
        | ExprKind::Field { .. }
        | ExprKind::If { .. }
        | ExprKind::Iterate { .. }
        | ExprKind::Moe(_)
        | ExprKind::Bank(_) => Vec::new(),
    }
}

/// The axes that an expression, without those within it, makes: the right of an `as`.
pub fn made(expr: &Expr) -> Vec<&Name> {
    let ExprKind::Call { function: _, arguments, over: _ } = &*expr.kind else { return Vec::new() };
    let to = arguments.iter().flat_map(|argument| match argument {
        Argument::Regroup { from: _, to, at: _ } => &to[..],
        Argument::Value(_) | Argument::Named(_, _) => &[],
    });
    to.map(|axis| &axis.name).collect()
}
