//! The largest few along an axis.

use moec_types::{Axis, DType, Dim, Size, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ParseError, ValueId, ValueType, reader::Reader};

/// `%values, %indices = top_k %x {over E, choices K=2}`: the k largest along an axis, largest first.
///
/// *Types.*   x `f32[.., axis, ..]` -> values `f32[.., choices, ..]`, indices `i32[.., choices, ..]`: the axis is replaced in
///            place by `choices`, which x must not have besides. Its size k may be known only at run time: a count of positions,
///            or a share of them.
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
        if let Size::Slots { .. } = self.choices.size {
            return Err(TypeError::new(format!("`top_k` as many as {}", self.choices.size)));
        }
        if exceeds(&self.choices.size, &from.size) {
            let (k, size) = (&self.choices.size, &from.size);
            return Err(TypeError::new(format!("top-{k} over `{}`, which has {size}", self.over))
                .label(0, format!("`{}` has {size}", self.over))
                .help(format!("choose at most {size}")));
        }
        let replaced = |dim: &Dim| if dim.axis == self.over { self.choices.clone() } else { dim.clone() };
        let dims: Vec<Dim> = x.dims.iter().map(replaced).collect();
        Ok(vec![TensorType::new(DType::F32, dims.clone()).into(), TensorType::new(DType::I32, dims).into()])
    }
}

/// Whether k is certainly more than there are, however long the input is. Where it is not certain, running says so.
fn exceeds(k: &Size, size: &Size) -> bool {
    match (k, size) {
        (Size::Fixed(k), Size::Fixed(size)) => k > size,
        (Size::Share { of, times, per, .. }, Size::Input(axis)) => of == axis && times > per,
        (_, _) => false,
    }
}
