//! Every position of the sequence up to now.

use moec_types::{Axis, DType, Dim, Size, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ValueId, ValueType, ParseError, reader::Reader};

/// `past %x {S as T}`: in a session, what this value was at all earlier positions, then at those of this pass. The only
/// thing in a model that is kept between passes; caches follow from it.
///
/// *Types.*   x `f32[.., S, ..]` with S an input axis -> the same with `T` of size `past(S)` in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    pub axis: Axis,
    pub into: Axis,
}

impl OpDef for Past {
    const MNEMONIC: &'static str = "past";
    const REACH: Reach = Reach::Across;

    fn attributes(&self, _: &Module) -> String {
        format!("{} as {}", self.axis, self.into)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        let axis = text.axis()?;
        text.expect_word("as")?;
        Ok(Past { axis, into: text.axis()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_] = operands::exactly(Self::MNEMONIC, operands)?;
        let x = operands::tensor(module, operands, 0)?;
        operands::dtype(x, DType::F32, "`past`", 0)?;
        let dim = operands::axis(x, &self.axis, 0)?;
        let Size::Input(input) = &dim.size else {
            return Err(TypeError::new(format!("`past` along `{}`, which is not a sequence of the input", self.axis))
                .label(0, format!("`{}` is {}", self.axis, dim.size))
                .help("`past` keeps positions of an axis that an input of the model introduced"));
        };
        operands::absent(x, &self.into, 0)?;
        let all = Dim::new(self.into.clone(), Size::Past(input.clone()));
        let replaced = |dim: &Dim| if dim.axis == self.axis { all.clone() } else { dim.clone() };
        Ok(vec![TensorType::new(x.dtype, x.dims.iter().map(replaced).collect()).into()])
    }
}
