//! The rules of a `weights` section, and the holes in their strings.

use miette::Diagnostic;
use moec_diag::Span;
use pest::iterators::Pair;
use thiserror::Error;

use super::{Builder, children, given, unescaped};
use crate::grammar::Rule;
use crate::tree::{Binding, ParamPattern, ParamSegment, PatternPiece, TensorPattern, WeightRule, Weights};

impl Builder<'_> {
    pub(super) fn weights(&mut self, pair: Pair<Rule>) -> Weights {
        let (at, rule) = (self.at(&pair), pair.as_rule());
        let mut parts = children(pair);
        let name = self.name(given(&mut parts, rule));
        let rules = parts.flat_map(children).map(|rule| self.weight_rule(rule)).collect();
        Weights { name, rules, at }
    }

    fn weight_rule(&mut self, pair: Pair<Rule>) -> WeightRule {
        let (at, rule) = (self.at(&pair), pair.as_rule());
        let mut parts = children(pair);
        if rule == Rule::ignore {
            return WeightRule::Ignore(self.tensor_pattern(given(&mut parts, rule)));
        }
        let target = self.param_pattern(given(&mut parts, rule));
        let tensor = self.tensor_pattern(given(&mut parts, rule));
        if tensor.pieces.contains(&PatternPiece::Any) {
            self.findings.report(tensor.at, AnyOutsideIgnore { at: tensor.at });
        }
        let layout = parts.next().map(|layout| children(layout).map(|lane| self.names(lane)).collect());
        WeightRule::Bind(Binding { target, tensor, layout, at })
    }

    fn param_pattern(&self, pair: Pair<Rule>) -> ParamPattern {
        let at = self.at(&pair);
        let segments = children(pair).map(|segment| self.param_segment(segment)).collect();
        ParamPattern { segments, at }
    }

    fn param_segment(&self, pair: Pair<Rule>) -> ParamSegment {
        let rule = pair.as_rule();
        let mut parts = children(pair);
        let pieces = children(given(&mut parts, rule)).map(|piece| match piece.as_rule() {
            Rule::alternatives => {
                PatternPiece::Alternatives(children(piece).map(|letters| letters.as_str().to_owned()).collect())
            }
            _ => PatternPiece::Text(piece.as_str().to_owned()),
        });
        ParamSegment { pieces: pieces.collect(), index: parts.next().map(|index| self.name(index)) }
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
    let is_name = inside.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && inside.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match inside {
        "any" => Some(PatternPiece::Any),
        _ if is_name => Some(PatternPiece::Index(inside.to_owned())),
        _ => None,
    }
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
        "a hole is `{{l}}`, an index of the parameter's path, `{{gate,up}}`, alternatives, or `{{any}}` after `ignore`"
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
