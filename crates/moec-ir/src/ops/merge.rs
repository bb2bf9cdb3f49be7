//! Several axes seen as one.

use moec_types::{Axis, Dim, Size, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ValueId, ValueType, ParseError, print, reader::Reader};

/// `merge %x {(Group, Member) as E}`: the last of the merged axes runs fastest.
///
/// *Types.*   axes of fixed size, in any place -> the new axis stands where the first of them stood; the others are gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Merge {
    pub axes: Vec<Axis>,
    pub into: Axis,
}

impl OpDef for Merge {
    const MNEMONIC: &'static str = "merge";
    const REACH: Reach = Reach::Row;

    fn along(&self) -> &[Axis] {
        &self.axes
    }

    fn attributes(&self, _: &Module) -> String {
        format!("{} as {}", print::axes(&self.axes), self.into)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        let axes = text.axes()?;
        text.expect_word("as")?;
        Ok(Merge { axes, into: text.axis()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_] = operands::exactly(Self::MNEMONIC, operands)?;
        let x = operands::tensor(module, operands, 0)?;
        operands::distinct(&self.axes)?;
        let mut size = 1u64;
        for axis in &self.axes {
            let part = operands::fixed(operands::axis(x, axis, 0)?, "`merge`", 0)?;
            size = size.checked_mul(part).ok_or_else(|| {
                TypeError::new(format!("{} together are too large", operands::listed(&self.axes)))
                    .label(0, format!("this is {x}"))
            })?;
        }
        if !self.axes.contains(&self.into) {
            operands::absent(x, &self.into, 0)?;
        }
        let Some(first) = x.dims.iter().position(|dim| self.axes.contains(&dim.axis)) else {
            return Err(TypeError::new("`merge` of no axes").label(0, format!("this is {x}")));
        };
        let merged = Dim::new(self.into.clone(), Size::Fixed(size));
        let place = |(at, dim): (usize, &Dim)| match at == first {
            true => Some(merged.clone()),
            false => (!self.axes.contains(&dim.axis)).then(|| dim.clone()),
        };
        Ok(vec![TensorType::new(x.dtype, x.dims.iter().enumerate().filter_map(place).collect()).into()])
    }
}
