//! Go to definition, all uses of a name, and a new name for it.

use std::{collections::BTreeSet, str::FromStr};

use lsp_types::{Location, Position, Range, TextEdit, Uri};
use moec_diag::Span;

use crate::{
    analysis::Analysis,
    document::Document,
    library,
    names::{Home, Symbol, Use},
};

/// Where the name at a position is introduced. `library`: the client can open library files.
pub fn definition(analysis: &Analysis, uri: &Uri, position: Position, library: bool) -> Option<Location> {
    let used = analysis.names.at(analysis.document.offset(position) as u32)?;
    match analysis.names.symbols[used.symbol].home {
        Home::Here(at) => Some(Location { uri: uri.clone(), range: analysis.document.range(at) }),
        Home::Library { file, at } => {
            let address = Uri::from_str(&format!("{}{file}.moe", library::SCHEME)).ok().filter(|_| library)?;
            Some(Location { uri: address, range: library::file(file)?.document.range(at) })
        }
    }
}

/// All places where the name at a position stands.
pub fn uses(analysis: &Analysis, position: Position) -> Vec<Range> {
    let Some(used) = analysis.names.at(analysis.document.offset(position) as u32) else { return Vec::new() };
    analysis.names.uses_of(used.symbol).map(|used| analysis.document.range(used.at)).collect()
}

/// The name at a position, if it can be given another one here.
pub fn renamable(analysis: &Analysis, position: Position) -> Option<Range> {
    let used = analysis.names.at(analysis.document.offset(position) as u32)?;
    match analysis.names.symbols[used.symbol].home {
        Home::Here(_) => Some(analysis.document.range(used.at)),
        Home::Library { .. } => None,
    }
}

/// The edits that give a name another spelling; why not, where that would change what the file means.
pub fn rename(analysis: &Analysis, position: Position, new: &str) -> Result<Vec<TextEdit>, String> {
    let used = analysis.names.at(analysis.document.offset(position) as u32).ok_or("no name stands here")?;
    let symbol = &analysis.names.symbols[used.symbol];
    let old = &symbol.name;
    if matches!(symbol.home, Home::Library { .. }) {
        return Err(format!("`{old}` is of the standard library"));
    }
    if !is_name(new) {
        return Err(format!("`{new}` cannot be a name"));
    }
    if new == old {
        return Ok(Vec::new());
    }
    if let Some(taken) = taken(analysis, symbol, new) {
        return Err(taken);
    }
    let all: Vec<Use> = analysis.names.uses_of(used.symbol).copied().collect();
    if !analysis.problems.is_empty() {
        return Ok(edits(&analysis.document, &all, new));
    }
    // An axis may have the name of a setting and still be another thing, so its uses may have to stay.
    let values: Vec<Use> = all.iter().filter(|used| !used.axis).copied().collect();
    let whole = means_the_same(analysis, &all, new);
    if whole.is_ok() {
        return Ok(edits(&analysis.document, &all, new));
    }
    if !values.is_empty() && values.len() < all.len() && means_the_same(analysis, &values, new).is_ok() {
        return Ok(edits(&analysis.document, &values, new));
    }
    Err(format!("`{old}` cannot become `{new}`: {}", whole.err().unwrap_or_default()))
}

fn is_name(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let word = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    begins && word && text != "_" && !crate::completion::RESERVED.contains(&text)
}

/// Who has the new name already, where the old one is known.
fn taken(analysis: &Analysis, symbol: &Symbol, new: &str) -> Option<String> {
    let meets = |other: &&Symbol| match (symbol.scope, other.scope) {
        (Some(a), Some(b)) => a.start < b.end && b.start < a.end,
        (None, _) | (_, None) => true,
    };
    let same = analysis.names.symbols.iter().filter(|other| other.name == new);
    if let Some(other) = same.clone().find(meets) {
        return Some(format!("`{new}` is `{}` already", crate::hover::headline(other)));
    }
    let primitive = moec_sema::primitives().any(|(name, _)| name == new);
    (primitive || ["x", "inf"].contains(&new)).then(|| format!("`{new}` means something already"))
}

fn edits(document: &Document, uses: &[Use], new: &str) -> Vec<TextEdit> {
    let places: BTreeSet<Span> = uses.iter().map(|used| used.at).collect();
    places.into_iter().map(|at| TextEdit { range: document.range(at), new_text: new.to_owned() }).collect()
}

/// Whether the file is still sound and has the same parameters, by their sizes, with a new name in these places.
fn means_the_same(analysis: &Analysis, uses: &[Use], new: &str) -> Result<(), String> {
    let mut text = analysis.document.text.clone();
    let places: BTreeSet<Span> = uses.iter().map(|used| used.at).collect();
    for at in places.into_iter().rev() {
        text.replace_range(at.start as usize..at.end as usize, new);
    }
    let after = Analysis::of("renamed", text, analysis.files.clone());
    if let Some(problem) = after.problems.first() {
        return Err(problem.to_string());
    }
    let sizes = |analysis: &Analysis| -> Vec<(Option<u64>, u64)> {
        analysis.index.params.iter().map(|param| (param.ty.elements(), param.instances)).collect()
    };
    if sizes(analysis) == sizes(&after) { Ok(()) } else { Err("parameters would change".to_owned()) }
}
