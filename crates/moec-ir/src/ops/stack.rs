//! A parameter of a bank, for all its experts at once.

use moec_types::{Axis, DType, Dim, Size, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ParamId, ParseError, ValueId, ValueType, print, reader::{ModelText, Reader}};

/// `stack {@ffn.experts[e].up as E}`: the instances of a parameter of a bank's member, one for each of its experts.
///
/// *Types.*   -> the parameter's, with the axis of the experts in front.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    pub param: ParamId,
    pub axis: Axis,
}

impl OpDef for Stack {
    const MNEMONIC: &'static str = "stack";
    const REACH: Reach = Reach::Row;

    fn attributes(&self, module: &Module) -> String {
        format!("{} as {}", print::param_name(module, self.param), self.axis)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        let param = text.param()?;
        text.expect_word("as")?;
        Ok(Stack { param, axis: text.axis()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [] = operands::exactly(Self::MNEMONIC, operands)?;
        let Some(param) = module.params.get(self.param.index()) else {
            return Err(TypeError::new(format!("no parameter number {}", self.param.0)));
        };
        let Some(experts) = param.experts else {
            return Err(TypeError::new(format!("the parameter `{}` is none of a bank's", param.path)));
        };
        if param.ty.has(&self.axis) {
            return Err(TypeError::new(format!("the parameter `{}` already has an axis `{}`", param.path, self.axis)));
        }
        let dtype = if param.ty.dtype.is_float() { DType::F32 } else { param.ty.dtype };
        let dim = Dim::new(self.axis.clone(), Size::Fixed(u64::from(experts.count)));
        Ok(vec![TensorType::new(dtype, std::iter::once(dim).chain(param.ty.dims.iter().cloned()).collect()).into()])
    }
}
