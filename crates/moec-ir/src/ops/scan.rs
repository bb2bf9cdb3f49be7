//! Positions one after the other, with values that go from each to the next.

use moec_types::{Dim, Size, TensorType};

use super::{OpDef, Reach, TypeError, operands};
use crate::{Module, ParseError, RegionId, ValueId, ValueType, reader::Reader};

/// `scan %x, %start {over S, states 1}` and a region.
///
/// *Types.*   operands with the axis S, an input's; then an initial value for each state. The region takes the former without
///            S, and the states, which have all axes of their initial values; it gives a next value for each state, of its
///            type, and then what the scan gives at one position -> each of these with S in front.
/// *Meaning.* The region for one position after the other. At the first position of a sequence the states are their initial
///            values, repeated along axes that these lack; at every later one, the next values that the position before it
///            gave, be it in this pass or in an earlier one. What the region reads from around it has no axis S.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    pub over: Dim,
    pub states: usize,
    pub region: RegionId,
}

impl Scan {
    /// How many operands are read position by position.
    pub fn sequences(&self, operands: usize) -> usize {
        operands.saturating_sub(self.states)
    }
}

impl OpDef for Scan {
    const MNEMONIC: &'static str = "scan";
    const REACH: Reach = Reach::Across;

    fn regions(&self) -> Vec<RegionId> {
        vec![self.region]
    }

    fn regions_mut(&mut self) -> Vec<&mut RegionId> {
        vec![&mut self.region]
    }

    fn attributes(&self, _: &Module) -> String {
        format!("over {}, states {}", self.over, self.states)
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        text.expect_word("over")?;
        let over = text.dim()?;
        text.expect(",")?;
        text.expect_word("states")?;
        Ok(Scan { over, states: text.integer()?, region: RegionId::NONE })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        operands::at_least(Self::MNEMONIC, operands, self.states)?;
        let axis = &self.over.axis;
        if !matches!(self.over.size, Size::Input(_)) {
            return Err(TypeError::new(format!("`scan` along `{}`, which is not a sequence of the input", self.over))
                .help("`scan` goes along an axis that an input of the model introduced"));
        }
        let region = module.region(self.region);
        if region.args.len() != operands.len() || region.results.len() <= self.states {
            let (args, results) = (region.args.len(), region.results.len());
            return Err(TypeError::new(format!(
                "`scan` of {} values with {} states, whose region takes {args} and gives {results}",
                operands.len(),
                self.states
            )));
        }
        let tensor = |value: ValueId| {
            module.ty(value).tensor().ok_or_else(|| TypeError::new("a route goes into or comes out of a `scan`"))
        };
        let (sequences, initial) = operands.split_at(self.sequences(operands.len()));
        let (seen, states) = region.args.split_at(sequences.len());
        for (at, arg) in seen.iter().enumerate() {
            let (whole, arg) = (operands::tensor(module, operands, at)?, tensor(*arg)?);
            let found = operands::axis(whole, axis, at)?;
            if *found != self.over {
                return Err(operands::disagreement((found, at), (&self.over, at)));
            }
            let one = at_one_position(whole, &self.over);
            if one != *arg {
                return Err(TypeError::new(format!("`scan` sees {one} at a position, its region takes {arg}"))
                    .label(at, format!("this is {whole}")));
            }
        }
        for (number, (state, next)) in states.iter().zip(&region.results).enumerate() {
            let at = sequences.len() + number;
            let (first, state, next) = (operands::tensor(module, initial, number)?, tensor(*state)?, tensor(*next)?);
            operands::absent(state, axis, at)?;
            if first.dtype != state.dtype || first.dims.iter().any(|dim| !state.dims.contains(dim)) {
                return Err(TypeError::new(format!("a state {state} starts as {first}"))
                    .label(at, format!("this is {first}"))
                    .help("an initial value has the state's type, or fewer of its axes"));
            }
            if state.dims.iter().any(|dim| dim.size.fixed().is_none()) {
                return Err(TypeError::new(format!("a state {state}, whose size is not known"))
                    .help("what is kept from position to position has a fixed size"));
            }
            if next != state {
                return Err(TypeError::new(format!("a state is {state}, its next value {next}")));
            }
        }
        let along = |value: &ValueId| {
            let one = tensor(*value)?;
            operands::absent(one, axis, 0)?;
            let dims = [&self.over].into_iter().chain(&one.dims).cloned().collect();
            Ok(TensorType::new(one.dtype, dims).into())
        };
        region.results[self.states..].iter().map(along).collect()
    }
}

/// A type without the axis that a scan goes along.
pub(crate) fn at_one_position(whole: &TensorType, over: &Dim) -> TensorType {
    let dims = whole.dims.iter().filter(|dim| dim.axis != over.axis).cloned().collect();
    TensorType::new(whole.dtype, dims)
}
