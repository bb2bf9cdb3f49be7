//! Look-up by index.

use moec_types::{Axis, DType, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ValueId, ValueType, ParseError, reader::Reader};

/// `gather %x, %i {over E}`.
///
/// *Types.*   x `T[.., over, ..]`, i `i32[..]` -> `T[i's axes, then x's axes that i lacks, without over]`.
/// *Meaning.* Axes that both have are aligned. An index outside the axis is a fault of the caller; inputs are checked
///            against it at the boundary of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    pub over: Axis,
}

impl OpDef for Gather {
    const MNEMONIC: &'static str = "gather";
    const REACH: Reach = Reach::Row;

    fn along(&self) -> &[Axis] {
        std::slice::from_ref(&self.over)
    }

    fn attributes(&self, _: &Module) -> String {
        format!("over {}", self.over)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        text.expect_word("over")?;
        Ok(Gather { over: text.axis()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_, _] = operands::exactly(Self::MNEMONIC, operands)?;
        let (x, index) = (operands::tensor(module, operands, 0)?, operands::tensor(module, operands, 1)?);
        operands::axis(x, &self.over, 0)?;
        operands::dtype(index, DType::I32, "an index", 1)?;
        operands::absent(index, &self.over, 1)?;
        operands::agree((x, 0), (index, 1))?;
        let added = x.dims.iter().filter(|dim| !index.has(&dim.axis) && dim.axis != self.over);
        let dims = index.dims.iter().chain(added).cloned().collect();
        Ok(vec![TensorType::new(x.dtype, dims).into()])
    }
}
