//! What stands at a place: the name's meaning, its documentation, and the types and sizes that the checker found.

use lsp_types::{Hover, HoverContents, MarkupContent, MarkupKind, Position};
use moec_diag::Span;
use moec_sema::ParamFact;
use moec_syntax::tree::{DefinitionKind, Item, ParamPattern, PatternPiece, WeightRule};

use crate::{
    analysis::Analysis,
    names::{Home, Symbol, SymbolKind, Use},
};

pub fn hover(analysis: &Analysis, position: Position) -> Option<Hover> {
    let offset = analysis.document.offset(position) as u32;
    let (at, text) = match analysis.names.at(offset) {
        Some(used) => (used.at, of_name(analysis, used)),
        None => of_primitive(analysis, offset)
            .or_else(|| of_binding(analysis, offset))
            .or_else(|| of_expression(analysis, offset))?,
    };
    let contents = HoverContents::Markup(MarkupContent { kind: MarkupKind::Markdown, value: text });
    Some(Hover { contents, range: Some(analysis.document.range(at)) })
}

fn of_name(analysis: &Analysis, used: Use) -> String {
    let symbol = &analysis.names.symbols[used.symbol];
    let mut text = code(&headline(symbol));
    for line in &symbol.doc {
        text.push_str(&format!("\n{line}"));
    }
    if let Home::Library { file, .. } = symbol.home {
        text.push_str(&format!("\n\nfrom `std::{file}`"));
    }
    let home = match symbol.home {
        Home::Here(at) => at,
        Home::Library { .. } => used.at,
    };
    let known = match analysis.index.at(used.at) {
        [] => analysis.index.at(home),
        known => known,
    };
    text.push_str(&told("is", known));
    if let Some(call) = used.call {
        text.push_str(&told("gives", analysis.index.at(call)));
    }
    match symbol.kind {
        SymbolKind::Param => {
            for param in analysis.index.params.iter().filter(|param| param.at == home) {
                text.push_str(&format!("\n\n`{}`: {}", param.path, counted([param])));
            }
        }
        SymbolKind::Part => {
            for path in known.iter().filter_map(|told| told.strip_prefix("the part `")?.strip_suffix('`')) {
                let inside =
                    |param: &&ParamFact| param.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
                text.push_str(&format!("\n\n`{path}`: {}", counted(analysis.index.params.iter().filter(inside))));
            }
        }
        SymbolKind::Model => text.push_str(&format!("\n\n{}", counted(&analysis.index.params))),
        SymbolKind::Setting
        | SymbolKind::Definition(_)
        | SymbolKind::Input
        | SymbolKind::Formal
        | SymbolKind::FormalAxis
        | SymbolKind::Axis
        | SymbolKind::State
        | SymbolKind::Let
        | SymbolKind::Layer => {}
    }
    text
}

fn of_primitive(analysis: &Analysis, offset: u32) -> Option<(Span, String)> {
    let around = |at: &Span| at.start <= offset && offset <= at.end;
    let (at, name, call) = analysis.names.primitives.iter().find(|(at, _, _)| around(at))?;
    let (_, form) = moec_sema::primitives().find(|(known, _)| known == name)?;
    Some((*at, code(&form.replace("` or `", "\n")) + &told("gives", analysis.index.at(*call))))
}

/// The parameters that a rule of the `weights` section binds.
fn of_binding(analysis: &Analysis, offset: u32) -> Option<(Span, String)> {
    let sections = analysis.tree.items.iter().filter_map(|item| match item {
        Item::Weights(weights) => Some(&weights.rules),
        Item::Config(_) | Item::Definition(_) | Item::Model(_) => None,
    });
    let target = sections.flatten().find_map(|rule| match rule {
        WeightRule::Bind(bind) => {
            Some(&bind.target).filter(|target| target.at.start <= offset && offset < target.at.end)
        }
        WeightRule::Ignore(_) | WeightRule::Scaled(_) => None,
    })?;
    let mut text = String::new();
    for path in paths(target) {
        for param in analysis.index.params.iter().filter(|param| param.path == path) {
            text.push_str(&format!("`{path}`: `{}`, {}\n\n", param.ty, counted([param])));
        }
    }
    (!text.is_empty()).then(|| (target.at, text.trim_end().to_owned()))
}

/// Every path that a pattern stands for.
fn paths(pattern: &ParamPattern) -> Vec<String> {
    let mut paths = vec![String::new()];
    for (number, segment) in pattern.segments.iter().enumerate() {
        let mut endings = vec![if number == 0 { String::new() } else { ".".to_owned() }];
        for piece in &segment.pieces {
            let choices = match piece {
                PatternPiece::Text(text) => std::slice::from_ref(text),
                PatternPiece::Alternatives(choices) | PatternPiece::Several(choices) => &choices[..],
                PatternPiece::Index(_) | PatternPiece::AtLeast { .. } | PatternPiece::Any => &[],
            };
            let joined = endings.iter().flat_map(|start| choices.iter().map(move |end| format!("{start}{end}")));
            endings = joined.take(MOST_PATHS).collect();
        }
        let index = segment.index.as_ref().map_or(String::new(), |index| format!("[{}]", index.text));
        paths = paths
            .iter()
            .flat_map(|start| endings.iter().map(|end| format!("{start}{end}{index}")).collect::<Vec<_>>())
            .take(MOST_PATHS)
            .collect();
    }
    paths
}

/// A rule of which more is told is not read any more.
const MOST_PATHS: usize = 16;

fn of_expression(analysis: &Analysis, offset: u32) -> Option<(Span, String)> {
    let (at, known) = analysis.index.around(offset)?;
    // The index knows places in the library, too; those of the document come first in the offset space.
    ((at.end as usize) <= analysis.document.text.len()).then(|| (at, told("is", known).trim_start().to_owned()))
}

fn code(text: &str) -> String {
    format!("```moe\n{text}\n```\n")
}

/// One line for all that a place was found to be.
fn told(verb: &str, known: &[String]) -> String {
    if known.is_empty() {
        return String::new();
    }
    let known: Vec<String> =
        known.iter().map(|told| if told.contains('`') { told.clone() } else { format!("`{told}`") }).collect();
    format!("\n\n{verb} {}", known.join(" or "))
}

/// What a symbol is, in a line.
pub fn headline(symbol: &Symbol) -> String {
    if !symbol.form.is_empty() {
        return symbol.form.clone();
    }
    let kind = match symbol.kind {
        SymbolKind::Setting => "config",
        SymbolKind::Definition(DefinitionKind::Fn) => "fn",
        SymbolKind::Definition(DefinitionKind::Block) => "block",
        SymbolKind::Definition(DefinitionKind::Expert) => "expert",
        SymbolKind::Definition(DefinitionKind::Gate) => "gate",
        SymbolKind::Model => "model",
        SymbolKind::Input => "input",
        SymbolKind::Formal => "argument",
        SymbolKind::FormalAxis => "axis named by the caller:",
        SymbolKind::Axis => "axis",
        SymbolKind::Param => "param",
        SymbolKind::Part => "part",
        SymbolKind::State => "state",
        SymbolKind::Let => "let",
        SymbolKind::Layer => "layer number",
    };
    format!("{kind} {}", symbol.name)
}

/// How many numbers parameters have in all.
fn counted<'p>(params: impl IntoIterator<Item = &'p ParamFact>) -> String {
    let mut total = 0u64;
    for param in params {
        let one = param.ty.elements().unwrap_or(0);
        total = total.saturating_add(one.saturating_mul(param.instances));
    }
    format!("{} parameters, {} in bf16", grouped(total), bytes(total.saturating_mul(2)))
}

/// `1 048 576`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn bytes(count: u64) -> String {
    let mut size = count as f64;
    let mut units = ["bytes", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    if unit == "bytes" { format!("{count} bytes") } else { format!("{size:.1} {unit}") }
}
