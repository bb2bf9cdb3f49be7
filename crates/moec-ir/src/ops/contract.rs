//! A product of two tensors, summed over shared axes.

use moec_types::{Axis, DType, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ValueId, ValueType, ParseError, print, reader::Reader};

/// `contract %a, %b {over (D)}`.
///
/// *Types.*   two f32 tensors that both have every axis of `over` -> f32[a's axes without `over`, then b's axes that a lacks].
/// *Meaning.* Shared axes that are not summed are aligned (a batch).
#[derive(Clone, Debug, PartialEq)]
pub struct Contract {
    pub over: Vec<Axis>,
}

impl OpDef for Contract {
    const MNEMONIC: &'static str = "contract";
    const REACH: Reach = Reach::Row;

    fn along(&self) -> &[Axis] {
        &self.over
    }

    fn attributes(&self, _: &Module) -> String {
        format!("over {}", print::axes(&self.over))
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        text.expect_word("over")?;
        Ok(Contract { over: text.axes()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_, _] = operands::exactly(Self::MNEMONIC, operands)?;
        let (a, b) = (operands::tensor(module, operands, 0)?, operands::tensor(module, operands, 1)?);
        operands::distinct(&self.over)?;
        operands::dtype(a, DType::F32, "a product", 0)?;
        operands::dtype(b, DType::F32, "a product", 1)?;
        for axis in &self.over {
            operands::axis(a, axis, 0)?;
            operands::axis(b, axis, 1)?;
        }
        operands::agree((a, 0), (b, 1))?;
        Ok(vec![product(a, b, &self.over).into()])
    }
}

/// `a`'s axes without `over`, then `b`'s that `a` lacks.
pub(super) fn product(a: &TensorType, b: &TensorType, over: &[Axis]) -> TensorType {
    let kept = a.dims.iter().filter(|dim| !over.contains(&dim.axis));
    let added = b.dims.iter().filter(|dim| !a.has(&dim.axis) && !over.contains(&dim.axis));
    TensorType::new(DType::F32, kept.chain(added).cloned().collect())
}
