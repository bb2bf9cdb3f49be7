//! No text makes the parser panic, hang or exhaust the stack, and every span lies within its file.

mod common;

use common::{corpus, rendered};
use moec_diag::{Problems, SourceMap};
use moec_syntax::{parse, parse_bytes, parse_expr};

/// Reads a text behind another file, so that spans are not offsets, and renders what is found.
fn problems_of(text: &str) -> String {
    let mut sources = SourceMap::default();
    sources.add("before.moe", "// something else\n");
    let (_, problems) = parse(&mut sources, "file.moe", text);
    assert_labels_within(&problems, 19, text.len());
    rendered(&sources, problems)
}

fn assert_labels_within(problems: &Problems, base: usize, length: usize) {
    for problem in problems.iter() {
        for label in problem.labels().into_iter().flatten() {
            assert!(label.offset() >= base && label.offset() + label.len() <= base + length, "{problem}: {label:?}");
        }
    }
}

#[test]
fn every_prefix_of_the_corpus_is_survived() {
    for folder in ["accept", "reject"] {
        for (_, text) in corpus(folder) {
            // All of a small file; the places differ little in a large one.
            for (cut, _) in text.char_indices().step_by(1 + text.len() / 150) {
                let mut sources = SourceMap::default();
                let (_, problems) = parse(&mut sources, "file.moe", &text[..cut]);
                assert_labels_within(&problems, 0, cut);
            }
        }
    }
}

#[test]
fn random_texts_are_survived() {
    let pieces = [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "\n",
        "//",
        "///",
        "let",
        "layers",
        "if",
        "else",
        "moe",
        "bank",
        "gate g",
        "=",
        "==",
        ",",
        ";",
        "..",
        "x",
        "1",
        "1e9",
        "·",
        "×",
        "over",
        "as",
        "in",
        "config",
        "weights w",
        "model m",
        "fn f",
        "from",
        "require",
        "\\",
        "é",
        "\u{7f}",
        "use a",
        "::",
        "-",
        "not",
        "^",
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    for _ in 0..3000 {
        let text: String = (0..next(60)).flat_map(|_| [pieces[next(pieces.len())], [" ", "", "\n"][next(3)]]).collect();
        problems_of(&text);
    }
    for _ in 0..3000 {
        let bytes: Vec<u8> = (0..next(200)).map(|_| next(256) as u8).collect();
        let mut sources = SourceMap::default();
        let (_, problems) = parse_bytes(&mut sources, "file.moe", &bytes);
        assert_labels_within(&problems, 0, bytes.len());
    }
}

#[test]
fn binary_and_oversized_files_are_one_clear_problem() {
    let cases: [(&[u8], &str); 5] = [
        (b"\x7fELF\x02\x01\x01\0\0\0", "moec::syntax::binary_file"),
        (b"fn f(x) = x\0", "moec::syntax::binary_file"),
        (b"fn f(x) = \"\xff\xfe\"", "moec::syntax::not_utf8"),
        (&vec![b'\n'; moec_syntax::LARGEST_FILE_BYTES + 1], "moec::syntax::file_too_large"),
        (&[b'x'; 20_000], "moec::syntax::line_too_long"),
    ];
    for (bytes, code) in cases {
        let mut sources = SourceMap::default();
        let (file, problems) = parse_bytes(&mut sources, "file.moe", bytes);
        let codes: Vec<String> = problems.iter().map(|problem| problem.code().unwrap().to_string()).collect();
        assert_eq!((file, codes), (None, vec![code.to_owned()]));
    }
}

/// A body that says `before` and `after` so often; lines stay short.
fn repeated(head: &str, before: &str, middle: &str, after: &str, tail: &str, count: usize) -> String {
    let lines =
        |piece: &str| (0..count).map(|n| piece.to_owned() + if n % 50 == 49 { "\n" } else { "" }).collect::<String>();
    [head, &lines(before), middle, &lines(after), tail].concat()
}

#[test]
fn deep_nesting_is_refused() {
    let count = 10_000;
    let cases = [
        ("fn f(x) = ", "(", "x", ")", "", "nested_too_deep"),
        ("fn f(x) = ", "[", "", "]", "", "nested_too_deep"),
        ("fn f(x) = ", "f(", "x", ")", "", "nested_too_deep"),
        ("fn f(x) = ", "if x { ", "x", " }", "", "nested_too_deep"),
        ("fn f(x) = ", "if ", "x", " { x }", "", "nested_too_deep"),
        ("fn f(x) = ", "x[A = ", "x", "]", "", "nested_too_deep"),
        ("fn f(x) = ", "moe { experts ", "x", " }", "", "nested_too_deep"),
        ("block b { ", "layers l in 0..2 { ", "", " }", " }", "nested_too_deep"),
        ("fn f(x) = ", "- ", "x", "", "", "expression_too_deep"),
        ("fn f(x) = ", "not ", "x", "", "", "expression_too_deep"),
        ("fn f(x) = ", "x ^ ", "x", "", "", "expression_too_deep"),
        ("fn f(x) = ", "x ^ -", "x", "", "", "expression_too_deep"),
        ("fn f(x) = ", "x + ", "x", "", "", "expression_too_deep"),
        ("fn f(x) = ", "x · ", "x", "", "", "expression_too_deep"),
        ("fn f(x) = x", ".y", "", "", "", "expression_too_deep"),
        ("fn f(x) = x", "[A = 0]", "", "", "", "expression_too_deep"),
        ("fn f(x) = ", "if x { x } else ", "{ x }", "", "", "expression_too_deep"),
    ];
    for (head, before, middle, after, tail, code) in cases {
        let report = problems_of(&repeated(head, before, middle, after, tail, count));
        assert!(report.contains(&format!("moec::syntax::{code}")), "{before}: {report}");
    }
}

#[test]
fn nesting_within_the_limits_is_read() {
    for (head, before, middle, after, tail, count) in [
        ("fn f(x) = ", "(", "x", ")", "", 64),
        ("fn f(x) = ", "if x { f(x[A = ", "x", "]) }", "", 21),
        ("block b { ", "layers l in 0..2 { ", "", " }", " }", 63),
        ("fn f(x) = ", "x + ", "x", "", "", 127),
        ("fn f(x) = [", "1, ", "1", "", "]", 5000),
    ] {
        assert_eq!(problems_of(&repeated(head, before, middle, after, tail, count)), "", "{before}");
    }
}

/// A test that hangs or takes gigabytes is what this is about, so no time is asserted.
#[test]
fn long_hostile_files_end() {
    for (head, before, tail) in [
        ("", "(", ""),
        ("", ")", ""),
        ("", "{", ""),
        ("", "}", ""),
        ("", "gate g {", ""),
        ("", "gate g(k) { route x }", ""),
        ("", "\"", ""),
        ("", "é", ""),
        ("", "#\n", ""),
        ("", "word ", ""),
        ("", "\n/// doc", ""),
        ("config {", "D = 1 ", "}"),
        ("config {", "D = 1 2 ", "}"),
        ("block b {", "let x = y ", "}"),
        ("block b {", "let x y ", "}"),
        ("block b {", "let x = f(", "}"),
        ("block b {", "layers l in 0..1 { } ", "}"),
        ("block b {", "layers l in 0..1 { ", ""),
        ("weights w {", "a.b = \"c\" ", "}"),
        ("weights w { a = \"b\"", "\n{a,b", "}"),
        ("fn f(x) = ", "if x { ", ""),
        ("fn f(x) = ", "x + ", ""),
        ("fn f(x) = ", "1e+", ""),
    ] {
        problems_of(&repeated(head, before, "", "", tail, (1 << 16) / before.len()));
    }
}

#[test]
fn an_expression_alone_is_read_or_refused() {
    let cases = [
        ("8", true),
        ("-1.5e3", true),
        ("[1, 2, [true]]", true),
        ("\"silu\"", true),
        ("fn", true),
        ("2 * D", true),
        ("", false),
        ("1 2", false),
        ("[1, 2", false),
        ("x = 3", false),
        ("1)", false),
        ("fn f(x) = 3", false),
        ("{", false),
        ("if a { b } else", false),
        ("let", false),
    ];
    for (text, sound) in cases {
        let mut sources = SourceMap::default();
        let (expr, problems) = parse_expr(&mut sources, "--set", text);
        assert_labels_within(&problems, 0, text.len());
        assert_eq!((expr.is_some(), problems.is_empty()), (sound, sound), "{text}: {}", rendered(&sources, problems));
    }
}
