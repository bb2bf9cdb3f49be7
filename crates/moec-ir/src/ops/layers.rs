//! The stack: a loop over layers of a few kinds.

use super::{OpDef, Reach, TypeError};
use crate::{Module, RegionId, ValueId, ValueType, ParseError, reader::Reader};

/// `layers %h {kinds 2, order [0, 1, 1, 1]}` and a region for each kind.
///
/// *Types.*   the values that go from layer to layer; each kind's region takes and gives values of the same types.
/// *Meaning.* `order[l]` is the kind of layer `l`. The n-th execution of a kind uses the n-th instance of its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Layers {
    pub kinds: Vec<RegionId>,
    pub order: Vec<u32>,
}

impl OpDef for Layers {
    const MNEMONIC: &'static str = "layers";
    const REACH: Reach = Reach::Across;

    fn regions(&self) -> Vec<RegionId> {
        self.kinds.clone()
    }

    fn regions_mut(&mut self) -> Vec<&mut RegionId> {
        self.kinds.iter_mut().collect()
    }

    fn attributes(&self, _: &Module) -> String {
        let order: Vec<_> = self.order.iter().map(u32::to_string).collect();
        format!("kinds {}, order [{}]", self.kinds.len(), order.join(", "))
    }

    fn read(text: &mut Reader) -> Result<Self, ParseError> {
        text.expect_word("kinds")?;
        let kinds: u8 = text.integer()?;
        text.expect(",")?;
        text.expect_word("order")?;
        let order = text.list("[", "]", Reader::integer)?;
        Ok(Layers { kinds: vec![RegionId::NONE; usize::from(kinds)], order })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        if let Some(kind) = self.order.iter().find(|kind| **kind as usize >= self.kinds.len()) {
            return Err(TypeError::new(format!("layer kind {kind} of {}", self.kinds.len())));
        }
        for (number, kind) in self.kinds.iter().enumerate() {
            let region = module.region(*kind);
            if region.args.len() != operands.len() || region.results.len() != operands.len() {
                let (args, results) = (region.args.len(), region.results.len());
                return Err(TypeError::new(format!(
                    "{} values go through the layers; kind {number} takes {args} and gives {results}",
                    operands.len()
                )));
            }
            for (at, operand) in operands.iter().enumerate() {
                let (enters, arg) = (module.ty(*operand), module.ty(region.args[at]));
                if enters != arg {
                    return Err(TypeError::new(format!("the layers take {arg}, found {enters}"))
                        .label(at, format!("this is {enters}")));
                }
                let leaves = module.ty(region.results[at]);
                if leaves != arg {
                    return Err(TypeError::new(format!("a layer takes {arg} and gives {leaves}"))
                        .label(at, format!("enters as {enters}"))
                        .help("what goes from layer to layer keeps its type, the order of its axes included"));
                }
            }
        }
        Ok(operands.iter().map(|operand| module.ty(*operand).clone()).collect())
    }
}
