//! What the typing rules have in common: fetching operands, finding axes, comparing sizes, and saying what is wrong.

use moec_types::{Axis, DType, Dim, TensorType};

use super::TypeError;
use crate::{Module, RouteType, ValueId};

/// The operands, when there are exactly `N`.
pub(super) fn exactly<const N: usize>(mnemonic: &str, operands: &[ValueId]) -> Result<[ValueId; N], TypeError> {
    operands.try_into().map_err(|_| {
        let plural = if N == 1 { "" } else { "s" };
        TypeError::new(format!("`{mnemonic}` takes {N} operand{plural}, found {}", operands.len()))
    })
}

pub(super) fn at_least(mnemonic: &str, operands: &[ValueId], least: usize) -> Result<(), TypeError> {
    if operands.len() >= least {
        return Ok(());
    }
    let plural = if least == 1 { "" } else { "s" };
    Err(TypeError::new(format!("`{mnemonic}` takes at least {least} operand{plural}, found {}", operands.len())))
}

/// The type of the operand number `at`, which must be a tensor.
pub(super) fn tensor<'m>(module: &'m Module, operands: &[ValueId], at: usize) -> Result<&'m TensorType, TypeError> {
    module.ty(operands[at]).tensor().ok_or_else(|| {
        TypeError::new("a route where a tensor is wanted")
            .label(at, "this is a route")
            .help("a route goes to `dispatch`, `experts` and `combine` only")
    })
}

/// The type of the operand number `at`, which must be a route.
pub(super) fn route<'m>(module: &'m Module, operands: &[ValueId], at: usize) -> Result<&'m RouteType, TypeError> {
    module.ty(operands[at]).route().ok_or_else(|| {
        let found = module.ty(operands[at]);
        TypeError::new(format!("{found} where a route is wanted"))
            .label(at, format!("this is {found}"))
            .help("a gate ends in `route tokens(indices, weights)`")
    })
}

/// Refuses element types other than `wants`; `who` names the operation.
pub(super) fn dtype(ty: &TensorType, wants: DType, who: &str, at: usize) -> Result<(), TypeError> {
    if ty.dtype == wants {
        return Ok(());
    }
    let error = TypeError::new(format!("{who} wants {wants}, found {ty}")).label(at, format!("this is {ty}"));
    Err(match (wants, ty.dtype) {
        (DType::F32, DType::I32 | DType::Bool) => error.help("convert it: `f32(…)`"),
        (DType::I32, DType::F32 | DType::Bool) => error.help("convert it: `i32(…)`"),
        _ => error,
    })
}

/// Refuses element types that are no numbers to compute with.
pub(super) fn number(ty: &TensorType, who: &str, at: usize) -> Result<(), TypeError> {
    match ty.dtype {
        DType::F32 | DType::I32 => Ok(()),
        DType::Bool | DType::Bf16 | DType::F16 => {
            Err(TypeError::new(format!("{who} wants f32 or i32, found {ty}")).label(at, format!("this is {ty}")))
        }
    }
}

/// The dimension of a named axis.
pub(super) fn axis<'t>(ty: &'t TensorType, axis: &Axis, at: usize) -> Result<&'t Dim, TypeError> {
    ty.dim(axis).ok_or_else(|| {
        let error = TypeError::new(format!("no axis `{axis}` in {ty}")).label(at, format!("this is {ty}"));
        match ty.axes().map(|axis| format!("`{axis}`")).collect::<Vec<_>>() {
            none if none.is_empty() => error.help("it has no axes: it is a single number"),
            axes => error.help(format!("its axes are {}", axes.join(", "))),
        }
    })
}

/// The size of an axis whose size must be known now.
pub(super) fn fixed(dim: &Dim, who: &str, at: usize) -> Result<u64, TypeError> {
    dim.size.fixed().ok_or_else(|| {
        TypeError::new(format!("{who} wants an axis of known size, and `{}` is known only at run time", dim.axis))
            .label(at, format!("`{}` is as long as the input", dim.axis))
    })
}

/// Refuses an axis named twice in a list that the author wrote.
pub(super) fn distinct<'a>(axes: impl IntoIterator<Item = &'a Axis>) -> Result<(), TypeError> {
    let mut seen: Vec<&Axis> = Vec::new();
    for axis in axes {
        if seen.contains(&axis) {
            return Err(TypeError::new(format!("axis `{axis}` is named twice")));
        }
        seen.push(axis);
    }
    Ok(())
}

/// Refuses a new axis that a tensor already has.
pub(super) fn absent(ty: &TensorType, axis: &Axis, at: usize) -> Result<(), TypeError> {
    if !ty.has(axis) {
        return Ok(());
    }
    Err(TypeError::new(format!("{ty} already has an axis `{axis}`"))
        .label(at, format!("this is {ty}"))
        .help("give the new axis another name"))
}

/// Refuses two operands that give one axis different sizes.
pub(super) fn agree(a: (&TensorType, usize), b: (&TensorType, usize)) -> Result<(), TypeError> {
    for dim in &b.0.dims {
        let Some(other) = a.0.dim(&dim.axis) else { continue };
        if other.size != dim.size {
            return Err(disagreement((other, a.1), (dim, b.1)));
        }
    }
    Ok(())
}

pub(super) fn disagreement(a: (&Dim, usize), b: (&Dim, usize)) -> TypeError {
    let axis = &a.0.axis;
    TypeError::new(format!("axis `{axis}` is {} here and {} there", a.0.size, b.0.size))
        .label(a.1, format!("`{axis}` is {} here", a.0.size))
        .label(b.1, format!("and {} here", b.0.size))
        .help("axes that share a name are one axis; if these are not, name them apart (`x as`-rename one)")
}

/// `` `A`, `B` ``.
pub(super) fn listed<'a>(axes: impl IntoIterator<Item = &'a Axis>) -> String {
    axes.into_iter().map(|axis| format!("`{axis}`")).collect::<Vec<_>>().join(", ")
}
