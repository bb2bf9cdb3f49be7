//! The canonical form of a `.moe` file.
//!
//! Authors decide where lines end; this decides everything else: spaces, indentation, columns, and where a line goes on
//! that has become too long. Tokens and comments stay as they are and in their order, so the tree stays the same.
//!
//! `lexeme` lists tokens and the comments between them; `breaks` says where lines end; `space` what stands between two
//! tokens of a line; `columns` lines up consecutive lines; `too_long` finds where to break more; `page` puts all together.

mod breaks;
mod columns;
mod lexeme;
mod page;
mod space;
mod too_long;

use moec_diag::{Problems, SourceMap};

/// Lines are broken to have at most so many characters, where the grammar has a place for it.
pub const LINE_WIDTH: usize = 120;

/// Columns that one step inwards takes.
const INDENT: usize = 2;

/// The canonical form of a file; its problems, where it does not parse. `name` says in reports which file it is.
pub fn format(sources: &mut SourceMap, name: &str, bytes: &[u8]) -> Result<String, Problems> {
    let (_, problems) = moec_syntax::parse_bytes(sources, name, bytes);
    if !problems.is_empty() {
        return Err(problems);
    }
    let text = std::str::from_utf8(bytes).expect("what parses is UTF-8");
    // A byte order mark means nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let file = moec_syntax::concrete::read(text).expect("what parses without a problem is in the grammar");
    let sheet = lexeme::Sheet::of(text, file);
    Ok(page::print(&sheet))
}
