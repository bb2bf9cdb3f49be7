//! What could be typed next.
//!
//! The line being typed is seldom well formed, so the place is read from the words before it, and the names from what was
//! understood of the rest.

use std::collections::BTreeMap;

use lsp_types::{CompletionItem, CompletionItemKind, Documentation, Position, Range, TextEdit};
use moec_syntax::tree::{Definition, DefinitionKind};

use crate::{
    analysis::Analysis,
    hover::headline,
    library,
    names::{Home, Symbol, SymbolKind},
};

/// Words that can never be names.
pub const RESERVED: [&str; 24] = [
    "param", "buffer", "part", "state", "let", "route", "out", "aux", "trace", "layers", "iterate", "if", "else",
    "moe", "bank", "scan", "true", "false", "or", "and", "not", "in", "over", "as",
];

const ITEMS: [&str; 9] = ["serves", "use", "config", "fn", "block", "expert", "gate", "model", "weights"];
const STATEMENTS: [&str; 10] = ["param", "buffer", "part", "state", "let", "route", "out", "aux", "trace", "layers"];
const CLAUSES: [&str; 3] = ["gate", "experts", "always"];
const VALUES: [&str; 10] = ["if", "else", "moe", "bank", "scan", "iterate", "true", "false", "inf", "not"];
const INPUTS: [&str; 3] = ["f32", "i32", "bool"];

pub fn completions(analysis: &Analysis, position: Position) -> Vec<CompletionItem> {
    let offset = analysis.document.offset(position);
    let Some(words) = Words::before(&analysis.document.text[..offset]) else { return Vec::new() };
    match place(&words) {
        Place::Nothing => Vec::new(),
        Place::Item => keywords(&ITEMS),
        Place::Entry => keywords(&["require", "ignore"]),
        Place::Clause => keywords(&CLAUSES),
        Place::Statement => {
            let mut items = keywords(&STATEMENTS);
            let assigned = |symbol: &&Symbol| matches!(symbol.kind, SymbolKind::State | SymbolKind::Let);
            let lets = in_scope(analysis, offset).into_iter().filter(assigned);
            items.extend(lets.map(|symbol| item(analysis, symbol)));
            items
        }
        Place::Head => keywords(&["across"]),
        Place::Type => keywords(&INPUTS),
        Place::Field => keywords(&["values", "indices"]),
        Place::Rule => {
            let mut items = keywords(&["ignore", "scaled"]);
            let paths = analysis.index.params.iter().map(|param| (param.path.clone(), param.ty.to_string()));
            let paths: BTreeMap<String, String> = paths.collect();
            items.extend(paths.into_iter().map(|(path, ty)| plain(path, CompletionItemKind::FIELD, ty)));
            items
        }
        Place::Axis => axes(analysis, offset),
        Place::Library => vec![plain("std".to_owned(), CompletionItemKind::MODULE, String::new())],
        Place::LibraryFile => {
            let files = library::files().iter().filter(|file| file.name != library::PRELUDE);
            files.map(|file| plain(file.name.to_owned(), CompletionItemKind::MODULE, String::new())).collect()
        }
        Place::LibraryName(file) => {
            let definitions = library::file(&file).into_iter().flat_map(|file| file.definitions());
            definitions.map(|definition| of_library(definition, None)).collect()
        }
        Place::Gate => definitions(analysis, offset, &[DefinitionKind::Gate]),
        Place::Expert => definitions(analysis, offset, &[DefinitionKind::Expert, DefinitionKind::Block]),
        Place::Value => {
            let mut items: Vec<_> =
                in_scope(analysis, offset).into_iter().map(|symbol| item(analysis, symbol)).collect();
            items.extend(not_yet_used(analysis, &ALL));
            items.extend(moec_sema::primitives().map(|(name, form)| {
                plain(name.to_owned(), CompletionItemKind::FUNCTION, form.replace("` or `", ", "))
            }));
            items.push(plain("x".to_owned(), CompletionItemKind::VARIABLE, "what comes in".to_owned()));
            items.extend(keywords(&VALUES));
            items
        }
    }
}

const ALL: [DefinitionKind; 4] =
    [DefinitionKind::Fn, DefinitionKind::Block, DefinitionKind::Expert, DefinitionKind::Gate];

/// The kind of thing that fits where the cursor is.
enum Place {
    /// In a comment or a string, or where something new is named.
    Nothing,
    Item,
    Entry,
    Statement,
    Clause,
    Rule,
    Type,
    Field,
    Axis,
    /// Between a model's inputs and its body.
    Head,
    Gate,
    Expert,
    /// `std`, that is.
    Library,
    LibraryFile,
    LibraryName(String),
    Value,
}

/// What the innermost brace holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    File,
    Config,
    Body,
    Moe,
    Bank,
    Weights,
    Names,
    Value,
}

fn place(words: &Words) -> Place {
    let last = |back: usize| words.all.len().checked_sub(back + 1).map_or("", |at| words.all[at].as_str());
    let inside = words.inside();
    match (last(0), last(1), last(2), last(3)) {
        ("use", _, _, _) => return Place::Library,
        ("::", "std", "use", _) => return Place::LibraryFile,
        ("::", file, "::", "std") => return Place::LibraryName(file.to_owned()),
        (".", _, _, _) if inside != Inside::Weights => return Place::Field,
        ("over" | "as", _, _, _) | ("across", ")", _, _) => return Place::Axis,
        ("(", "over" | "as", _, _) => return Place::Axis,
        ("[", "as", _, _) => return Place::Axis,
        (":", _, _, _) => return Place::Type,
        ("gate", _, _, _) if inside == Inside::Moe => return Place::Gate,
        ("experts" | "always", _, _, _) if inside == Inside::Moe => return Place::Expert,
        ("param" | "buffer" | "state" | "part" | "let" | "aux" | "trace" | "layers", _, _, _) => return Place::Nothing,
        (word, _, _, _) if inside == Inside::File && ITEMS.contains(&word) => return Place::Nothing,
        _ => {}
    }
    if inside == Inside::Names {
        let file = words.open.last().and_then(|&brace| words.all.get(brace.checked_sub(2)?));
        return Place::LibraryName(file.cloned().unwrap_or_default());
    }
    if last(0) == "," && words.after_over() {
        return Place::Axis;
    }
    if words.after_inputs() {
        return Place::Head;
    }
    if words.at_brace_level && words.begins {
        return match inside {
            Inside::File => Place::Item,
            Inside::Config => Place::Entry,
            Inside::Body => Place::Statement,
            Inside::Moe => Place::Clause,
            Inside::Bank => Place::Expert,
            Inside::Weights => Place::Rule,
            Inside::Names | Inside::Value => Place::Value,
        };
    }
    match inside {
        Inside::Weights => Place::Nothing,
        Inside::Moe | Inside::Bank if words.at_brace_level && last(0) == "," => Place::Expert,
        Inside::File | Inside::Config | Inside::Body | Inside::Moe | Inside::Bank | Inside::Names | Inside::Value => {
            Place::Value
        }
    }
}

/// The words and marks before the cursor, without the word that is being typed.
struct Words {
    all: Vec<String>,
    /// Brackets that are open there.
    open: Vec<usize>,
    /// The innermost open bracket is a brace, or there is none.
    at_brace_level: bool,
    /// A statement could begin here.
    begins: bool,
}

impl Words {
    /// `None` in a comment or a string.
    fn before(text: &str) -> Option<Words> {
        let mut words = Words { all: Vec::new(), open: Vec::new(), at_brace_level: true, begins: true };
        let mut rest = text;
        let (mut newline, mut touching) = (true, false);
        while let Some(c) = rest.chars().next() {
            let length = match c {
                _ if rest.starts_with("//") => {
                    touching = false;
                    rest.find('\n')?
                }
                '"' => {
                    touching = false;
                    let end = string_end(rest)?;
                    words.all.push("\"".to_owned());
                    newline = false;
                    end
                }
                _ if c.is_whitespace() => {
                    newline |= c == '\n';
                    touching = false;
                    c.len_utf8()
                }
                _ if is_word(c) => {
                    let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                    touching = length == rest.len();
                    words.all.push(rest[..length].to_owned());
                    if !touching {
                        newline = false;
                    }
                    length
                }
                _ => {
                    touching = false;
                    newline = false;
                    let length = if rest.starts_with("::") { 2 } else { c.len_utf8() };
                    words.mark(&rest[..length]);
                    length
                }
            };
            rest = &rest[length..];
        }
        if touching {
            words.all.pop();
        }
        words.at_brace_level = words.open.last().is_none_or(|&at| words.all[at] == "{");
        let last = words.all.last().map_or("", String::as_str);
        // What ends so goes on in the next line.
        let unfinished = ["=", ",", "(", "[", "+", "-", "*", "/", "%", "·", "@", "^", "<", ">", "|", ".", "×"];
        let goes_on = unfinished.contains(&last) || RESERVED.contains(&last);
        words.begins = last == "{" || last == ";" || last.is_empty() || newline && !goes_on;
        Some(words)
    }

    fn mark(&mut self, mark: &str) {
        match mark {
            "(" | "[" | "{" => self.open.push(self.all.len()),
            ")" | "]" | "}" => {
                self.open.pop();
            }
            _ => {}
        }
        self.all.push(mark.to_owned());
    }

    fn inside(&self) -> Inside {
        let Some(depth) = self.open.iter().rposition(|&at| self.all[at] == "{") else { return Inside::File };
        let brace = self.open[depth];
        let before = |back: usize| brace.checked_sub(back).map_or("", |at| self.all[at].as_str());
        match (before(1), before(2)) {
            ("config", _) => Inside::Config,
            ("moe", _) => Inside::Moe,
            ("bank", _) => Inside::Bank,
            ("::", _) => Inside::Names,
            (_, "weights") if depth == 0 => Inside::Weights,
            _ => {
                let around = depth.checked_sub(1).map_or(0, |around| self.open[around]);
                // The last word that a brace can belong to.
                let owners = ["layers", "scan", "if", "else", "fn", "block", "expert", "gate", "model"];
                let owner = self.all[around..brace].iter().rfind(|word| owners.contains(&word.as_str()));
                if owner.is_some_and(|owner| ["if", "else"].contains(&owner.as_str())) {
                    Inside::Value
                } else {
                    Inside::Body
                }
            }
        }
    }

    /// Behind the `)` of `model name(…)`.
    fn after_inputs(&self) -> bool {
        let opened = self.all.iter().rposition(|word| word == "(").and_then(|at| at.checked_sub(2));
        self.open.is_empty()
            && self.all.last().is_some_and(|word| word == ")")
            && opened.is_some_and(|at| self.all[at] == "model")
    }

    /// Only names and commas stand between here and an `over`.
    fn after_over(&self) -> bool {
        let mut back = self.all.iter().rev();
        back.find(|word| *word != "," && (RESERVED.contains(&word.as_str()) || !word.starts_with(is_word)))
            .is_some_and(|word| word == "over")
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Where the string at the start ends; `None` where it does not.
fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            // An open string reaches to the end of its line.
            '\n' => return Some(at),
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Every name that can be used at an offset, an inner one instead of an outer one of the same spelling.
fn in_scope(analysis: &Analysis, offset: usize) -> Vec<&Symbol> {
    let mut found: BTreeMap<&str, &Symbol> = BTreeMap::new();
    for symbol in &analysis.names.symbols {
        let inside = symbol.scope.is_none_or(|at| at.start as usize <= offset && offset <= at.end as usize);
        let later = match symbol.home {
            Home::Here(at) => symbol.scope.is_some() && at.start as usize >= offset,
            Home::Library { .. } => false,
        };
        if inside && !later && symbol.kind != SymbolKind::Model {
            found.insert(&symbol.name, symbol);
        }
    }
    found.into_values().collect()
}

fn axes(analysis: &Analysis, offset: usize) -> Vec<CompletionItem> {
    // Any name may be an axis; those that are come first.
    let is_axis = |symbol: &Symbol| match symbol.kind {
        SymbolKind::Axis | SymbolKind::FormalAxis => true,
        SymbolKind::Setting | SymbolKind::Formal => {
            analysis.names.uses.iter().any(|used| used.axis && analysis.names.symbols[used.symbol].name == symbol.name)
        }
        SymbolKind::Definition(_)
        | SymbolKind::Model
        | SymbolKind::Input
        | SymbolKind::Param
        | SymbolKind::Part
        | SymbolKind::State
        | SymbolKind::Let
        | SymbolKind::Layer => false,
    };
    let found = in_scope(analysis, offset).into_iter().filter(|symbol| is_axis(symbol));
    found.map(|symbol| item(analysis, symbol)).collect()
}

fn definitions(analysis: &Analysis, offset: usize, kinds: &[DefinitionKind]) -> Vec<CompletionItem> {
    let fits = |symbol: &&Symbol| matches!(symbol.kind, SymbolKind::Definition(kind) if kinds.contains(&kind));
    let found = in_scope(analysis, offset).into_iter().filter(fits);
    found.map(|symbol| item(analysis, symbol)).chain(not_yet_used(analysis, kinds)).collect()
}

/// Definitions of the library that a `use` would bring; choosing one adds it.
fn not_yet_used(analysis: &Analysis, kinds: &[DefinitionKind]) -> Vec<CompletionItem> {
    let known = |name: &str| analysis.names.symbols.iter().any(|symbol| symbol.scope.is_none() && symbol.name == name);
    let mut items = Vec::new();
    for file in library::files() {
        for definition in file.definitions() {
            if kinds.contains(&definition.kind) && !known(&definition.name.text) {
                let edit = use_edit(analysis, file.name, &definition.name.text);
                items.push(of_library(definition, Some((file.name, edit))));
            }
        }
    }
    items
}

/// A `use` line after those that are there, else before the first item.
fn use_edit(analysis: &Analysis, file: &str, name: &str) -> TextEdit {
    let line = format!("use std::{file}::{name}");
    let last = analysis.tree.uses.iter().map(|used| used.at.end).max();
    let (offset, new_text) = match last {
        Some(end) => (end as usize, format!("\n{line}")),
        None => {
            let text = &analysis.document.text;
            let head = |line: &&str| line.starts_with("//!") || line.starts_with("serves") || line.trim().is_empty();
            let head: usize = text.split_inclusive('\n').take_while(head).map(str::len).sum();
            (head, format!("{line}\n\n"))
        }
    };
    let at = analysis.document.position(offset);
    TextEdit { range: Range { start: at, end: at }, new_text }
}

fn of_library(definition: &Definition, used: Option<(&str, TextEdit)>) -> CompletionItem {
    let form = library::form_of(definition);
    let mut item = plain(definition.name.text.clone(), definition_kind(definition.kind), form);
    item.documentation = documentation(&definition.doc);
    if let Some((file, edit)) = used {
        item.detail = item.detail.map(|form| format!("{form}  (use std::{file})"));
        item.additional_text_edits = Some(vec![edit]);
        // After what is in scope.
        item.sort_text = Some(format!("~{}", item.label));
    }
    item
}

fn item(analysis: &Analysis, symbol: &Symbol) -> CompletionItem {
    let kind = match symbol.kind {
        SymbolKind::Setting => CompletionItemKind::CONSTANT,
        SymbolKind::Definition(kind) => definition_kind(kind),
        SymbolKind::Model => CompletionItemKind::MODULE,
        SymbolKind::Input | SymbolKind::Formal | SymbolKind::State | SymbolKind::Let | SymbolKind::Layer => {
            CompletionItemKind::VARIABLE
        }
        SymbolKind::FormalAxis | SymbolKind::Axis => CompletionItemKind::TYPE_PARAMETER,
        SymbolKind::Param => CompletionItemKind::FIELD,
        SymbolKind::Part => CompletionItemKind::METHOD,
    };
    let known = match symbol.home {
        Home::Here(at) => analysis.index.at(at).first(),
        Home::Library { .. } => None,
    };
    let detail = match known {
        Some(known) => format!("{}: {known}", headline(symbol)),
        None => headline(symbol),
    };
    CompletionItem { documentation: documentation(&symbol.doc), ..plain(symbol.name.clone(), kind, detail) }
}

fn definition_kind(kind: DefinitionKind) -> CompletionItemKind {
    match kind {
        DefinitionKind::Fn => CompletionItemKind::FUNCTION,
        DefinitionKind::Block | DefinitionKind::Expert | DefinitionKind::Gate => CompletionItemKind::CLASS,
    }
}

fn documentation(doc: &[String]) -> Option<Documentation> {
    (!doc.is_empty()).then(|| Documentation::String(doc.join("\n")))
}

fn keywords(words: &[&str]) -> Vec<CompletionItem> {
    words.iter().map(|word| plain((*word).to_owned(), CompletionItemKind::KEYWORD, String::new())).collect()
}

fn plain(label: String, kind: CompletionItemKind, detail: String) -> CompletionItem {
    let detail = (!detail.is_empty()).then_some(detail);
    CompletionItem { label, kind: Some(kind), detail, ..CompletionItem::default() }
}
