//! Ops over literals, at compile time.

use moec_ir::ops::{Gather, Literal};
use moec_ir::{Module, Op, ValueId};
use moec_types::{Axis, DType, TensorType};

use crate::constant::{self, Scalar};

/// Larger results are left to the run time.
const MOST_ELEMENTS: u64 = 65_536;

/// A constant tensor, as an op over constants sees it.
#[derive(Clone, Debug)]
struct Constant {
    ty: TensorType,
    data: Vec<f64>,
}

/// What an op gives whose operands are all constants; `None` where it is no such op or too large.
pub fn fold(module: &Module, op: &Op, operands: &[ValueId], result: ValueId) -> Option<Literal> {
    let ty = module.ty(result).tensor()?.clone();
    if ty.elements()? > MOST_ELEMENTS || operands.is_empty() && !matches!(op, Op::Map(_)) {
        return None;
    }
    let constants = || operands.iter().map(|value| constant_of(module, *value)).collect::<Option<Vec<_>>>();
    let data = match op {
        Op::Map(op) => {
            let constants = constants()?;
            let elements = Elements::new(&ty, &constants);
            elements.map(|offsets| {
                let args = offsets.iter().zip(&constants).map(|(at, constant)| constant.scalar(*at));
                constant::evaluate(&op.expr, &args.collect::<Option<Vec<_>>>()?).map(Scalar::to_literal)
            })?
        }
        Op::Gather(op) => gathered(op, &ty, &constants()?)?,
        Op::Split(_) => constants()?.pop()?.data,
        Op::Rename(_) => constants()?.pop()?.data,
        Op::Merge(op) => {
            // The merged axes run where the first of them stood, in the order in which they are written.
            let constant = constants()?.pop()?;
            let first = constant.ty.axes().position(|axis| op.axes.contains(axis))?;
            let mut dims = Vec::new();
            for (at, dim) in constant.ty.dims.iter().enumerate() {
                match at == first {
                    true => dims.extend(op.axes.iter().filter_map(|axis| constant.ty.dim(axis).cloned())),
                    false if op.axes.contains(&dim.axis) => {}
                    false => dims.push(dim.clone()),
                }
            }
            constant.arranged(&TensorType::new(ty.dtype, dims))?
        }
        Op::Slice(op) => {
            let constant = constants()?.pop()?;
            let stride = constant.stride(&op.axis)?;
            let start = op.start * stride;
            Elements::new(&ty, std::slice::from_ref(&constant))
                .map(|offsets| constant.data.get((offsets[0] + start) as usize).copied())?
        }
        Op::ParamRef(_)
        | Op::Stack(_)
        | Op::Literal(_)
        | Op::Iota(_)
        | Op::Count(_)
        | Op::Contract(_)
        | Op::Linear(_)
        | Op::Reduce(_)
        | Op::Cumsum(_)
        | Op::Assign(_)
        | Op::TopK(_)
        | Op::ScatterAdd(_)
        | Op::Unfold(_)
        | Op::Concat(_)
        | Op::Past(_)
        | Op::Scan(_)
        | Op::Attention(_)
        | Op::Route(_)
        | Op::Dispatch(_)
        | Op::Experts(_)
        | Op::Combine(_)
        | Op::Each(_)
        | Op::Layers(_)
        | Op::Rows(_) => return None,
    };
    Some(Literal { ty, data })
}

fn constant_of(module: &Module, value: ValueId) -> Option<Constant> {
    match &module.producer(value)?.op {
        Op::Literal(Literal { ty, data }) => Some(Constant { ty: ty.clone(), data: data.clone() }),
        Op::Iota(iota) => {
            let size = iota.dim.size.fixed().filter(|size| *size <= MOST_ELEMENTS)?;
            let data = (0..size).map(|at| at as f64).collect();
            Some(Constant { ty: TensorType::new(DType::I32, vec![iota.dim.clone()]), data })
        }
        _ => None,
    }
}

impl Constant {
    fn scalar(&self, at: u64) -> Option<Scalar> {
        Scalar::from_literal(self.ty.dtype, *self.data.get(usize::try_from(at).ok()?)?)
    }

    /// How far apart neighbours along an axis lie.
    fn stride(&self, axis: &Axis) -> Option<u64> {
        let at = self.ty.position(axis)?;
        TensorType::new(self.ty.dtype, self.ty.dims[at + 1..].to_vec()).elements()
    }

    /// The same elements with the axes in another order.
    fn arranged(&self, ty: &TensorType) -> Option<Vec<f64>> {
        Elements::new(ty, std::slice::from_ref(self)).map(|offsets| self.data.get(offsets[0] as usize).copied())
    }
}

fn gathered(op: &Gather, ty: &TensorType, constants: &[Constant]) -> Option<Vec<f64>> {
    let [x, index] = constants else { return None };
    let stride = x.stride(&op.over)?;
    let size = x.ty.dim(&op.over)?.size.fixed()?;
    Elements::new(ty, constants).map(|offsets| {
        let at = *index.data.get(offsets[1] as usize)?;
        let inside = at >= 0.0 && at < size as f64;
        inside.then(|| x.data.get((offsets[0] + at as u64 * stride) as usize).copied())?
    })
}

/// Walks all elements of a result, and where the element stands in each operand (along axes that the result has).
struct Elements {
    sizes: Vec<u64>,
    /// For each operand, its stride along each axis of the result.
    strides: Vec<Vec<u64>>,
}

impl Elements {
    fn new(ty: &TensorType, constants: &[Constant]) -> Self {
        let strides = |constant: &Constant| ty.axes().map(|axis| constant.stride(axis).unwrap_or(0)).collect();
        Elements {
            sizes: ty.dims.iter().map(|dim| dim.size.fixed().unwrap_or(0)).collect(),
            strides: constants.iter().map(strides).collect(),
        }
    }

    /// `f` of every element's offsets, in order; `None` as soon as one is.
    fn map(&self, mut f: impl FnMut(&[u64]) -> Option<f64>) -> Option<Vec<f64>> {
        let count: u64 = self.sizes.iter().product();
        let mut at = vec![0u64; self.sizes.len()];
        let mut offsets = vec![0u64; self.strides.len()];
        let mut data = Vec::with_capacity(count as usize);
        for _ in 0..count {
            data.push(f(&offsets)?);
            for axis in (0..at.len()).rev() {
                at[axis] += 1;
                offsets.iter_mut().zip(&self.strides).for_each(|(offset, strides)| *offset += strides[axis]);
                if at[axis] < self.sizes[axis] {
                    break;
                }
                let size = self.sizes[axis];
                offsets.iter_mut().zip(&self.strides).for_each(|(offset, strides)| *offset -= size * strides[axis]);
                at[axis] = 0;
            }
        }
        Some(data)
    }
}
