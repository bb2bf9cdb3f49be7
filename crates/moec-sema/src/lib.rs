//! Tree to model IR: names resolved, configuration evaluated, calls inlined, every axis checked.
//!
//! Sizes and settings are known when a file is checked, so this is a partial evaluation: what depends only on the
//! configuration happens here, what depends on tensors becomes nodes of the module.

mod bank;
mod body;
mod builtin;
mod call;
mod causality;
mod collect;
mod config;
mod count;
mod definitions;
mod elementwise;
mod evaluator;
mod expression;
mod extra;
mod files;
mod fold;
mod index;
mod iterate;
mod layers;
mod library;
mod list;
mod model;
mod param;
mod part;
mod placement;
mod route;
mod scan;
mod scope;
mod shape;
mod template;
mod unused;
mod value;
mod weights;

use std::fmt;

use miette::Diagnostic;
use moec_diag::{Problems, SourceMap, Span, spelling};
use moec_ir::Module;
use moec_syntax::tree::{Config, File, Item, Model, Weights};
use thiserror::Error;

pub use builtin::primitives;
pub use extra::{Also, Extra, ExtraKind};
pub use files::{Files, Open};
pub use index::{Index, ParamFact};
pub use library::library;
pub use placement::{PlacedPart, Placement};
pub use weights::{Claim, Encoding, Scaling, View, WeightMap};

use definitions::Definitions;
use evaluator::Evaluator;

/// What a file is checked for: `phase(train = a, infer = b)` is one or the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    Train,
    #[default]
    Infer,
}

/// Where configuration values come from (later ones win over the file's own defaults), and what the file is checked for.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// A checkpoint's `config.json`.
    pub config: Option<serde_json::Value>,
    /// `--set NAME=VALUE`, values in the language's own spelling.
    pub overrides: Vec<(String, String)>,
    pub phase: Phase,
    pub also: Also,
    /// A file that has definitions, and nothing else, needs no model: nothing is made of it.
    pub definitions_suffice: bool,
    /// How other files are opened that the file uses.
    pub files: Files,
}

/// A configuration entry after evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub name: String,
    pub value: SettingValue,
    /// The key of `config.json` that supplied it, if one did.
    pub key: Option<String>,
    pub at: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SettingValue {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<SettingValue>),
}

/// In the language's own spelling.
impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingValue::Int(value) => write!(f, "{value}"),
            SettingValue::Float(value) => write!(f, "{value:?}"),
            SettingValue::Bool(value) => write!(f, "{value}"),
            SettingValue::Text(value) => write!(f, "{value:?}"),
            SettingValue::List(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
        }
    }
}

/// A file that is sound.
#[derive(Clone, Debug)]
pub struct Checked {
    pub module: Module,
    /// The file's `weights` section, expanded to one claim for each tensor; `None` where it has none.
    pub weights: Option<WeightMap>,
    pub settings: Vec<Setting>,
    /// The outputs that were asked for beside the model's own; they come after those.
    pub extras: Vec<Extra>,
    pub serves: Vec<String>,
    /// Every part's uses, in the order of the model.
    pub placements: Vec<Placement>,
}

/// Checks a file. `None` whenever a problem was found, or there is no model where none is needed; the problems say all of what is wrong, not only the first thing.
/// Library files that it uses are added to `sources`.
pub fn check(sources: &mut SourceMap, file: &File, settings: &Settings) -> (Option<Checked>, Problems) {
    let (checked, problems, _) = with_stack(sources, file, settings, None);
    (checked, problems)
}

/// As [`check`], and what was learned of each place of the text, whether or not there were problems.
pub fn check_and_index(
    sources: &mut SourceMap,
    file: &File,
    settings: &Settings,
) -> (Option<Checked>, Problems, Index) {
    let (checked, problems, index) = with_stack(sources, file, settings, Some(Index::default()));
    (checked, problems, index.unwrap_or_default())
}

type Found = (Option<Checked>, Problems, Option<Index>);

fn with_stack(sources: &mut SourceMap, file: &File, settings: &Settings, index: Option<Index>) -> Found {
    // Evaluation recurses over expressions and calls; both are bounded, and this holds the bound in any build.
    const STACK_BYTES: usize = 256 << 20;
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("check".to_owned()).stack_size(STACK_BYTES);
        let worker =
            worker.spawn_scoped(scope, || check_here(sources, file, settings, index)).expect("a thread can be started");
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn check_here(sources: &mut SourceMap, file: &File, settings: &Settings, index: Option<Index>) -> Found {
    let mut problems = Problems::default();
    let definitions = Definitions::load(sources, file, &settings.files, &mut problems);
    let sections = Sections::of(file, settings.definitions_suffice, &mut problems);
    let name = sections.model.map_or("model", |model| model.name.text.as_str());
    let mut evaluator = Evaluator::new(definitions, name);
    evaluator.problems = problems;
    evaluator.index = index;
    (evaluator.phase, evaluator.also) = (settings.phase, settings.also);
    evaluator.configure(sources, sections.config.iter().copied(), &file.serves, settings);
    if let Some(model) = sections.model {
        evaluator.model(model);
    }
    evaluator.check_unused(sections.model);
    let Some(model) = sections.model else { return (None, evaluator.problems, evaluator.index) };
    evaluator.note_params();
    if !evaluator.problems.is_empty() {
        return (None, evaluator.problems, evaluator.index);
    }
    let weights = sections.weights.map(|section| evaluator.weights(section, model));
    if !evaluator.problems.is_empty() {
        return (None, evaluator.problems, evaluator.index);
    }
    let checked = Checked {
        settings: config::settings_of(&evaluator.config),
        extras: evaluator.extras,
        module: evaluator.module,
        weights,
        serves: file.serves.iter().map(|served| served.text.clone()).collect(),
        placements: evaluator.placements,
    };
    (Some(checked), evaluator.problems, evaluator.index)
}

/// The parts of a file, of some of which there is one.
struct Sections<'f> {
    config: Vec<&'f Config>,
    model: Option<&'f Model>,
    weights: Option<&'f Weights>,
}

impl<'f> Sections<'f> {
    fn of(file: &'f File, definitions_suffice: bool, problems: &mut Problems) -> Self {
        let mut sections = Sections { config: Vec::new(), model: None, weights: None };
        for item in &file.items {
            match item {
                Item::Config(config) => sections.config.push(config),
                Item::Definition(_) => {}
                Item::Model(model) => match sections.model {
                    None => sections.model = Some(model),
                    Some(first) => problems.report(ModelTwice { at: model.name.at, first_at: first.name.at }),
                },
                Item::Weights(weights) => match sections.weights {
                    None => sections.weights = Some(weights),
                    Some(first) => problems.report(WeightsTwice { at: weights.name.at, first_at: first.name.at }),
                },
            }
        }
        let only_defines = definitions_suffice
            && file.serves.is_empty()
            && !file.items.is_empty()
            && file.items.iter().all(|item| matches!(item, Item::Definition(_) | Item::Config(_)));
        if sections.model.is_none() && !only_defines {
            problems.report(NoModel { at: Span::new(file.at.end, file.at.end) });
        }
        sections
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("this file has no model")]
#[diagnostic(code(moec::sema::no_model), help("add `model name(x: f32[S, D]) {{ … out y: f32[S, D] = … }}`"))]
struct NoModel {
    #[label("the file ends here")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("two models in one file")]
#[diagnostic(code(moec::sema::model_twice), help("put each into a file of its own"))]
struct ModelTwice {
    #[label("again")]
    at: Span,
    #[label("first")]
    first_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("two `weights` sections in one file")]
#[diagnostic(code(moec::sema::weights_twice), help("put all rules into one section"))]
struct WeightsTwice {
    #[label("again")]
    at: Span,
    #[label("first")]
    first_at: Span,
}
