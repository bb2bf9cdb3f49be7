//! The formatter keeps the tree, is done after one go, and does not care how a text was spaced.

use std::path::{Path, PathBuf};

use moec_diag::SourceMap;

/// Every `.moe` file of the repository that parses, by path.
fn files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for folder in ["grammar/corpus/accept", "examples", "crates", "tests"] {
        walk(&root.join(folder), &mut found);
    }
    found.sort();
    let texts = found.into_iter().filter_map(|path| Some((path.clone(), std::fs::read_to_string(path).ok()?)));
    let files: Vec<_> = texts.filter(|(_, text)| format(text).is_ok()).collect();
    assert!(files.len() > 40, "{} files", files.len());
    files
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|end| end == "moe") {
            found.push(path);
        }
    }
}

fn format(text: &str) -> Result<String, moec_diag::Problems> {
    moec_format::format(&mut SourceMap::default(), "file.moe", text.as_bytes())
}

/// The tree as text, without spans.
fn tree(text: &str) -> String {
    let (file, problems) = moec_syntax::parse(&mut SourceMap::default(), "file.moe", text);
    assert!(problems.is_empty(), "{problems:?}\n{text}");
    let shown = format!("{:?}", file.unwrap());
    let mut plain = String::new();
    let mut rest = shown.as_str();
    while let Some(at) = rest.find("Span { start: ") {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = &rest[rest.find('}').unwrap() + 1..];
    }
    plain + rest
}

fn comments(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut quoted = false;
        let bytes = line.as_bytes();
        let at = (0..bytes.len()).find(|&at| {
            quoted ^= bytes[at] == b'"' && (at == 0 || bytes[at - 1] != b'\\');
            !quoted && bytes[at..].starts_with(b"//")
        });
        found.extend(at.map(|at| line[at..].trim_end().to_owned()));
    }
    found
}

fn assert_formats(text: &str, name: &str) -> String {
    let once = format(text).unwrap_or_else(|problems| panic!("{name}: {problems:?}\n{text}"));
    assert_eq!(tree(&once), tree(text), "{name}: the tree has changed\n{once}");
    assert_eq!(comments(&once), comments(text.trim_start_matches('\u{feff}')), "{name}: comments");
    let twice = format(&once).unwrap();
    assert_eq!(twice, once, "{name}: not done after one go");
    assert!(once.lines().all(|line| line.trim_end() == line), "{name}: white space at an end\n{once}");
    assert!(!once.contains("\n\n\n"), "{name}: empty lines\n{once}");
    once
}

#[test]
fn all_files_keep_their_trees() {
    for (path, text) in files() {
        assert_formats(&text, &path.display().to_string());
    }
}

#[test]
fn spaces_do_not_matter() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (path, text) in files() {
        let formatted = format(&text).unwrap();
        let spaced = respaced(&formatted, &mut random, |random| [" ", "   ", "\t "][random.below(3)].to_owned());
        assert_eq!(format(&spaced).unwrap(), formatted, "{}", path.display());
    }
}

#[test]
fn line_ends_and_comments_anywhere() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for (path, text) in files().into_iter().filter(|(_, text)| text.len() < 8000) {
        for _ in 0..2 {
            let torn = respaced(&text, &mut random, |random| match random.below(12) {
                0 => "\n".to_owned(),
                1 => "\n\n\n".to_owned(),
                2 => " // why\n".to_owned(),
                3 => "\n  // why\n\n".to_owned(),
                _ => " ".to_owned(),
            });
            assert_formats(&torn, &path.display().to_string());
        }
    }
}

#[test]
fn whatever_parses_is_formatted() {
    let mut random = Random(0xd1b5_4a32_d192_ed03);
    let files = files();
    let mut formatted = 0;
    for (path, text) in files.iter().filter(|(_, text)| text.len() < 8000) {
        let words: Vec<&str> = text.split_inclusive(char::is_whitespace).collect();
        for _ in 0..4 {
            let (at, other) = (random.below(words.len()), random.below(words.len()));
            let mut mutant = words.clone();
            match random.below(4) {
                0 => drop(mutant.remove(at)),
                1 => mutant.insert(at, words[other]),
                2 => mutant.swap(at, other),
                _ => mutant.insert(at, [";", "\u{feff}", "é", "\"", "{", "//", "/// doc\n", "\r\n"][random.below(8)]),
            }
            let mutant = mutant.concat();
            if format(&mutant).is_ok() {
                formatted += 1;
                assert_formats(&mutant, &path.display().to_string());
            }
        }
    }
    assert!(formatted > 30, "{formatted} mutants parse");
}

/// The text with every space or line end outside comments and strings that is not needed to part two lines replaced.
fn respaced(text: &str, random: &mut Random, mut other: impl FnMut(&mut Random) -> String) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        let (code, end) = (content.trim_end(), &line[content.len()..]);
        // Comments would swallow what follows, and a pattern's braces hold no line ends.
        if code.contains("//") || code.contains('"') && code.contains('{') {
            out.push_str(line);
            continue;
        }
        let mut quoted = false;
        for c in code.chars() {
            quoted ^= c == '"';
            if c == ' ' && !quoted { out.push_str(&other(random)) } else { out.push(c) }
        }
        out.push_str(end);
    }
    out
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

#[test]
fn long_lines_are_broken() {
    let before = "\
gate g(k) { param W[E, D]
let (first_value, first_index) = top_k(where(first_value_of_something > 0.0, f32(x) · W, -inf), k over E)
route tokens(first_index, some_function_with_a_long_name(first_value, another_value, a_third_value over K), one_more_value) }
block b { part ffn = if l in dense or (l + 1) % step != 0 { swiglu(Fd) } else { moe { gate top_k_softmax(K, renormalise); experts swiglu(F) × E; always opened } }
out a_long_name_for_a_value + another_long_name_for_a_value * a_third_long_name_for_a_value - and_a_fourth_one_of_them_all }
";
    let after = "\
gate g(k) {
  param W[E, D]
  let (first_value, first_index) = top_k(where(first_value_of_something > 0.0, f32(x) · W, -inf), k over E)
  route tokens(first_index, some_function_with_a_long_name(first_value, another_value, a_third_value over K),
    one_more_value)
}
block b {
  part ffn = if l in dense or (l + 1) % step != 0 { swiglu(Fd) }
             else { moe { gate top_k_softmax(K, renormalise); experts swiglu(F) × E; always opened } }
  out a_long_name_for_a_value + another_long_name_for_a_value * a_third_long_name_for_a_value
    - and_a_fourth_one_of_them_all
}
";
    assert_eq!(assert_formats(before, "long lines"), after);
}

#[test]
fn columns_line_up_until_they_differ_too_much() {
    let before = "\
weights hf {
  a = \"x\" as [D]   // one
  norm.w = \"a longer name\" as [E, D] // two

  b = \"after an empty line\"
}
";
    let after = "\
weights hf {
  a      = \"x\"             as [D]     // one
  norm.w = \"a longer name\" as [E, D]  // two

  b = \"after an empty line\"
}
";
    assert_eq!(assert_formats(before, "columns"), after);
}

#[test]
fn what_does_not_parse_is_left_alone() {
    for text in ["config {", "let x = 1", "\u{0}"] {
        assert!(!format(text).unwrap_err().is_empty());
    }
    assert_eq!(format("").unwrap(), "");
    assert_eq!(format("\n\n// only this\n\n\n").unwrap(), "// only this\n");
}
