//! The state of a check, and what every part of it does: report, count the work, append a node.

use std::collections::{BTreeMap, BTreeSet};

use miette::{Diagnostic, LabeledSpan, Severity, SourceCode};
use moec_diag::{Problem, Problems, Span};
use moec_ir::{Module, Op, ParamId, TypeError, ValueId};
use moec_syntax::tree::DefinitionKind;
use moec_types::Axis;
use thiserror::Error;

use crate::{
    Phase,
    config::ConfigEntry,
    definitions::{DefinitionId, Definitions, FileId},
    extra::{Also, Extra, Found},
    index::Index,
    placement::Placement,
    scope::Frame,
    unused::Alone,
    value::{Operand, Value},
};

/// How much a file may ask for, so that a hostile one ends in a problem and not in a hang.
pub(crate) mod limits {
    /// Nodes made, those of layers that turn out to be alike included.
    pub const NODES: u64 = 500_000;
    /// Expressions evaluated.
    pub const STEPS: u64 = 2_000_000;
    /// Calls within calls.
    pub const CALLS: usize = 64;
    /// Problems after which a check gives up.
    pub const PROBLEMS: usize = 200;
    /// Steps of one `iterate`.
    pub const ITERATIONS: i64 = 1024;
    pub const LAYERS: u64 = 100_000;
    pub const AXIS: u64 = 1 << 32;
    pub const EXPERTS: u64 = 1 << 20;
    pub const CLAIMS: u64 = 4_000_000;
}

/// A call that is being evaluated.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub definition: DefinitionId,
    pub from: FileId,
    pub at: Span,
}

/// A parameter that stands for another one (`param head[V, D] = if tied { table }`).
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub path: String,
    pub layer: Option<u32>,
    pub param: ParamId,
}

/// The axis that indices were chosen from.
#[derive(Clone, Debug)]
pub(crate) struct ChosenFrom {
    pub axis: Axis,
    pub size: u64,
    pub at: Span,
}

pub(crate) struct Evaluator {
    pub definitions: Definitions,
    pub config: Vec<ConfigEntry>,
    pub phase: Phase,
    pub also: Also,
    /// What is given on request, where it was found; and as outputs, once it is given.
    pub found: Vec<Found>,
    pub extras: Vec<Extra>,
    pub module: Module,
    pub problems: Problems,
    /// What was reported, so that a body evaluated for each of 64 layers complains once.
    reported: BTreeSet<(String, Vec<(usize, usize)>)>,
    pub calls: Vec<Call>,
    /// Definitions whose bodies were evaluated.
    pub evaluated: BTreeSet<DefinitionId>,
    pub placements: Vec<Placement>,
    pub shared: Vec<Shared>,
    /// The outputs so far, and where they stand.
    pub outputs_at: Vec<(String, Span)>,
    pub chosen_from: BTreeMap<ValueId, ChosenFrom>,
    /// What is learned of the text, where an editor wants to know.
    pub index: Option<Index>,
    /// Problems are not wanted: what they would be about may not be needed.
    pub muted: bool,
    /// A definition is evaluated that nothing uses: what only a use could tell is not known, and of that nothing is said.
    pub alone: Option<Alone>,
    pub steps: u64,
    pub nodes: u64,
    /// Work has run out: everything from here on is silent.
    pub stopped: bool,
}

impl Evaluator {
    pub fn new(definitions: Definitions, name: &str) -> Self {
        Evaluator {
            definitions,
            config: Vec::new(),
            phase: Phase::Infer,
            also: Also::default(),
            found: Vec::new(),
            extras: Vec::new(),
            module: Module::new(name),
            problems: Problems::default(),
            reported: BTreeSet::new(),
            calls: Vec::new(),
            evaluated: BTreeSet::new(),
            placements: Vec::new(),
            shared: Vec::new(),
            outputs_at: Vec::new(),
            chosen_from: BTreeMap::new(),
            index: None,
            muted: false,
            alone: None,
            steps: 0,
            nodes: 0,
            stopped: false,
        }
    }

    /// Reports a problem once; where it lies in a function or in the library, the user's call is shown as well.
    pub fn report(&mut self, problem: impl Diagnostic + Send + Sync + 'static) {
        if self.stopped || self.muted {
            return;
        }
        let library_call = self.calls.iter().rposition(|call| self.definitions.is_own(call.from));
        let outside = match library_call {
            Some(at) => {
                let definition = self.calls[at].definition;
                let inlined = self.definitions.get(definition).kind == DefinitionKind::Fn;
                (inlined || !self.definitions.is_own(self.definitions.file_of(definition))).then(|| &self.calls[at])
            }
            None => None,
        };
        let problem: Problem = match outside {
            Some(call) => Box::new(InCall {
                problem: Box::new(problem),
                called_at: call.at,
                name: self.definitions.get(call.definition).name.text.clone(),
            }),
            None => Box::new(problem),
        };
        let code = problem.code().map(|code| code.to_string()).unwrap_or_default();
        let places = problem.labels().into_iter().flatten().map(|label| (label.offset(), label.len())).collect();
        if self.reported.insert((code, places)) {
            self.problems.push(problem);
        }
        if self.problems.len() >= limits::PROBLEMS {
            self.stopped = true;
        }
    }

    /// Reports and gives the value that keeps what follows silent.
    pub fn fail(&mut self, problem: impl Diagnostic + Send + Sync + 'static) -> Value {
        self.report(problem);
        Value::Error
    }

    /// Counts a step of work; `false` once there was too much.
    pub fn step(&mut self, at: Span) -> bool {
        self.steps += 1;
        if self.steps > limits::STEPS || self.nodes > limits::NODES {
            self.report(TooMuchWork { at });
            self.stopped = true;
        }
        !self.stopped
    }

    /// Appends a node. Operands come with the text that they stand for, which a type error points at.
    pub fn emit(
        &mut self,
        frame: &mut Frame,
        op: impl Into<Op>,
        operands: &[(ValueId, Span)],
        at: Span,
    ) -> Option<Vec<ValueId>> {
        if !self.step(at) {
            return None;
        }
        self.nodes += 1;
        let values = operands.iter().map(|(value, _)| *value).collect();
        match self.module.append(frame.region, op, values, at) {
            Ok(results) => {
                for result in &results {
                    if let Some(ty) = self.module.ty(*result).tensor() {
                        frame.note(ty);
                    }
                }
                Some(results)
            }
            Err(error) => {
                self.report(Mismatch::new(error, operands, at));
                None
            }
        }
    }

    /// [`Evaluator::emit`] for ops with one result.
    pub fn emit1(&mut self, frame: &mut Frame, op: impl Into<Op>, operands: &[(ValueId, Span)], at: Span) -> Value {
        match self.emit(frame, op, operands, at).as_deref() {
            Some([result]) => Value::Tensor(*result),
            Some(_) | None => Value::Error,
        }
    }

    /// The operand as a tensor; a problem (or silence) where it is something else.
    pub fn tensor(&mut self, operand: &Operand, who: &str) -> Option<(ValueId, Span)> {
        match &operand.value {
            Value::Tensor(value) => Some((*value, operand.at)),
            Value::Error => None,
            other => {
                let found = other.describe(&self.module);
                let help = match other {
                    Value::Tuple(items) if items.iter().all(|(name, _)| name.is_some()) => {
                        let fields: Vec<String> =
                            items.iter().filter_map(|(name, _)| Some(format!("`.{}`", (*name)?))).collect();
                        Some(format!("take one of its values: {}", fields.join(" or ")))
                    }
                    Value::Tuple(_) => Some("take it apart: `let (a, b) = …`".to_owned()),
                    Value::Part(_) => Some("a part gives a tensor once it is called: `part(x)`".to_owned()),
                    Value::Function(_) => Some("a function gives a value once it is called".to_owned()),
                    _ => None,
                };
                self.report(WrongKind { who: who.to_owned(), wants: "a tensor", found, at: operand.at, help });
                None
            }
        }
    }

    pub fn int(&mut self, operand: &Operand, who: &str) -> Option<i64> {
        match &operand.value {
            Value::Int(value) => Some(*value),
            Value::Error => None,
            Value::Count(fraction) if fraction.of.is_none() => {
                self.not_whole(fraction);
                None
            }
            other => {
                let found = other.describe(&self.module);
                let help = match other {
                    Value::Tensor(_) | Value::Count(_) => {
                        Some("it must be known when the file is checked: a number or a `config` entry".to_owned())
                    }
                    Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => {
                        Some(format!("write `{value:.0}`"))
                    }
                    _ => None,
                };
                self.report(WrongKind { who: who.to_owned(), wants: "an integer", found, at: operand.at, help });
                None
            }
        }
    }
}

/// A problem within a function or the library, together with the call that led there.
#[derive(Debug)]
struct InCall {
    problem: Problem,
    called_at: Span,
    name: String,
}

impl std::fmt::Display for InCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for InCall {}

impl Diagnostic for InCall {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.problem.code()
    }

    fn severity(&self) -> Option<Severity> {
        self.problem.severity()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.problem.help()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.problem.source_code()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let call = LabeledSpan::new_with_span(Some(format!("in this use of `{}`", self.name)), self.called_at);
        let own: Vec<LabeledSpan> = self.problem.labels().into_iter().flatten().collect();
        // An argument at fault is already shown within the call.
        let shown = own.iter().any(|label| {
            label.offset() >= self.called_at.start as usize
                && label.offset() + label.len() <= self.called_at.end as usize
        });
        Some(Box::new(own.into_iter().chain((!shown).then_some(call))))
    }
}

/// Operands that do not fit an operation, as the op itself explains it.
#[derive(Debug, Error)]
#[error("{}", error.message)]
pub(crate) struct Mismatch {
    error: TypeError,
    labels: Vec<(Span, String)>,
}

impl Mismatch {
    pub fn new(error: TypeError, operands: &[(ValueId, Span)], at: Span) -> Self {
        let mut labels: Vec<(Span, String)> = Vec::new();
        for (operand, text) in &error.labels {
            let place = operands.get(*operand).map_or(at, |(_, at)| *at);
            if !labels.iter().any(|(known, told)| *known == place && told == text) {
                labels.push((place, text.clone()));
            }
        }
        if labels.is_empty() {
            labels.push((at, "here".to_owned()));
        }
        Mismatch { error, labels }
    }
}

impl Diagnostic for Mismatch {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new("moec::sema::mismatch"))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.error.help.as_ref().map(|help| Box::new(help) as Box<dyn std::fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().map(|(at, text)| LabeledSpan::new_with_span(Some(text.clone()), *at))))
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("{who} wants {wants}, found {found}")]
#[diagnostic(code(moec::sema::wrong_kind))]
pub(crate) struct WrongKind {
    pub who: String,
    pub wants: &'static str,
    pub found: String,
    #[label("this is {found}")]
    pub at: Span,
    #[help]
    pub help: Option<String>,
}

#[derive(Debug, Error, Diagnostic)]
#[error("this file asks for too much work to be checked")]
#[diagnostic(
    code(moec::sema::too_much_work),
    help(
        "at most {} expressions and {} operations are evaluated, layers and calls multiplied out",
        limits::STEPS,
        limits::NODES
    )
)]
struct TooMuchWork {
    #[label("given up here")]
    at: Span,
}
