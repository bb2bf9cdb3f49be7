//! Calls: arguments meet parameters, functions are inlined, blocks get their arguments bound.

use std::rc::Rc;

use miette::Diagnostic;
use moec_diag::Span;
use moec_syntax::tree::{Argument, AxisExpr, Definition, DefinitionKind, Name};
use moec_types::{Axis, Dim};
use thiserror::Error;

use crate::{
    builtin,
    definitions::DefinitionId,
    evaluator::{Call, Evaluator, limits},
    scope::{Bank, BodyKind, EXPERTS, Frame, Origin},
    spelling::{did_you_mean, listed},
    value::{Operand, Template, Value, kind_name},
};

/// Arguments after evaluation.
pub(crate) struct Arguments {
    pub positional: Vec<Operand>,
    pub named: Vec<(Name, Operand)>,
    pub regroups: Vec<Regroup>,
    pub over: Vec<Name>,
    /// All of the call.
    pub at: Span,
}

/// `Head as (KV, Rep = 4)`
pub(crate) struct Regroup {
    pub from: Vec<Name>,
    pub to: Vec<AxisExpr>,
    pub at: Span,
}

impl Arguments {
    /// How many of what, for a message: `2 values over no axis`, where one is wanted.
    pub fn counted(&self, wants_axis: bool) -> String {
        let some = |count: usize, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        };
        let given: Vec<String> = [
            some(self.positional.len(), "value", "values"),
            some(self.named.len(), "named value", "named values"),
            some(self.regroups.len(), "`… as …`", "`… as …`"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let given = if given.is_empty() { "nothing".to_owned() } else { given.join(" and ") };
        match some(self.over.len(), "axis", "axes") {
            Some(over) => format!("{given} over {over}"),
            None if wants_axis => format!("{given} over no axis"),
            None => given,
        }
    }

    pub fn none(at: Span) -> Arguments {
        Arguments { positional: Vec::new(), named: Vec::new(), regroups: Vec::new(), over: Vec::new(), at }
    }
}

/// What a definition was given.
struct Bindings {
    arguments: Vec<(String, Value, Span)>,
    axes: Vec<(String, Axis)>,
    experts: Option<Bank>,
}

impl Evaluator {
    pub fn call(
        &mut self,
        frame: &mut Frame,
        function: &Name,
        arguments: &[Argument],
        over: &[Name],
        at: Span,
    ) -> Value {
        let local = frame.bound(&function.text).map(|bound| bound.value.clone());
        let defined = self.definitions.look_up(frame.file, &function.text);
        if local.is_none() && defined.is_none() && function.text == "size" {
            return self.size_of_axis(frame, arguments, at);
        }
        if local.is_none() && defined.is_none() && function.text == "phase" {
            return self.of_phase(frame, arguments, over, at);
        }
        let mut given = Arguments { over: over.to_vec(), ..Arguments::none(at) };
        for argument in arguments {
            match argument {
                Argument::Value(expr) => given.positional.push(self.operand(frame, expr)),
                Argument::Named(name, expr) => given.named.push((name.clone(), self.operand(frame, expr))),
                Argument::Regroup { from, to, at } => {
                    given.regroups.push(Regroup { from: from.clone(), to: to.clone(), at: *at });
                }
            }
        }
        match local {
            Some(Value::Error) => return Value::Error,
            Some(Value::Function(definition)) => return self.call_definition(frame, definition, given, at),
            Some(Value::Part(part)) => return self.call_part(frame, &part, given, function, at),
            Some(Value::Template(template)) => {
                let name = function.text.clone();
                return self.fail(NotAPart { name, kind: kind_name(template.kind), at: function.at });
            }
            Some(Value::Bank(_)) => {
                let name = function.text.clone();
                return self.fail(NotAPart { name, kind: "bank", at: function.at });
            }
            Some(Value::Moe(_)) => {
                let name = function.text.clone();
                return self.fail(NotAPart { name, kind: "`moe` layer", at: function.at });
            }
            Some(_) | None => {}
        }
        if let Some(definition) = defined {
            return self.call_definition(frame, definition, given, at);
        }
        if let Some(result) = self.call_builtin(frame, &function.text, given, at) {
            return result;
        }
        match local {
            Some(value) => {
                let found = value.describe(&self.module);
                let help = match value {
                    Value::Tensor(_) => {
                        format!("to multiply, write `{} * …`; a part of it is `{0}[D = 0]`", function.text)
                    }
                    _ => "functions and parts are called".to_owned(),
                };
                self.fail(NotCallable { name: function.text.clone(), found, at: function.at, help })
            }
            None => {
                let functions = self.definitions.names(frame.file).chain(builtin::names());
                let parts =
                    frame.names.iter().filter(|bound| bound.origin == Origin::Part).map(|bound| bound.name.as_str());
                let near = did_you_mean(&function.text, functions.chain(parts));
                self.unknown_name(frame, &function.text, function.at, near)
            }
        }
    }

    /// A function's result, or a block with its arguments.
    pub fn call_definition(&mut self, frame: &mut Frame, id: DefinitionId, given: Arguments, at: Span) -> Value {
        let definition = self.definitions.get(id).clone();
        if self.calls.len() >= limits::CALLS {
            let repeated = self.calls.iter().filter(|call| call.definition == id).count();
            if repeated > 1 {
                let name = definition.name.text.clone();
                self.report(Recursion { name, at, defined_at: definition.name.at });
            } else {
                self.report(TooDeep { at });
            }
            self.stopped = true;
            return Value::Error;
        }
        self.calls.push(Call { definition: id, from: frame.file, at });
        let result = self.call_bound(frame, id, &definition, given, at);
        self.calls.pop();
        result
    }

    fn call_bound(
        &mut self,
        frame: &mut Frame,
        id: DefinitionId,
        definition: &Rc<Definition>,
        given: Arguments,
        at: Span,
    ) -> Value {
        let Some(bindings) = self.bind(frame, id, definition, given) else { return Value::Error };
        match definition.kind {
            DefinitionKind::Fn => {
                if bindings.arguments.iter().any(|(_, value, _)| value.is_error()) {
                    return Value::Error;
                }
                self.evaluated.insert(id);
                let mut body = Frame { kind: BodyKind::Fn, x: None, names: Vec::new(), ..frame.clone() };
                body.file = self.definitions.file_of(id);
                self.note_settings(frame, &mut body, &bindings.axes);
                self.note_arguments(&mut body, &bindings);
                self.enter(&mut body, &bindings.arguments, &bindings.axes);
                self.note_formals(&body, definition);
                let result = self.body(&mut body, &definition.body, definition.name.at);
                if let Some(ty) = result.tensor_type(&self.module) {
                    frame.note(ty);
                }
                result
            }
            DefinitionKind::Block | DefinitionKind::Expert | DefinitionKind::Gate => {
                if bindings.arguments.iter().any(|(_, value, _)| value.is_error()) {
                    return Value::Error;
                }
                Value::Template(Rc::new(Template {
                    definition: id,
                    kind: definition.kind,
                    name: definition.name.text.clone(),
                    arguments: bindings.arguments,
                    axes: bindings.axes,
                    experts: bindings.experts,
                    at,
                }))
            }
        }
    }

    /// An axis that the caller names, and that no value has had yet, is as long as the setting of its name.
    fn note_settings(&self, caller: &Frame, body: &mut Frame, axes: &[(String, Axis)]) {
        for (_, axis) in axes.iter().filter(|(_, axis)| !caller.dims.contains_key(axis)) {
            if let Some(Value::Int(size)) = self.setting(caller, axis.name())
                && (1..=limits::AXIS as i64).contains(&size)
            {
                body.dims.insert(axis.clone(), Dim::fixed(axis.name(), size as u64));
            }
        }
    }

    /// The axes that a function is told are as long as its arguments have them (the first, should they differ), whatever
    /// other values had axes of these names.
    fn note_arguments(&self, body: &mut Frame, bindings: &Bindings) {
        for (_, value, _) in bindings.arguments.iter().rev() {
            let ty = value.tensor_type(&self.module);
            for dim in ty.into_iter().flat_map(|ty| &ty.dims) {
                if bindings.axes.iter().any(|(_, axis)| *axis == dim.axis) {
                    body.dims.insert(dim.axis.clone(), dim.clone());
                }
            }
        }
    }

    /// Binds a definition's parameters and axes in the frame of its body.
    pub fn enter(&mut self, body: &mut Frame, arguments: &[(String, Value, Span)], axes: &[(String, Axis)]) {
        for (name, value, at) in arguments {
            body.bind(&Name { text: name.clone(), at: *at }, value.clone(), Origin::Formal);
        }
        body.aliases = axes.to_vec();
    }

    fn bind(&mut self, frame: &Frame, id: DefinitionId, definition: &Definition, given: Arguments) -> Option<Bindings> {
        let name = &definition.name.text;
        let mut sound = true;
        if let Some(regroup) = given.regroups.first() {
            self.report(UnexpectedRegroup { name: name.clone(), at: regroup.at });
            sound = false;
        }
        let wanted = definition.params.len();
        if let Some(extra) = given.positional.get(wanted) {
            self.report(TooManyArguments {
                name: name.clone(),
                form: definition.form(),
                takes: match wanted {
                    0 => "no arguments".to_owned(),
                    1 => "one argument".to_owned(),
                    many => format!("{many} arguments"),
                },
                found: given.positional.len(),
                at: extra.at,
            });
            sound = false;
        }
        let mut values: Vec<Option<Operand>> = given.positional.into_iter().map(Some).take(wanted).collect();
        values.resize_with(wanted, || None);
        let mut experts = None;
        for (argument, operand) in given.named {
            if definition.kind == DefinitionKind::Gate
                && argument.text == EXPERTS
                && !definition.params.iter().any(|param| param.name.text == EXPERTS)
            {
                let at = operand.at;
                if let Some(Bank { at: first_at, .. }) = experts {
                    self.report(GivenTwice { argument: argument.text, at: argument.at, first_at });
                    sound = false;
                    continue;
                }
                match self.size(&operand, "the number of experts") {
                    Some(count) => experts = Some(Bank { experts: count, at }),
                    None => sound = false,
                }
                continue;
            }
            match definition.params.iter().position(|param| param.name.text == argument.text) {
                Some(at) if values[at].is_none() => values[at] = Some(operand),
                Some(at) => {
                    let first_at = values[at].as_ref().map_or(argument.at, |value| value.at);
                    self.report(GivenTwice { argument: argument.text, at: argument.at, first_at });
                    sound = false;
                }
                None => {
                    let names: Vec<&str> = definition.params.iter().map(|param| param.name.text.as_str()).collect();
                    let help =
                        did_you_mean(&argument.text, names).unwrap_or_else(|| format!("it is `{}`", definition.form()));
                    self.report(UnknownArgument { name: name.clone(), argument: argument.text, at: argument.at, help });
                    sound = false;
                }
            }
        }
        let missing: Vec<&str> = definition
            .params
            .iter()
            .zip(&values)
            .filter(|(param, value)| param.default.is_none() && value.is_none())
            .map(|(param, _)| param.name.text.as_str())
            .collect();
        if sound && !missing.is_empty() {
            let missing = listed(missing);
            self.report(MissingArguments { name: name.clone(), missing, form: definition.form(), at: given.at });
            sound = false;
        }
        // An axis may be missing because what has it is.
        if values.iter().flatten().any(|value| value.value.is_error()) {
            return None;
        }
        let axes = self.bind_axes(frame, definition, &given.over, given.at)?;
        if !sound {
            return None;
        }
        // Defaults may speak of the parameters before them.
        let mut scope = Frame { kind: BodyKind::Fn, x: None, names: Vec::new(), ..frame.clone() };
        scope.file = self.definitions.file_of(id);
        scope.aliases = axes.clone();
        let mut arguments = Vec::new();
        for (param, value) in definition.params.iter().zip(values) {
            let operand = match (value, &param.default) {
                (Some(operand), _) => operand,
                (None, Some(default)) => self.operand(&mut scope, default),
                (None, None) => return None,
            };
            scope.bind(&param.name, operand.value.clone(), Origin::Formal);
            arguments.push((param.name.text.clone(), operand.value, operand.at));
        }
        Some(Bindings { arguments, axes, experts })
    }

    /// Axes are given in order; one that is not given keeps its own name, if the caller knows an axis of that name.
    fn bind_axes(
        &mut self,
        frame: &Frame,
        definition: &Definition,
        over: &[Name],
        at: Span,
    ) -> Option<Vec<(String, Axis)>> {
        let name = &definition.name.text;
        if over.len() > definition.axes.len() {
            let extra = over[definition.axes.len()].at;
            let form = definition.form();
            let takes = match definition.axes.len() {
                0 => "no axis".to_owned(),
                1 => "one axis".to_owned(),
                many => format!("{many} axes"),
            };
            self.report(TooManyAxes { name: name.clone(), takes, form, at: extra });
            return None;
        }
        let mut axes = Vec::new();
        for (number, formal) in definition.axes.iter().enumerate() {
            let axis = match over.get(number) {
                Some(given) => frame.axis(&given.text),
                None if self.alone.is_some() || frame.dims.contains_key(&Axis::new(&formal.text)) => {
                    Axis::new(&formal.text)
                }
                None => {
                    let form = definition.form();
                    self.report(MissingAxis { name: name.clone(), axis: formal.text.clone(), form, at });
                    return None;
                }
            };
            axes.push((formal.text.clone(), axis));
        }
        Some(axes)
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` is a {kind}, not yet a part")]
#[diagnostic(
    code(moec::sema::not_a_part),
    help("a part is an instance with its own parameters: `part p = {name}`, then `p(x)`")
)]
struct NotAPart {
    name: String,
    kind: &'static str,
    #[label("called here")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` cannot be called")]
#[diagnostic(code(moec::sema::not_callable), help("{help}"))]
struct NotCallable {
    name: String,
    found: String,
    #[label("this is {found}")]
    at: Span,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` is made of itself")]
#[diagnostic(
    code(moec::sema::recursion),
    help("definitions are inlined, so none may use itself, not even through others")
)]
struct Recursion {
    name: String,
    #[label("used within itself")]
    at: Span,
    #[label("defined here")]
    defined_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("calls are nested more than {} deep", limits::CALLS)]
#[diagnostic(code(moec::sema::too_deep), help("call fewer functions within each other"))]
pub(crate) struct TooDeep {
    #[label("here")]
    pub at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` takes no `… as …`")]
#[diagnostic(code(moec::sema::unexpected_regroup), help("`split`, `merge`, `rename` and `past` do"))]
struct UnexpectedRegroup {
    name: String,
    #[label("not wanted here")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` takes {takes}, and is given {found}")]
#[diagnostic(code(moec::sema::too_many_arguments), help("it is `{form}`"))]
struct TooManyArguments {
    name: String,
    form: String,
    takes: String,
    found: usize,
    #[label("one too many")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{argument}` is given twice")]
#[diagnostic(code(moec::sema::given_twice), help("drop one of them"))]
struct GivenTwice {
    argument: String,
    #[label("again")]
    at: Span,
    #[label("first")]
    first_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` has no argument `{argument}`")]
#[diagnostic(code(moec::sema::unknown_argument), help("{help}"))]
struct UnknownArgument {
    name: String,
    argument: String,
    #[label("not found")]
    at: Span,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` is not given {missing}")]
#[diagnostic(code(moec::sema::missing_arguments), help("it is `{form}`"))]
struct MissingArguments {
    name: String,
    missing: String,
    form: String,
    #[label("{missing} missing")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` takes {takes}")]
#[diagnostic(code(moec::sema::too_many_axes), help("it is `{form}`"))]
struct TooManyAxes {
    name: String,
    takes: String,
    form: String,
    #[label("one too many")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` must be told its axis `{axis}`")]
#[diagnostic(code(moec::sema::missing_axis), help("it is `{form}`: name the axis with `over`"))]
struct MissingAxis {
    name: String,
    axis: String,
    form: String,
    #[label("no axis given, and nothing here has an axis `{axis}`")]
    at: Span,
}
