//! Rows added up where an index says.

use moec_types::Axis;

use super::bounded;
use crate::error::EvalError;
use crate::tensor::{Data, Tensor, elements};

/// Sums in f64, rounded once; integers wrap. What an index outside `into` names is added nowhere.
pub(super) fn eval_scatter_add(
    axes: &[Axis],
    into: (Axis, usize),
    x: &Tensor,
    index: &Tensor,
) -> Result<Tensor, EvalError> {
    let summed: Vec<_> = axes.iter().map(|axis| (axis.clone(), x.expect_size(axis))).collect();
    let kept: Vec<_> = x.axes().iter().filter(|(axis, _)| !axes.contains(axis)).cloned().collect();
    let (count, length) = (into.1, elements(&kept));
    let result = [vec![into], kept.clone()].concat();
    let total = bounded(&result)?;
    let all = [summed, kept].concat();
    let index = index.broadcast(&all);
    // Where each element goes: its own place in the row that the index names.
    let targets = index.i32().iter().enumerate().map(|(at, row)| {
        let row = usize::try_from(*row).ok().filter(|row| *row < count)?;
        Some(row * length + at % length)
    });
    let data = match x.broadcast(&all).into_owned().into_data() {
        Data::F32(x) => {
            let mut sums = vec![0f64; total];
            targets.zip(&x).for_each(|(at, x)| at.into_iter().for_each(|at| sums[at] += f64::from(*x)));
            Data::F32(sums.into_iter().map(|sum| sum as f32).collect())
        }
        Data::I32(x) => {
            let mut sums = vec![0i32; total];
            targets.zip(&x).for_each(|(at, x)| at.into_iter().for_each(|at| sums[at] = sums[at].wrapping_add(*x)));
            Data::I32(sums)
        }
        Data::Bool(_) => panic!("a sum of bools"),
    };
    Ok(Tensor::new(result, data))
}
