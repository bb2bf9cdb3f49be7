//! Rows added up where an index says.

use moec_types::{Axis, DType, Dim, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ParseError, ValueId, ValueType, print, reader::Reader};

/// `scatter_add %x, %i {(E, C) as N}`: `out[n] = sum of x[e, c] over all (e, c) with i[e, c] == n`.
///
/// *Types.*   x `T[.., E, .., C, ..]` of f32 or i32, i `i32[E, C, ..]` (these axes, one or several, and any other
///            of x's) -> `T[N, x's other axes]`.
/// *Meaning.* Axes that both have are aligned. Added in ascending order of (e, c), the last of the axes running fastest. Indices outside the axis add
///            nothing; a position that none names is 0. Indices count the positions of this pass.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterAdd {
    pub axes: Vec<Axis>,
    pub into: Dim,
}

impl OpDef for ScatterAdd {
    const MNEMONIC: &'static str = "scatter_add";
    const REACH: Reach = Reach::Across;

    fn along(&self) -> &[Axis] {
        &self.axes
    }

    fn attributes(&self, _: &Module) -> String {
        format!("{} as {}", print::axes(&self.axes), self.into)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        let axes = text.axes()?;
        text.expect_word("as")?;
        Ok(ScatterAdd { axes, into: text.dim()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_, _] = operands::exactly(Self::MNEMONIC, operands)?;
        let (x, index) = (operands::tensor(module, operands, 0)?, operands::tensor(module, operands, 1)?);
        operands::number(x, "`scatter_add`", 0)?;
        operands::dtype(index, DType::I32, "an index", 1)?;
        operands::distinct(&self.axes)?;
        for axis in &self.axes {
            operands::axis(x, axis, 0)?;
            operands::axis(index, axis, 1)?;
        }
        if let Some(axis) = index.axes().find(|axis| !x.has(axis)) {
            return Err(TypeError::new(format!("the index {index} has an axis `{axis}`, which {x} lacks"))
                .label(0, format!("this is {x}"))
                .label(1, format!("this is {index}"))
                .help("every axis of an index is one of what is added up"));
        }
        operands::agree((x, 0), (index, 1))?;
        let kept: Vec<Dim> = x.dims.iter().filter(|dim| !self.axes.contains(&dim.axis)).cloned().collect();
        if kept.iter().any(|dim| dim.axis == self.into.axis) {
            operands::absent(x, &self.into.axis, 0)?;
        }
        let dims = std::iter::once(self.into.clone()).chain(kept).collect();
        Ok(vec![TensorType::new(x.dtype, dims).into()])
    }
}
