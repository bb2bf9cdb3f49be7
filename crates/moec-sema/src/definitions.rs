//! The definitions of all files, and which names each file sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use miette::Diagnostic;
use moec_diag::{Problems, SourceMap, Span};
use moec_syntax::tree::{Definition, File, Item, Name, Text, Use};
use thiserror::Error;

use crate::{
    files::{Files, beside},
    library,
    spelling::{closest, did_you_mean, listed},
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

#[derive(Clone, Debug)]
struct Entry {
    definition: Rc<Definition>,
    file: FileId,
}

/// All definitions of all files, and which names each file sees.
#[derive(Clone, Debug, Default)]
pub(crate) struct Definitions {
    entries: Vec<Entry>,
    files: Vec<Known>,
}

/// What a file sees.
#[derive(Clone, Debug)]
struct Known {
    names: BTreeMap<String, DefinitionId>,
    /// Names that a problem was already reported about: two definitions, or a `use` of nothing.
    unsure: BTreeSet<String>,
    /// It is of the standard library.
    of_library: bool,
}

impl Definitions {
    /// The user's file and every file that it uses, directly or not.
    pub fn load(sources: &mut SourceMap, file: &File, files: &Files, problems: &mut Problems) -> Definitions {
        let name = sources.position(file.at).map(|(name, ..)| name.to_owned()).unwrap_or_default();
        let mut loader = Loader {
            definitions: Definitions::default(),
            library: BTreeMap::new(),
            own: BTreeMap::new(),
            open: Vec::new(),
            files,
            sources,
        };
        loader.add(file, Home::Own(beside("", &name)), problems);
        loader.definitions
    }

    pub fn get(&self, at: DefinitionId) -> &Rc<Definition> {
        &self.entries[at.0].definition
    }

    pub fn file_of(&self, at: DefinitionId) -> FileId {
        self.entries[at.0].file
    }

    pub fn look_up(&self, file: FileId, name: &str) -> Option<DefinitionId> {
        self.files[file.0].names.get(name).copied()
    }

    /// Whether it is a file of the user's, which reads the model's `config`.
    pub fn is_own(&self, file: FileId) -> bool {
        !self.files[file.0].of_library
    }

    /// What is said about this name would follow from what was said already.
    pub fn is_unsure(&self, file: FileId, name: &str) -> bool {
        self.files[file.0].unsure.contains(name)
    }

    pub fn names(&self, file: FileId) -> impl Iterator<Item = &str> {
        self.files[file.0].names.keys().map(String::as_str)
    }

    /// Those of the user's files.
    pub fn own(&self) -> impl Iterator<Item = DefinitionId> {
        self.entries.iter().enumerate().filter(|(_, entry)| self.is_own(entry.file)).map(|(at, _)| DefinitionId(at))
    }

    pub fn all(&self) -> impl Iterator<Item = &Definition> {
        self.entries.iter().map(|entry| &*entry.definition)
    }
}

/// Where a file is from.
enum Home {
    Library,
    /// By the name that it is opened by.
    Own(String),
}

/// A file of the user's that is being read, and the `use` that it was come to by.
struct Opened {
    name: String,
    used_at: Option<Span>,
}

struct Loader<'s> {
    definitions: Definitions,
    library: BTreeMap<&'static str, FileId>,
    /// Files of the user's that were read, or could not be.
    own: BTreeMap<String, Option<FileId>>,
    /// Those that are being read, each used by the one before.
    open: Vec<Opened>,
    files: &'s Files,
    sources: &'s mut SourceMap,
}

impl Loader<'_> {
    fn add(&mut self, file: &File, home: Home, problems: &mut Problems) -> FileId {
        let id = FileId(self.definitions.files.len());
        let of_library = matches!(home, Home::Library);
        self.definitions.files.push(Known { names: BTreeMap::new(), unsure: BTreeSet::new(), of_library });
        if let Home::Own(name) = home
            && self.open.is_empty()
        {
            self.open.push(Opened { name, used_at: None });
        }
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
                self.unsure(id, [definition.name.text.clone()]);
            }
        }
        let mut taken = BTreeMap::new();
        for used in &file.uses {
            match &used.file {
                None => self.of_library(id, used, &own, &mut taken, problems),
                Some(text) => self.of_own(id, used, text, &own, &mut taken, problems),
            }
        }
        let prelude = self.open_library(library::PRELUDE).filter(|prelude| *prelude != id);
        let mut names = prelude.map(|prelude| self.definitions.files[prelude.0].names.clone()).unwrap_or_default();
        names.extend(taken);
        names.extend(own);
        let known = &mut self.definitions.files[id.0];
        names.retain(|name, _| !known.unsure.contains(name));
        known.names = names;
        id
    }

    fn unsure(&mut self, id: FileId, names: impl IntoIterator<Item = String>) {
        self.definitions.files[id.0].unsure.extend(names);
    }

    /// A library file's id, reading it on its first use.
    fn open_library(&mut self, name: &str) -> Option<FileId> {
        let (name, text) = library::library().find(|(known, _)| *known == name)?;
        if let Some(known) = self.library.get(name) {
            return Some(*known);
        }
        self.library.insert(name, FileId(self.definitions.files.len()));
        let (file, found) = moec_syntax::parse(self.sources, &format!("std/{name}.moe"), text);
        assert!(found.is_empty(), "the library file std/{name}.moe does not parse: {found:?}");
        let file = file.expect("a file that parses has a tree");
        let mut problems = Problems::default();
        let id = self.add(&file, Home::Library, &mut problems);
        assert!(problems.is_empty(), "the library file std/{name}.moe is unsound: {problems:?}");
        Some(id)
    }

    /// `use std::norm::rms_norm`
    fn of_library(&mut self, id: FileId, used: &Use, own: &Names, taken: &mut Names, problems: &mut Problems) {
        let names = used.names.iter().map(|name| name.text.clone());
        let file = match &used.path[..] {
            [root, file] if root.text == "std" => file,
            _ => {
                self.unsure(id, names);
                return problems.report(NotInLibrary { at: used.at });
            }
        };
        let Some(opened) = self.open_library(&file.text) else {
            self.unsure(id, names);
            let files: Vec<&str> = library::library().map(|(name, _)| name).collect();
            return problems.report(UnknownLibraryFile {
                name: file.text.clone(),
                at: file.at,
                help: did_you_mean(&file.text, files.iter().copied())
                    .unwrap_or_else(|| format!("the library has {}", listed(files))),
            });
        };
        self.take(id, used, opened, &format!("std::{}", file.text), own, taken, problems);
    }

    /// `use "gates/mine.moe"::best`
    fn of_own(&mut self, id: FileId, used: &Use, text: &Text, own: &Names, taken: &mut Names, problems: &mut Problems) {
        let names = used.names.iter().map(|name| name.text.clone());
        if let Some(within) = used.path.first() {
            self.unsure(id, names);
            return problems.report(WithinAFile { name: within.text.clone(), at: within.at });
        }
        let user = self.open.last().map(|opened| opened.name.clone()).unwrap_or_default();
        let name = beside(&user, &text.text);
        if let Some(first) = self.open.iter().position(|opened| opened.name == name) {
            self.unsure(id, names);
            let chain = self.open[first..].iter().map(|opened| opened.name.as_str()).chain([name.as_str()]);
            let chain = chain.collect::<Vec<_>>().join(" -> ");
            let by = self.open[first + 1..].iter().filter_map(|opened| opened.used_at).collect();
            return problems.report(CyclicUse { chain, at: text.at, by });
        }
        let opened = match self.own.get(&name) {
            Some(known) => *known,
            None => {
                let opened = self.open_own(&name, text, problems);
                self.own.insert(name.clone(), opened);
                opened
            }
        };
        match opened {
            Some(opened) => self.take(id, used, opened, &text.text, own, taken, problems),
            // What was wrong with it has been said.
            None => self.unsure(id, names),
        }
    }

    fn open_own(&mut self, name: &str, text: &Text, problems: &mut Problems) -> Option<FileId> {
        if self.own.len() >= FILES {
            problems.report(TooManyFiles { at: text.at });
            return None;
        }
        let bytes = match self.files.read(name) {
            Ok(bytes) => bytes,
            Err(why) => {
                let near = self.files.near(name);
                let help = did_you_mean(name, near.iter().map(String::as_str));
                problems.report(CannotOpen { name: name.to_owned(), why, at: text.at, help });
                return None;
            }
        };
        let (file, found) = moec_syntax::parse_bytes(self.sources, name, &bytes);
        let sound = found.is_empty();
        problems.append(found);
        let file = file.filter(|_| sound)?;
        self.open.push(Opened { name: name.to_owned(), used_at: Some(text.at) });
        let id = self.add(&file, Home::Own(name.to_owned()), problems);
        self.open.pop();
        Some(id)
    }

    /// Takes what a `use` names from a file, by which it is `called`.
    #[expect(clippy::too_many_arguments, reason = "who takes what from where, and where it goes")]
    fn take(
        &mut self,
        id: FileId,
        used: &Use,
        opened: FileId,
        called: &str,
        own: &Names,
        taken: &mut Names,
        problems: &mut Problems,
    ) {
        let theirs: Names = self.definitions.files[opened.0]
            .names
            .iter()
            .filter(|(_, at)| self.definitions.file_of(**at) == opened)
            .map(|(name, at)| (name.clone(), *at))
            .collect();
        for name in &used.names {
            let Some(at) = theirs.get(&name.text) else {
                let names: Vec<&str> = theirs.keys().map(String::as_str).collect();
                let meant = closest(&name.text, names.iter().copied()).map(str::to_owned);
                self.unsure(id, meant.into_iter().chain([name.text.clone()]));
                // Of a definition that stands there twice, that was said.
                if !self.definitions.is_unsure(opened, &name.text) {
                    problems.report(UnknownInLibrary {
                        name: name.text.clone(),
                        file: called.to_owned(),
                        at: name.at,
                        help: did_you_mean(&name.text, names.iter().copied())
                            .unwrap_or_else(|| format!("`{called}` has {}", listed(names))),
                    });
                }
                continue;
            };
            if let Some(mine) = own.get(&name.text) {
                problems.report(DefinedTwice {
                    name: name.text.clone(),
                    first_at: name.at,
                    second_at: self.definitions.get(*mine).name.at,
                });
            }
            if let Some(other) = taken.insert(name.text.clone(), *at).filter(|other| other != at) {
                problems.report(DefinedTwice {
                    name: name.text.clone(),
                    first_at: self.definitions.get(other).name.at,
                    second_at: self.definitions.get(*at).name.at,
                });
            }
        }
    }
}

type Names = BTreeMap<String, DefinitionId>;

/// Files of the user's that one model may use.
const FILES: usize = 256;

/// No two arguments, and no two axes, under one name.
fn report_formals(definition: &Definition, problems: &mut Problems) {
    let names: Vec<&Name> = definition.params.iter().map(|param| &param.name).chain(&definition.axes).collect();
    for (at, name) in names.iter().enumerate() {
        if let Some(first) = names[..at].iter().find(|first| first.text == name.text) {
            problems.report(FormalTwice { name: name.text.clone(), at: name.at, first_at: first.at });
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
#[error("neither of the standard library nor a file")]
#[diagnostic(
    code(moec::sema::not_in_library),
    help("write `use std::norm::rms_norm`, or name a file of your own: `use \"gates.moe\"::best`")
)]
struct NotInLibrary {
    #[label("not of the form `std::file::name` or `\"file.moe\"::name`")]
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
#[error("`{file}` has no `{name}`")]
#[diagnostic(code(moec::sema::unknown_in_library), help("{help}"))]
struct UnknownInLibrary {
    name: String,
    file: String,
    #[label("not found")]
    at: Span,
    help: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{name}` cannot be opened: {why}")]
#[diagnostic(code(moec::sema::cannot_open))]
struct CannotOpen {
    name: String,
    why: String,
    #[label("used here")]
    at: Span,
    #[help]
    help: Option<String>,
}

#[derive(Debug, Error, Diagnostic)]
#[error("files that use each other: {chain}")]
#[diagnostic(code(moec::sema::cyclic_use), help("put what both need into a third file, which uses neither"))]
struct CyclicUse {
    chain: String,
    #[label("here it begins again")]
    at: Span,
    #[label(collection, "by way of this")]
    by: Vec<Span>,
}

#[derive(Debug, Error, Diagnostic)]
#[error("nothing lies within a file but its definitions")]
#[diagnostic(code(moec::sema::within_a_file), help("write `use \"file.moe\"::name`, or several as `::{{a, b}}`"))]
struct WithinAFile {
    name: String,
    #[label("`{name}` is not looked into")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("more than {FILES} files are used")]
#[diagnostic(code(moec::sema::too_many_files), help("put definitions that belong together into one file"))]
struct TooManyFiles {
    #[label("one too many")]
    at: Span,
}
