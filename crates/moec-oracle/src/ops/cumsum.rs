//! Running sums along an axis.

use moec_types::Axis;

use crate::tensor::{Data, Tensor, elements};

/// Sums in f64, each rounded once; integers wrap.
pub(super) fn eval_cumsum(over: &Axis, x: &Tensor) -> Tensor {
    let (along, kept): (Vec<_>, Vec<_>) = x.axes().iter().cloned().partition(|(axis, _)| axis == over);
    let length = elements(&along);
    let axes = [kept, along].concat();
    let data = match x.broadcast(&axes).into_owned().into_data() {
        Data::F32(x) => Data::F32(each_row(&x, length, |row| {
            let sums = row.iter().scan(0f64, |sum, x| {
                *sum += f64::from(*x);
                Some(*sum as f32)
            });
            sums.collect()
        })),
        Data::I32(x) => Data::I32(each_row(&x, length, |row| {
            let sums = row.iter().scan(0i32, |sum, x| {
                *sum = sum.wrapping_add(*x);
                Some(*sum)
            });
            sums.collect()
        })),
        Data::Bool(_) => panic!("a running sum of bools"),
    };
    Tensor::new(axes, data)
}

fn each_row<T>(x: &[T], length: usize, f: impl Fn(&[T]) -> Vec<T>) -> Vec<T> {
    x.chunks(length.max(1)).flat_map(f).collect()
}
