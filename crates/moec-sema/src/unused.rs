//! Definitions that nothing uses: what is wrong with them whatever a use would give them.
//!
//! Each is evaluated with arguments, an `x` and a bank that are not known, as where a problem was reported before: names, forms
//! and what is known without them are checked, and all that hangs on them stays silent. Where [`Evaluator::alone`] is asked
//! says what else a use could mend.

use std::{collections::BTreeSet, rc::Rc};

use moec_syntax::{
    axes,
    tree::{DefinitionKind, Expr, Model, Name},
};
use moec_types::Axis;

use crate::{
    builtin::CHOICES,
    definitions::{DefinitionId, FileId},
    evaluator::Evaluator,
    expression::UnknownAxis,
    scope::{BodyKind, EXPERTS, Frame, Origin, TOKENS},
    spelling::did_you_mean,
    value::{Operand, Part, PartOf, Template, Value},
};

/// What is known of who might use a definition.
#[derive(Clone, Debug)]
pub(crate) struct Alone {
    /// Its file's `config` is: without a model it is not, nor in a file that several models use.
    settings_known: bool,
    /// All axes that a value of this program can have, whatever its files make of them.
    axes: Rc<BTreeSet<String>>,
}

impl Alone {
    /// Whether a use could know a name that is not known here: an axis, or a `config` entry, if it is like nothing else.
    pub fn may_have(&self, name: &str, like_another: bool) -> bool {
        name.starts_with(|first: char| first.is_uppercase()) || !(self.settings_known || like_another)
    }
}

impl Evaluator {
    /// Reports what is wrong with definitions of the user's files that were not evaluated.
    pub fn check_unused(&mut self, model: Option<&Model>) {
        let unused: Vec<DefinitionId> = self.definitions.own().filter(|id| !self.evaluated.contains(id)).collect();
        // What was given up is not used any further either.
        if unused.is_empty() || self.stopped {
            return;
        }
        let axes = Rc::new(self.axes_of_program(model));
        for id in unused {
            let mut other = Evaluator::new(self.definitions.clone(), "alone");
            (other.config, other.phase) = (self.config.clone(), self.phase);
            let settings_known = model.is_some() && self.definitions.file_of(id) == FileId::USER;
            other.alone = Some(Alone { settings_known, axes: axes.clone() });
            other.evaluate_alone(id);
            self.problems.append(other.problems);
        }
    }

    fn evaluate_alone(&mut self, id: DefinitionId) {
        let definition = self.definitions.get(id).clone();
        let at = definition.name.at;
        let kind = if definition.kind == DefinitionKind::Fn { BodyKind::Fn } else { BodyKind::Block };
        let file = self.definitions.file_of(id);
        let mut frame = Frame { file, kind, region: self.module.body, ..Frame::of_config() };
        let mut scope = frame.clone();
        let mut arguments = Vec::new();
        for param in &definition.params {
            let value = param.default.as_ref().map_or(Value::Error, |default| self.operand(&mut scope, default).value);
            scope.bind(&param.name, value.clone(), Origin::Formal);
            arguments.push((param.name.text.clone(), value, param.name.at));
        }
        let axes: Vec<_> = definition.axes.iter().map(|name| (name.text.clone(), Axis::new(&name.text))).collect();
        if definition.kind == DefinitionKind::Fn {
            self.enter(&mut frame, &arguments, &axes);
            self.body(&mut frame, &definition.body, at);
            return;
        }
        let (kind, name) = (definition.kind, definition.name.text.clone());
        let template = Template { definition: id, kind, name, arguments, axes, experts: None, at };
        let part = Part::new(String::new(), None, None, PartOf::Body).into();
        let x = Operand { value: Value::Error, at };
        self.run(&mut frame, &part, &template, &x, self.module.body, None, at);
    }

    /// Reports axes that nothing in the program can have.
    pub fn check_axes(&mut self, frame: &mut Frame, expr: &Expr) {
        let Some(alone) = &self.alone else { return };
        let axes = alone.axes.clone();
        for name in axes::read(expr) {
            let axis = frame.axis(&name.text);
            if !axes.contains(axis.name()) && frame.unsure.insert(axis.clone()) {
                let names = axes.iter().map(String::as_str);
                let help = did_you_mean(&name.text, names)
                    .unwrap_or_else(|| format!("an axis begins in a `param`, in an input or as `… as {axis}`"));
                self.report(UnknownAxis { axis, at: name.at, why: "nothing makes it", help });
            }
        }
    }

    fn axes_of_program(&self, model: Option<&Model>) -> BTreeSet<String> {
        let language = [CHOICES, EXPERTS, TOKENS].map(str::to_owned);
        let settings = self.config.iter().map(|entry| entry.name.clone());
        let mut found: BTreeSet<String> = language.into_iter().chain(settings).collect();
        let mut add = |name: &Name| {
            found.insert(name.text.clone());
        };
        for definition in self.definitions.all() {
            definition.axes.iter().for_each(&mut add);
            axes::introduced(&definition.body, &mut add);
        }
        if let Some(model) = model {
            model.inputs.iter().for_each(|input| axes::of_type(&input.ty, &mut add));
            axes::introduced(&model.body, &mut add);
        }
        found
    }
}
