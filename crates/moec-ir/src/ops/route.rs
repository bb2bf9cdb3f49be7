//! A routing decision as a value.

use moec_types::{DType, Size};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, RouteType, ValueId, ValueType, ParseError, reader::Reader};

/// `route %indices, %weights {experts 8}`: each position's chosen experts and how much each counts.
///
/// *Types.*   indices `i32[S, K]`, weights `f32[S, K]` (or `f32[K]`, `f32[]`, repeated), S symbolic -> a route. `experts` is
///            the size of the axis that the indices were chosen from.
/// *Meaning.* An index outside `0 .. experts` means: not this choice (nothing is computed, nothing is added).
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub experts: u64,
}

impl OpDef for Route {
    const MNEMONIC: &'static str = "route";
    const REACH: Reach = Reach::Across;

    fn attributes(&self, _: &Module) -> String {
        format!("experts {}", self.experts)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        text.expect_word("experts")?;
        Ok(Route { experts: text.integer()? })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_, _] = operands::exactly(Self::MNEMONIC, operands)?;
        let (indices, weights) = (operands::tensor(module, operands, 0)?, operands::tensor(module, operands, 1)?);
        operands::dtype(indices, DType::I32, "a route's choice", 0)?;
        operands::dtype(weights, DType::F32, "a route's weight", 1)?;
        operands::agree((indices, 0), (weights, 1))?;
        if let Some(axis) = weights.axes().find(|axis| !indices.has(axis)) {
            return Err(TypeError::new(format!("weights {weights} have an axis `{axis}` that the choices {indices} lack"))
                .label(0, format!("this is {indices}"))
                .label(1, format!("this is {weights}")));
        }
        let dims: Vec<_> = indices.dims.iter().collect();
        let (tokens, choices) = match dims[..] {
            [a, b] if matches!(a.size, Size::Input(_)) && b.size.fixed().is_some() => (a, b),
            [a, b] if matches!(b.size, Size::Input(_)) && a.size.fixed().is_some() => (b, a),
            _ => {
                return Err(TypeError::new(format!("a route's choices are i32[tokens, choices], found {indices}"))
                    .label(0, format!("this is {indices}"))
                    .help("one axis as long as the input, one of known size (such as `K` of a top-k)"));
            }
        };
        let route = RouteType { tokens: tokens.clone(), choices: choices.clone(), experts: self.experts };
        Ok(vec![ValueType::Route(route)])
    }
}
