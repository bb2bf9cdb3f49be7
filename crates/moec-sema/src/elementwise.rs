//! Arithmetic: folded here when both sides are known now, a `map` node when one is a tensor.

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    ValueId,
    ops::{Literal, Map},
};
use moec_syntax::tree;
use moec_types::{BinaryOp, DType, Expr, TensorType, UnaryOp};
use thiserror::Error;

use crate::{
    count::{Rounding, exact_binary, rounded},
    evaluator::{Evaluator, WrongKind},
    fold::{Number, Unfolded, fold, fold_unary},
    scope::Frame,
    value::{Operand, Value, equal},
};

fn operator(op: tree::Binary) -> Option<BinaryOp> {
    match op {
        tree::Binary::Add => Some(BinaryOp::Add),
        tree::Binary::Sub => Some(BinaryOp::Sub),
        tree::Binary::Mul => Some(BinaryOp::Mul),
        tree::Binary::Div => Some(BinaryOp::Div),
        tree::Binary::Mod => Some(BinaryOp::Mod),
        tree::Binary::Pow => Some(BinaryOp::Pow),
        tree::Binary::Eq => Some(BinaryOp::Eq),
        tree::Binary::Ne => Some(BinaryOp::Ne),
        tree::Binary::Lt => Some(BinaryOp::Lt),
        tree::Binary::Le => Some(BinaryOp::Le),
        tree::Binary::Gt => Some(BinaryOp::Gt),
        tree::Binary::Ge => Some(BinaryOp::Ge),
        tree::Binary::And => Some(BinaryOp::And),
        tree::Binary::Or => Some(BinaryOp::Or),
        tree::Binary::In => None,
    }
}

/// How the language spells an operation, for messages.
fn spelling(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
        BinaryOp::Mod => "%",
        BinaryOp::Pow => "^",
        BinaryOp::Min => "min",
        BinaryOp::Max => "max",
        BinaryOp::Lt => "<",
        BinaryOp::Le => "<=",
        BinaryOp::Gt => ">",
        BinaryOp::Ge => ">=",
        BinaryOp::Eq => "==",
        BinaryOp::Ne => "!=",
        BinaryOp::And => "and",
        BinaryOp::Or => "or",
        BinaryOp::BitXor => "bit_xor",
        BinaryOp::BitAnd => "bit_and",
        BinaryOp::ShiftLeft => "shift_left",
        BinaryOp::ShiftRight => "shift_right",
    }
}

impl Evaluator {
    /// `a op b`.
    pub fn binary(&mut self, frame: &mut Frame, op: tree::Binary, a: Operand, b: Operand, at: Span) -> Value {
        match operator(op) {
            Some(op) => self.binary_op(frame, op, a, b, at),
            None => self.member(a, b, at),
        }
    }

    /// `l in dense`.
    fn member(&mut self, a: Operand, b: Operand, at: Span) -> Value {
        match (&a.value, &b.value) {
            (Value::Error, _) | (_, Value::Error) => Value::Error,
            (Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Text(_), Value::List(items)) => {
                Value::Bool(items.iter().any(|item| equal(item, &a.value)))
            }
            (item, Value::List(_)) => {
                let found = item.describe(&self.module);
                self.fail(WrongKind {
                    who: "`in`".into(),
                    wants: "a number or a text on its left",
                    found,
                    at: a.at,
                    help: None,
                })
            }
            (_, other) => {
                let found = other.describe(&self.module);
                let help = Some("write `x in [1, 2]`, or name a `config` entry that is a list".to_owned());
                let _ = at;
                self.fail(WrongKind { who: "`in`".into(), wants: "a list on its right", found, at: b.at, help })
            }
        }
    }

    pub fn binary_op(&mut self, frame: &mut Frame, op: BinaryOp, a: Operand, b: Operand, at: Span) -> Value {
        if let Some(value) = exact_binary(op, &a.value, &b.value, at) {
            return value;
        }
        let (a, b) = (self.settled(frame, a), self.settled(frame, b));
        match (&a.value, &b.value) {
            (Value::Error, _) | (_, Value::Error) => Value::Error,
            (Value::Tensor(x), _) if self.changes_nothing(op, *x, &b.value) => a.value,
            (_, Value::Tensor(x))
                if matches!(op, BinaryOp::Add | BinaryOp::Mul) && self.changes_nothing(op, *x, &a.value) =>
            {
                b.value
            }
            (x, y) if self.types_clash(x, y) => {
                let (left, right) = (x.describe(&self.module), y.describe(&self.module));
                let help = Some("convert one of them: `f32(…)` or `i32(…)`");
                self.fail(WrongOperands { operation: spelling(op), left, right, left_at: a.at, right_at: b.at, help })
            }
            (Value::Tensor(_), _) | (_, Value::Tensor(_)) => {
                let who = format!("`{}`", spelling(op));
                self.map(frame, &who, vec![a, b], 0, at, |mut args| {
                    let (b, a) = (args.pop().expect("two"), args.pop().expect("two"));
                    Expr::binary(op, a, b)
                })
            }
            (x, y) => match fold(op, x, y) {
                Ok(value) => value,
                Err(Unfolded::Kind) => {
                    let (left, right) = (x.describe(&self.module), y.describe(&self.module));
                    self.fail(WrongOperands {
                        operation: spelling(op),
                        left,
                        right,
                        left_at: a.at,
                        right_at: b.at,
                        help: match (x, y) {
                            (Value::Part(_), _) | (_, Value::Part(_)) => {
                                Some("a part gives a tensor once it is called: `part(x)`")
                            }
                            _ => None,
                        },
                    })
                }
                Err(Unfolded::Overflow) => {
                    let (left, right) = (x.spelled(), y.spelled());
                    self.fail(Overflow { what: format!("{left} {} {right}", spelling(op)), bits: 64, at })
                }
                Err(Unfolded::ByZero) => self.fail(DividesByZero { at: b.at }),
                Err(Unfolded::NotWhole(left, right)) => self.fail(NotWhole { left, right, at }),
            },
        }
    }

    /// A float beside an integer tensor, or the other way round: nothing is converted in silence. (A whole number known now
    /// fits both.)
    fn types_clash(&self, x: &Value, y: &Value) -> bool {
        let dtype = |value: &Value| match value {
            Value::Tensor(value) => self.module.ty(*value).tensor().map(|ty| ty.dtype),
            Value::Float(_) => Some(DType::F32),
            _ => None,
        };
        let both = [dtype(x), dtype(y)];
        both.contains(&Some(DType::F32)) && both.contains(&Some(DType::I32))
    }

    /// `x + 0` and `x * 1`: settings that are off leave no trace.
    fn changes_nothing(&self, op: BinaryOp, x: ValueId, constant: &Value) -> bool {
        let fits = match constant {
            Value::Float(_) => self.module.ty(x).tensor().is_some_and(|ty| ty.dtype == DType::F32),
            _ => true,
        };
        let value = Number::of(constant).map(Number::float);
        fits && match op {
            BinaryOp::Add | BinaryOp::Sub => value == Some(0.0),
            BinaryOp::Mul | BinaryOp::Div => value == Some(1.0),
            BinaryOp::Mod
            | BinaryOp::Pow
            | BinaryOp::Min
            | BinaryOp::Max
            | BinaryOp::Lt
            | BinaryOp::Le
            | BinaryOp::Gt
            | BinaryOp::Ge
            | BinaryOp::Eq
            | BinaryOp::Ne
            | BinaryOp::And
            | BinaryOp::Or
            | BinaryOp::BitXor
            | BinaryOp::BitAnd
            | BinaryOp::ShiftLeft
            | BinaryOp::ShiftRight => false,
        }
    }

    pub fn unary_op(&mut self, frame: &mut Frame, op: UnaryOp, x: Operand, at: Span) -> Value {
        let who = format!("`{}`", if op == UnaryOp::Neg { "-" } else { op.name() });
        let exactly = match op {
            UnaryOp::Floor => rounded(&x.value, Rounding::Down, at),
            UnaryOp::Ceil => rounded(&x.value, Rounding::Up, at),
            _ => None,
        };
        if let Some(value) = exactly {
            return value;
        }
        let x = self.settled(frame, x);
        match &x.value {
            Value::Error => Value::Error,
            Value::Tensor(_) => {
                self.map(frame, &who, vec![x], 0, at, |mut args| Expr::unary(op, args.pop().expect("one")))
            }
            value => match fold_unary(op, value) {
                Some(value) => value,
                None => {
                    let found = value.describe(&self.module);
                    let wants = if op == UnaryOp::Not { "a bool" } else { "a number" };
                    self.fail(WrongKind { who, wants, found, at: x.at, help: None })
                }
            },
        }
    }

    /// `where(condition, yes, no)`.
    pub fn select(&mut self, frame: &mut Frame, condition: Operand, yes: Operand, no: Operand, at: Span) -> Value {
        match &condition.value {
            Value::Error => Value::Error,
            Value::Bool(condition) => {
                if *condition {
                    yes.value
                } else {
                    no.value
                }
            }
            Value::Tensor(_) => self.map(frame, "`where`", vec![condition, yes, no], 1, at, |mut args| {
                let (no, yes, condition) =
                    (args.pop().expect("three"), args.pop().expect("three"), args.pop().expect("three"));
                Expr::select(condition, yes, no)
            }),
            other => {
                let found = other.describe(&self.module);
                self.fail(WrongKind {
                    who: "`where`".into(),
                    wants: "a bool first",
                    found,
                    at: condition.at,
                    help: None,
                })
            }
        }
    }

    /// `f32(x)` and `i32(x)`.
    pub fn cast(&mut self, frame: &mut Frame, to: DType, x: Operand, at: Span) -> Value {
        let x = self.settled(frame, x);
        match &x.value {
            Value::Error => Value::Error,
            Value::Tensor(value) if self.module.tensor(*value).dtype == to => x.value,
            Value::Tensor(_) => {
                self.map(frame, to.name(), vec![x], 0, at, |mut args| Expr::cast(to, args.pop().expect("one")))
            }
            value => match (to, Number::of(value), value) {
                (DType::I32, Some(Number::Float(value)), _) => Value::Int(value.trunc() as i64),
                (DType::I32, Some(Number::Int(value)), _) => Value::Int(value),
                (_, Some(number), _) => Value::Float(number.float()),
                (DType::I32, None, Value::Bool(value)) => Value::Int(i64::from(*value)),
                (_, None, Value::Bool(value)) => Value::Float(f64::from(u8::from(*value))),
                (_, None, other) => {
                    let found = other.describe(&self.module);
                    self.fail(WrongKind {
                        who: format!("`{to}`"),
                        wants: "a number or a tensor",
                        found,
                        at: x.at,
                        help: None,
                    })
                }
            },
        }
    }

    /// A `map` over the tensors among the operands; numbers known now become literals of the type that the tensors of the
    /// same group have. Operands from `group` on must agree with each other.
    fn map(
        &mut self,
        frame: &mut Frame,
        who: &str,
        operands: Vec<Operand>,
        group: usize,
        at: Span,
        build: impl FnOnce(Vec<Expr>) -> Expr,
    ) -> Value {
        let tensor_dtype = |operand: &Operand| operand.value.tensor_type(&self.module).map(|ty| ty.dtype);
        let dtype = operands[group..].iter().find_map(tensor_dtype).unwrap_or_else(|| {
            let floats = operands[group..].iter().any(|operand| matches!(operand.value, Value::Float(_)));
            if floats { DType::F32 } else { DType::I32 }
        });
        let operands: Vec<Operand> = operands.into_iter().map(|operand| self.settled(frame, operand)).collect();
        let mut tensors: Vec<(ValueId, Span)> = Vec::new();
        let mut args = Vec::new();
        for operand in &operands {
            args.push(match &operand.value {
                Value::Error => return Value::Error,
                Value::Tensor(value) => match tensors.iter().position(|(known, _)| known == value) {
                    Some(known) => Expr::Arg(known),
                    None => {
                        tensors.push((*value, operand.at));
                        Expr::Arg(tensors.len() - 1)
                    }
                },
                Value::Int(value) if dtype == DType::F32 => Expr::F32(*value as f32),
                Value::Int(value) => match i32::try_from(*value) {
                    Ok(value) => Expr::I32(value),
                    Err(_) => return self.fail(Overflow { what: value.to_string(), bits: 32, at: operand.at }),
                },
                Value::Float(value) => Expr::F32(*value as f32),
                Value::Bool(value) => Expr::Bool(*value),
                Value::Count(_)
                | Value::Nothing
                | Value::Text(_)
                | Value::List(_)
                | Value::Tuple(_)
                | Value::Route(_)
                | Value::Shape(_)
                | Value::Function(_)
                | Value::Template(_)
                | Value::Moe(_)
                | Value::Bank(_)
                | Value::Part(_) => {
                    let found = operand.value.describe(&self.module);
                    let (who, at) = (who.to_owned(), operand.at);
                    return self.fail(WrongKind { who, wants: "numbers or tensors", found, at, help: None });
                }
            });
        }
        let expr = build(args);
        self.emit1(frame, Map { expr }, &tensors, at)
    }

    /// A number known now as a tensor without axes; tensors as they are.
    pub fn materialise(&mut self, frame: &mut Frame, operand: &Operand) -> Option<(ValueId, Span)> {
        self.materialise_for(frame, operand, "what stands here")
    }

    /// [`Evaluator::materialise`], with who wants it.
    pub fn materialise_for(&mut self, frame: &mut Frame, operand: &Operand, who: &str) -> Option<(ValueId, Span)> {
        let operand = &self.settled(frame, operand.clone());
        let (dtype, value) = match &operand.value {
            Value::Int(value) => (DType::I32, *value as f64),
            Value::Float(value) => (DType::F32, *value),
            Value::Bool(value) => (DType::Bool, f64::from(u8::from(*value))),
            _ => return self.tensor(operand, who),
        };
        let literal = Literal { ty: TensorType::scalar(dtype), data: vec![value] };
        match self.emit1(frame, literal, &[], operand.at) {
            Value::Tensor(value) => Some((value, operand.at)),
            _ => None,
        }
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{operation}` between {left} and {right}")]
#[diagnostic(code(moec::sema::wrong_operands))]
struct WrongOperands {
    operation: &'static str,
    left: String,
    right: String,
    #[label("this is {left}")]
    left_at: Span,
    #[label("this is {right}")]
    right_at: Span,
    #[help]
    help: Option<&'static str>,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{what} does not fit into {bits} bits")]
#[diagnostic(
    code(moec::sema::overflow),
    help("whole numbers have 64 bits here, and 32 where they meet a tensor; write a float, such as `1e10`")
)]
struct Overflow {
    what: String,
    bits: u32,
    #[label("does not fit")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("division by zero")]
#[diagnostic(
    code(moec::sema::divides_by_zero),
    help("where it may be zero, say what holds then: `if H > 0 {{ D / H }} else {{ D }}`")
)]
struct DividesByZero {
    #[label("this is 0")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("{left} / {right} is not a whole number")]
#[diagnostic(
    code(moec::sema::not_whole),
    help(
        "two integers divide to an integer; write `f32({left}) / {right}` for the fraction, `floor({left} / {right})` to round down"
    )
)]
pub(crate) struct NotWhole {
    pub left: i64,
    pub right: i64,
    #[label("leaves a remainder")]
    pub at: Span,
}
