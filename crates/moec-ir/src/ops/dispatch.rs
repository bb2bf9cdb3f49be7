//! Tokens brought to their experts.

use moec_types::{Axis, DType, Dim, Size, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ParseError, RouteType, ValueId, ValueType, reader::Reader};

/// `dispatch %x, %route {as Slot}`: one row for each (position, choice), ordered by expert, then by position.
///
/// *Types.*   x `f32[S, ..]` or `f32[S, K, ..]`, a route over S with choices K -> `f32[Slot=slots(S, K), ..]`.
/// *Meaning.* Every choice of a position gets its row; where x has the axis of the choices, its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    pub slots: Axis,
}

impl OpDef for Dispatch {
    const MNEMONIC: &'static str = "dispatch";
    const REACH: Reach = Reach::Across;

    fn attributes(&self, _: &Module) -> String {
        format!("as {}", self.slots)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        text.expect_word("as")?;
        Ok(Dispatch { slots: text.axis()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_, _] = operands::exactly(Self::MNEMONIC, operands)?;
        let (x, route) = (operands::tensor(module, operands, 0)?, operands::route(module, operands, 1)?);
        Ok(vec![packed(x, route, &self.slots)?.into()])
    }
}

/// The dimension that a route's (position, choice) pairs run along.
pub(super) fn slots(route: &RouteType, axis: &Axis) -> Result<Dim, TypeError> {
    let Some(choices) = route.choices.size.fixed() else {
        return Err(TypeError::new(format!("a route with {} choices, which is not a number", route.choices.size)));
    };
    Ok(Dim::new(axis.clone(), Size::Slots { tokens: Box::new(route.tokens.size.clone()), choices }))
}

/// The axis of slots of rows that a route has filled. `who` names the operation.
pub(super) fn slot_of_rows<'t>(rows: &'t TensorType, route: &RouteType, who: &str) -> Result<&'t Dim, TypeError> {
    operands::dtype(rows, DType::F32, &format!("`{who}`"), 0)?;
    let Some(slot) = rows.dims.iter().find(|dim| matches!(dim.size, Size::Slots { .. })) else {
        return Err(TypeError::new(format!("`{who}` wants rows of a dispatch, found {rows}"))
            .label(0, format!("this is {rows}"))
            .help("`dispatch` gives an axis of slots"));
    };
    let wants = slots(route, &slot.axis)?;
    if wants.size != slot.size {
        return Err(operands::disagreement((slot, 0), (&wants, 1)));
    }
    operands::absent(rows, &route.tokens.axis, 0)?;
    Ok(slot)
}

/// `x`, one row for each (position, choice).
pub(super) fn packed(x: &TensorType, route: &RouteType, axis: &Axis) -> Result<TensorType, TypeError> {
    operands::dtype(x, DType::F32, "`dispatch`", 0)?;
    let tokens = operands::axis(x, &route.tokens.axis, 0)?;
    if tokens.size != route.tokens.size {
        return Err(operands::disagreement((tokens, 0), (&route.tokens, 1)));
    }
    operands::absent(x, axis, 0)?;
    if let Some(choices) = x.dim(&route.choices.axis).filter(|dim| dim.size != route.choices.size) {
        return Err(operands::disagreement((choices, 0), (&route.choices, 1)));
    }
    let rest = x.dims.iter().filter(|dim| ![&route.tokens.axis, &route.choices.axis].contains(&&dim.axis)).cloned();
    Ok(TensorType::new(x.dtype, std::iter::once(slots(route, axis)?).chain(rest).collect()))
}
