//! The outline of a document.

use lsp_types::{DocumentSymbol, SymbolKind};
use moec_diag::Span;
use moec_syntax::tree::{DefinitionKind, Item, Name, Statement, StatementKind};

use crate::{analysis::Analysis, document::Document};

pub fn symbols(analysis: &Analysis) -> Vec<DocumentSymbol> {
    let document = &analysis.document;
    analysis.tree.items.iter().map(|item| item_symbol(document, item)).collect()
}

fn item_symbol(document: &Document, item: &Item) -> DocumentSymbol {
    match item {
        Item::Config(config) => {
            let entries = config.entries.iter().map(|entry| {
                let at = entry.name.at.to(entry.default.at);
                symbol(document, &entry.name, SymbolKind::CONSTANT, at, Vec::new())
            });
            let start = Span::new(config.at.start, config.at.start + "config".len() as u32);
            let name = Name { text: "config".to_owned(), at: start };
            symbol(document, &name, SymbolKind::NAMESPACE, config.at, entries.collect())
        }
        Item::Definition(definition) => {
            let kind = match definition.kind {
                DefinitionKind::Fn => SymbolKind::FUNCTION,
                DefinitionKind::Block | DefinitionKind::Expert | DefinitionKind::Gate => SymbolKind::CLASS,
            };
            symbol(document, &definition.name, kind, definition.at, statements(document, &definition.body))
        }
        Item::Model(model) => {
            symbol(document, &model.name, SymbolKind::MODULE, model.at, statements(document, &model.body))
        }
        Item::Weights(weights) => symbol(document, &weights.name, SymbolKind::OBJECT, weights.at, Vec::new()),
    }
}

/// What has parameters: `param`, `part`, and the layers that hold more of them.
fn statements(document: &Document, body: &[Statement]) -> Vec<DocumentSymbol> {
    let of = |statement: &Statement| match &statement.kind {
        StatementKind::Param { name, .. } => Some(symbol(document, name, SymbolKind::FIELD, statement.at, Vec::new())),
        StatementKind::Buffer { name, .. } | StatementKind::State { name, .. } => {
            Some(symbol(document, name, SymbolKind::FIELD, statement.at, Vec::new()))
        }
        StatementKind::Aux { name, .. } | StatementKind::Trace { name, .. } => {
            Some(symbol(document, name, SymbolKind::EVENT, statement.at, Vec::new()))
        }
        StatementKind::Part { name, .. } => Some(symbol(document, name, SymbolKind::OBJECT, statement.at, Vec::new())),
        StatementKind::Layers { index, body, .. } => {
            let name = Name { text: format!("layers {}", index.text), at: index.at };
            Some(symbol(document, &name, SymbolKind::ARRAY, statement.at, statements(document, body)))
        }
        StatementKind::Let { .. }
        | StatementKind::Assign { .. }
        | StatementKind::Route { .. }
        | StatementKind::Out { .. } => None,
    };
    body.iter().filter_map(of).collect()
}

fn symbol(
    document: &Document,
    name: &Name,
    kind: SymbolKind,
    at: Span,
    children: Vec<DocumentSymbol>,
) -> DocumentSymbol {
    #[expect(deprecated, reason = "the protocol's old field has to be filled")]
    DocumentSymbol {
        name: name.text.clone(),
        detail: None,
        kind,
        tags: None,
        deprecated: None,
        // The name is within the whole, or editors refuse both.
        range: document.range(at.to(name.at)),
        selection_range: document.range(name.at),
        children: Some(children),
    }
}
