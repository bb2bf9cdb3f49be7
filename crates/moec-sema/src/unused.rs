//! Definitions that nothing uses: each is tried with whatever it might be given, and what is wrong with it in every case is
//! reported.
//!
//! What a definition works on is known only where it is used. Sizes that it is not told are [`ANY`] here, arguments of other
//! kinds are left open, and `x` is tried with the axes that the definition speaks of.

use std::{collections::BTreeSet, fmt};

use miette::{Diagnostic, LabeledSpan, Severity};
use moec_diag::Problem;
use moec_syntax::tree::{AxisExpr, Definition, DefinitionKind, ExprKind, Name, Statement, StatementKind};
use moec_types::{Axis, DType, Dim, Size, TensorType};

use crate::{
    evaluator::Evaluator,
    scope::{Bank, BodyKind, DefinitionId, EXPERTS, FileId, Frame, Origin},
    value::{Operand, Part, PartOf, Template, Value},
};

/// A size that was not told: many numbers divide it, and it stands in no file.
const ANY: u64 = 26880;

/// How many forms of `x` are tried.
const MOST_FORMS: usize = 100;

/// Of more axes not all sets are tried: nothing is certain then.
const MOST_AXES: usize = 3;

impl Evaluator {
    /// Reports what is wrong with definitions of the user's files that were not evaluated. Without a model, its `config` is not
    /// known either.
    pub fn check_unused(&mut self, has_model: bool) {
        let unused: Vec<DefinitionId> = self.definitions.own().filter(|id| !self.evaluated.contains(id)).collect();
        for id in unused {
            if self.stopped {
                return;
            }
            let found = self.tried_alone(id).into_iter();
            // A file that several models use may read a `config` that this one has not.
            let knows_settings = has_model && self.definitions.file_of(id) == FileId::USER;
            let found: Vec<Problem> = found.filter(|problem| knows_settings || !may_be_a_setting(problem)).collect();
            found.into_iter().for_each(|problem| self.problems.push(Box::new(Alone { problem })));
        }
    }

    /// The problems that a definition has with the `x` that lets most of it be evaluated; none where it has none with some.
    fn tried_alone(&self, id: DefinitionId) -> Vec<Problem> {
        let definition = self.definitions.get(id).clone();
        if axes_of(&definition).len() > MOST_AXES {
            return Vec::new();
        }
        let mut furthest: Option<(u64, Vec<Problem>)> = None;
        for x in forms(&definition) {
            let mut other = Evaluator::new(self.definitions.clone(), "alone");
            other.config.clone_from(&self.config);
            other.phase = self.phase;
            other.try_with(id, &definition, x.as_ref());
            if other.problems.is_empty() {
                return Vec::new();
            }
            if furthest.as_ref().is_none_or(|(nodes, _)| other.nodes > *nodes) {
                furthest = Some((other.nodes, other.problems.into_vec()));
            }
        }
        let found = furthest.map(|(_, problems)| problems).unwrap_or_default();
        found.into_iter().filter(is_certain).collect()
    }

    fn try_with(&mut self, id: DefinitionId, definition: &Definition, x: Option<&(DType, Vec<Axis>)>) {
        let mut frame = Frame { file: self.definitions.file_of(id), region: self.module.body, ..Frame::of_config() };
        frame.kind = BodyKind::Block;
        let any = |axis: &Axis| Dim::new(axis.clone(), Size::Fixed(ANY));
        for axis in definition.axes.iter().map(|name| Axis::new(&name.text)).chain(axes_of(definition)) {
            frame.dims.insert(axis.clone(), any(&axis));
        }
        let mut arguments = Vec::new();
        let mut scope = frame.clone();
        for param in &definition.params {
            let value = match &param.default {
                Some(default) => self.operand(&mut scope, default).value,
                None if is_size(definition, &param.name) => Value::Int(ANY as i64),
                None => Value::Error,
            };
            scope.bind(&param.name, value.clone(), Origin::Formal);
            arguments.push((param.name.text.clone(), value, param.name.at));
        }
        let axes: Vec<_> = definition.axes.iter().map(|name| (name.text.clone(), Axis::new(&name.text))).collect();
        let value = match x {
            None => Value::Error,
            Some((dtype, axes)) => {
                let tokens = Axis::new("S");
                let mut dims = vec![Dim::new(tokens.clone(), Size::Input(tokens))];
                for axis in axes {
                    let size = self.named_size(&frame, &Name { text: axis.name().to_owned(), at: definition.name.at });
                    dims.push(Dim::new(axis.clone(), Size::Fixed(size.ok().flatten().unwrap_or(ANY))));
                }
                Value::Tensor(self.module.add_arg(frame.region, TensorType::new(*dtype, dims)))
            }
        };
        let at = definition.name.at;
        if definition.kind == DefinitionKind::Fn {
            frame.kind = BodyKind::Fn;
            self.enter(&mut frame, &arguments, &axes);
            self.body(&mut frame, &definition.body, at);
            return;
        }
        let bank = (definition.kind == DefinitionKind::Gate).then(|| {
            let e = Name { text: EXPERTS.to_owned(), at };
            let experts = self.named_size(&frame, &e).ok().flatten().unwrap_or(ANY);
            Bank { experts, at }
        });
        let (kind, name) = (definition.kind, definition.name.text.clone());
        let template = Template { definition: id, kind, name, arguments, axes, experts: None, at };
        let part = Part::new(String::new(), None, None, PartOf::Body).into();
        let (region, x) = (frame.region, Operand { value, at });
        self.run(&mut frame, &part, &template, &x, region, bank, at);
    }
}

/// Whether a problem does not hang on what was only assumed.
fn is_certain(problem: &Problem) -> bool {
    // Of what values there are, which axes are in scope, how long they are, and how much there is to do.
    const UNCERTAIN: [&str; 6] = [
        "moec::sema::failed",
        "moec::sema::not_whole",
        "moec::sema::unknown_axis",
        "moec::sema::split_unclear",
        "moec::sema::gate_and_bank_disagree",
        "moec::sema::too_much_work",
    ];
    let (code, message) = (code_of(problem), problem.to_string());
    // A name with a capital may be an axis of whoever uses it.
    let axis = message.split('`').nth(1).is_some_and(|name| name.starts_with(|c: char| c.is_uppercase()));
    // That an axis is missing is certain, however long the others are.
    let of_sizes = message.contains(&ANY.to_string()) && !message.starts_with("no axis");
    let anothers_axis = code == "moec::sema::unknown_name" && axis;
    !(UNCERTAIN.contains(&code.as_str()) || anothers_axis || of_sizes)
}

/// A name that nothing has, nor anything like it.
fn may_be_a_setting(problem: &Problem) -> bool {
    code_of(problem) == "moec::sema::unknown_name" && problem.help().is_none()
}

fn code_of(problem: &Problem) -> String {
    problem.code().map(|code| code.to_string()).unwrap_or_default()
}

/// What `x` may be: of some of the axes that the definition speaks of; or nothing that is known.
fn forms(definition: &Definition) -> Vec<Option<(DType, Vec<Axis>)>> {
    if definition.kind == DefinitionKind::Fn {
        return vec![None];
    }
    let axes: Vec<Axis> = axes_of(definition).into_iter().collect();
    let mut sets: Vec<Vec<Axis>> = vec![Vec::new()];
    for number in 1..=MOST_AXES {
        let smaller: Vec<Vec<Axis>> = sets.iter().filter(|set| set.len() + 1 == number).cloned().collect();
        for set in smaller {
            let later = axes.iter().filter(|axis| set.last().is_none_or(|last| *axis > last));
            sets.extend(later.map(|axis| set.iter().chain([axis]).cloned().collect::<Vec<_>>()));
        }
    }
    sets.push(axes);
    let of = |dtype: DType| move |set: Vec<Axis>| Some((dtype, set));
    let plain = sets.iter().cloned().map(of(DType::F32)).take(MOST_FORMS);
    plain.chain([Some((DType::I32, Vec::new()))]).collect()
}

/// All names of axes in a definition's text.
fn axes_of(definition: &Definition) -> BTreeSet<Axis> {
    let mut axes: BTreeSet<Axis> = definition.axes.iter().map(|name| Axis::new(&name.text)).collect();
    axes.insert(Axis::new("D"));
    declared(&definition.body, &mut |axis| {
        axes.insert(Axis::new(&axis.name.text));
    });
    axes
}

/// Whether an argument is the size of an axis that is declared.
fn is_size(definition: &Definition, name: &Name) -> bool {
    let mut found = false;
    declared(&definition.body, &mut |axis| {
        found |= match &axis.size {
            None => axis.name.text == name.text,
            Some(size) => matches!(&*size.kind, ExprKind::Name(size) if *size == name.text),
        };
    });
    found
}

fn declared(statements: &[Statement], f: &mut impl FnMut(&AxisExpr)) {
    for statement in statements {
        match &statement.kind {
            StatementKind::Param { axes, .. }
            | StatementKind::Buffer { axes, .. }
            | StatementKind::State { axes, .. } => axes.iter().for_each(&mut *f),
            StatementKind::Layers { body, .. } => declared(body, f),
            StatementKind::Part { .. }
            | StatementKind::Let { .. }
            | StatementKind::Assign { .. }
            | StatementKind::Route { .. }
            | StatementKind::Out { .. }
            | StatementKind::Aux { .. }
            | StatementKind::Trace { .. } => {}
        }
    }
}

/// A problem of a definition that nothing uses: sizes that were assumed are not told.
#[derive(Debug)]
struct Alone {
    problem: Problem,
}

fn told(text: &str) -> String {
    text.replace(&ANY.to_string(), "…")
}

impl fmt::Display for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&told(&self.problem.to_string()))
    }
}

impl std::error::Error for Alone {}

impl Diagnostic for Alone {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.code()
    }

    fn severity(&self) -> Option<Severity> {
        self.problem.severity()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.problem.help()?.to_string();
        Some(Box::new(told(&help)))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let told = |label: LabeledSpan| LabeledSpan::new_with_span(label.label().map(told), *label.inner());
        Some(Box::new(self.problem.labels().into_iter().flatten().map(told)))
    }
}
