//! Positions along an axis.

use moec_types::{DType, Dim, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ValueId, ValueType, ParseError, reader::Reader};

/// `iota {S}`: i32 positions along an axis.
///
/// *Types.*   -> `i32[dim]`.
/// *Meaning.* For a fixed size, `past` and `slots` axes: 0, 1, 2, … For an input axis: the position in the sequence, so the
/// first position of a pass after 7 earlier ones is 7. (`T <= S` is the causal mask.)
#[derive(Clone, Debug, PartialEq)]
pub struct Iota {
    pub dim: Dim,
}

impl OpDef for Iota {
    const MNEMONIC: &'static str = "iota";
    const REACH: Reach = Reach::Row;

    fn attributes(&self, _: &Module) -> String {
        self.dim.to_string()
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        Ok(Iota { dim: text.dim()? })
    }

    fn infer(&self, _: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [] = operands::exactly(Self::MNEMONIC, operands)?;
        Ok(vec![TensorType::new(DType::I32, vec![self.dim.clone()]).into()])
    }
}
