//! The cutting into items and statements never decides what is accepted: the grammar's `file` does.
//!
//! Corpus files and thousands of mutants of them are read both ways.

use moec_diag::SourceMap;

use crate::grammar::{Rule, read};
use crate::scan::{Token, scan};

/// Problems of texts that the grammar takes: it cannot say these things, or not well.
const BEYOND_THE_GRAMMAR: [&str; 11] = [
    "nested_too_deep",
    "expression_too_deep",
    "chained_comparison",
    "over_nothing",
    "int_too_large",
    "float_too_large",
    "no_gate",
    "second_gate",
    "no_experts",
    "unmatched_hole",
    "not_a_hole",
];

fn corpus() -> Vec<String> {
    let mut texts = Vec::new();
    for folder in ["accept", "reject"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../grammar/corpus").join(folder);
        let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let sources = paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "moe"));
        texts.extend(sources.map(|path| std::fs::read_to_string(path).unwrap()));
    }
    texts
}

fn assert_agreement(text: &str) {
    let mut sources = SourceMap::default();
    let (_, problems) = crate::parse(&mut sources, "file.moe", text);
    let codes: Vec<String> = problems.iter().map(|problem| problem.code().unwrap().to_string()).collect();
    let code = |code: &String| code.strip_prefix("moec::syntax::").unwrap().to_owned();
    let of_grammar: Vec<String> = codes.iter().map(code).collect();
    let beyond = |code: &String| BEYOND_THE_GRAMMAR.contains(&code.as_str()) || code == "any_outside_ignore";
    let plain = text.strip_prefix('\u{feff}').unwrap_or(text);
    match read(Rule::file, plain) {
        Ok(_) => assert!(of_grammar.iter().all(beyond), "the grammar takes this, but {of_grammar:?}:\n{text}"),
        Err(stop) => assert!(!codes.is_empty(), "the grammar stops at {}, but no problem:\n{text}", stop.at),
    }
}

#[test]
fn corpus_is_judged_by_the_grammar() {
    for text in corpus() {
        // Nesting like this is what the outline keeps from the grammar.
        if !text.contains("((((((((((((((((((((") {
            assert_agreement(&text);
        }
    }
}

#[test]
fn mutants_are_judged_by_the_grammar() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for text in corpus().iter().filter(|text| !text.contains("((((((((((((((((((((")) {
        let tokens = scan(text).tokens;
        for _ in 0..80 {
            assert_agreement(&mutant(text, &tokens, &mut random));
        }
    }
}

/// The text with a token dropped, doubled, replaced by another of the file, or moved to a line of its own.
fn mutant(text: &str, tokens: &[Token], random: &mut Random) -> String {
    let token = &tokens[random.below(tokens.len())];
    let other = &tokens[random.below(tokens.len())];
    let (before, after) = (&text[..token.start as usize], &text[token.end as usize..]);
    let own = &text[token.start as usize..token.end as usize];
    let other = &text[other.start as usize..other.end as usize];
    match random.below(5) {
        0 => format!("{before}{after}"),
        1 => format!("{before}{own} {own}{after}"),
        2 => format!("{before}{other}{after}"),
        3 => format!("{before}{other} {own}{after}"),
        _ => format!("{before}\n{own}\n{after}"),
    }
}

/// Marsaglia's xorshift: the same mutants in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
