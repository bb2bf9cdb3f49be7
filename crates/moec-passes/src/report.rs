//! What the passes did and what kept them from it: the fusion report of `moec explain`.

use std::fmt;

use moec_diag::Span;
use moec_types::{Size, TensorType};

/// In the order of discovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Several ops became one.
    Fused { pass: &'static str, at: Span, what: String, saves: Saves },
    /// Several ops could have become one, but for this rule.
    Blocked { pass: &'static str, at: Span, rule: String },
}

/// What a fusion saves each time it runs (so once per layer, for code in a layer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saves {
    /// Bytes that are no longer written and read back, as a formula over the symbolic sizes: `256 * S`.
    pub bytes: String,
    /// Steps that no longer run on their own.
    pub launches: usize,
}

impl Report {
    /// `kept` are the tensors that are no longer stored, `launches` the steps that are gone.
    pub fn fused<'t>(
        &mut self,
        pass: &'static str,
        at: Span,
        what: impl Into<String>,
        kept: impl IntoIterator<Item = &'t TensorType>,
        launches: usize,
    ) {
        let saves = Saves { bytes: traffic(kept), launches };
        self.entries.push(Entry::Fused { pass, at, what: what.into(), saves });
    }

    /// Said once for each place and rule.
    pub fn blocked(&mut self, pass: &'static str, at: Span, rule: impl Into<String>) {
        let entry = Entry::Blocked { pass, at, rule: rule.into() };
        if !self.entries.contains(&entry) {
            self.entries.push(entry);
        }
    }
}

/// One write and one read of each tensor, like terms together: `256 * S + 64 * S * past(S)`.
fn traffic<'t>(tensors: impl IntoIterator<Item = &'t TensorType>) -> String {
    let mut terms: Vec<(Vec<String>, u64)> = Vec::new();
    for ty in tensors {
        let (factor, symbols) = parts(ty);
        match terms.iter_mut().find(|(known, _)| *known == symbols) {
            Some((_, sum)) => *sum = sum.saturating_add(factor.saturating_mul(2)),
            None => terms.push((symbols, factor.saturating_mul(2))),
        }
    }
    if terms.is_empty() {
        return "0".to_owned();
    }
    terms.sort();
    terms.into_iter().map(|(symbols, factor)| product(factor, &symbols)).collect::<Vec<_>>().join(" + ")
}

/// The bytes of a tensor as a formula over its symbolic sizes: `256 * S`.
pub fn bytes(ty: &TensorType) -> String {
    let (factor, symbols) = parts(ty);
    product(factor, &symbols)
}

fn parts(ty: &TensorType) -> (u64, Vec<String>) {
    let mut factor = ty.dtype.bytes();
    let mut symbols = Vec::new();
    for dim in &ty.dims {
        let mut size = &dim.size;
        if let Size::Slots { tokens, choices } = size {
            factor = factor.saturating_mul(*choices);
            size = tokens;
        }
        match size.fixed() {
            Some(size) => factor = factor.saturating_mul(size),
            None => symbols.push(size.to_string()),
        }
    }
    symbols.sort();
    (factor, symbols)
}

fn product(factor: u64, symbols: &[String]) -> String {
    std::iter::once(factor.to_string()).chain(symbols.iter().cloned()).collect::<Vec<_>>().join(" * ")
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Fused { pass, what, saves, .. } => {
                write!(f, "{pass}: {what}; saves {} bytes, {} launches", saves.bytes, saves.launches)
            }
            Entry::Blocked { pass, rule, .. } => write!(f, "{pass}: blocked: {rule}"),
        }
    }
}
