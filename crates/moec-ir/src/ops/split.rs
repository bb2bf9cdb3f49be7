//! One axis seen as several.

use moec_types::{Axis, Dim, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ValueId, ValueType, ParseError, reader::Reader};

/// `split %x {E as (Group=4, Member=8)}`: the last of the new axes runs fastest.
///
/// *Types.*   an axis of fixed size, the product of the new ones -> the axis replaced in place by the new ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    pub axis: Axis,
    pub into: Vec<Dim>,
}

impl OpDef for Split {
    const MNEMONIC: &'static str = "split";
    const REACH: Reach = Reach::Row;

    fn along(&self) -> &[Axis] {
        std::slice::from_ref(&self.axis)
    }

    fn attributes(&self, _: &Module) -> String {
        let into: Vec<_> = self.into.iter().map(Dim::to_string).collect();
        format!("{} as ({})", self.axis, into.join(", "))
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        let axis = text.axis()?;
        text.expect_word("as")?;
        Ok(Split { axis, into: text.list("(", ")", Reader::dim)? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_] = operands::exactly(Self::MNEMONIC, operands)?;
        let x = operands::tensor(module, operands, 0)?;
        let size = operands::fixed(operands::axis(x, &self.axis, 0)?, "`split`", 0)?;
        operands::distinct(self.into.iter().map(|dim| &dim.axis))?;
        for dim in self.into.iter().filter(|dim| dim.axis != self.axis) {
            operands::absent(x, &dim.axis, 0)?;
        }
        if TensorType::new(x.dtype, self.into.clone()).elements() != Some(size) {
            let parts = self.into.iter().map(Dim::to_string).collect::<Vec<_>>().join(", ");
            return Err(TypeError::new(format!("`{}` has {size} and cannot be split as ({parts})", self.axis))
                .label(0, format!("this is {x}"))
                .help(format!("the sizes must multiply to {size}")));
        }
        let into = |dim: &Dim| if dim.axis == self.axis { self.into.clone() } else { vec![dim.clone()] };
        Ok(vec![TensorType::new(x.dtype, x.dims.iter().flat_map(into).collect()).into()])
    }
}
