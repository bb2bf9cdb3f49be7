//! Running sums along an axis.

use moec_types::Axis;

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ParseError, ValueId, ValueType, reader::Reader};

/// `cumsum %x {over N}`: at each position, the sum of everything up to and with it.
///
/// *Types.*   x `T[.., over, ..]` of f32 or i32 -> the same.
/// *Meaning.* In the order of the positions of this pass. Integers wrap.
#[derive(Clone, Debug, PartialEq)]
pub struct Cumsum {
    pub over: Axis,
}

impl OpDef for Cumsum {
    const MNEMONIC: &'static str = "cumsum";
    const REACH: Reach = Reach::Row;

    fn along(&self) -> &[Axis] {
        std::slice::from_ref(&self.over)
    }

    fn attributes(&self, _: &Module) -> String {
        format!("over {}", self.over)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        text.expect_word("over")?;
        Ok(Cumsum { over: text.axis()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_] = operands::exactly(Self::MNEMONIC, operands)?;
        let x = operands::tensor(module, operands, 0)?;
        operands::number(x, "`cumsum`", 0)?;
        operands::axis(x, &self.over, 0)?;
        Ok(vec![x.clone().into()])
    }
}
