//! Sums and extremes along axes.

use moec_ir::ops::ReduceOp;
use moec_types::Axis;

use crate::scalar::{max_f32, min_f32};
use crate::tensor::{Data, Tensor, elements};

/// Sums, means and products in f64, rounded once; integers wrap. Nothing at all sums to 0, multiplies to 1, and has the
/// maximum -inf (or the least integer).
pub(super) fn eval_reduce(op: ReduceOp, x: &Tensor, over: &[Axis]) -> Tensor {
    let (gone, kept): (Vec<_>, Vec<_>) = x.axes().iter().cloned().partition(|(axis, _)| over.contains(axis));
    let (rows, length) = (elements(&kept), elements(&gone));
    let x = x.broadcast(&[kept.clone(), gone].concat()).into_owned().into_data();
    let data = match &x {
        Data::F32(x) => Data::F32(each_row(x, rows, length, |row| reduce_f32(op, row))),
        Data::I32(x) => Data::I32(each_row(x, rows, length, |row| reduce_i32(op, row))),
        Data::Bool(x) => Data::Bool(each_row(x, rows, length, |row| reduce_bool(op, row))),
    };
    Tensor::new(kept, data)
}

fn each_row<T, R>(x: &[T], rows: usize, length: usize, f: impl Fn(&[T]) -> R) -> Vec<R> {
    (0..rows).map(|row| f(&x[row * length..][..length])).collect()
}

fn reduce_f32(op: ReduceOp, row: &[f32]) -> f32 {
    let wide = row.iter().map(|x| f64::from(*x));
    match op {
        ReduceOp::Sum => wide.sum::<f64>() as f32,
        ReduceOp::Mean => (wide.sum::<f64>() / row.len() as f64) as f32,
        ReduceOp::Prod => wide.product::<f64>() as f32,
        ReduceOp::Max => row.iter().copied().fold(f32::NEG_INFINITY, max_f32),
        ReduceOp::Min => row.iter().copied().fold(f32::INFINITY, min_f32),
        ReduceOp::Any | ReduceOp::All => unreachable!("{op:?} of numbers was verified away"),
    }
}

fn reduce_i32(op: ReduceOp, row: &[i32]) -> i32 {
    match op {
        ReduceOp::Sum => row.iter().copied().fold(0, i32::wrapping_add),
        ReduceOp::Prod => row.iter().copied().fold(1, i32::wrapping_mul),
        ReduceOp::Max => row.iter().copied().max().unwrap_or(i32::MIN),
        ReduceOp::Min => row.iter().copied().min().unwrap_or(i32::MAX),
        ReduceOp::Mean | ReduceOp::Any | ReduceOp::All => unreachable!("{op:?} of integers was verified away"),
    }
}

fn reduce_bool(op: ReduceOp, row: &[bool]) -> bool {
    match op {
        ReduceOp::Any => row.iter().any(|x| *x),
        ReduceOp::All => row.iter().all(|x| *x),
        ReduceOp::Sum | ReduceOp::Mean | ReduceOp::Prod | ReduceOp::Max | ReduceOp::Min => {
            unreachable!("{op:?} of bools was verified away")
        }
    }
}
