//! Primitives that give axes other names and sizes: split, merge, rename, unfold, past, concat.

use miette::Diagnostic;
use moec_diag::Span;
use moec_ir::{
    ValueId,
    ops::{Concat, Merge, Past, Rename, Split, Unfold},
};
use moec_syntax::tree::AxisExpr;
use moec_types::{Axis, Dim, Size};
use thiserror::Error;

use super::{Over, Use};
use crate::{call::Regroup, evaluator::Evaluator, scope::Frame, value::Value};

impl Evaluator {
    /// `split(x, E as (Group = 4, Member))`
    pub(super) fn split(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let (x, regroup) = self.regrouped(used)?;
        let ([from], [_, ..]) = (&regroup.from[..], &regroup.to[..]) else {
            return self.malformed(used);
        };
        let axis = frame.axis(&from.text);
        let into = self.split_sizes(frame, x.0, &axis, regroup)?;
        Some(self.reshape(frame, Split { axis, into }, x, used.at))
    }

    /// `merge(x, (Group, Member) as E)`, and the route `merge(weights)`.
    pub(super) fn merged(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        if used.given.regroups.is_empty() {
            let [weights] = self.exactly(used, Over::None)?;
            return self.merge_experts(frame, &weights, used.at);
        }
        let (x, regroup) = self.regrouped(used)?;
        let ([_, ..], [into]) = (&regroup.from[..], &regroup.to[..]) else {
            return self.malformed(used);
        };
        let axes = regroup.from.iter().map(|name| frame.axis(&name.text)).collect();
        let into = frame.axis(&into.name.text);
        Some(self.reshape(frame, Merge { axes, into }, x, used.at))
    }

    /// `rename(x, K as K2)`
    pub(super) fn renamed_axis(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let (x, [from, to]) = self.one_to_one(frame, used)?;
        Some(if from == to { Value::Tensor(x.0) } else { self.reshape(frame, Rename { from, to }, x, used.at) })
    }

    /// `past(x, S as T)`
    pub(super) fn past(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let (x, [axis, into]) = self.one_to_one(frame, used)?;
        if self.refused_in_a_scan(frame, "`past`", used.at) {
            return None;
        }
        Some(self.emit1(frame, Past { axis, into }, &[x], used.at))
    }

    /// `A as B`
    fn one_to_one(&mut self, frame: &mut Frame, used: &Use) -> Option<((ValueId, Span), [Axis; 2])> {
        let (x, regroup) = self.regrouped(used)?;
        let ([from], [to]) = (&regroup.from[..], &regroup.to[..]) else {
            return self.malformed(used);
        };
        Some((x, [frame.axis(&from.text), frame.axis(&to.name.text)]))
    }

    /// `concat(a, b over A)`
    pub(super) fn joined(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        self.plain(used, Over::One)?;
        let given = &used.given;
        if given.positional.is_empty() {
            return self.malformed(used);
        }
        let tensors: Option<Vec<_>> =
            given.positional.iter().map(|operand| self.tensor(operand, &used.who())).collect();
        Some(self.emit1(frame, Concat { over: frame.axis(&given.over[0].text) }, &tensors?, used.at))
    }

    /// `unfold(x, Y as (Y, Tap = 3), step = 2)`: the first new axis is as long as windows fit.
    pub(super) fn unfolded(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let given = &used.given;
        let ([x], [regroup], []) = (&given.positional[..], &given.regroups[..], &given.over[..]) else {
            return self.malformed(used);
        };
        let ([axis], [place, window]) = (&regroup.from[..], &regroup.to[..]) else {
            return self.malformed(used);
        };
        let step = match &given.named[..] {
            [] => 1,
            [(name, step)] if name.text == "step" => self.size(step, "the step from window to window")?,
            _ => return self.malformed(used),
        };
        if place.size.is_some() {
            return self.malformed(used);
        }
        let x = self.tensor(x, &used.who())?;
        let window = self.sized_axis(frame, window)?;
        let op = Unfold { axis: frame.axis(&axis.text), place: frame.axis(&place.name.text), window, step };
        Some(self.reshape(frame, op, x, used.at))
    }

    /// An axis with the size that is written behind it, else that of the axis of this name.
    pub(super) fn sized_axis(&mut self, frame: &mut Frame, axis: &AxisExpr) -> Option<Dim> {
        let name = frame.axis(&axis.name.text);
        let Some(size) = &axis.size else { return self.known_dim(frame, &name, axis.name.at) };
        let size = self.operand(frame, size);
        let size = self.how_many(&size, &format!("the size of `{name}`"))?;
        Some(Dim::new(name, size))
    }

    /// The sizes of the axes that `split` makes: written, or known by name, and at most one from what is left.
    fn split_sizes(&mut self, frame: &mut Frame, x: ValueId, axis: &Axis, regroup: &Regroup) -> Option<Vec<Dim>> {
        let unwritten = regroup.to.iter().filter(|axis| axis.size.is_none()).count();
        let mut sizes: Vec<Option<u64>> = Vec::new();
        for part in &regroup.to {
            sizes.push(match &part.size {
                Some(size) => {
                    let size = self.operand(frame, size);
                    Some(self.size(&size, &format!("the size of `{}`", part.name.text))?)
                }
                None if unwritten == 1 => None,
                None => self.named_size(frame, &part.name).ok()?,
            });
        }
        let whole = self.module.tensor(x).dim(axis).and_then(|dim| dim.size.fixed());
        let known = sizes.iter().flatten().try_fold(1u64, |product, size| product.checked_mul(*size));
        let open = sizes.iter().filter(|size| size.is_none()).count();
        if open > 0 {
            let left = whole
                .zip(known)
                .filter(|(whole, known)| open == 1 && whole % known == 0)
                .map(|(whole, known)| whole / known);
            match (left, whole) {
                (Some(left), _) => sizes.iter_mut().filter(|size| size.is_none()).for_each(|size| *size = Some(left)),
                // The op itself says that the axis is missing or symbolic.
                (None, None) => sizes.iter_mut().for_each(|size| *size = Some(size.unwrap_or(1))),
                (None, Some(whole)) => {
                    let axis = axis.clone();
                    let known = known.unwrap_or(u64::MAX);
                    let help = match open {
                        1 => format!("`{axis}` has {whole}, which {known} does not divide"),
                        _ => format!("`{axis}` has {whole}: write the sizes, `Name = size`, of all parts but one"),
                    };
                    self.report(SplitUnclear { axis, at: regroup.at, help });
                    return None;
                }
            }
        }
        let dims = regroup.to.iter().zip(sizes);
        Some(dims.map(|(part, size)| Dim::new(frame.axis(&part.name.text), Size::Fixed(size.unwrap_or(1)))).collect())
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("the parts of `{axis}` are not determined")]
#[diagnostic(code(moec::sema::split_unclear), help("{help}"))]
struct SplitUnclear {
    axis: Axis,
    #[label("cannot be split so")]
    at: Span,
    help: String,
}
