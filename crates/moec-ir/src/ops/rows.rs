//! Ops that work on each position by itself, as one program over a row.

use super::{OpDef, Reach, TypeError};
use crate::{Module, RegionId, ValueId, ValueType, ParseError, reader::Reader};

/// `rows %a, %b {region}`: what `fuse-rows` and `fuse-router` make of ops that do not look across positions.
///
/// *Types.*   operands to the region's arguments, its results to results; all share one symbolic axis (or have none).
/// *Meaning.* The region's. It holds no `past`, routing, layers, attention or linear.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    pub region: RegionId,
}

impl OpDef for Rows {
    const MNEMONIC: &'static str = "rows";
    const REACH: Reach = Reach::Step;

    fn regions(&self) -> Vec<RegionId> {
        vec![self.region]
    }

    fn regions_mut(&mut self) -> Vec<&mut RegionId> {
        vec![&mut self.region]
    }

    fn attributes(&self, _: &Module) -> String {
        String::new()
    }

    fn read(_: &mut Reader) -> Result<Self, ParseError> {
        Ok(Rows { region: RegionId::NONE })
    }

    fn infer(&self, module: &Module, operands: &[ValueId]) -> Result<Vec<ValueType>, TypeError> {
        let region = module.region(self.region);
        if region.args.len() != operands.len() {
            return Err(TypeError::new(format!("`rows` takes {} operands, found {}", region.args.len(), operands.len())));
        }
        for (at, (arg, operand)) in region.args.iter().zip(operands).enumerate() {
            let (arg, operand) = (module.ty(*arg), module.ty(*operand));
            if arg != operand {
                return Err(TypeError::new(format!("`rows` takes {arg}, found {operand}"))
                    .label(at, format!("this is {operand}")));
            }
        }
        let mut row = None;
        for value in region.args.iter().chain(&region.results) {
            let Some(ty) = module.ty(*value).tensor() else { return Err(TypeError::new("`rows` with a route")) };
            for dim in ty.dims.iter().filter(|dim| dim.size.fixed().is_none()) {
                if *row.get_or_insert(&dim.axis) != &dim.axis {
                    return Err(TypeError::new(format!("`rows` over two symbolic axes, of which one is in {ty}")));
                }
            }
        }
        Ok(region.results.iter().map(|value| module.ty(*value).clone()).collect())
    }
}
