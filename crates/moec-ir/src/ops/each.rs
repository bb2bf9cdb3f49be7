//! Expert rows brought back to their tokens, one for each choice.

use moec_types::{DType, TensorType};

use super::{OpDef, Reach, TypeError, dispatch, operands};
use crate::{Module, ValueId, ValueType, ParseError, reader::Reader};

/// `each %rows, %route`.
///
/// *Types.*   rows `f32[Slot, ..]`, the route -> `f32[S, K, ..]`.
/// *Meaning.* What each choice of a position got; zeros where nothing was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Each;

impl OpDef for Each {
    const MNEMONIC: &'static str = "each";
    const REACH: Reach = Reach::Across;

    fn attributes(&self, _: &Module) -> String {
        String::new()
    }

    fn read(_: &mut Reader) -> Result<Self, ParseError> {
        Ok(Each)
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_, _] = operands::exactly(Self::MNEMONIC, operands)?;
        let (rows, route) = (operands::tensor(module, operands, 0)?, operands::route(module, operands, 1)?);
        let slot = dispatch::slot_of_rows(rows, route, Self::MNEMONIC)?;
        operands::absent(rows, &route.choices.axis, 0)?;
        let rest = rows.dims.iter().filter(|dim| dim.axis != slot.axis);
        let dims = [&route.tokens, &route.choices].into_iter().chain(rest).cloned().collect();
        Ok(vec![TensorType::new(DType::F32, dims).into()])
    }
}
