//! Which keys an attention score excludes for sure, read off its expression.

use moec_types::{BinaryOp, Expr};

/// Operands of a score in the plan.
pub const QUERY_POSITION: usize = 1;
pub const KEY_POSITION: usize = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyBounds {
    /// No key after the query counts.
    pub causal: bool,
    /// No key at this distance before the query, or further, counts.
    pub window: Option<u64>,
}

/// `where(key <= query and key > query - 4, …, -inf)` -> causal, window 4. Only what is certain: anything else is no bound.
pub fn key_bounds(score: &Expr) -> KeyBounds {
    let mut bounds = KeyBounds::default();
    collect(score, &mut bounds);
    bounds
}

fn collect(score: &Expr, bounds: &mut KeyBounds) {
    let Expr::Select(condition, yes, no) = score else { return };
    if **no == Expr::F32(f32::NEG_INFINITY) {
        conjuncts(condition, bounds);
        collect(yes, bounds);
    }
}

fn conjuncts(condition: &Expr, bounds: &mut KeyBounds) {
    let Expr::Binary(op, a, b) = condition else { return };
    match op {
        BinaryOp::And => {
            conjuncts(a, bounds);
            conjuncts(b, bounds);
        }
        BinaryOp::Le => less(a, b, 0, bounds),
        BinaryOp::Lt => less(a, b, 1, bounds),
        BinaryOp::Ge => less(b, a, 0, bounds),
        BinaryOp::Gt => less(b, a, 1, bounds),
        BinaryOp::Add
        | BinaryOp::Sub
        | BinaryOp::Mul
        | BinaryOp::Div
        | BinaryOp::Mod
        | BinaryOp::Pow
        | BinaryOp::Min
        | BinaryOp::Max
        | BinaryOp::Eq
        | BinaryOp::Ne
        | BinaryOp::Or
        | BinaryOp::BitXor
        | BinaryOp::BitAnd
        | BinaryOp::ShiftLeft
        | BinaryOp::ShiftRight => {}
    }
}

/// `small + gap <= large`.
fn less(small: &Expr, large: &Expr, gap: i64, bounds: &mut KeyBounds) {
    let (Some(small), Some(large)) = (linear(small), linear(large)) else { return };
    // large - small - gap >= 0, as query * q + key * k + constant >= 0.
    let (query, key, constant) = (large.0 - small.0, large.1 - small.1, large.2 - small.2 - gap);
    if (query, key) == (1, -1) && constant <= 0 {
        bounds.causal = true;
    }
    // constant - (query - key) >= 0: distances up to `constant` count.
    if (query, key) == (-1, 1) && constant >= 0 {
        let window = constant as u64 + 1;
        bounds.window = Some(bounds.window.map_or(window, |other| other.min(window)));
    }
}

/// `(a, b, c)` when the expression is `a * query + b * key + c`.
fn linear(expr: &Expr) -> Option<(i64, i64, i64)> {
    match expr {
        Expr::Arg(QUERY_POSITION) => Some((1, 0, 0)),
        Expr::Arg(KEY_POSITION) => Some((0, 1, 0)),
        Expr::I32(value) => Some((0, 0, i64::from(*value))),
        Expr::Binary(op @ (BinaryOp::Add | BinaryOp::Sub), a, b) => {
            let (a, b) = (linear(a)?, linear(b)?);
            let sign = if *op == BinaryOp::Add { 1 } else { -1 };
            Some((a.0 + sign * b.0, a.1 + sign * b.1, a.2 + sign * b.2))
        }
        Expr::Arg(_)
        | Expr::F32(_)
        | Expr::Bool(_)
        | Expr::Unary(..)
        | Expr::Binary(..)
        | Expr::Select(..)
        | Expr::Cast(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_most(a: Expr, b: Expr) -> Expr {
        Expr::binary(BinaryOp::Le, a, b)
    }

    fn masked(condition: Expr) -> Expr {
        Expr::select(condition, Expr::Arg(0), Expr::F32(f32::NEG_INFINITY))
    }

    #[test]
    fn a_causal_mask_bounds_the_keys_above() {
        let score = masked(at_most(Expr::Arg(KEY_POSITION), Expr::Arg(QUERY_POSITION)));
        assert_eq!(key_bounds(&score), KeyBounds { causal: true, window: None });
    }

    #[test]
    fn a_window_bounds_them_below_however_it_is_written() {
        let distance = Expr::binary(BinaryOp::Sub, Expr::Arg(QUERY_POSITION), Expr::Arg(KEY_POSITION));
        let near = Expr::binary(BinaryOp::Lt, distance, Expr::I32(4));
        assert_eq!(key_bounds(&masked(near)).window, Some(4));
        let start = Expr::binary(BinaryOp::Sub, Expr::Arg(QUERY_POSITION), Expr::I32(4));
        let after = Expr::binary(BinaryOp::Gt, Expr::Arg(KEY_POSITION), start);
        assert_eq!(key_bounds(&masked(after)).window, Some(4));
    }

    #[test]
    fn a_mask_that_lets_excluded_keys_through_bounds_nothing() {
        let causal = at_most(Expr::Arg(KEY_POSITION), Expr::Arg(QUERY_POSITION));
        let soft = Expr::select(causal, Expr::Arg(0), Expr::F32(-1e9));
        assert_eq!(key_bounds(&soft), KeyBounds::default());
        let later =
            at_most(Expr::Arg(KEY_POSITION), Expr::binary(BinaryOp::Add, Expr::Arg(QUERY_POSITION), Expr::I32(1)));
        assert_eq!(key_bounds(&masked(later)), KeyBounds::default());
    }
}
