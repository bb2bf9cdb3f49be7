//! Scalar expressions: the body of an element-wise operation, of a GEMM epilogue, of an attention score.
//!
//! Both IRs, the oracle and every backend share this one small language; each evaluates or prints it in its own way.

use std::fmt;

use crate::DType;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    Neg,
    Not,
    Exp,
    Log,
    Sqrt,
    Tanh,
    Erf,
    Sin,
    Cos,
    Abs,
    /// -1, 0 or 1; NaN stays NaN.
    Sign,
    Floor,
    Ceil,
    /// To the nearest integer, halves to even.
    Round,
}

/// Comparison yields `Bool`; `And` and `Or` take `Bool`; the rest keep their operands' type, which must agree. `I32` wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    /// For `I32`, towards zero, and 0 by 0.
    Div,
    /// The sign of the divisor (floored), as in Python; for `I32`, 0 by 0.
    Mod,
    Pow,
    /// NaN if either is NaN.
    Min,
    Max,
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
    And,
    Or,
    /// Of `I32`, bit by bit.
    BitXor,
    BitAnd,
    /// Of `I32`, by the low five bits of the second.
    ShiftLeft,
    /// The same; zeros come in from the left, whatever the sign.
    ShiftRight,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// The n-th operand's element.
    Arg(usize),
    F32(f32),
    I32(i32),
    Bool(bool),
    Unary(UnaryOp, Box<Expr>),
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `if condition { yes } else { no }`; both sides are pure, so either may be evaluated.
    Select(Box<Expr>, Box<Expr>, Box<Expr>),
    Cast(DType, Box<Expr>),
}

/// Why an expression has no type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExprError {
    /// The operation, as it is written.
    pub operation: &'static str,
    pub found: Vec<DType>,
    pub wants: &'static str,
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` wants {}, found ", self.operation, self.wants)?;
        for (at, dtype) in self.found.iter().enumerate() {
            write!(f, "{}{dtype}", if at == 0 { "" } else { " and " })?;
        }
        Ok(())
    }
}

impl UnaryOp {
    pub const ALL: [UnaryOp; 14] = [
        UnaryOp::Neg,
        UnaryOp::Not,
        UnaryOp::Exp,
        UnaryOp::Log,
        UnaryOp::Sqrt,
        UnaryOp::Tanh,
        UnaryOp::Erf,
        UnaryOp::Sin,
        UnaryOp::Cos,
        UnaryOp::Abs,
        UnaryOp::Sign,
        UnaryOp::Floor,
        UnaryOp::Ceil,
        UnaryOp::Round,
    ];

    pub fn name(self) -> &'static str {
        match self {
            UnaryOp::Neg => "neg",
            UnaryOp::Not => "not",
            UnaryOp::Exp => "exp",
            UnaryOp::Log => "log",
            UnaryOp::Sqrt => "sqrt",
            UnaryOp::Tanh => "tanh",
            UnaryOp::Erf => "erf",
            UnaryOp::Sin => "sin",
            UnaryOp::Cos => "cos",
            UnaryOp::Abs => "abs",
            UnaryOp::Sign => "sign",
            UnaryOp::Floor => "floor",
            UnaryOp::Ceil => "ceil",
            UnaryOp::Round => "round",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }

    fn dtype(self, x: DType) -> Result<DType, ExprError> {
        let (fits, wants) = match self {
            UnaryOp::Not => (x == DType::Bool, "a bool"),
            UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Sign => (matches!(x, DType::F32 | DType::I32), "an f32 or i32"),
            UnaryOp::Exp
            | UnaryOp::Log
            | UnaryOp::Sqrt
            | UnaryOp::Tanh
            | UnaryOp::Erf
            | UnaryOp::Sin
            | UnaryOp::Cos
            | UnaryOp::Floor
            | UnaryOp::Ceil
            | UnaryOp::Round => (x == DType::F32, "an f32"),
        };
        fits.then_some(x).ok_or(ExprError { operation: self.name(), found: vec![x], wants })
    }
}

impl BinaryOp {
    pub const ALL: [BinaryOp; 20] = [
        BinaryOp::Add,
        BinaryOp::Sub,
        BinaryOp::Mul,
        BinaryOp::Div,
        BinaryOp::Mod,
        BinaryOp::Pow,
        BinaryOp::Min,
        BinaryOp::Max,
        BinaryOp::Lt,
        BinaryOp::Le,
        BinaryOp::Gt,
        BinaryOp::Ge,
        BinaryOp::Eq,
        BinaryOp::Ne,
        BinaryOp::And,
        BinaryOp::Or,
        BinaryOp::BitXor,
        BinaryOp::BitAnd,
        BinaryOp::ShiftLeft,
        BinaryOp::ShiftRight,
    ];

    pub fn name(self) -> &'static str {
        match self {
            BinaryOp::Add => "add",
            BinaryOp::Sub => "sub",
            BinaryOp::Mul => "mul",
            BinaryOp::Div => "div",
            BinaryOp::Mod => "mod",
            BinaryOp::Pow => "pow",
            BinaryOp::Min => "min",
            BinaryOp::Max => "max",
            BinaryOp::Lt => "lt",
            BinaryOp::Le => "le",
            BinaryOp::Gt => "gt",
            BinaryOp::Ge => "ge",
            BinaryOp::Eq => "eq",
            BinaryOp::Ne => "ne",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::BitXor => "bit_xor",
            BinaryOp::BitAnd => "bit_and",
            BinaryOp::ShiftLeft => "shift_left",
            BinaryOp::ShiftRight => "shift_right",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }

    fn dtype(self, a: DType, b: DType) -> Result<DType, ExprError> {
        let number = |x| matches!(x, DType::F32 | DType::I32);
        let (result, wants) = match self {
            BinaryOp::Add
            | BinaryOp::Sub
            | BinaryOp::Mul
            | BinaryOp::Div
            | BinaryOp::Mod
            | BinaryOp::Min
            | BinaryOp::Max => ((a == b && number(a)).then_some(a), "two numbers of one type"),
            BinaryOp::Pow => ((a == b && a == DType::F32).then_some(a), "two f32"),
            BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => {
                ((a == b && number(a)).then_some(DType::Bool), "two numbers of one type")
            }
            BinaryOp::Eq | BinaryOp::Ne => ((a == b).then_some(DType::Bool), "two values of one type"),
            BinaryOp::BitXor | BinaryOp::BitAnd | BinaryOp::ShiftLeft | BinaryOp::ShiftRight => {
                ((a == b && a == DType::I32).then_some(a), "two i32")
            }
            BinaryOp::And | BinaryOp::Or => ((a == b && a == DType::Bool).then_some(a), "two bools"),
        };
        result.ok_or(ExprError { operation: self.name(), found: vec![a, b], wants })
    }
}

impl Expr {
    pub fn unary(op: UnaryOp, x: Expr) -> Expr {
        Expr::Unary(op, Box::new(x))
    }

    pub fn binary(op: BinaryOp, a: Expr, b: Expr) -> Expr {
        Expr::Binary(op, Box::new(a), Box::new(b))
    }

    pub fn select(condition: Expr, yes: Expr, no: Expr) -> Expr {
        Expr::Select(Box::new(condition), Box::new(yes), Box::new(no))
    }

    pub fn cast(dtype: DType, x: Expr) -> Expr {
        Expr::Cast(dtype, Box::new(x))
    }

    /// The type of the result, given the operands' types (`F32`, `I32` or `Bool`).
    ///
    /// # Panics
    /// When the expression names an operand that is not there: a bug of whoever built it.
    pub fn dtype(&self, args: &[DType]) -> Result<DType, ExprError> {
        match self {
            Expr::Arg(at) => Ok(args[*at]),
            Expr::F32(_) => Ok(DType::F32),
            Expr::I32(_) => Ok(DType::I32),
            Expr::Bool(_) => Ok(DType::Bool),
            Expr::Unary(op, x) => op.dtype(x.dtype(args)?),
            Expr::Binary(op, a, b) => op.dtype(a.dtype(args)?, b.dtype(args)?),
            Expr::Select(condition, yes, no) => {
                let (condition, yes, no) = (condition.dtype(args)?, yes.dtype(args)?, no.dtype(args)?);
                if condition == DType::Bool && yes == no {
                    return Ok(yes);
                }
                let wants = "a bool and two values of one type";
                Err(ExprError { operation: "where", found: vec![condition, yes, no], wants })
            }
            Expr::Cast(dtype, x) => x.dtype(args).map(|_| *dtype),
        }
    }

    /// One more than the largest operand named; 0 for a constant.
    pub fn arity(&self) -> usize {
        let mut arity = 0;
        self.visit(&mut |expr| {
            if let Expr::Arg(at) = expr {
                arity = arity.max(at + 1);
            }
        });
        arity
    }

    /// The number of operations, for cost estimates.
    pub fn operations(&self) -> u64 {
        let mut count = 0;
        self.visit(&mut |expr| {
            count += u64::from(!matches!(expr, Expr::Arg(_) | Expr::F32(_) | Expr::I32(_) | Expr::Bool(_)));
        });
        count
    }

    /// Calls `f` on this expression and everything within it.
    pub fn visit(&self, f: &mut impl FnMut(&Expr)) {
        f(self);
        match self {
            Expr::Arg(_) | Expr::F32(_) | Expr::I32(_) | Expr::Bool(_) => {}
            Expr::Unary(_, x) | Expr::Cast(_, x) => x.visit(f),
            Expr::Binary(_, a, b) => {
                a.visit(f);
                b.visit(f);
            }
            Expr::Select(condition, yes, no) => {
                condition.visit(f);
                yes.visit(f);
                no.visit(f);
            }
        }
    }

    /// Replaces each operand by what `f` says of it: composition, and renumbering.
    pub fn substitute(&self, f: &impl Fn(usize) -> Expr) -> Expr {
        match self {
            Expr::Arg(at) => f(*at),
            Expr::F32(_) | Expr::I32(_) | Expr::Bool(_) => self.clone(),
            Expr::Unary(op, x) => Expr::unary(*op, x.substitute(f)),
            Expr::Binary(op, a, b) => Expr::binary(*op, a.substitute(f), b.substitute(f)),
            Expr::Select(condition, yes, no) => {
                Expr::select(condition.substitute(f), yes.substitute(f), no.substitute(f))
            }
            Expr::Cast(dtype, x) => Expr::cast(*dtype, x.substitute(f)),
        }
    }
}

/// `add(mul($0, $1), 0.5)`, `where(lt($0, 3i), ...)`, `f32($1)`: floats in Rust's shortest exact form (`inf`, `-inf`, `NaN`
/// included), integers with a trailing `i`.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Arg(at) => write!(f, "${at}"),
            Expr::F32(value) => write!(f, "{value:?}"),
            Expr::I32(value) => write!(f, "{value}i"),
            Expr::Bool(value) => write!(f, "{value}"),
            Expr::Unary(op, x) => write!(f, "{}({x})", op.name()),
            Expr::Binary(op, a, b) => write!(f, "{}({a}, {b})", op.name()),
            Expr::Select(condition, yes, no) => write!(f, "where({condition}, {yes}, {no})"),
            Expr::Cast(dtype, x) => write!(f, "{dtype}({x})"),
        }
    }
}
