//! What each name is, for colours. Words, numbers and strings are the text's own grammar's business.

use lsp_types::{SemanticToken, SemanticTokenModifier, SemanticTokenType};
use moec_syntax::tree::DefinitionKind;

use crate::{
    analysis::Analysis,
    names::{Home, SymbolKind},
};

/// The kinds of names, by their numbers in the answer.
pub const LEGEND: [SemanticTokenType; 8] = [
    SemanticTokenType::FUNCTION,
    SemanticTokenType::CLASS,
    SemanticTokenType::PARAMETER,
    SemanticTokenType::VARIABLE,
    SemanticTokenType::PROPERTY,
    SemanticTokenType::TYPE_PARAMETER,
    SemanticTokenType::METHOD,
    SemanticTokenType::ENUM_MEMBER,
];

/// What else is said of them, by bits.
pub const MODIFIERS: [SemanticTokenModifier; 2] =
    [SemanticTokenModifier::DECLARATION, SemanticTokenModifier::DEFAULT_LIBRARY];

const DECLARATION: u32 = 1;
const OF_LIBRARY: u32 = 2;

pub fn tokens(analysis: &Analysis) -> Vec<SemanticToken> {
    let names = &analysis.names;
    let mut found: Vec<(moec_diag::Span, u32, u32)> = Vec::new();
    for used in &names.uses {
        let symbol = &names.symbols[used.symbol];
        let kind = match symbol.kind {
            SymbolKind::Definition(DefinitionKind::Fn) => 0,
            SymbolKind::Definition(DefinitionKind::Block | DefinitionKind::Expert | DefinitionKind::Gate) => 1,
            SymbolKind::Model => 1,
            SymbolKind::Input | SymbolKind::Formal | SymbolKind::Layer => 2,
            SymbolKind::State | SymbolKind::Let => 3,
            SymbolKind::Param => 4,
            SymbolKind::FormalAxis | SymbolKind::Axis => 5,
            SymbolKind::Part => 6,
            SymbolKind::Setting => 7,
        };
        let library = matches!(symbol.home, Home::Library { .. });
        let modifiers = if used.introduces { DECLARATION } else { 0 } | if library { OF_LIBRARY } else { 0 };
        found.push((used.at, kind, modifiers));
    }
    found.extend(names.primitives.iter().map(|(at, _, _)| (*at, 0, OF_LIBRARY)));
    found.sort();
    found.dedup_by_key(|(at, _, _)| *at);
    let mut last = lsp_types::Position::default();
    let mut tokens = Vec::new();
    for (at, kind, modifiers) in found {
        let range = analysis.document.range(at);
        let delta_line = range.start.line - last.line;
        let delta_start = range.start.character - if delta_line == 0 { last.character } else { 0 };
        let length = range.end.character.saturating_sub(range.start.character);
        tokens.push(SemanticToken {
            delta_line,
            delta_start,
            length,
            token_type: kind,
            token_modifiers_bitset: modifiers,
        });
        last = range.start;
    }
    tokens
}
