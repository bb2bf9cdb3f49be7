//! Texts that somebody mistyped.

use crate::specs::random::Random;

/// Words, numbers, and signs one by one, with the space before each.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut token = String::new();
    let mut word = false;
    for c in text.chars() {
        let joins = c.is_alphanumeric() || c == '_' || c == '.';
        if !token.trim().is_empty() && (c.is_whitespace() || !(word && joins)) {
            tokens.push(std::mem::take(&mut token));
        }
        word = joins;
        token.push(c);
    }
    tokens.push(token);
    tokens
}

/// The text with a few tokens deleted, doubled, exchanged or replaced.
pub fn mutated(text: &str, random: &mut Random) -> String {
    let mut tokens = tokens(text);
    const OTHERS: &[&str] = &[
        " (",
        " )",
        " {",
        " }",
        " [",
        " ]",
        " over",
        " S",
        " D",
        " K",
        " E",
        " T",
        " =",
        " 0",
        " -1",
        " 1000000",
        " x",
        " h",
        " let",
        " out",
        " if",
        " 4294967296",
        " 9223372036854775807",
        " 0.0",
        " inf",
        " ·",
        " *",
        " not",
        " in",
    ];
    for _ in 0..random.within(1, 3) {
        if tokens.len() < 2 {
            break;
        }
        let at = random.below(tokens.len());
        match random.below(6) {
            0 => {
                tokens.remove(at);
            }
            1 => tokens.insert(at, tokens[at].clone()),
            2 => {
                let other = random.below(tokens.len());
                tokens.swap(at, other);
            }
            3 => tokens[at] = tokens[random.below(tokens.len())].clone(),
            4 => {
                let end = (at + random.below(8)).min(tokens.len());
                tokens.drain(at..end);
            }
            _ => tokens[at] = (*random.pick(OTHERS)).to_owned(),
        }
    }
    tokens.concat()
}
