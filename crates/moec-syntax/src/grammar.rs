//! The parser that pest makes from the grammar file, and where it stopped.

use pest::Parser;
use pest::error::{ErrorVariant, InputLocation};
use pest::iterators::Pair;

#[derive(pest_derive::Parser)]
#[grammar = "../../../grammar/moe.pest"]
struct MoeParser;

/// Where a text leaves the grammar, and what could have stood there.
pub struct Stop {
    /// Offset in the text given.
    pub at: u32,
    /// In the order of the attempts, each once.
    pub expected: Vec<Rule>,
}

/// Reads the whole text as one `rule`, which must be one that ends in `EOI`.
pub fn read(rule: Rule, text: &str) -> Result<Pair<'_, Rule>, Stop> {
    let error = match MoeParser::parse(rule, text) {
        Ok(mut pairs) => return pairs.next().ok_or(Stop { at: 0, expected: Vec::new() }),
        Err(error) => error,
    };
    let at = match error.location {
        InputLocation::Pos(at) | InputLocation::Span((at, _)) => at as u32,
    };
    let attempts = match error.variant {
        ErrorVariant::ParsingError { positives, .. } => positives,
        ErrorVariant::CustomError { .. } => Vec::new(),
    };
    let mut expected: Vec<Rule> = Vec::new();
    for rule in attempts {
        if !expected.contains(&rule) {
            expected.push(rule);
        }
    }
    Err(Stop { at, expected })
}
