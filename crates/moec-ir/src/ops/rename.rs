//! An axis under another name.

use moec_types::{Axis, Dim, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ValueId, ValueType, ParseError, reader::Reader};

/// `rename %x {K as K2}`.
///
/// *Types.*   x with the axis `from`, without `to` -> the same with `to` in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Rename {
    pub from: Axis,
    pub to: Axis,
}

impl OpDef for Rename {
    const MNEMONIC: &'static str = "rename";
    const REACH: Reach = Reach::Row;

    fn along(&self) -> &[Axis] {
        std::slice::from_ref(&self.from)
    }

    fn attributes(&self, _: &Module) -> String {
        format!("{} as {}", self.from, self.to)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        let from = text.axis()?;
        text.expect_word("as")?;
        Ok(Rename { from, to: text.axis()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_] = operands::exactly(Self::MNEMONIC, operands)?;
        let x = operands::tensor(module, operands, 0)?;
        operands::axis(x, &self.from, 0)?;
        operands::absent(x, &self.to, 0)?;
        let renamed = |dim: &Dim| match dim.axis == self.from {
            true => Dim::new(self.to.clone(), dim.size.clone()),
            false => dim.clone(),
        };
        Ok(vec![TensorType::new(x.dtype, x.dims.iter().map(renamed).collect()).into()])
    }
}
