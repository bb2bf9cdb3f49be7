//! Rules that stand for several: each reading of their alternatives.

use std::collections::BTreeSet;

use moec_diag::Span;
use moec_syntax::tree::{Binding, ParamPattern, PatternPiece, TensorPattern};

use super::{layout, problems::*};
use crate::{evaluator::Evaluator, spelling::listed};

/// A rule with its alternatives chosen: `{gate,up}` read as `gate`.
pub struct Choice {
    /// Of each of `(q, k)`, or of the one parameter: text and index name of each segment of its path.
    pub parts: Vec<Vec<(String, Option<String>)>>,
    /// For each source, the tensor's name for each part.
    pub sources: Vec<Vec<Vec<Piece>>>,
}

#[derive(Clone)]
pub enum Piece {
    Text(String),
    Index(String),
}

impl Evaluator {
    /// Chooses alternatives: the n-th of one side with the n-th of the other. `(q, k)` pairs with alternatives of the name, or
    /// with `(A | B)` of the layout.
    pub fn choices(&mut self, binding: &Binding) -> Option<Vec<Choice>> {
        let left: Vec<Group> =
            binding.target.segments.iter().flat_map(|segment| &segment.pieces).filter_map(group).collect();
        let several: Vec<usize> = left.iter().filter(|group| group.beside).map(|group| group.words.len()).collect();
        if several.len() > 1 {
            self.report(SeveralTwice { at: binding.target.at });
            return None;
        }
        let parts = several.first().copied().unwrap_or(1);
        let indices: BTreeSet<&str> = binding
            .target
            .segments
            .iter()
            .filter_map(|segment| segment.index.as_ref())
            .map(|name| name.text.as_str())
            .collect();
        let mut beside = Vec::new();
        for source in &binding.sources {
            let lanes: Vec<(usize, Span)> = source.layout.iter().flatten().flat_map(layout::besides).collect();
            if let Some((found, at)) = lanes.iter().find(|(count, _)| several.first() != Some(count)) {
                let (found, at, target_at) = (*found, *at, binding.target.at);
                self.report(BesideDiffers { found, parts, at, target_at });
                return None;
            }
            if let [_, (_, at), ..] = lanes[..] {
                self.report(BesideTwice { at });
                return None;
            }
            beside.push(!lanes.is_empty());
            let right: Vec<usize> =
                source.tensor.pieces.iter().filter_map(group).map(|group| group.words.len()).collect();
            let wanted: Vec<usize> =
                left.iter().filter(|group| !group.beside || lanes.is_empty()).map(|group| group.words.len()).collect();
            if right != wanted {
                let (left, right) = (counts(&wanted), counts(&right));
                let (target_at, tensor_at) = (binding.target.at, source.tensor.at);
                self.report(AlternativesDiffer { left, right, target_at, tensor_at });
                return None;
            }
            for piece in &source.tensor.pieces {
                match piece {
                    PatternPiece::Index(name) if !indices.contains(name.as_str()) => {
                        let help = match indices.len() {
                            0 => "a path has indices where it has `layers[l]` or `experts[e]`".to_owned(),
                            _ => format!("the path has {}", listed(indices.iter().copied())),
                        };
                        let (name, at, target_at) = (name.clone(), source.tensor.at, binding.target.at);
                        self.report(UnknownIndex { name, at, target_at, help });
                        return None;
                    }
                    // Reading the text said so.
                    PatternPiece::Any | PatternPiece::AtLeast { .. } => return None,
                    PatternPiece::Index(_)
                    | PatternPiece::Text(_)
                    | PatternPiece::Several(_)
                    | PatternPiece::Alternatives(_) => {}
                }
            }
        }
        let mut picks: Vec<Vec<usize>> = vec![Vec::new()];
        for group in &left {
            // Which of `(q, k)` is filled in for each part.
            let count = if group.beside { 1 } else { group.words.len() };
            picks = picks.iter().flat_map(|pick| (0..count).map(|at| [&pick[..], &[at]].concat())).collect();
            if picks.len() > 4096 {
                self.report(TooManyTensors { at: binding.at });
                return None;
            }
        }
        let place = left.iter().position(|group| group.beside);
        let of_part = |pick: &[usize], part: usize| {
            let mut pick = pick.to_vec();
            if let Some(place) = place {
                pick[place] = part;
            }
            pick
        };
        let choice = |pick: &Vec<usize>| Choice {
            parts: (0..parts).map(|part| segments(&binding.target, &of_part(pick, part))).collect(),
            sources: binding
                .sources
                .iter()
                .zip(&beside)
                .map(|(source, beside)| {
                    let name = |part| {
                        let mut pick = of_part(pick, part);
                        if let Some(place) = place.filter(|_| *beside) {
                            pick.remove(place);
                        }
                        pieces(&source.tensor, &pick)
                    };
                    (0..parts).map(name).collect()
                })
                .collect(),
        };
        Some(picks.iter().map(choice).collect())
    }
}

/// Words of which one is chosen, or that lie side by side.
struct Group<'a> {
    words: &'a [String],
    beside: bool,
}

fn group(piece: &PatternPiece) -> Option<Group<'_>> {
    match piece {
        PatternPiece::Alternatives(words) => Some(Group { words, beside: false }),
        PatternPiece::Several(words) => Some(Group { words, beside: true }),
        PatternPiece::Text(_) | PatternPiece::Index(_) | PatternPiece::AtLeast { .. } | PatternPiece::Any => None,
    }
}

fn counts(groups: &[usize]) -> String {
    match groups {
        [] => "none".to_owned(),
        groups => groups.iter().map(usize::to_string).collect::<Vec<_>>().join(" and "),
    }
}

/// A path with its n-th group read as `pick[n]` says.
fn segments(target: &ParamPattern, pick: &[usize]) -> Vec<(String, Option<String>)> {
    let mut picks = pick.iter();
    let segments = target.segments.iter().map(|segment| {
        let text = segment.pieces.iter().map(|piece| picked(piece, &mut picks));
        let text = text.map(|piece| match piece {
            Piece::Text(text) | Piece::Index(text) => text,
        });
        (text.collect::<String>(), segment.index.as_ref().map(|name| name.text.clone()))
    });
    segments.collect()
}

fn pieces(tensor: &TensorPattern, pick: &[usize]) -> Vec<Piece> {
    let mut picks = pick.iter();
    tensor.pieces.iter().map(|piece| picked(piece, &mut picks)).collect()
}

fn picked<'p>(piece: &PatternPiece, picks: &mut impl Iterator<Item = &'p usize>) -> Piece {
    match piece {
        PatternPiece::Text(text) => Piece::Text(text.clone()),
        PatternPiece::Index(name) => Piece::Index(name.clone()),
        PatternPiece::Alternatives(words) | PatternPiece::Several(words) => {
            Piece::Text(picks.next().and_then(|at| words.get(*at)).cloned().unwrap_or_default())
        }
        PatternPiece::Any | PatternPiece::AtLeast { .. } => Piece::Text(String::new()),
    }
}
