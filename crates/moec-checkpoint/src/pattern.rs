//! Patterns of tensor names, as `ignore` rules have them.

use std::collections::BTreeSet;

use moec_syntax::tree::{PatternPiece, TensorPattern};

/// Whether a name fits a pattern as a whole. `{l}` stands for any number, `{a,b}` for one of the alternatives, `{any}` for any
/// text, dots included, `{l >= 3}` for any number from 3 on.
pub fn matches(pattern: &TensorPattern, name: &str) -> bool {
    // Where the pieces so far may end; a set, so that no pattern takes longer than its length times the name's.
    let mut ends = BTreeSet::from([0]);
    for piece in &pattern.pieces {
        ends = match piece {
            PatternPiece::Text(text) => after(&ends, name, text),
            PatternPiece::Alternatives(texts) => texts.iter().flat_map(|text| after(&ends, name, text)).collect(),
            PatternPiece::Index(_) => ends.iter().flat_map(|start| numbers(name, *start)).collect(),
            PatternPiece::AtLeast { least, .. } => {
                let ends = ends.iter().flat_map(|start| numbers(name, *start).map(|end| (*start, end)));
                let large = |(start, end): &(usize, usize)| at_least(&name[*start..*end], least);
                ends.filter(large).map(|(_, end)| end).collect()
            }
            PatternPiece::Several(_) => BTreeSet::new(),
            PatternPiece::Any => ends.first().map_or(BTreeSet::new(), |start| (*start..=name.len()).collect()),
        };
    }
    ends.contains(&name.len())
}

fn after(starts: &BTreeSet<usize>, name: &str, text: &str) -> BTreeSet<usize> {
    let fits = |start: &&usize| name.as_bytes()[**start..].starts_with(text.as_bytes());
    starts.iter().filter(fits).map(|start| start + text.len()).collect()
}

/// Where a number that starts here may end.
fn numbers(name: &str, start: usize) -> impl Iterator<Item = usize> {
    let digits = name.as_bytes()[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    start + 1..=start + digits
}

/// Whether a number is as large as another, both as digits.
fn at_least(number: &str, least: &str) -> bool {
    let plain = |digits: &str| digits.trim_start_matches('0').to_owned();
    let (number, least) = (plain(number), plain(least));
    (number.len(), number) >= (least.len(), least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moec_diag::Span;

    fn fits(pieces: &[PatternPiece], name: &str) -> bool {
        matches(&TensorPattern { pieces: pieces.to_vec(), at: Span::NONE }, name)
    }

    #[test]
    fn names_fit_as_a_whole() {
        let text = |text: &str| PatternPiece::Text(text.to_string());
        let layer = PatternPiece::Index("l".to_string());
        let either = PatternPiece::Alternatives(vec!["q".to_string(), "qk".to_string()]);
        let pattern = [text("layers."), layer.clone(), text("."), either, text(".w")];
        assert!(fits(&pattern, "layers.12.q.w") && fits(&pattern, "layers.0.qk.w"));
        for other in ["layers..q.w", "layers.x.q.w", "layers.1.k.w", "layers.1.q.wx", "xlayers.1.q.w", ""] {
            assert!(!fits(&pattern, other), "{other}");
        }
        let any = [PatternPiece::Any, text(".inv_freq")];
        assert!(fits(&any, "a.b.inv_freq") && fits(&any, ".inv_freq") && fits(&any, "é.inv_freq.inv_freq"));
        assert!(!fits(&any, "inv_freq") && !fits(&any, "a.inv_freq2"));
        assert!(fits(&[], "") && !fits(&[], "a") && fits(&[PatternPiece::Any], "a"));
        assert!(fits(&[layer, text("7")], "177"));
        let late = PatternPiece::AtLeast { index: "l".to_string(), least: "12".to_string() };
        let late = [text("layers."), late, text(".w")];
        assert!(["12", "13", "100", "0012"].iter().all(|number| fits(&late, &format!("layers.{number}.w"))));
        assert!(["1", "9", "11", "x", ""].iter().all(|number| !fits(&late, &format!("layers.{number}.w"))));
    }
}
