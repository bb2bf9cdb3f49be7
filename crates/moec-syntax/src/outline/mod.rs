//! Tokens to regions and segments: where each item and each statement stands, found by brackets and words alone.
//!
//! Before:  one syntax error, and the grammar knows nothing of the rest of the file
//! After:   the region of each item and the segments of its body, so that what is broken can be left out and the rest read
//!
//! Bracket problems are found here, because only here is it known which statement should have closed what.
//! A sound file is cut exactly at its items; guessing (by indentation) starts when braces do not match.

mod brackets;
mod found;
mod outliner;
mod segments;

use crate::findings::Findings;
use crate::scan::Scan;
use outliner::{Guess, Outliner};

pub use outliner::{ITEM_WORDS, STATEMENT_WORDS};

/// The text of one item, or of something that stands where an item should.
#[derive(Debug)]
pub struct Region {
    pub start: u32,
    pub end: u32,
    pub shape: Shape,
    /// In the order of the text; a `layers` statement comes before the statements inside it.
    pub segments: Vec<Segment>,
    /// A problem outside the segments was reported: the item itself cannot be read.
    pub broken: bool,
    /// The body's closing brace is missing.
    pub unclosed: bool,
}

/// What stands between an item's braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Statements,
    Settings,
    Rules,
    /// An item without a body, or no item at all.
    Bare,
}

/// A statement, configuration entry or weight rule; of a `layers` statement, only its head.
#[derive(Debug)]
pub struct Segment {
    pub start: u32,
    /// For `layers`, just after its opening brace.
    pub end: u32,
    /// The end with all that is inside.
    pub whole_end: u32,
    /// The `layers` statement that this one is in.
    pub parent: Option<usize>,
    /// It opens a body.
    pub opens: bool,
    /// The body's closing brace is missing.
    pub unclosed: bool,
    /// A problem in it was reported.
    pub broken: bool,
}

/// More brackets inside one another than this are refused: reading them takes stack.
pub const MOST_NESTED: usize = 64;

pub fn outline(text: &str, scan: &Scan, findings: &mut Findings) -> Vec<Region> {
    let strict = Outliner::new(text, scan, Guess::Never).run();
    let outliner = if strict.braces_match { strict } else { Outliner::new(text, scan, Guess::ByIndent).run() };
    for found in &outliner.problems {
        found.report(text, findings);
    }
    outliner.regions
}

/// Reports the bracket and character problems of a text that is one expression; says whether there were none.
pub fn expression_is_sound(text: &str, scan: &Scan, findings: &mut Findings) -> bool {
    let outliner = Outliner::new(text, scan, Guess::Never).expression().run();
    for found in &outliner.problems {
        found.report(text, findings);
    }
    outliner.problems.is_empty()
}
