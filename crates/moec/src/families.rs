//! The model families that moec brings along: the specs of `examples/families`.

use moec_diag::{SourceMap, Span};
use moec_syntax::tree;

include!(concat!(env!("OUT_DIR"), "/families.rs"));

/// A spec of the collection, parsed. It is the first file of its own source map, so its spans are offsets into `text`.
pub struct Family {
    /// The file's stem.
    pub name: &'static str,
    pub text: &'static str,
    pub tree: tree::File,
    pub sources: SourceMap,
}

/// All families, in the order of their names.
pub fn all() -> impl Iterator<Item = Family> {
    FAMILIES.iter().map(|(name, text)| {
        let mut sources = SourceMap::default();
        let (tree, problems) = moec_syntax::parse(&mut sources, &format!("{name}.moe"), text);
        let tree = tree.filter(|_| problems.is_empty());
        let tree = tree.unwrap_or_else(|| panic!("the built-in family {name} does not parse"));
        Family { name, text, tree, sources }
    })
}

impl Family {
    /// The same, which takes these keys of a config.json as changing nothing.
    pub fn ignoring(mut self, keys: &[String]) -> Self {
        let first = self.tree.items.iter_mut().find_map(|item| match item {
            tree::Item::Config(config) => Some(config),
            tree::Item::Definition(_) | tree::Item::Model(_) | tree::Item::Weights(_) => None,
        });
        if let Some(config) = first {
            config.ignores.extend(keys.iter().map(|key| tree::Text { text: key.clone(), at: Span::NONE }));
        }
        self
    }

    /// Whether a config.json's architecture is one that this spec says it serves.
    pub fn serves(&self, architecture: &str) -> bool {
        self.tree.serves.iter().any(|served| served.text == architecture)
    }
}
