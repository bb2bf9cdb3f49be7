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
    let index = index.broadcast(&summed);
    let targets = index.i32().iter().map(|at| usize::try_from(*at).ok().filter(|at| *at < count));
    let data = match x.broadcast(&[summed, kept].concat()).into_owned().into_data() {
        Data::F32(x) => {
            let mut sums = vec![0f64; total];
            for (row, target) in targets.enumerate() {
                let Some(target) = target else { continue };
                let into = &mut sums[target * length..][..length];
                into.iter_mut().zip(&x[row * length..][..length]).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            Data::F32(sums.into_iter().map(|sum| sum as f32).collect())
        }
        Data::I32(x) => {
            let mut sums = vec![0i32; total];
            for (row, target) in targets.enumerate() {
                let Some(target) = target else { continue };
                let into = &mut sums[target * length..][..length];
                into.iter_mut().zip(&x[row * length..][..length]).for_each(|(sum, x)| *sum = sum.wrapping_add(*x));
            }
            Data::I32(sums)
        }
        Data::Bool(_) => panic!("a sum of bools"),
    };
    Ok(Tensor::new(result, data))
}
