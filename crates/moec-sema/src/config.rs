//! The `config` section: each entry's default, what a checkpoint's `config.json` says, what the command line says.

mod unread;

use miette::Diagnostic;
use moec_diag::{SourceMap, Span};
use moec_syntax::tree::{Config, Text};
use serde_json::Value as Json;
use thiserror::Error;

use crate::{
    Setting, SettingValue, Settings,
    evaluator::Evaluator,
    scope::Frame,
    spelling::{did_you_mean, listed},
    value::{Value, equal},
};

/// An entry after evaluation.
#[derive(Clone, Debug)]
pub(crate) struct ConfigEntry {
    pub name: String,
    pub value: Value,
    /// The key of `config.json` that supplied it.
    pub key: Option<String>,
    pub at: Span,
}

impl Evaluator {
    /// Evaluates all entries in order: each may use those before it.
    pub fn configure<'t>(
        &mut self,
        sources: &mut SourceMap,
        sections: impl Iterator<Item = &'t Config> + Clone,
        serves: &[Text],
        settings: &Settings,
    ) {
        let json = self.config_json(settings, serves);
        let overrides = self.overrides(sources, settings);
        let mut frame = Frame::of_config();
        frame.declares =
            sections.clone().flat_map(|section| &section.entries).map(|entry| entry.name.clone()).collect();
        let insides: Vec<&str> =
            sections.clone().filter_map(|section| section.inside.as_ref()).map(|inside| inside.text.as_str()).collect();
        for entry in sections.clone().flat_map(|section| &section.entries) {
            let name = &entry.name.text;
            if let Some(first) = self.config.iter().find(|known| known.name == *name) {
                let first_at = first.at;
                self.report(EntryTwice { name: name.clone(), at: entry.name.at, first_at });
                continue;
            }
            let given = entry.keys.iter().find_map(|key| Some((key, look_up_inside(json?, &insides, &key.text)?)));
            let overridden = overrides.iter().rfind(|(known, _)| known == name);
            // A default that is not needed may be impossible: `D / H` where the file says `head_dim`.
            self.muted = given.is_some() || overridden.is_some();
            let default = self.operand(&mut frame, &entry.default);
            let default = self.settled(&mut frame, default).value;
            self.muted = false;
            let (value, key) = match (overridden, given) {
                (Some((_, value)), _) => (self.accept_override(name, &default, value.clone(), entry.name.at), None),
                (None, Some((key, found))) => {
                    let value = self.accept_json(&default, key, found, entry.default.at);
                    (value, Some(key.text.clone()))
                }
                (None, None) => (default, None),
            };
            let fits = matches!(
                value,
                Value::Error | Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Text(_) | Value::List(_)
            );
            let value = if fits {
                value
            } else {
                let found = value.describe(&self.module);
                self.fail(NotASetting { name: name.clone(), found, at: entry.default.at })
            };
            self.note(entry.name.at, &value);
            self.config.push(ConfigEntry { name: name.clone(), value, key, at: entry.name.at });
        }
        for (name, _) in &overrides {
            if !self.config.iter().any(|entry| entry.name == *name) {
                let names: Vec<&str> = self.config.iter().map(|entry| entry.name.as_str()).collect();
                let help = did_you_mean(name, names.iter().copied()).unwrap_or_else(|| {
                    if names.is_empty() {
                        "this file has no `config`".into()
                    } else {
                        format!("the entries are {}", listed(names))
                    }
                });
                self.report(UnknownOverride { name: name.clone(), help });
            }
        }
        if let (Some(json), [first, ..]) = (json, serves) {
            self.unread_keys(json, sections.clone(), first);
        }
        for require in sections.flat_map(|section| &section.requires) {
            let wanted = self.eval(&mut frame, &require.value);
            let Some(found) = json.and_then(|json| look_up_inside(json, &insides, &require.key.text)) else { continue };
            let same = match (&wanted, from_json(found)) {
                (Value::Error, _) => true,
                (wanted, Some(found)) => equal(wanted, &found),
                (_, None) => false,
            };
            if !same {
                let (key, found) = (require.key.text.clone(), shown(found));
                self.report(Unsupported { key, found, wanted: wanted.spelled(), at: require.at });
            }
        }
    }

    /// The checkpoint's configuration, if it is one, and is meant for this file.
    fn config_json<'s>(&mut self, settings: &'s Settings, serves: &[Text]) -> Option<&'s Json> {
        let json = settings.config.as_ref()?;
        if !json.is_object() {
            self.report(NotAnObject { found: shown(json) });
            return None;
        }
        let architectures: Vec<&str> =
            json.get("architectures").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
        let served = serves.iter().any(|served| architectures.contains(&served.text.as_str()));
        if let (false, Some(first), [served, ..]) = (served, architectures.first(), serves) {
            let names: Vec<&str> = serves.iter().map(|served| served.text.as_str()).collect();
            self.report(NotServed { architecture: (*first).to_owned(), served: listed(names), at: served.at });
        }
        Some(json)
    }

    fn overrides(&mut self, sources: &mut SourceMap, settings: &Settings) -> Vec<(String, Value)> {
        let mut values = Vec::new();
        for (name, text) in &settings.overrides {
            let (expr, problems) = moec_syntax::parse_expr(sources, &format!("--set {name}"), text);
            let sound = problems.is_empty();
            self.problems.append(problems);
            let Some(expr) = expr.filter(|_| sound) else { continue };
            let mut frame = Frame::of_config();
            let value = self.eval(&mut frame, &expr);
            values.push((name.clone(), value));
        }
        values
    }

    fn accept_override(&mut self, name: &str, default: &Value, value: Value, at: Span) -> Value {
        match fit(default, &value) {
            Some(value) => value,
            None if value.is_error() => Value::Error,
            None => {
                let (name, found) = (name.to_owned(), value.spelled());
                self.fail(OverrideKind { name, found, wants: kind(default), at })
            }
        }
    }

    fn accept_json(&mut self, default: &Value, key: &Text, found: &Json, default_at: Span) -> Value {
        match from_json(found).and_then(|value| fit(default, &value)) {
            Some(value) => value,
            None => {
                let (key_name, found) = (key.text.clone(), shown(found));
                self.fail(ConfigKind { key: key_name, found, wants: kind(default), at: key.at, default_at })
            }
        }
    }
}

/// The entries for the outside.
pub(crate) fn settings_of(config: &[ConfigEntry]) -> Vec<Setting> {
    let value_of = |entry: &ConfigEntry| setting_value(&entry.value);
    config
        .iter()
        .filter_map(|entry| {
            Some(Setting { name: entry.name.clone(), value: value_of(entry)?, key: entry.key.clone(), at: entry.at })
        })
        .collect()
}

pub(crate) fn setting_value(value: &Value) -> Option<SettingValue> {
    match value {
        Value::Int(value) => Some(SettingValue::Int(*value)),
        Value::Float(value) => Some(SettingValue::Float(*value)),
        Value::Bool(value) => Some(SettingValue::Bool(*value)),
        Value::Text(value) => Some(SettingValue::Text(value.to_string())),
        Value::List(items) => items.iter().map(setting_value).collect::<Option<_>>().map(SettingValue::List),
        Value::Error
        | Value::Count(_)
        | Value::Nothing
        | Value::Tuple(_)
        | Value::Tensor(_)
        | Value::Route(_)
        | Value::Shape(_)
        | Value::Function(_)
        | Value::Template(_)
        | Value::Moe(_)
        | Value::Bank(_)
        | Value::Part(_) => None,
    }
}

/// In the nested object that describes this model, if there is one, else in the whole.
fn look_up_inside<'j>(json: &'j Json, insides: &[&str], path: &str) -> Option<&'j Json> {
    let nested = insides.iter().filter_map(|inside| json.get(inside));
    nested.chain([json]).find_map(|json| look_up(json, path))
}

/// `rope_parameters.rope_theta` looks inside objects; `null` counts as not there.
fn look_up<'j>(json: &'j Json, path: &str) -> Option<&'j Json> {
    path.split('.').try_fold(json, |json, key| json.get(key)).filter(|found| !found.is_null())
}

fn from_json(json: &Json) -> Option<Value> {
    match json {
        Json::Null | Json::Object(_) => None,
        Json::Bool(value) => Some(Value::Bool(*value)),
        Json::Number(number) => number.as_i64().map(Value::Int).or_else(|| number.as_f64().map(Value::Float)),
        // What the language cannot spell is no text in it.
        Json::String(text) if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')) => None,
        Json::String(text) => Some(Value::text(text)),
        Json::Array(items) => {
            items.iter().map(from_json).collect::<Option<Vec<_>>>().map(|items| Value::List(items.into()))
        }
    }
}

/// The value as the kind that the default has (any, where it has none); integers may stand for floats.
fn fit(default: &Value, value: &Value) -> Option<Value> {
    match (default, value) {
        (Value::Error, value) => Some(value.clone()),
        (Value::Float(_), Value::Int(value)) => Some(Value::Float(*value as f64)),
        (Value::Int(_), Value::Int(_))
        | (Value::Float(_), Value::Float(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Text(_), Value::Text(_)) => Some(value.clone()),
        (Value::List(defaults), Value::List(items)) => match defaults.first() {
            Some(first) => items
                .iter()
                .map(|item| fit(first, item))
                .collect::<Option<Vec<_>>>()
                .map(|items| Value::List(items.into())),
            None => Some(value.clone()),
        },
        _ => None,
    }
}

fn kind(default: &Value) -> &'static str {
    match default {
        Value::Int(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Bool(_) => "true or false",
        Value::Text(_) => "a text",
        Value::List(_) => "a list",
        Value::Error
        | Value::Count(_)
        | Value::Nothing
        | Value::Tuple(_)
        | Value::Tensor(_)
        | Value::Route(_)
        | Value::Shape(_)
        | Value::Function(_)
        | Value::Template(_)
        | Value::Moe(_)
        | Value::Bank(_)
        | Value::Part(_) => "a number, a text, true or false, or a list",
    }
}

/// JSON for a message, short.
fn shown(json: &Json) -> String {
    const LONGEST: usize = 60;
    let text = json.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("two `config` entries named `{name}`")]
#[diagnostic(code(moec::sema::entry_twice), help("give one of them another name"))]
struct EntryTwice {
    name: String,
    #[label("again")]
    at: Span,
    #[label("first")]
    first_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the default of `{name}` cannot be {found}")]
#[diagnostic(code(moec::sema::not_a_setting), help("a setting is a number, a text, true or false, or a list of those"))]
struct NotASetting {
    name: String,
    found: String,
    #[label("this is {found}")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("config.json has {found} for \"{key}\", wanted is {wants}")]
#[diagnostic(
    code(moec::sema::config_kind),
    help("the default says what kind a setting is: mend the default here, or the value there")
)]
struct ConfigKind {
    key: String,
    found: String,
    wants: &'static str,
    #[label("read from here")]
    at: Span,
    #[label("{wants}, by its default")]
    default_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`--set {name}={found}`, wanted is {wants}")]
#[diagnostic(code(moec::sema::override_kind), help("the default says what kind a setting is: give one of that kind"))]
struct OverrideKind {
    name: String,
    found: String,
    wants: &'static str,
    #[label("{wants}, by its default")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`--set {name}=…` names no `config` entry")]
#[diagnostic(code(moec::sema::unknown_override), help("{help}"))]
struct UnknownOverride {
    name: String,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("config.json has {found} for \"{key}\", which this file does not cover")]
#[diagnostic(
    code(moec::sema::require),
    help("this file is right for {wanted} only; a copy of it can be changed for {found}")
)]
struct Unsupported {
    key: String,
    found: String,
    wanted: String,
    #[label("requires {wanted}")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("config.json is not an object but {found}")]
#[diagnostic(code(moec::sema::not_an_object), help("a configuration is `{{ \"hidden_size\": 2048, … }}`"))]
struct NotAnObject {
    found: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("config.json is of `{architecture}`")]
#[diagnostic(
    code(moec::sema::not_served),
    help("take the file that serves `{architecture}`, or add it to `serves` if the mathematics is the same")
)]
struct NotServed {
    architecture: String,
    served: String,
    #[label("this file serves {served}")]
    at: Span,
}
