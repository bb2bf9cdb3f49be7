//! Primitives along axes: sums, places, look-ups.

use moec_ir::ops::{Assign, Cumsum, Gather, Reduce, ReduceOp, ScatterAdd};

use super::{Over, Use, WrongForm};
use crate::{
    evaluator::{ChosenFrom, Evaluator},
    scope::Frame,
    value::Value,
};

impl Evaluator {
    pub(super) fn reduced(&mut self, frame: &mut Frame, used: &Use, op: ReduceOp) -> Option<Value> {
        let [x] = self.exactly(used, Over::Some)?;
        let x = self.tensor(&x, &used.who())?;
        let over = used.given.over.iter().map(|name| frame.axis(&name.text)).collect();
        Some(self.emit1(frame, Reduce { op, over }, &[x], used.at))
    }

    pub(super) fn cumsum(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let [x] = self.exactly(used, Over::One)?;
        let x = self.tensor(&x, &used.who())?;
        Some(self.emit1(frame, Cumsum { over: frame.axis(&used.given.over[0].text) }, &[x], used.at))
    }

    /// `assign(score, most over (N, E))`
    pub(super) fn assigned(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let [score, most] = self.exactly(used, Over::Some)?;
        let [tokens, experts] = &used.given.over[..] else {
            let found = "one axis, or more than two".to_owned();
            let (name, form) = (used.primitive.name, used.primitive.form);
            self.report(WrongForm { name, form, found, at: used.given.at });
            return None;
        };
        let axes = [frame.axis(&tokens.text), frame.axis(&experts.text)];
        let (score, size) = (self.tensor(&score, &used.who())?, self.how_many(&most, "the most for an expert")?);
        let experts = self.module.tensor(score.0).dim(&axes[1]).and_then(|dim| dim.size.fixed());
        let result = self.emit1(frame, Assign { axes: axes.clone(), most: size }, &[score], used.at);
        if let (Value::Tensor(indices), Some(size)) = (&result, experts) {
            let [_, axis] = axes;
            self.chosen_from.insert(*indices, ChosenFrom { axis, size, at: score.1 });
        }
        Some(result)
    }

    pub(super) fn gathered(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let [x, index] = self.exactly(used, Over::One)?;
        let (x, index) = (self.tensor(&x, &used.who())?, self.tensor(&index, &used.who())?);
        let over = frame.axis(&used.given.over[0].text);
        let result = self.emit1(frame, Gather { over }, &[x, index], used.at);
        if let (Value::Tensor(result), Some(from)) = (&result, self.chosen_from.get(&x.0).cloned()) {
            self.chosen_from.insert(*result, from);
        }
        Some(result)
    }

    /// `scatter_add(x, i, (E, C) as N)`
    pub(super) fn scattered(&mut self, frame: &mut Frame, used: &Use) -> Option<Value> {
        let given = &used.given;
        let ([x, index], [], [regroup], []) =
            (&given.positional[..], &given.named[..], &given.regroups[..], &given.over[..])
        else {
            return self.malformed(used);
        };
        let ([_, ..], [into]) = (&regroup.from[..], &regroup.to[..]) else {
            return self.malformed(used);
        };
        let (x, index) = (self.tensor(x, &used.who())?, self.tensor(index, &used.who())?);
        let axes = regroup.from.iter().map(|name| frame.axis(&name.text)).collect();
        let into = self.sized_axis(frame, into)?;
        Some(self.emit1(frame, ScatterAdd { axes, into }, &[x, index], used.at))
    }
}
