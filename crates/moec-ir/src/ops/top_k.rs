//! The largest few along an axis.

use moec_types::{Axis, DType, Dim, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ValueId, ValueType, ParseError, reader::Reader};

/// `%values, %indices = top_k %x {over E, choices K=2}`: the k largest along an axis, largest first.
///
/// *Types.*   x `f32[.., axis, ..]` -> values `f32[.., choices, ..]`, indices `i32[.., choices, ..]`: the axis is replaced in
///            place by `choices` (of fixed size k), which x must not have besides.
/// *Meaning.* Equal values prefer the lower index; NaN sorts last (below -inf), so no index is chosen twice.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    pub over: Axis,
    pub choices: Dim,
}

impl OpDef for TopK {
    const MNEMONIC: &'static str = "top_k";
    const REACH: Reach = Reach::Row;

    fn along(&self) -> &[Axis] {
        std::slice::from_ref(&self.over)
    }

    fn attributes(&self, _: &Module) -> String {
        format!("over {}, choices {}", self.over, self.choices)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        text.expect_word("over")?;
        let over = text.axis()?;
        text.expect(",")?;
        text.expect_word("choices")?;
        Ok(TopK { over, choices: text.dim()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_] = operands::exactly(Self::MNEMONIC, operands)?;
        let x = operands::tensor(module, operands, 0)?;
        operands::dtype(x, DType::F32, "`top_k`", 0)?;
        let from = operands::axis(x, &self.over, 0)?;
        if self.choices.axis != self.over {
            operands::absent(x, &self.choices.axis, 0)?;
        }
        let k = operands::fixed(&self.choices, "`top_k`", 0)?;
        if let Some(size) = from.size.fixed()
            && k > size
        {
            return Err(TypeError::new(format!("top-{k} over `{}`, which has {size}", self.over))
                .label(0, format!("`{}` has {size}", self.over))
                .help(format!("choose at most {size}")));
        }
        let replaced = |dim: &Dim| if dim.axis == self.over { self.choices.clone() } else { dim.clone() };
        let dims: Vec<Dim> = x.dims.iter().map(replaced).collect();
        Ok(vec![TensorType::new(DType::F32, dims.clone()).into(), TensorType::new(DType::I32, dims).into()])
    }
}
