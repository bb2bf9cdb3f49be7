//! A part of an axis.

use moec_types::{Axis, Dim, Size, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ValueId, ValueType, ParseError, reader::Reader};

/// `slice %x {Half 0..1, drop}`: positions `start .. start + len` of an axis of fixed size.
///
/// *Types.*   -> the axis with size `len`, or without the axis when `drop` (then `len` is 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    pub axis: Axis,
    pub start: u64,
    pub len: u64,
    pub drop: bool,
}

impl OpDef for Slice {
    const MNEMONIC: &'static str = "slice";
    const REACH: Reach = Reach::Row;

    fn along(&self) -> &[Axis] {
        std::slice::from_ref(&self.axis)
    }

    fn attributes(&self, _: &Module) -> String {
        let drop = if self.drop { ", drop" } else { "" };
        format!("{} {}..{}{drop}", self.axis, self.start, self.start.saturating_add(self.len))
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        let axis = text.axis()?;
        let at = text.here();
        let start: u64 = text.integer()?;
        text.expect("..")?;
        let end: u64 = text.integer()?;
        let Some(len) = end.checked_sub(start) else {
            return Err(text.error_at(at, format!("{start}..{end} ends before it starts")));
        };
        let drop = text.eats(",");
        if drop {
            text.expect_word("drop")?;
        }
        Ok(Slice { axis, start, len, drop })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_] = operands::exactly(Self::MNEMONIC, operands)?;
        let x = operands::tensor(module, operands, 0)?;
        let size = operands::fixed(operands::axis(x, &self.axis, 0)?, "a part of an axis", 0)?;
        let (axis, start, len) = (&self.axis, self.start, self.len);
        if start.checked_add(len).is_none_or(|end| end > size) {
            return Err(TypeError::new(format!("{len} positions of `{axis}` from {start} on, and it has {size}"))
                .label(0, format!("`{axis}` has {size}")));
        }
        if len == 0 {
            return Err(TypeError::new(format!("an empty part of `{axis}`")).label(0, format!("`{axis}` has {size}")));
        }
        if self.drop && len != 1 {
            return Err(TypeError::new(format!("a part of `{axis}` with {len} positions cannot drop the axis")));
        }
        let part = |dim: &Dim| match (dim.axis == self.axis, self.drop) {
            (false, _) => Some(dim.clone()),
            (true, true) => None,
            (true, false) => Some(Dim::new(dim.axis.clone(), Size::Fixed(self.len))),
        };
        Ok(vec![TensorType::new(x.dtype, x.dims.iter().filter_map(part).collect()).into()])
    }
}
