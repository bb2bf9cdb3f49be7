//! Tokens brought to their experts.

use moec_types::{Axis, DType, Dim, Size, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, RouteType, ValueId, ValueType, ParseError, reader::Reader};

/// `dispatch %x, %route {as Slot}`: one row for each (position, choice), ordered by expert, then by position.
///
/// *Types.*   x `f32[S, ..]`, a route over S -> `f32[Slot=slots(S, K), ..]`.
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
    let (Size::Input(tokens), Some(choices)) = (&route.tokens.size, route.choices.size.fixed()) else {
        return Err(TypeError::new(format!("a route over `{}`, which is not an axis of the input", route.tokens.axis)));
    };
    Ok(Dim::new(axis.clone(), Size::Slots { tokens: tokens.clone(), choices }))
}

/// `x`, one row for each (position, choice).
pub(super) fn packed(x: &TensorType, route: &RouteType, axis: &Axis) -> Result<TensorType, TypeError> {
    operands::dtype(x, DType::F32, "`dispatch`", 0)?;
    let tokens = operands::axis(x, &route.tokens.axis, 0)?;
    if tokens.size != route.tokens.size {
        return Err(operands::disagreement((tokens, 0), (&route.tokens, 1)));
    }
    operands::absent(x, axis, 0)?;
    let rest = x.dims.iter().filter(|dim| dim.axis != route.tokens.axis).cloned();
    Ok(TensorType::new(x.dtype, std::iter::once(slots(route, axis)?).chain(rest).collect()))
}
