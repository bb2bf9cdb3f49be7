//! One tensor contracted with several parameters, and an element-wise epilogue.

use moec_types::{Axis, DType, Expr};

use super::{OpDef, Reach, TypeError, contract, map, operands};
use crate::{Module, ValueId, ValueType, ParseError, print, reader::Reader};

/// `linear %x, %gate, %up, %bias {over (D), branches 2, epilogue …}`: what `fuse-activation` makes of contractions.
///
/// *Types.*   x, then `branches` parameters that have the axes of `over` and otherwise the same axes as each other; then
///            extras. -> f32[x's axes without `over`, then the first parameter's axes that x lacks].
/// *Meaning.* `Arg(0 .. branches)` of the epilogue are the sums, the rest the extras, repeated along axes that they lack.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    pub over: Vec<Axis>,
    pub branches: usize,
    pub epilogue: Expr,
}

impl OpDef for Linear {
    const MNEMONIC: &'static str = "linear";
    const REACH: Reach = Reach::Step;

    fn along(&self) -> &[Axis] {
        &self.over
    }

    fn attributes(&self, _: &Module) -> String {
        format!("over {}, branches {}, epilogue {}", print::axes(&self.over), self.branches, self.epilogue)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        text.expect_word("over")?;
        let over = text.axes()?;
        text.expect(",")?;
        text.expect_word("branches")?;
        let branches = text.integer()?;
        text.expect(",")?;
        text.expect_word("epilogue")?;
        Ok(Linear { over, branches, epilogue: text.expr()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        if self.branches == 0 {
            return Err(TypeError::new("`linear` without a parameter"));
        }
        operands::at_least(Self::MNEMONIC, operands, 1 + self.branches)?;
        operands::distinct(&self.over)?;
        let x = operands::tensor(module, operands, 0)?;
        operands::dtype(x, DType::F32, "a product", 0)?;
        for axis in &self.over {
            operands::axis(x, axis, 0)?;
        }
        let first = operands::tensor(module, operands, 1)?;
        for at in 1..=self.branches {
            let param = operands::tensor(module, operands, at)?;
            operands::dtype(param, DType::F32, "a product", at)?;
            for axis in &self.over {
                operands::axis(param, axis, at)?;
            }
            operands::agree((x, 0), (param, at))?;
            operands::agree((first, 1), (param, at))?;
            if param.dims.len() != first.dims.len() || param.axes().any(|axis| !first.has(axis)) {
                return Err(TypeError::new(format!("`linear` with parameters {first} and {param}, whose axes differ"))
                    .label(1, format!("this is {first}"))
                    .label(at, format!("this is {param}")));
            }
        }
        let result = contract::product(x, first, &self.over);
        let mut dtypes = vec![DType::F32; self.branches];
        for at in 1 + self.branches..operands.len() {
            let extra = operands::tensor(module, operands, at)?;
            map::arithmetic(extra, at)?;
            operands::agree((&result, 0), (extra, at))?;
            if let Some(axis) = extra.axes().find(|axis| !result.has(axis)) {
                return Err(TypeError::new(format!("the epilogue's {extra} has an axis `{axis}` that {result} lacks"))
                    .label(at, format!("this is {extra}")));
            }
            dtypes.push(extra.dtype);
        }
        match map::scalar(&self.epilogue, &dtypes, "the epilogue")? {
            DType::F32 => Ok(vec![result.into()]),
            other @ (DType::Bf16 | DType::F16 | DType::I32 | DType::Bool) => {
                Err(TypeError::new(format!("the epilogue gives {other}, not f32")))
            }
        }
    }
}
