//! Where names are looked up: the definitions of each file, and the frame of the body being evaluated.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use miette::Diagnostic;
use moec_diag::{Problems, SourceMap, Span};
use moec_ir::{Module, RegionId, ValueId};
use moec_syntax::tree::{Definition, File, Item, Name, Use};
use moec_types::{Axis, Dim, TensorType};
use thiserror::Error;

use crate::{
    library,
    spelling::{closest, did_you_mean, listed},
    value::{Part, Value},
};

/// A definition of the user's file or of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DefinitionId(usize);

/// A file of this run; the user's is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId(usize);

impl FileId {
    pub const USER: FileId = FileId(0);
}

#[derive(Debug)]
struct Entry {
    definition: Rc<Definition>,
    file: FileId,
}

/// All definitions of all files, and which names each file sees.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    entries: Vec<Entry>,
    files: Vec<BTreeMap<String, DefinitionId>>,
    /// Names of the user's file that a problem was already reported about: two definitions, or a `use` of nothing.
    unsure: BTreeSet<String>,
}

impl Definitions {
    /// The user's file and every library file that it uses, directly or not.
    pub fn load(sources: &mut SourceMap, file: &File, problems: &mut Problems) -> Definitions {
        let mut loader = Loader { definitions: Definitions::default(), library: BTreeMap::new(), sources };
        loader.add(file, problems);
        loader.definitions
    }

    pub fn get(&self, at: DefinitionId) -> &Rc<Definition> {
        &self.entries[at.0].definition
    }

    pub fn file_of(&self, at: DefinitionId) -> FileId {
        self.entries[at.0].file
    }

    pub fn look_up(&self, file: FileId, name: &str) -> Option<DefinitionId> {
        self.files[file.0].get(name).copied()
    }

    /// What is said about this name would follow from what was said already.
    pub fn is_unsure(&self, file: FileId, name: &str) -> bool {
        file == FileId::USER && self.unsure.contains(name)
    }

    pub fn names(&self, file: FileId) -> impl Iterator<Item = &str> {
        self.files[file.0].keys().map(String::as_str)
    }

    pub fn all(&self) -> impl Iterator<Item = &Definition> {
        self.entries.iter().map(|entry| &*entry.definition)
    }
}

struct Loader<'s> {
    definitions: Definitions,
    library: BTreeMap<&'static str, FileId>,
    sources: &'s mut SourceMap,
}

impl Loader<'_> {
    fn add(&mut self, file: &File, problems: &mut Problems) -> FileId {
        let id = FileId(self.definitions.files.len());
        self.definitions.files.push(BTreeMap::new());
        let mut own = BTreeMap::new();
        for item in &file.items {
            let Item::Definition(definition) = item else { continue };
            let at = DefinitionId(self.definitions.entries.len());
            self.definitions.entries.push(Entry { definition: Rc::new(definition.clone()), file: id });
            report_formals(definition, problems);
            if let Some(first) = own.insert(definition.name.text.clone(), at) {
                problems.report(DefinedTwice {
                    name: definition.name.text.clone(),
                    first_at: self.definitions.get(first).name.at,
                    second_at: definition.name.at,
                });
                self.definitions.unsure.insert(definition.name.text.clone());
            }
        }
        let mut taken = BTreeMap::new();
        for used in &file.uses {
            self.resolve(used, &own, &mut taken, problems);
        }
        if let Some(prelude) = self.open(library::PRELUDE).filter(|prelude| *prelude != id) {
            self.definitions.files[id.0] = self.definitions.files[prelude.0].clone();
        }
        self.definitions.files[id.0].extend(taken);
        self.definitions.files[id.0].extend(own);
        for name in &self.definitions.unsure {
            self.definitions.files[FileId::USER.0].remove(name);
        }
        id
    }

    /// A library file's id, reading it on its first use.
    fn open(&mut self, name: &str) -> Option<FileId> {
        let (name, text) = library::library().find(|(known, _)| *known == name)?;
        if let Some(known) = self.library.get(name) {
            return Some(*known);
        }
        self.library.insert(name, FileId(self.definitions.files.len()));
        let (file, found) = moec_syntax::parse(self.sources, &format!("std/{name}.moe"), text);
        assert!(found.is_empty(), "the library file std/{name}.moe does not parse: {found:?}");
        let file = file.expect("a file that parses has a tree");
        let mut problems = Problems::default();
        let id = self.add(&file, &mut problems);
        assert!(problems.is_empty(), "the library file std/{name}.moe is unsound: {problems:?}");
        Some(id)
    }

    fn resolve(
        &mut self,
        used: &Use,
        own: &BTreeMap<String, DefinitionId>,
        taken: &mut BTreeMap<String, DefinitionId>,
        problems: &mut Problems,
    ) {
        let [root, file] = &used.path[..] else {
            self.definitions.unsure.extend(used.names.iter().map(|name| name.text.clone()));
            return problems.report(NotInLibrary { at: used.at });
        };
        if root.text != "std" {
            self.definitions.unsure.extend(used.names.iter().map(|name| name.text.clone()));
            return problems.report(NotInLibrary { at: used.at });
        }
        let Some(opened) = self.open(&file.text) else {
            self.definitions.unsure.extend(used.names.iter().map(|name| name.text.clone()));
            let files: Vec<&str> = library::library().map(|(name, _)| name).collect();
            return problems.report(UnknownLibraryFile {
                name: file.text.clone(),
                at: file.at,
                help: did_you_mean(&file.text, files.iter().copied())
                    .unwrap_or_else(|| format!("the library has {}", listed(files))),
            });
        };
        let own_of_library: Vec<(String, DefinitionId)> = self.definitions.files[opened.0]
            .iter()
            .filter(|(_, at)| self.definitions.file_of(**at) == opened)
            .map(|(name, at)| (name.clone(), *at))
            .collect();
        for name in &used.names {
            let Some((_, at)) = own_of_library.iter().find(|(known, _)| *known == name.text) else {
                let names: Vec<&str> = own_of_library.iter().map(|(name, _)| name.as_str()).collect();
                let meant = closest(&name.text, names.iter().copied()).map(str::to_owned);
                self.definitions.unsure.extend(meant.into_iter().chain([name.text.clone()]));
                problems.report(UnknownInLibrary {
                    name: name.text.clone(),
                    file: file.text.clone(),
                    at: name.at,
                    help: did_you_mean(&name.text, names.iter().copied())
                        .unwrap_or_else(|| format!("`std::{}` has {}", file.text, listed(names))),
                });
                continue;
            };
            if let Some(mine) = own.get(&name.text) {
                problems.report(DefinedTwice {
                    name: name.text.clone(),
                    first_at: name.at,
                    second_at: self.definitions.get(*mine).name.at,
                });
            }
            taken.insert(name.text.clone(), *at);
        }
    }
}

/// No two arguments, and no two axes, under one name.
fn report_formals(definition: &Definition, problems: &mut Problems) {
    let names: Vec<&Name> = definition.params.iter().map(|param| &param.name).chain(&definition.axes).collect();
    for (at, name) in names.iter().enumerate() {
        if let Some(first) = names[..at].iter().find(|first| first.text == name.text) {
            problems.report(FormalTwice { name: name.text.clone(), at: name.at, first_at: first.at });
        }
    }
}

/// What a body may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyKind {
    Config,
    Fn,
    Block,
    Gate,
    Model,
    Layer,
    Scan,
}

impl BodyKind {
    pub fn name(self) -> &'static str {
        match self {
            BodyKind::Config => "`config`",
            BodyKind::Fn => "a `fn`",
            BodyKind::Block => "a block",
            BodyKind::Gate => "a gate",
            BodyKind::Model => "a model",
            BodyKind::Layer => "layers",
            BodyKind::Scan => "a `scan`",
        }
    }
}

/// How a name came to be, which says whether it may be given a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Let,
    Formal,
    Input,
    Param,
    Part,
    Index,
    State,
    /// A `let` around the `scan` that is being evaluated.
    Around,
}

impl Origin {
    pub fn name(self) -> &'static str {
        match self {
            Origin::Let => "a `let`",
            Origin::Formal => "an argument",
            Origin::Input => "an input",
            Origin::Param => "a parameter",
            Origin::Part => "a part",
            Origin::Index => "the number of the layer",
            Origin::State => "a state",
            Origin::Around => "a value of around this `scan`",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub name: String,
    pub value: Value,
    pub origin: Origin,
    pub at: Span,
}

/// The axis of the experts of a bank, known in its gate.
pub(crate) const EXPERTS: &str = "E";
/// What a gate calls the axis of the tokens that choose, whatever it is called outside.
pub(crate) const TOKENS: &str = "Token";

/// The bank that a gate chooses from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bank {
    pub experts: u64,
    pub at: Span,
}

/// What a body gets for the parameters that it declares.
#[derive(Clone, Debug)]
pub(crate) enum Parameters {
    /// Its own instance.
    Own,
    /// Those of all experts of its bank's member, along this axis.
    Stacked(Axis),
    /// Those of all experts as one, each weighed by its place along the axis.
    Merged { weights: (ValueId, Span), axis: Axis },
}

impl Parameters {
    /// The axes that every parameter has besides those that it declares: a product sums over none of them unless it says so.
    pub fn aligned(&self, module: &Module) -> Vec<Axis> {
        match self {
            Parameters::Own => Vec::new(),
            Parameters::Stacked(axis) => vec![axis.clone()],
            Parameters::Merged { weights, axis } => {
                module.tensor(weights.0).axes().filter(|other| *other != axis).cloned().collect()
            }
        }
    }
}

/// The body being evaluated: its names, the axes it knows, and where its nodes and parameters go.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub file: FileId,
    pub kind: BodyKind,
    pub names: Vec<Bound>,
    /// Formal axes and what the caller calls them.
    pub aliases: Vec<(String, Axis)>,
    /// Every axis seen so far, by name, as the latest value had it.
    pub dims: BTreeMap<Axis, Dim>,
    /// The axes of this body's inputs and parameters, as they were first declared.
    pub declared: BTreeMap<Axis, Dim>,
    /// Axes whose size could not be told, which was reported.
    pub unsure: BTreeSet<Axis>,
    /// The names that this body introduces somewhere.
    pub declares: Rc<[Name]>,
    pub region: RegionId,
    pub part: Rc<Part>,
    pub bank: Option<Bank>,
    pub params: Parameters,
    /// The body's input, in blocks, experts and gates.
    pub x: Option<Value>,
}

impl Frame {
    /// Where configuration values are evaluated: nothing is in scope but what the file and the library define.
    pub fn of_config() -> Self {
        Frame {
            file: FileId::USER,
            kind: BodyKind::Config,
            names: Vec::new(),
            aliases: Vec::new(),
            dims: Default::default(),
            declared: Default::default(),
            unsure: Default::default(),
            declares: Default::default(),
            region: RegionId(0),
            part: Part::model(),
            bank: None,
            params: Parameters::Own,
            x: None,
        }
    }

    pub fn bound(&self, name: &str) -> Option<&Bound> {
        self.names.iter().rfind(|bound| bound.name == name)
    }

    pub fn bind(&mut self, name: &Name, value: Value, origin: Origin) {
        self.names.push(Bound { name: name.text.clone(), value, origin, at: name.at });
    }

    /// The axis that a name stands for here.
    pub fn axis(&self, name: &str) -> Axis {
        let alias = self.aliases.iter().find(|(formal, _)| formal == name);
        alias.map_or_else(|| Axis::new(name), |(_, axis)| axis.clone())
    }

    /// Remembers the axes of a value.
    pub fn note(&mut self, ty: &TensorType) {
        for dim in &ty.dims {
            self.dims.insert(dim.axis.clone(), dim.clone());
        }
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` is defined twice")]
#[diagnostic(code(moec::sema::defined_twice), help("give one of them another name"))]
struct DefinedTwice {
    name: String,
    #[label("here")]
    first_at: Span,
    #[label("and here")]
    second_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("two arguments named `{name}`")]
#[diagnostic(code(moec::sema::formal_twice), help("give one of them another name"))]
struct FormalTwice {
    name: String,
    #[label("again")]
    at: Span,
    #[label("first")]
    first_at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("only the standard library can be used")]
#[diagnostic(
    code(moec::sema::not_in_library),
    help("write `use std::norm::rms_norm`, or put the definition into this file")
)]
struct NotInLibrary {
    #[label("not of the form `std::file::name`")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("the standard library has no file `{name}`")]
#[diagnostic(code(moec::sema::unknown_library_file), help("{help}"))]
struct UnknownLibraryFile {
    name: String,
    #[label("not found")]
    at: Span,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`std::{file}` has no `{name}`")]
#[diagnostic(code(moec::sema::unknown_in_library), help("{help}"))]
struct UnknownInLibrary {
    name: String,
    file: String,
    #[label("not found")]
    at: Span,
    help: String,
}
