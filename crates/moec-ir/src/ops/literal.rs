//! A constant tensor.

use moec_types::{DType, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ValueId, ValueType, ParseError, reader::Reader};

/// `literal {f32[Pair=2] [1.0, 0.5]}`: values in the order of the type's axes. Integers and bools (0, 1) are held exactly.
///
/// *Types.*   any with fixed sizes, or a scalar.
#[derive(Clone, Debug, PartialEq)]
pub struct Literal {
    pub ty: TensorType,
    pub data: Vec<f64>,
}

impl OpDef for Literal {
    const MNEMONIC: &'static str = "literal";
    const REACH: Reach = Reach::Row;

    fn attributes(&self, _: &Module) -> String {
        let number = |value: &f64| match self.ty.dtype {
            DType::I32 | DType::Bool => format!("{value}"),
            DType::F32 | DType::Bf16 | DType::F16 => format!("{value:?}"),
        };
        format!("{} [{}]", self.ty, self.data.iter().map(number).collect::<Vec<_>>().join(", "))
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        Ok(Literal { ty: text.tensor_type()?, data: text.list("[", "]", Reader::number)? })
    }

    fn infer(&self, _: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [] = operands::exactly(Self::MNEMONIC, operands)?;
        operands::distinct(self.ty.axes())?;
        if !matches!(self.ty.dtype, DType::F32 | DType::I32 | DType::Bool) {
            return Err(TypeError::new(format!("a constant of type {}", self.ty)).help("constants are f32, i32 or bool"));
        }
        let Some(elements) = self.ty.elements() else {
            return Err(TypeError::new(format!("a constant needs sizes that are known, found {}", self.ty)));
        };
        if elements != self.data.len() as u64 {
            return Err(TypeError::new(format!("{} values for {}, which has {elements}", self.data.len(), self.ty)));
        }
        Ok(vec![self.ty.clone().into()])
    }
}
