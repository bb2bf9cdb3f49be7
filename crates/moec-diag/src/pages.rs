//! What each problem's code means: one page for each, `errors/AREA/NAME.md` for `moec::AREA::NAME`.
//!
//! A page is a title, what is wrong and why it matters, and examples: code blocks marked `broken`, which have this problem
//! and no other, and `mended`, which have none.

/// What is to say about one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// `moec::sema::axis_twice`.
    pub code: &'static str,
    /// All of the page, as Markdown.
    pub text: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// A piece of a page, in the order in which they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'p> {
    Prose(&'p str),
    Example(Example<'p>),
}

/// A code block: a spec (`moe`), a `config.json` (`json`), or a command line (`console`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example<'p> {
    pub language: &'p str,
    pub side: Side,
    pub text: &'p str,
}

/// Which side of the mending an example shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Broken,
    Mended,
}

/// Every page, in the order of the codes within each area.
pub fn pages() -> &'static [Page] {
    PAGES
}

/// The page of a code, with or without the `moec::` before it.
pub fn page(code: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.code == code || page.code.strip_prefix("moec::") == Some(code))
}

impl Page {
    /// The first line, without its mark.
    pub fn title(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches("# ")
    }

    /// What follows the title.
    pub fn pieces(&self) -> Vec<Piece<'static>> {
        let body = self.text.split_once('\n').map_or("", |(_, body)| body);
        let mut pieces = Vec::new();
        for (number, part) in body.split("```").enumerate() {
            let (marks, text) = part.split_once('\n').unwrap_or((part, ""));
            let mut marks = marks.split_whitespace();
            match (number % 2 == 1, marks.next(), marks.next()) {
                (true, Some(language), side @ (Some("broken") | Some("mended"))) => {
                    let side = if side == Some("broken") { Side::Broken } else { Side::Mended };
                    pieces.push(Piece::Example(Example { language, side, text }));
                }
                _ if !part.trim().is_empty() => pieces.push(Piece::Prose(part.trim())),
                _ => {}
            }
        }
        pieces
    }

    /// The example of a language on one side, if the page has it.
    pub fn example(&self, language: &str, side: Side) -> Option<&'static str> {
        self.pieces().into_iter().find_map(|piece| match piece {
            Piece::Example(example) if example.language == language && example.side == side => Some(example.text),
            Piece::Example(_) | Piece::Prose(_) => None,
        })
    }
}
