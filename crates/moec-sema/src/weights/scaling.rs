//! Tensors that are stored as small numbers, each block of them with a factor.

use miette::Diagnostic;
use moec_diag::Span;
use moec_syntax::tree::{Name, PatternPiece, Scaled, TensorPattern};
use thiserror::Error;

use crate::{evaluator::Evaluator, scope::Frame, value::Operand};

/// `scaled "…" as f4e2m1 by "…" as e8m0 in [32]`: for tensors that fit the pattern and have scales.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// Text around what `{any}` stands for.
    pub tensor: (String, String),
    pub elements: Option<Encoding>,
    /// The same text stands for `{any}` here.
    pub scales: (String, String),
    pub scale_elements: Option<Encoding>,
    /// Sizes of a block along the last axes; the last block of an axis may be a part of one.
    pub blocks: Vec<u64>,
    pub at: Span,
}

/// What bytes mean where the file calls them plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A sign, 4 bits of exponent, 3 of fraction; no infinity.
    F8E4M3,
    /// Two in a byte, the lower half first: a sign, 2 bits of exponent, 1 of fraction.
    F4E2M1,
    /// A power of two: 2 ^ (byte - 127).
    E8M0,
}

impl Encoding {
    const ALL: [(&'static str, Encoding); 3] =
        [("f8e4m3", Encoding::F8E4M3), ("f4e2m1", Encoding::F4E2M1), ("e8m0", Encoding::E8M0)];
}

impl Evaluator {
    pub fn scaling(&mut self, scaled: &Scaled) -> Option<Scaling> {
        let (tensor, scales) = (self.around_any(&scaled.tensor)?, self.around_any(&scaled.scales)?);
        let elements = self.encoding(scaled.elements.as_ref())?;
        let scale_elements = self.encoding(scaled.scale_elements.as_ref())?;
        let mut frame = Frame::of_config();
        let mut blocks = Vec::new();
        for block in &scaled.blocks {
            let value = self.eval(&mut frame, block);
            blocks.push(self.size(&Operand { value, at: block.at }, "the size of a block")?);
        }
        Some(Scaling { tensor, elements, scales, scale_elements, blocks, at: scaled.at })
    }

    fn encoding(&mut self, name: Option<&Name>) -> Option<Option<Encoding>> {
        let Some(name) = name else { return Some(None) };
        let found = Encoding::ALL.iter().find(|(known, _)| *known == name.text);
        if found.is_none() {
            self.report(NoEncoding { name: name.text.clone(), at: name.at });
        }
        found.map(|(_, encoding)| Some(*encoding))
    }

    fn around_any(&mut self, pattern: &TensorPattern) -> Option<(String, String)> {
        let text = |piece: Option<&PatternPiece>| match piece {
            None => Some(String::new()),
            Some(PatternPiece::Text(text)) => Some(text.clone()),
            Some(
                PatternPiece::Index(_)
                | PatternPiece::Any
                | PatternPiece::AtLeast { .. }
                | PatternPiece::Several(_)
                | PatternPiece::Alternatives(_),
            ) => None,
        };
        let any = pattern.pieces.iter().position(|piece| *piece == PatternPiece::Any);
        let around = any.and_then(|any| {
            let before = if any > 0 { pattern.pieces.first() } else { None };
            let sound = any <= 1 && pattern.pieces.len() <= any + 2;
            Some((text(before)?, text(pattern.pieces.get(any + 1))?)).filter(|_| sound)
        });
        if around.is_none() {
            self.report(NotOneAny { at: pattern.at });
        }
        around
    }
}

#[derive(Debug, Error, Diagnostic)]
#[error("no format of numbers is called `{name}`")]
#[diagnostic(code(moec::sema::no_encoding), help("the formats are `f8e4m3`, `f4e2m1` and `e8m0`"))]
struct NoEncoding {
    name: String,
    #[label("unknown format")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("a scaled tensor's name must have `{{any}}` once, and no other hole")]
#[diagnostic(
    code(moec::sema::not_one_any),
    help(
        "`scaled \"{{any}}.weight\" by \"{{any}}.weight_scale_inv\" in [128, 128]`: `{{any}}` is the same on both sides"
    )
)]
struct NotOneAny {
    #[label("in this name")]
    at: Span,
}
