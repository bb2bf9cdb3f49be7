//! A routing decision as a value.

use moec_types::{Axis, DType, Size, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ParseError, RouteType, ValueId, ValueType, reader::Reader};

/// `route %indices, %weights {experts 8}`: each position's chosen experts and how much each counts.
///
/// *Types.*   indices `i32[S, K]`, weights `f32[S, K]` (or `f32[K]`, `f32[]`, repeated) -> a route. `experts` is the size of
///            the axis that the indices were chosen from. Where S is as long as the input, or a share of it, it is the axis
///            of the tokens; of two fixed axes, `{experts 8, tokens S}` says which.
/// *Meaning.* An index outside `0 .. experts` means: not this choice (nothing is computed, nothing is added).
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub experts: u64,
    /// The axis of the tokens, where none of the two is as long as the input.
    pub tokens: Option<Axis>,
}

impl OpDef for Route {
    const MNEMONIC: &'static str = "route";
    const REACH: Reach = Reach::Across;

    fn attributes(&self, _: &Module) -> String {
        let tokens = self.tokens.as_ref().map_or(String::new(), |tokens| format!(", tokens {tokens}"));
        format!("experts {}{tokens}", self.experts)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        text.expect_word("experts")?;
        let experts = text.integer()?;
        let tokens = text.eats(",").then(|| text.expect_word("tokens").and_then(|()| text.axis())).transpose()?;
        Ok(Route { experts, tokens })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let [_, _] = operands::exactly(Self::MNEMONIC, operands)?;
        let (indices, weights) = (operands::tensor(module, operands, 0)?, operands::tensor(module, operands, 1)?);
        operands::dtype(indices, DType::I32, "a route's choice", 0)?;
        operands::dtype(weights, DType::F32, "a route's weight", 1)?;
        operands::agree((indices, 0), (weights, 1))?;
        if let Some(axis) = weights.axes().find(|axis| !indices.has(axis)) {
            return Err(TypeError::new(format!(
                "weights {weights} have an axis `{axis}` that the choices {indices} lack"
            ))
            .label(0, format!("this is {indices}"))
            .label(1, format!("this is {weights}")));
        }
        let [a, b] = &indices.dims[..] else {
            return Err(self.not_two_axes(indices));
        };
        let (tokens, choices) = match (&self.tokens, a.size.of_pass(), b.size.of_pass()) {
            (Some(tokens), _, None) if a.axis == *tokens => (a, b),
            (Some(tokens), None, _) if b.axis == *tokens => (b, a),
            (None, Some(_), None) => (a, b),
            (None, None, Some(_)) => (b, a),
            (Some(_) | None, _, _) => return Err(self.not_two_axes(indices)),
        };
        if choices.size.fixed().is_none() || matches!(tokens.size, Size::Past(_) | Size::Slots { .. }) {
            return Err(self.not_two_axes(indices));
        }
        let route = RouteType { tokens: tokens.clone(), choices: choices.clone(), experts: self.experts };
        Ok(vec![ValueType::Route(route)])
    }
}

impl Route {
    fn not_two_axes(&self, indices: &TensorType) -> TypeError {
        TypeError::new(format!("a route's choices are i32[tokens, choices], found {indices}"))
            .label(0, format!("this is {indices}"))
            .help("one axis is that of the tokens, one is of known size (such as `K` of a top-k)")
    }
}
