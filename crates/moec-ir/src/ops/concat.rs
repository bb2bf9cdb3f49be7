//! Tensors laid end to end.

use moec_types::{Axis, Size, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ValueId, ValueType, ParseError, reader::Reader};

/// `concat %a, %b {over Half}`.
///
/// *Types.*   one or more tensors of one element type with the same axes (in any order), sizes equal but for the fixed
///            sizes along `over`, which add up -> the first's axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Concat {
    pub over: Axis,
}

impl OpDef for Concat {
    const MNEMONIC: &'static str = "concat";
    const REACH: Reach = Reach::Row;

    fn along(&self) -> &[Axis] {
        std::slice::from_ref(&self.over)
    }

    fn attributes(&self, _: &Module) -> String {
        format!("over {}", self.over)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        text.expect_word("over")?;
        Ok(Concat { over: text.axis()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        operands::at_least(Self::MNEMONIC, operands, 1)?;
        let first = operands::tensor(module, operands, 0)?;
        let mut total = 0u64;
        for at in 0..operands.len() {
            let ty = operands::tensor(module, operands, at)?;
            let size = operands::fixed(operands::axis(ty, &self.over, at)?, "`concat`", at)?;
            total = total.checked_add(size).ok_or_else(|| TypeError::new(format!("`{}` becomes too long", self.over)))?;
            operands::agree((&self.without(first), 0), (&self.without(ty), at))?;
            if ty.dtype != first.dtype || ty.dims.len() != first.dims.len() || ty.axes().any(|axis| !first.has(axis)) {
                return Err(TypeError::new(format!("`concat` of {first} and {ty}"))
                    .label(0, format!("this is {first}"))
                    .label(at, format!("this is {ty}"))
                    .help("they must have the same element type and the same axes"));
            }
        }
        let mut dims = first.dims.clone();
        for dim in dims.iter_mut().filter(|dim| dim.axis == self.over) {
            dim.size = Size::Fixed(total);
        }
        Ok(vec![TensorType::new(first.dtype, dims).into()])
    }
}

impl Concat {
    fn without(&self, ty: &TensorType) -> TensorType {
        TensorType::new(ty.dtype, ty.dims.iter().filter(|dim| dim.axis != self.over).cloned().collect())
    }
}
