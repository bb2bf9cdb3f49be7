//! The rules of a `weights` section, and the holes in their strings.

use std::iter::Peekable;

use miette::Diagnostic;
use moec_diag::Span;
use pest::iterators::Pair;
use thiserror::Error;

use super::{Builder, children, given, unescaped};
use crate::grammar::Rule;
use crate::tree::{
    Binding, Lane, Name, ParamPattern, ParamSegment, PatternPiece, Scaled, TensorPattern, TensorSource, WeightRule,
    Weights,
};

impl Builder<'_> {
    pub(super) fn weights(&mut self, pair: Pair<Rule>) -> Weights {
        let (at, rule) = (self.at(&pair), pair.as_rule());
        let mut parts = children(pair);
        let name = self.name(given(&mut parts, rule));
        let mut parts = parts.peekable();
        let inside = parts.next_if(|part| part.as_rule() == Rule::inside);
        let inside = self.inside(inside);
        let rules = parts.flat_map(children).map(|rule| self.weight_rule(rule)).collect();
        Weights { name, inside, rules, at }
    }

    fn weight_rule(&mut self, pair: Pair<Rule>) -> WeightRule {
        let (at, rule) = (self.at(&pair), pair.as_rule());
        let mut parts = children(pair).peekable();
        match rule {
            Rule::ignore => WeightRule::Ignore(self.tensor_pattern(given(&mut parts, rule))),
            Rule::scaled => {
                let (tensor, elements) = self.stored(&mut parts, rule);
                let (scales, scale_elements) = self.stored(&mut parts, rule);
                let blocks = parts.map(|block| self.expression(block)).collect();
                WeightRule::Scaled(Scaled { tensor, elements, scales, scale_elements, blocks, at })
            }
            _ => {
                let target = self.param_pattern(given(&mut parts, rule));
                let sources = parts.map(|source| self.tensor_source(source)).collect();
                WeightRule::Bind(Binding { target, sources, at })
            }
        }
    }

    /// A tensor's name and, after `as`, what its bytes are.
    fn stored<'p>(
        &mut self,
        parts: &mut Peekable<impl Iterator<Item = Pair<'p, Rule>>>,
        rule: Rule,
    ) -> (TensorPattern, Option<Name>) {
        let tensor = self.tensor_pattern(given(parts, rule));
        let elements = parts.next_if(|part| part.as_rule() == Rule::elements);
        (tensor, elements.and_then(|elements| children(elements).next()).map(|name| self.name(name)))
    }

    fn tensor_source(&mut self, pair: Pair<Rule>) -> TensorSource {
        let rule = pair.as_rule();
        let mut parts = children(pair);
        let tensor = self.tensor_pattern(given(&mut parts, rule));
        for piece in &tensor.pieces {
            match piece {
                PatternPiece::Any => self.findings.report(tensor.at, AnyOutsideIgnore { at: tensor.at }),
                PatternPiece::AtLeast { index, least } => {
                    let inside = format!("{index} >= {least}");
                    self.findings.report(tensor.at, BoundOutsideIgnore { inside, index: index.clone(), at: tensor.at });
                }
                PatternPiece::Text(_)
                | PatternPiece::Index(_)
                | PatternPiece::Several(_)
                | PatternPiece::Alternatives(_) => {}
            }
        }
        let layout = parts.next().map(|layout| children(layout).map(|lane| self.lane(lane)).collect());
        TensorSource { tensor, layout }
    }

    fn lane(&self, pair: Pair<Rule>) -> Lane {
        let (at, rule) = (self.at(&pair), pair.as_rule());
        if rule == Rule::name {
            return Lane::Axis(self.name(pair));
        }
        let mut parts = children(pair);
        match rule {
            Rule::one => Lane::One(at),
            Rule::product => Lane::Product(parts.map(|lane| self.lane(lane)).collect()),
            Rule::beside => Lane::Beside(parts.map(|lane| self.lane(lane)).collect(), at),
            _ => self.lane(given(&mut parts, rule)),
        }
    }

    fn param_pattern(&self, pair: Pair<Rule>) -> ParamPattern {
        let at = self.at(&pair);
        let segments = children(pair).map(|segment| self.param_segment(segment)).collect();
        ParamPattern { segments, at }
    }

    fn param_segment(&self, pair: Pair<Rule>) -> ParamSegment {
        let rule = pair.as_rule();
        let mut parts = children(pair);
        let words = given(&mut parts, rule);
        let texts = |pair: Pair<Rule>| children(pair).map(|letters| letters.as_str().to_owned()).collect();
        let pieces = if words.as_rule() == Rule::several {
            vec![PatternPiece::Several(texts(words))]
        } else {
            let pieces = children(words).map(|piece| match piece.as_rule() {
                Rule::alternatives => PatternPiece::Alternatives(texts(piece)),
                _ => PatternPiece::Text(piece.as_str().to_owned()),
            });
            pieces.collect()
        };
        ParamSegment { pieces, index: parts.next().map(|index| self.name(index)) }
    }

    fn tensor_pattern(&mut self, pair: Pair<Rule>) -> TensorPattern {
        let at = self.at(&pair);
        let text = unescaped(pair.as_str());
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some(brace) = rest.find(['{', '}']) {
            if brace > 0 {
                pieces.push(PatternPiece::Text(rest[..brace].to_owned()));
            }
            let hole = rest[brace..].strip_prefix('{').and_then(|inside| inside.split_once('}'));
            let Some((inside, after)) = hole else {
                self.findings.report(at, UnmatchedBrace { at });
                return TensorPattern { pieces, at };
            };
            match hole_piece(inside) {
                Some(piece) => pieces.push(piece),
                None => self.findings.report(at, NotAHole { inside: inside.to_owned(), at }),
            }
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(PatternPiece::Text(rest.to_owned()));
        }
        TensorPattern { pieces, at }
    }
}

fn hole_piece(inside: &str) -> Option<PatternPiece> {
    if inside.contains(',') {
        let alternatives: Vec<String> = inside.split(',').map(|one| one.trim().to_owned()).collect();
        return (!inside.contains('{')).then_some(PatternPiece::Alternatives(alternatives));
    }
    if let Some((index, least)) = inside.split_once(">=") {
        let (index, least) = (index.trim(), least.trim());
        let is_number = !least.is_empty() && least.bytes().all(|byte| byte.is_ascii_digit());
        let sound = is_name(index) && (is_number || is_name(least));
        return sound.then(|| PatternPiece::AtLeast { index: index.to_owned(), least: least.to_owned() });
    }
    match inside {
        "any" => Some(PatternPiece::Any),
        _ if is_name(inside) => Some(PatternPiece::Index(inside.to_owned())),
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[derive(Debug, Error, Diagnostic)]
#[error("a tensor's name with a brace that has no partner")]
#[diagnostic(
    code(moec::syntax::unmatched_hole),
    help("a hole is `{{l}}`, an index of the parameter's path, or `{{gate,up}}`, alternatives")
)]
struct UnmatchedBrace {
    #[label("in this string")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{{{inside}}}` is no hole of a tensor's name")]
#[diagnostic(
    code(moec::syntax::not_a_hole),
    help(
        "a hole is `{{l}}`, an index of the parameter's path, `{{gate,up}}`, alternatives, or, after `ignore`, `{{any}}` and `{{l >= L}}`"
    )
)]
struct NotAHole {
    inside: String,
    #[label("in this string")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{{any}}` in a rule that binds a parameter")]
#[diagnostic(
    code(moec::syntax::any_outside_ignore),
    help("name the tensor exactly; only `ignore \"…\"` may leave a part open")
)]
struct AnyOutsideIgnore {
    #[label("could be several tensors")]
    at: Span,
}

#[derive(Debug, Error, Diagnostic)]
#[error("`{{{inside}}}` in a rule that binds a parameter")]
#[diagnostic(
    code(moec::syntax::bound_outside_ignore),
    help("a parameter has as many instances as the model makes: write `{{{index}}}`")
)]
struct BoundOutsideIgnore {
    inside: String,
    index: String,
    #[label("only `ignore` chooses among numbers")]
    at: Span,
}
