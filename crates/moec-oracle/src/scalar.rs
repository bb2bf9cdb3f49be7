//! Scalar expressions, evaluated over runs of elements.
//!
//! f32 arithmetic rounds after each operation; functions are computed in f64 and rounded. i32 arithmetic wraps; a quotient or
//! remainder by zero is 0 (either side of a `where` may be evaluated, so it must not fault).

use moec_types::{BinaryOp, DType, Expr, UnaryOp};

use crate::tensor::Data;

/// Elements evaluated at a time: temporaries stay in the cache.
const RUN: usize = 1024;

/// `expr` for each of `count` elements; every argument has that many.
pub(crate) fn evaluate(expr: &Expr, args: &[&Data], count: usize) -> Data {
    let run = |from: usize| run(expr, args, from, RUN.min(count - from));
    let mut whole = if count == 0 { self::run(expr, args, 0, 0) } else { run(0) };
    for from in (RUN..count).step_by(RUN) {
        match (&mut whole, run(from)) {
            (Data::F32(whole), Data::F32(part)) => whole.extend(part),
            (Data::I32(whole), Data::I32(part)) => whole.extend(part),
            (Data::Bool(whole), Data::Bool(part)) => whole.extend(part),
            (_, _) => unreachable!("an expression has one type"),
        }
    }
    whole
}

fn run(expr: &Expr, args: &[&Data], from: usize, count: usize) -> Data {
    match expr {
        Expr::Arg(at) => crate::tensor::map_data!(args[*at], values => values[from..from + count].to_vec()),
        Expr::F32(value) => Data::F32(vec![*value; count]),
        Expr::I32(value) => Data::I32(vec![*value; count]),
        Expr::Bool(value) => Data::Bool(vec![*value; count]),
        Expr::Unary(op, x) => unary(*op, run(x, args, from, count)),
        Expr::Binary(op, a, b) => binary(*op, run(a, args, from, count), run(b, args, from, count)),
        Expr::Select(condition, yes, no) => {
            let Data::Bool(condition) = run(condition, args, from, count) else { ill_typed() };
            select(&condition, run(yes, args, from, count), run(no, args, from, count))
        }
        Expr::Cast(dtype, x) => cast(*dtype, run(x, args, from, count)),
    }
}

fn ill_typed() -> ! {
    panic!("an ill-typed expression reached the oracle; the verifier should have refused it")
}

fn unary(op: UnaryOp, x: Data) -> Data {
    match x {
        Data::F32(mut x) => {
            x.iter_mut().for_each(|x| *x = unary_f32(op, *x));
            Data::F32(x)
        }
        Data::I32(mut x) => {
            x.iter_mut().for_each(|x| *x = unary_i32(op, *x));
            Data::I32(x)
        }
        Data::Bool(x) if op == UnaryOp::Not => Data::Bool(x.into_iter().map(|x| !x).collect()),
        Data::Bool(_) => ill_typed(),
    }
}

fn unary_f32(op: UnaryOp, x: f32) -> f32 {
    let wide = f64::from(x);
    match op {
        UnaryOp::Neg => -x,
        UnaryOp::Exp => wide.exp() as f32,
        UnaryOp::Log => wide.ln() as f32,
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Tanh => wide.tanh() as f32,
        UnaryOp::Erf => erf(wide) as f32,
        UnaryOp::Sin => wide.sin() as f32,
        UnaryOp::Cos => wide.cos() as f32,
        UnaryOp::Abs => x.abs(),
        UnaryOp::Sign if x == 0.0 => 0.0,
        UnaryOp::Sign if x.is_nan() => x,
        UnaryOp::Sign => x.signum(),
        UnaryOp::Floor => x.floor(),
        UnaryOp::Ceil => x.ceil(),
        UnaryOp::Round => x.round_ties_even(),
        UnaryOp::Not => ill_typed(),
    }
}

fn unary_i32(op: UnaryOp, x: i32) -> i32 {
    match op {
        UnaryOp::Neg => x.wrapping_neg(),
        UnaryOp::Abs => x.wrapping_abs(),
        UnaryOp::Sign => x.signum(),
        UnaryOp::Not
        | UnaryOp::Exp
        | UnaryOp::Log
        | UnaryOp::Sqrt
        | UnaryOp::Tanh
        | UnaryOp::Erf
        | UnaryOp::Sin
        | UnaryOp::Cos
        | UnaryOp::Floor
        | UnaryOp::Ceil
        | UnaryOp::Round => ill_typed(),
    }
}

fn binary(op: BinaryOp, a: Data, b: Data) -> Data {
    match (a, b) {
        (Data::F32(a), Data::F32(b)) => binary_f32(op, a, &b),
        (Data::I32(a), Data::I32(b)) => binary_i32(op, a, &b),
        (Data::Bool(a), Data::Bool(b)) => binary_bool(op, a, &b),
        (_, _) => ill_typed(),
    }
}

fn zip<T: Copy, R>(a: &[T], b: &[T], f: impl Fn(T, T) -> R) -> Vec<R> {
    a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect()
}

fn binary_f32(op: BinaryOp, a: Vec<f32>, b: &[f32]) -> Data {
    let number = |f: fn(f32, f32) -> f32| Data::F32(zip(&a, b, f));
    let truth = |f: fn(&f32, &f32) -> bool| Data::Bool(zip(&a, b, |a, b| f(&a, &b)));
    match op {
        BinaryOp::Add => number(|a, b| a + b),
        BinaryOp::Sub => number(|a, b| a - b),
        BinaryOp::Mul => number(|a, b| a * b),
        BinaryOp::Div => number(|a, b| a / b),
        BinaryOp::Mod => number(mod_f32),
        BinaryOp::Pow => number(|a, b| f64::from(a).powf(f64::from(b)) as f32),
        BinaryOp::Min => number(min_f32),
        BinaryOp::Max => number(max_f32),
        BinaryOp::Lt => truth(f32::lt),
        BinaryOp::Le => truth(f32::le),
        BinaryOp::Gt => truth(f32::gt),
        BinaryOp::Ge => truth(f32::ge),
        BinaryOp::Eq => truth(f32::eq),
        BinaryOp::Ne => truth(f32::ne),
        BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::BitXor
        | BinaryOp::BitAnd
        | BinaryOp::ShiftLeft
        | BinaryOp::ShiftRight => ill_typed(),
    }
}

fn binary_i32(op: BinaryOp, a: Vec<i32>, b: &[i32]) -> Data {
    let number = |f: fn(i32, i32) -> i32| Data::I32(zip(&a, b, f));
    let truth = |f: fn(&i32, &i32) -> bool| Data::Bool(zip(&a, b, |a, b| f(&a, &b)));
    match op {
        BinaryOp::Add => number(i32::wrapping_add),
        BinaryOp::Sub => number(i32::wrapping_sub),
        BinaryOp::Mul => number(i32::wrapping_mul),
        BinaryOp::Div => number(|a, b| if b == 0 { 0 } else { a.wrapping_div(b) }),
        BinaryOp::Mod => number(mod_i32),
        BinaryOp::Min => number(i32::min),
        BinaryOp::Max => number(i32::max),
        BinaryOp::Lt => truth(i32::lt),
        BinaryOp::Le => truth(i32::le),
        BinaryOp::Gt => truth(i32::gt),
        BinaryOp::Ge => truth(i32::ge),
        BinaryOp::Eq => truth(i32::eq),
        BinaryOp::Ne => truth(i32::ne),
        BinaryOp::BitXor => number(|a, b| a ^ b),
        BinaryOp::BitAnd => number(|a, b| a & b),
        BinaryOp::ShiftLeft => number(|a, b| a << (b & 31)),
        BinaryOp::ShiftRight => number(|a, b| ((a as u32) >> (b & 31)) as i32),
        BinaryOp::Pow | BinaryOp::And | BinaryOp::Or => ill_typed(),
    }
}

fn binary_bool(op: BinaryOp, a: Vec<bool>, b: &[bool]) -> Data {
    let truth = |f: fn(bool, bool) -> bool| Data::Bool(zip(&a, b, f));
    match op {
        BinaryOp::And => truth(|a, b| a && b),
        BinaryOp::Or => truth(|a, b| a || b),
        BinaryOp::Eq => truth(|a, b| a == b),
        BinaryOp::Ne => truth(|a, b| a != b),
        BinaryOp::Add
        | BinaryOp::Sub
        | BinaryOp::Mul
        | BinaryOp::Div
        | BinaryOp::Mod
        | BinaryOp::Pow
        | BinaryOp::Min
        | BinaryOp::Max
        | BinaryOp::Lt
        | BinaryOp::Le
        | BinaryOp::Gt
        | BinaryOp::Ge
        | BinaryOp::BitXor
        | BinaryOp::BitAnd
        | BinaryOp::ShiftLeft
        | BinaryOp::ShiftRight => ill_typed(),
    }
}

/// NaN if either is NaN.
pub(crate) fn min_f32(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { a.min(b) }
}

/// NaN if either is NaN.
pub(crate) fn max_f32(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) }
}

/// The remainder with the divisor's sign.
fn mod_f32(a: f32, b: f32) -> f32 {
    let remainder = a % b;
    if remainder != 0.0 && (remainder < 0.0) != (b < 0.0) { remainder + b } else { remainder }
}

fn mod_i32(a: i32, b: i32) -> i32 {
    if b == 0 {
        return 0;
    }
    let remainder = a.wrapping_rem(b);
    if remainder != 0 && (remainder < 0) != (b < 0) { remainder + b } else { remainder }
}

fn select(condition: &[bool], yes: Data, no: Data) -> Data {
    fn pick<T: Copy>(condition: &[bool], yes: &[T], no: &[T]) -> Vec<T> {
        condition.iter().zip(yes.iter().zip(no)).map(|(c, (yes, no))| if *c { *yes } else { *no }).collect()
    }
    match (yes, no) {
        (Data::F32(yes), Data::F32(no)) => Data::F32(pick(condition, &yes, &no)),
        (Data::I32(yes), Data::I32(no)) => Data::I32(pick(condition, &yes, &no)),
        (Data::Bool(yes), Data::Bool(no)) => Data::Bool(pick(condition, &yes, &no)),
        (_, _) => ill_typed(),
    }
}

/// A float becomes an integer by dropping its fraction; beyond the range, the nearest integer; NaN, 0. To a storage type: the
/// nearest value of that type, held as f32.
pub(crate) fn cast(dtype: DType, x: Data) -> Data {
    let float: Vec<f32> = match (dtype, x) {
        (DType::I32, Data::F32(x)) => return Data::I32(x.into_iter().map(|x| x as i32).collect()),
        (DType::I32, Data::Bool(x)) => return Data::I32(x.into_iter().map(i32::from).collect()),
        (DType::I32, x @ Data::I32(_)) => return x,
        (DType::Bool, Data::F32(x)) => return Data::Bool(x.into_iter().map(|x| x != 0.0).collect()),
        (DType::Bool, Data::I32(x)) => return Data::Bool(x.into_iter().map(|x| x != 0).collect()),
        (DType::Bool, x @ Data::Bool(_)) => return x,
        (DType::F32 | DType::Bf16 | DType::F16, Data::F32(x)) => x,
        (DType::F32 | DType::Bf16 | DType::F16, Data::I32(x)) => x.into_iter().map(|x| x as f32).collect(),
        (DType::F32 | DType::Bf16 | DType::F16, Data::Bool(x)) => {
            x.into_iter().map(|x| f32::from(u8::from(x))).collect()
        }
    };
    Data::F32(match dtype {
        DType::Bf16 => float.into_iter().map(|x| half::bf16::from_f32(x).to_f32()).collect(),
        DType::F16 => float.into_iter().map(|x| half::f16::from_f32(x).to_f32()).collect(),
        DType::F32 | DType::I32 | DType::Bool => float,
    })
}

/// The error function to f64 accuracy: the series of all-positive terms (Abramowitz and Stegun 7.1.6) near 0, the continued
/// fraction of the complement (7.1.14) further out.
fn erf(x: f64) -> f64 {
    let size = x.abs();
    if x.is_nan() {
        return x;
    }
    if size > 6.0 {
        return x.signum();
    }
    let gauss = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if size < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term.abs() > 1e-17 * sum.abs() {
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        return 2.0 * gauss * sum;
    }
    let fraction = (1..=60).rev().fold(size, |tail, n| size + 0.5 * f64::from(n) / tail);
    x.signum() * (1.0 - gauss / fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32_of(expr: &Expr, x: f32) -> f32 {
        let Data::F32(values) = evaluate(expr, &[&Data::F32(vec![x])], 1) else { panic!("an f32") };
        values[0]
    }

    #[test]
    fn erf_is_the_tabled_function() {
        // Abramowitz and Stegun, table 7.1, and scipy beyond it.
        let table = [
            (0.0, 0.0),
            (0.5, 0.5204998778130465),
            (1.0, 0.8427007929497149),
            (2.0, 0.9953222650189527),
            (3.0, 0.9999779095030014),
        ];
        for (x, wanted) in table {
            assert!((erf(x) - wanted).abs() < 1e-15, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!((erf(2.4999999) - erf(2.5)).abs() < 1e-9, "the two formulas meet");
        assert_eq!(erf(7.0), 1.0);
        assert!(erf(f64::NAN).is_nan());
    }

    #[test]
    fn remainders_take_the_divisors_sign_and_zero_does_not_fault() {
        assert_eq!(mod_i32(-7, 3), 2);
        assert_eq!(mod_i32(7, -3), -2);
        assert_eq!(mod_i32(i32::MIN, -1), 0);
        assert_eq!(mod_i32(5, 0), 0);
        assert_eq!(mod_f32(-7.5, 2.0), 0.5);
        assert_eq!(mod_f32(7.5, -2.0), -0.5);
        let divide = Data::I32(vec![7, i32::MIN, -7]);
        assert_eq!(binary(BinaryOp::Div, divide, Data::I32(vec![0, -1, 2])), Data::I32(vec![0, i32::MIN, -3]));
    }

    #[test]
    fn unusual_floats_keep_their_meaning() {
        assert_eq!(f32_of(&Expr::unary(UnaryOp::Round, Expr::Arg(0)), 2.5), 2.0);
        assert_eq!(f32_of(&Expr::unary(UnaryOp::Sign, Expr::Arg(0)), -0.0), 0.0);
        assert!(f32_of(&Expr::unary(UnaryOp::Sign, Expr::Arg(0)), f32::NAN).is_nan());
        assert!(f32_of(&Expr::binary(BinaryOp::Max, Expr::Arg(0), Expr::F32(1.0)), f32::NAN).is_nan());
        assert_eq!(f32_of(&Expr::cast(DType::Bf16, Expr::Arg(0)), 1.003), 1.0);
        assert_eq!(cast(DType::I32, Data::F32(vec![-2.7, 1e20, f32::NAN])), Data::I32(vec![-2, i32::MAX, 0]));
    }

    #[test]
    fn runs_are_joined_in_order() {
        let x: Vec<f32> = (0..2500).map(|n| n as f32).collect();
        let doubled =
            evaluate(&Expr::binary(BinaryOp::Add, Expr::Arg(0), Expr::Arg(0)), &[&Data::F32(x.clone())], 2500);
        assert_eq!(doubled, Data::F32(x.iter().map(|x| 2.0 * x).collect()));
        assert_eq!(evaluate(&Expr::Bool(true), &[], 0), Data::Bool(vec![]));
    }
}
