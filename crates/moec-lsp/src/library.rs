//! The standard library as documents that nobody can write to: `moec-std:/norm.moe`.

use std::sync::LazyLock;

use moec_diag::SourceMap;
use moec_syntax::tree::{Definition, DefinitionKind, File, Item};

use crate::document::Document;

/// What the address of a library file begins with.
pub const SCHEME: &str = "moec-std:/";

/// In scope without a `use`.
pub const PRELUDE: &str = "prelude";

pub struct LibraryFile {
    /// `norm` of `std::norm`.
    pub name: &'static str,
    pub document: Document,
    pub tree: File,
}

static FILES: LazyLock<Vec<LibraryFile>> = LazyLock::new(|| {
    let read = |(name, text): (&'static str, &'static str)| {
        let (tree, _) = moec_syntax::parse(&mut SourceMap::default(), name, text);
        LibraryFile { name, document: Document::new(text.to_owned()), tree: tree.unwrap_or_default() }
    };
    moec_sema::library().map(read).collect()
});

pub fn files() -> &'static [LibraryFile] {
    &FILES
}

pub fn file(name: &str) -> Option<&'static LibraryFile> {
    FILES.iter().find(|file| file.name == name)
}

/// The text behind an address of the library.
pub fn text(address: &str) -> Option<&'static str> {
    let name = address.strip_prefix(SCHEME)?.strip_suffix(".moe")?;
    file(name).map(|file| file.document.text.as_str())
}

impl LibraryFile {
    pub fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.tree.items.iter().filter_map(|item| match item {
            Item::Definition(definition) => Some(definition),
            Item::Config(_) | Item::Model(_) | Item::Weights(_) => None,
        })
    }
}

/// `gate best(k, scale = …)`, to show.
pub fn form_of(definition: &Definition) -> String {
    let kind = match definition.kind {
        DefinitionKind::Fn => "fn",
        DefinitionKind::Block => "block",
        DefinitionKind::Expert => "expert",
        DefinitionKind::Gate => "gate",
    };
    match definition.params.is_empty() && definition.axes.is_empty() {
        true => format!("{kind} {}", definition.name.text),
        false => format!("{kind} {}", definition.form()),
    }
}
