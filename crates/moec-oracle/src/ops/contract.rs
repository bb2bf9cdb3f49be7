//! A product of two tensors, summed over shared axes.

use moec_types::Axis;

use super::bounded;
use crate::error::EvalError;
use crate::strided;
use crate::tensor::{Tensor, elements};

/// Rows of `a` that meet a row of `b` while it is in the cache.
const BLOCK: usize = 16;

/// Sums in f64, rounded once.
pub(super) fn eval_contract(a: &Tensor, b: &Tensor, over: &[Axis]) -> Result<Tensor, EvalError> {
    let select = |of: &Tensor, wanted: &dyn Fn(&Axis) -> bool| -> Vec<(Axis, usize)> {
        of.axes().iter().filter(|(axis, _)| wanted(axis)).cloned().collect()
    };
    let rows = select(a, &|axis| !over.contains(axis));
    let summed = select(b, &|axis| over.contains(axis));
    let shared = select(b, &|axis| !over.contains(axis) && a.size(axis).is_some());
    let columns = select(b, &|axis| a.size(axis).is_none());
    let result = [rows.clone(), columns.clone()].concat();

    let mut out = vec![0f32; bounded(&result)?];
    let a_axes = [rows.clone(), summed.clone()].concat();
    let b_axes = [shared.clone(), columns.clone(), summed.clone()].concat();
    let (a, b) = (a.broadcast(&a_axes), b.broadcast(&b_axes));
    let (a, b) = (a.f32(), b.f32());
    let (depth, width) = (elements(&summed), elements(&columns));

    // Where the part of `b` that belongs to each row of `a` starts.
    let parts = strided::strides(&shared.iter().map(|(_, size)| *size).collect::<Vec<_>>());
    let walk = rows.iter().map(|(axis, count)| {
        let stride = shared.iter().position(|(other, _)| other == axis).map_or(0, |at| parts[at] * width * depth);
        strided::Step { count: *count, stride }
    });
    let starts = strided::offsets(&walk.collect::<Vec<_>>());

    let mut first = 0;
    while first < starts.len() {
        let start = starts[first];
        let block = starts[first..].iter().take(BLOCK).take_while(|other| **other == start).count();
        for column in 0..width {
            let right = &b[start + column * depth..][..depth];
            for row in first..first + block {
                out[row * width + column] = dot(&a[row * depth..][..depth], right);
            }
        }
        first += block;
    }
    Ok(Tensor::new(result, out))
}

/// Several partial sums, so that the processor need not wait for each addition.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0f64; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let tail: f64 = tail.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    (sums.iter().sum::<f64>() + tail) as f32
}
