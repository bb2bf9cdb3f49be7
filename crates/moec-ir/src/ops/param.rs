//! A parameter's value.

use moec_types::{DType, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ParamId, ValueId, ValueType, ParseError, print, reader::{ModelText, Reader}};

/// `param {@table}`: the instance that belongs to the layer and the expert in which it stands.
///
/// *Types.*   the parameter's.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamRef {
    pub param: ParamId,
}

impl OpDef for ParamRef {
    const MNEMONIC: &'static str = "param";
    const REACH: Reach = Reach::Row;

    fn attributes(&self, module: &Module) -> String {
        print::param_name(module, self.param)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        Ok(ParamRef { param: text.param()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [] = operands::exactly(Self::MNEMONIC, operands)?;
        let Some(param) = module.params.get(self.param.index()) else {
            return Err(TypeError::new(format!("no parameter number {}", self.param.0)));
        };
        let dtype = if param.ty.dtype.is_float() { DType::F32 } else { param.ty.dtype };
        Ok(vec![TensorType::new(dtype, param.ty.dims.clone()).into()])
    }
}
