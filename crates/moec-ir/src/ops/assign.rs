//! A balanced assignment: every token to one expert, no expert with more than its share.

use moec_types::{Axis, DType, Size, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ParseError, ValueId, ValueType, reader::Reader};

/// `assign %score {N to E, at most 2}`: the expert of each token, so that the scores add up to as much as can be.
///
/// *Types.*   score `f32[N, E]`, in any order, E of fixed size -> `i32[N]`.
/// *Meaning.* No expert gets more than `most` tokens; where there are more tokens than places, the rest get -1. Scores beyond
///            ±1e9, and NaN as -1e9, count as that, and in whole units of 2^-30. Of several assignments that are equally
///            good, the one that this gives: token after token enters by the cheapest chain of moves, those chains being
///            looked for from the lowest expert on, and of the tokens that could move the first does.
#[derive(Clone, Debug, PartialEq)]
pub struct Assign {
    /// The tokens, then the experts.
    pub axes: [Axis; 2],
    pub most: Size,
}

impl Assign {
    pub fn tokens(&self) -> &Axis {
        &self.axes[0]
    }

    pub fn experts(&self) -> &Axis {
        &self.axes[1]
    }
}

impl OpDef for Assign {
    const MNEMONIC: &'static str = "assign";
    const REACH: Reach = Reach::Across;

    fn along(&self) -> &[Axis] {
        &self.axes
    }

    fn attributes(&self, _: &Module) -> String {
        format!("{} to {}, at most {}", self.tokens(), self.experts(), self.most)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        let tokens = text.axis()?;
        text.expect_word("to")?;
        let experts = text.axis()?;
        text.expect(",")?;
        text.expect_word("at")?;
        text.expect_word("most")?;
        Ok(Assign { axes: [tokens, experts], most: text.size()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_] = operands::exactly(Self::MNEMONIC, operands)?;
        let score = operands::tensor(module, operands, 0)?;
        operands::dtype(score, DType::F32, "`assign`", 0)?;
        let tokens = operands::axis(score, self.tokens(), 0)?.clone();
        let experts = operands::axis(score, self.experts(), 0)?;
        if self.tokens() == self.experts() || score.dims.len() != 2 || experts.size.fixed().is_none() {
            return Err(TypeError::new(format!(
                "`assign` works on tokens and experts, a fixed number of them, alone; found {score}"
            ))
            .label(0, format!("this is {score}")));
        }
        if let Size::Slots { .. } = self.most {
            return Err(TypeError::new(format!("`assign` of at most {}", self.most)));
        }
        Ok(vec![TensorType::new(DType::I32, vec![tokens]).into()])
    }
}
