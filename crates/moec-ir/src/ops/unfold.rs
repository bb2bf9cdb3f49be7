//! Windows along an axis: what a convolution sums over.

use moec_types::{Axis, Dim, Size, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ParseError, ValueId, ValueType, reader::Reader};

/// `unfold %x {Y as (Y, Tap=3), step 2}`: every window of so many neighbours, each `step` positions behind the one before.
///
/// *Types.*   x `T[.., axis=n, ..]` -> the axis replaced in place by `place`, as long as windows fit whole
///            ((n - size) / step + 1), and `window`.
/// *Meaning.* `out[.., p, t, ..] = x[.., p * step + t, ..]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfold {
    pub axis: Axis,
    pub place: Axis,
    /// Of fixed size.
    pub window: Dim,
    pub step: u64,
}

impl OpDef for Unfold {
    const MNEMONIC: &'static str = "unfold";
    const REACH: Reach = Reach::Row;

    fn along(&self) -> &[Axis] {
        std::slice::from_ref(&self.axis)
    }

    fn attributes(&self, _: &Module) -> String {
        format!("{} as ({}, {}), step {}", self.axis, self.place, self.window, self.step)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        let axis = text.axis()?;
        text.expect_word("as")?;
        text.expect("(")?;
        let place = text.axis()?;
        text.expect(",")?;
        let window = text.dim()?;
        text.expect(")")?;
        text.expect(",")?;
        text.expect_word("step")?;
        Ok(Unfold { axis, place, window, step: text.integer()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_] = operands::exactly(Self::MNEMONIC, operands)?;
        let x = operands::tensor(module, operands, 0)?;
        let size = operands::fixed(operands::axis(x, &self.axis, 0)?, "`unfold`", 0)?;
        let window = operands::fixed(&self.window, "`unfold`", 0)?;
        operands::distinct([&self.place, &self.window.axis])?;
        for axis in [&self.place, &self.window.axis].into_iter().filter(|axis| **axis != self.axis) {
            operands::absent(x, axis, 0)?;
        }
        if !(1..=size).contains(&window) || self.step == 0 {
            let message = format!("windows of {window}, {} apart, along `{}`, which has {size}", self.step, self.axis);
            return Err(TypeError::new(message)
                .label(0, format!("this is {x}"))
                .help(format!("a window has 1 to {size}, and each is at least 1 behind the one before")));
        }
        let place = Dim::new(self.place.clone(), Size::Fixed((size - window) / self.step + 1));
        let into = |dim: &Dim| match dim.axis == self.axis {
            true => vec![place.clone(), self.window.clone()],
            false => vec![dim.clone()],
        };
        Ok(vec![TensorType::new(x.dtype, x.dims.iter().flat_map(into).collect()).into()])
    }
}
