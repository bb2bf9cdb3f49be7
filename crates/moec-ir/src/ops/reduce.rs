//! Sums and extremes along axes.

use moec_types::{Axis, DType, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ValueId, ValueType, ParseError, print, reader::Reader};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    Sum,
    Mean,
    Prod,
    /// NaN if any is NaN.
    Max,
    Min,
    /// Of bools.
    Any,
    All,
}

/// `reduce %x {sum over (E)}`.
///
/// *Types.*   x with every axis of `over`; f32 or i32 (bool for `any` and `all`; f32 for `mean`) -> x's axes without `over`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduce {
    pub op: ReduceOp,
    pub over: Vec<Axis>,
}

impl ReduceOp {
    pub const ALL: [ReduceOp; 7] = [
        ReduceOp::Sum,
        ReduceOp::Mean,
        ReduceOp::Prod,
        ReduceOp::Max,
        ReduceOp::Min,
        ReduceOp::Any,
        ReduceOp::All,
    ];

    pub fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Mean => "mean",
            ReduceOp::Prod => "prod",
            ReduceOp::Max => "max",
            ReduceOp::Min => "min",
            ReduceOp::Any => "any",
            ReduceOp::All => "all",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }

    fn takes(self, dtype: DType) -> Result<(), &'static str> {
        let (fits, wants) = match self {
            ReduceOp::Sum | ReduceOp::Prod | ReduceOp::Max | ReduceOp::Min => {
                (matches!(dtype, DType::F32 | DType::I32), "f32 or i32")
            }
            ReduceOp::Mean => (dtype == DType::F32, "f32"),
            ReduceOp::Any | ReduceOp::All => (dtype == DType::Bool, "bool"),
        };
        fits.then_some(()).ok_or(wants)
    }
}

impl OpDef for Reduce {
    const MNEMONIC: &'static str = "reduce";
    const REACH: Reach = Reach::Row;

    fn along(&self) -> &[Axis] {
        &self.over
    }

    fn attributes(&self, _: &Module) -> String {
        format!("{} over {}", self.op.name(), print::axes(&self.over))
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        let op = text.one_of("a reduction", ReduceOp::from_name)?;
        text.expect_word("over")?;
        Ok(Reduce { op, over: text.axes()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_] = operands::exactly(Self::MNEMONIC, operands)?;
        let x = operands::tensor(module, operands, 0)?;
        let name = self.op.name();
        if self.over.is_empty() {
            return Err(TypeError::new(format!("`{name}` over no axis"))
                .label(0, format!("this is {x}"))
                .help("name the axis: `over D`"));
        }
        operands::distinct(&self.over)?;
        for axis in &self.over {
            operands::axis(x, axis, 0)?;
        }
        self.op.takes(x.dtype).map_err(|wants| {
            TypeError::new(format!("`{name}` wants {wants}, found {x}")).label(0, format!("this is {x}"))
        })?;
        let kept = x.dims.iter().filter(|dim| !self.over.contains(&dim.axis)).cloned().collect();
        Ok(vec![TensorType::new(x.dtype, kept).into()])
    }
}
