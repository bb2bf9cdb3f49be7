//! What must hold of every module, whoever made it.

use std::collections::BTreeSet;

use moec_diag::Span;
use moec_types::{Axis, Dim, Size};

use crate::{Module, Op, OpId, RegionId, ValueId, ops::Reach};

/// A rule of the IR that a module breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("{message}")]
#[diagnostic(code(moec::ir::verify))]
pub struct VerifyError {
    pub message: String,
    /// The text behind the node at fault.
    #[label("from this")]
    pub at: Span,
}

/// Checks that
/// - every region belongs to one node (or is the body), every node stands in one region, and no region holds itself;
/// - operands and region results are defined before and in scope;
/// - types are those that the ops infer, no tensor has an axis twice, and parameters have fixed sizes;
/// - the body's arguments are the inputs, its results the outputs;
/// - `rows` reads nothing from around it but operands, `scan` nothing that has its axis, and both hold only ops that work on
///   a row.
pub fn verify(module: &Module) -> Result<(), VerifyError> {
    let mut verifier = Verifier { module, defined: BTreeSet::new(), nodes: BTreeSet::new(), regions: BTreeSet::new() };
    verifier.boundary()?;
    verifier.region(module.body, Span::NONE, None)
}

struct Verifier<'m> {
    module: &'m Module,
    /// The values in scope.
    defined: BTreeSet<ValueId>,
    nodes: BTreeSet<OpId>,
    regions: BTreeSet<RegionId>,
}

fn broken<T>(at: Span, message: impl Into<String>) -> Result<T, VerifyError> {
    Err(VerifyError { message: message.into(), at })
}

impl Verifier<'_> {
    fn boundary(&self) -> Result<(), VerifyError> {
        let Module { inputs, outputs, params, .. } = self.module;
        for param in params {
            if let Some(dim) = param.ty.dims.iter().find(|dim| dim.size.fixed().is_none()) {
                return broken(param.at, format!("parameter `{}` has the symbolic axis {dim}", param.path));
            }
            if let Some(axis) = repeated(&param.ty.dims) {
                return broken(param.at, format!("parameter `{}` has the axis `{axis}` twice", param.path));
            }
            if param.layers.as_ref().is_some_and(|layers| !layers.is_sorted_by(|a, b| a < b)) {
                return broken(param.at, format!("the layers of parameter `{}` do not ascend", param.path));
            }
        }
        let body = self.module.region(self.module.body);
        if !inputs.iter().map(|input| input.value).eq(body.args.iter().copied()) {
            return broken(Span::NONE, "the body's arguments are not the inputs");
        }
        if !outputs.iter().map(|output| output.value).eq(body.results.iter().copied()) {
            return broken(Span::NONE, "the body's results are not the outputs");
        }
        for dim in inputs.iter().filter_map(|input| self.module.ty(input.value).tensor()).flat_map(|ty| &ty.dims) {
            if let Size::Past(_) | Size::Slots { .. } | Size::Share { .. } = dim.size {
                return broken(Span::NONE, format!("an input has the axis {dim}, which only ops make"));
            }
        }
        Ok(())
    }

    /// `row` names the `rows` or `scan` that the region is within.
    fn region(&mut self, at: RegionId, from: Span, row: Option<&str>) -> Result<(), VerifyError> {
        if !self.regions.insert(at) {
            return broken(from, format!("region {} has two places", at.0));
        }
        let region = self.module.region(at);
        for arg in &region.args {
            if self.module.producer_id(*arg).is_some() || !self.defined.insert(*arg) {
                return broken(from, format!("argument {} of a region is defined elsewhere", arg.0));
            }
            if let Some(axis) = self.module.ty(*arg).tensor().and_then(|ty| repeated(&ty.dims)) {
                return broken(from, format!("argument {} of a region has the axis `{axis}` twice", arg.0));
            }
        }
        for node in &region.nodes {
            self.node(*node, row)?;
        }
        if let Some(result) = region.results.iter().find(|value| !self.defined.contains(value)) {
            return broken(from, format!("a region gives value {}, which it has not", result.0));
        }
        Ok(())
    }

    /// A value of around that a region reads and should have been given as an operand.
    fn read_past_operands(&self, op: &Op, region: RegionId) -> Option<ValueId> {
        let wrong = |value: &ValueId| match op {
            Op::Rows(_) => true,
            Op::Scan(scan) => self.module.ty(*value).tensor().is_none_or(|ty| ty.has(&scan.over.axis)),
            _ => false,
        };
        match op {
            Op::Rows(_) | Op::Scan(_) => self.module.captures(region).into_iter().find(wrong),
            _ => None,
        }
    }

    fn node(&mut self, at: OpId, row: Option<&str>) -> Result<(), VerifyError> {
        let node = self.module.node(at);
        let mnemonic = node.op.mnemonic();
        if !self.nodes.insert(at) {
            return broken(node.at, format!("a `{mnemonic}` stands in two places"));
        }
        if let Some(value) = node.operands.iter().find(|value| !self.defined.contains(value)) {
            return broken(node.at, format!("`{mnemonic}` reads value {} before it is there", value.0));
        }
        if let Some(around) = row
            && node.op.reach() != Reach::Row
        {
            return broken(node.at, format!("`{mnemonic}` within `{around}`"));
        }
        for inner in node.op.regions() {
            if let Some(value) = self.read_past_operands(&node.op, inner) {
                return broken(node.at, format!("`{mnemonic}` reads value {} past its operands", value.0));
            }
            let outside = self.defined.clone();
            self.region(inner, node.at, matches!(node.op, Op::Rows(_) | Op::Scan(_)).then_some(mnemonic))?;
            self.defined = outside;
        }
        let types = match node.op.infer(self.module, &node.operands) {
            Ok(types) => types,
            Err(error) => return broken(node.at, format!("`{mnemonic}`: {error}")),
        };
        let found: Vec<_> = node.results.iter().map(|value| self.module.ty(*value)).collect();
        if found.len() != types.len() || found.iter().zip(&types).any(|(found, ty)| *found != ty) {
            let listed = |types: &mut dyn Iterator<Item = String>| types.collect::<Vec<_>>().join(", ");
            let wants = listed(&mut types.iter().map(ToString::to_string));
            let found = listed(&mut found.iter().map(ToString::to_string));
            return broken(node.at, format!("`{mnemonic}` gives {wants}, recorded is {found}"));
        }
        for value in &node.results {
            if self.module.producer_id(*value) != Some(at) || !self.defined.insert(*value) {
                return broken(node.at, format!("value {} is defined twice", value.0));
            }
        }
        Ok(())
    }
}

/// An axis that stands twice among a tensor's.
fn repeated(dims: &[Dim]) -> Option<&Axis> {
    dims.iter()
        .enumerate()
        .find(|(at, dim)| dims[..*at].iter().any(|other| other.axis == dim.axis))
        .map(|(_, dim)| &dim.axis)
}
