//! Expert rows weighed and summed back into their tokens.

use moec_types::{DType, TensorType};

use super::{OpDef, Reach, TypeError, dispatch, operands};
use crate::{Module, ValueId, ValueType, ParseError, reader::Reader};

/// `combine %rows, %route`.
///
/// *Types.*   rows `f32[Slot, ..]`, the route -> `f32[S, ..]`.
/// *Meaning.* The sum over a position's choices, in order of choice, of weight times row.
#[derive(Clone, Debug, PartialEq)]
pub struct Combine;

impl OpDef for Combine {
    const MNEMONIC: &'static str = "combine";
    const REACH: Reach = Reach::Across;

    fn attributes(&self, _: &Module) -> String {
        String::new()
    }

    fn read(_: &mut Reader) -> Result<Self, ParseError> {
        Ok(Combine)
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_, _] = operands::exactly(Self::MNEMONIC, operands)?;
        let (rows, route) = (operands::tensor(module, operands, 0)?, operands::route(module, operands, 1)?);
        let slot = dispatch::slot_of_rows(rows, route, Self::MNEMONIC)?;
        let rest = rows.dims.iter().filter(|dim| dim.axis != slot.axis);
        let dims = std::iter::once(&route.tokens).chain(rest).cloned().collect();
        Ok(vec![TensorType::new(DType::F32, dims).into()])
    }
}
