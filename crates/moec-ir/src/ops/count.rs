//! How many positions there are, as a number known when the model runs.

use moec_types::{DType, Size, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ParseError, ValueId, ValueType, reader::Reader};

/// `count {S}`, `count {floor(S * 2 / 8)}`.
///
/// *Types.*   -> `i32[]`. The size is known only at run time, and no number of slots.
#[derive(Clone, Debug, PartialEq)]
pub struct Count {
    pub size: Size,
}

impl OpDef for Count {
    const MNEMONIC: &'static str = "count";
    const REACH: Reach = Reach::Row;

    fn attributes(&self, _: &Module) -> String {
        self.size.to_string()
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        Ok(Count { size: text.size()? })
    }

    fn infer(&self, _: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [] = operands::exactly(Self::MNEMONIC, operands)?;
        match &self.size {
            Size::Input(_) | Size::Past(_) | Size::Share { .. } => Ok(vec![TensorType::scalar(DType::I32).into()]),
            size @ (Size::Fixed(_) | Size::Slots { .. }) => {
                Err(TypeError::new(format!("`count` of {size}")).help("only axes as long as the input are counted"))
            }
        }
    }
}
