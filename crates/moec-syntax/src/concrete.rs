//! The text as the grammar sees it, every token of it: for tools that keep what a tree forgets (formatting, highlighting).

use pest::iterators::Pair;

pub use crate::grammar::Rule;

/// What the grammar's `file` matches; its leaves are all tokens but `;`, in order. `None` where the grammar does not take
/// the text, so ask [`crate::parse`] first, which also bounds how deep brackets nest.
pub fn read(text: &str) -> Option<Pair<'_, Rule>> {
    crate::grammar::read(Rule::file, text).ok()
}
