//! Tensors laid end to end.

use moec_types::Axis;

use crate::tensor::{Data, Tensor};

/// # Panics
/// When the tensors differ in type or in any other axis.
pub(super) fn eval_concat(over: &Axis, parts: &[&Tensor]) -> Tensor {
    let kept: Vec<_> = parts[0].axes().iter().filter(|(axis, _)| axis != over).cloned().collect();
    // With the axis slowest, end to end in memory is end to end along the axis.
    let slowest = |part: &Tensor| {
        let axes = [vec![(over.clone(), part.expect_size(over))], kept.clone()].concat();
        part.broadcast(&axes).into_owned().into_data()
    };
    let size = parts.iter().map(|part| part.expect_size(over)).sum();
    let mut whole = slowest(parts[0]);
    for part in &parts[1..] {
        match (&mut whole, slowest(part)) {
            (Data::F32(whole), Data::F32(part)) => whole.extend(part),
            (Data::I32(whole), Data::I32(part)) => whole.extend(part),
            (Data::Bool(whole), Data::Bool(part)) => whole.extend(part),
            (_, _) => unreachable!("tensors of different types laid end to end were verified away"),
        }
    }
    let axes = [vec![(over.clone(), size)], kept].concat();
    Tensor::new(axes, whole)
}
