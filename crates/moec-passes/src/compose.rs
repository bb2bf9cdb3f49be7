//! Element-wise bodies put into one another.

use std::collections::BTreeMap;

use moec_ir::{Module, Op, ValueId};
use moec_types::{Dim, Expr};

use crate::constant::Scalar;

/// An expression and the values that its operands stand for, each once.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    pub operands: Vec<ValueId>,
    pub expr: Expr,
}

/// Bodies larger than this are not grown further.
pub const MOST_OPERATIONS: u64 = 256;

impl Body {
    /// The value itself.
    pub fn of(value: ValueId) -> Body {
        Body { operands: vec![value], expr: Expr::Arg(0) }
    }

    /// With each operand once, in order of first appearance.
    pub fn new(operands: &[ValueId], expr: &Expr) -> Body {
        let mut unique: Vec<ValueId> = Vec::new();
        let mut at = Vec::with_capacity(operands.len());
        for operand in operands {
            let place = unique.iter().position(|known| known == operand).unwrap_or_else(|| {
                unique.push(*operand);
                unique.len() - 1
            });
            at.push(place);
        }
        Body { operands: unique, expr: expr.substitute(&|arg| Expr::Arg(at[arg])) }
    }

    /// How often the expression speaks of an operand.
    pub fn mentions(&self, operand: usize) -> u64 {
        let mut count = 0;
        self.expr.visit(&mut |expr| count += u64::from(*expr == Expr::Arg(operand)));
        count
    }

    /// The body of another value in the place of an operand. The union of the operands' axes keeps its order.
    pub fn inlined(&self, operand: usize, inner: &Body) -> Body {
        let mut operands = self.operands[..operand].to_vec();
        operands.extend(&inner.operands);
        operands.extend(&self.operands[operand + 1..]);
        let width = inner.operands.len();
        let inner = inner.expr.substitute(&|arg| Expr::Arg(operand + arg));
        let expr = self.expr.substitute(&|arg| match arg.cmp(&operand) {
            std::cmp::Ordering::Less => Expr::Arg(arg),
            std::cmp::Ordering::Equal => inner.clone(),
            std::cmp::Ordering::Greater => Expr::Arg(arg - 1 + width),
        });
        Body::new(&operands, &expr)
    }

    /// A constant in the place of an operand.
    pub fn with_constant(&self, operand: usize, constant: Scalar) -> Body {
        self.inlined(operand, &Body { operands: Vec::new(), expr: constant.to_expr() })
    }

    /// The same expression over operands in another order; `order` lists all of them.
    pub fn reordered(&self, order: &[ValueId]) -> Body {
        let at: BTreeMap<ValueId, usize> = order.iter().enumerate().map(|(at, value)| (*value, at)).collect();
        let expr = self.expr.substitute(&|arg| Expr::Arg(at[&self.operands[arg]]));
        Body { operands: order.to_vec(), expr }
    }

    /// All maps behind the operands put in, as long as `enter` says so of a value.
    pub fn expanded(mut self, module: &Module, enter: &dyn Fn(ValueId) -> bool) -> Body {
        let mut at = 0;
        while let Some(value) = self.operands.get(at).copied() {
            match body_of(module, value).filter(|_| enter(value) && self.expr.operations() < MOST_OPERATIONS) {
                Some(inner) => self = self.inlined(at, &inner),
                None => at += 1,
            }
        }
        self
    }
}

/// The body of a value that an element-wise op or a scalar constant yields.
pub fn body_of(module: &Module, value: ValueId) -> Option<Body> {
    let node = module.producer(value)?;
    match &node.op {
        Op::Map(map) => Some(Body::new(&node.operands, &map.expr)),
        Op::Literal(literal) if literal.ty.dims.is_empty() => {
            let constant = Scalar::from_literal(literal.ty.dtype, *literal.data.first()?)?;
            Some(Body { operands: Vec::new(), expr: constant.to_expr() })
        }
        _ => None,
    }
}

/// The axes of a map over these operands, in order.
pub fn union_of_axes(module: &Module, operands: &[ValueId]) -> Vec<Dim> {
    let mut dims: Vec<Dim> = Vec::new();
    for dim in operands.iter().filter_map(|value| module.ty(*value).tensor()).flat_map(|ty| &ty.dims) {
        if !dims.contains(dim) {
            dims.push(dim.clone());
        }
    }
    dims
}
