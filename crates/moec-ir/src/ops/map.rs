//! Element-wise arithmetic.

use moec_types::{DType, Dim, Expr, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ValueId, ValueType, ParseError, reader::Reader};

/// `map %a, %b {add($0, $1)}`.
///
/// *Types.*   operands of any axes; one name has one size throughout -> the union of the axes, in the order of first
///            appearance; the expression's type. Storage types are not operands: parameters are read as f32.
/// *Meaning.* Each operand is repeated along the axes that it lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    pub expr: Expr,
}

impl OpDef for Map {
    const MNEMONIC: &'static str = "map";
    const REACH: Reach = Reach::Row;

    fn attributes(&self, _: &Module) -> String {
        self.expr.to_string()
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        Ok(Map { expr: text.expr()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let mut dims: Vec<(Dim, usize)> = Vec::new();
        let mut dtypes = Vec::new();
        for at in 0..operands.len() {
            let ty = operands::tensor(module, operands, at)?;
            arithmetic(ty, at)?;
            dtypes.push(ty.dtype);
            for dim in &ty.dims {
                match dims.iter().find(|(known, _)| known.axis == dim.axis) {
                    None => dims.push((dim.clone(), at)),
                    Some((known, first)) if known.size != dim.size => {
                        return Err(operands::disagreement((known, *first), (dim, at)));
                    }
                    Some(_) => {}
                }
            }
        }
        let dtype = scalar(&self.expr, &dtypes, "an element-wise operation")?;
        Ok(vec![TensorType::new(dtype, dims.into_iter().map(|(dim, _)| dim).collect()).into()])
    }
}

/// Refuses storage types.
pub(super) fn arithmetic(ty: &TensorType, at: usize) -> Result<(), TypeError> {
    match ty.dtype {
        DType::F32 | DType::I32 | DType::Bool => Ok(()),
        DType::Bf16 | DType::F16 => {
            Err(TypeError::new(format!("arithmetic on {ty}")).label(at, format!("{} is for storage", ty.dtype)))
        }
    }
}

/// The type of an expression over elements of these types.
pub(super) fn scalar(expr: &Expr, dtypes: &[DType], who: &str) -> Result<DType, TypeError> {
    if expr.arity() > dtypes.len() {
        let (arity, found) = (expr.arity(), dtypes.len());
        return Err(TypeError::new(format!("{who} speaks of {arity} operands and has {found}")));
    }
    let dtype = expr.dtype(dtypes).map_err(|error| {
        let converts = error.found.contains(&DType::F32) && error.found.contains(&DType::I32);
        let told = TypeError::new(error.to_string());
        let told = dtypes.iter().enumerate().fold(told, |told, (at, dtype)| told.label(at, format!("this is {dtype}")));
        if converts { told.help("convert one of them: `f32(…)` or `i32(…)`") } else { told }
    })?;
    match dtype {
        DType::F32 | DType::I32 | DType::Bool => Ok(dtype),
        DType::Bf16 | DType::F16 => Err(TypeError::new(format!("{who} gives {dtype}, which is for storage"))),
    }
}
