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

/// The text mistyped in a few places: tokens deleted, doubled, exchanged or replaced; or names and numbers taken for others,
/// which is well-formed and mostly ill-typed.
pub fn mutated(text: &str, random: &mut Random) -> String {
    let mut tokens = tokens(text);
    let well_formed = random.percent(60);
    for _ in 0..random.within(1, 3) {
        if tokens.len() < 2 {
            break;
        }
        match well_formed {
            true => mistake(&mut tokens, random),
            false => slip(&mut tokens, random),
        }
    }
    tokens.concat()
}

/// A name for another, a number for another.
fn mistake(tokens: &mut [String], random: &mut Random) {
    const NUMBERS: &[&str] = &["0", "1", "2", "3", "5", "17", "1.0", "0.0", "-1", "64", "100000", "4294967296", "1e30"];
    let is_name = |token: &str| token.trim().starts_with(|c: char| c.is_alphabetic());
    let is_number = |token: &str| token.trim().starts_with(|c: char| c.is_ascii_digit());
    let places = |tokens: &[String], fits: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..tokens.len()).filter(|at| fits(&tokens[*at])).collect()
    };
    let (names, numbers) = (places(tokens, &is_name), places(tokens, &is_number));
    let spaced = |old: &str, new: &str| {
        let space = &old[..old.len() - old.trim_start().len()];
        format!("{space}{}", new.trim_start())
    };
    match random.maybe(&numbers).copied().filter(|_| random.percent(30)) {
        Some(at) => tokens[at] = spaced(&tokens[at], NUMBERS[random.below(NUMBERS.len())]),
        None => {
            let (at, other) = (*random.pick(&names), *random.pick(&names));
            tokens[at] = spaced(&tokens[at], &tokens[other]);
        }
    }
}

fn slip(tokens: &mut Vec<String>, random: &mut Random) {
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
