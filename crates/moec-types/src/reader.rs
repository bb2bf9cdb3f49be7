//! Reads the pieces that the texts of both IRs are made of: words, numbers, lists, axes, types, expressions.

use crate::{Axis, BinaryOp, DType, Dim, Expr, Size, TensorType, UnaryOp};

/// Where the text of an IR is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("line {line}, column {column}: {message}")]
#[diagnostic(code(moec::text::parse))]
pub struct ParseError {
    /// Both from 1.
    pub line: usize,
    pub column: usize,
    pub message: String,
}

/// Expressions and regions deeper than this are refused, so that hostile text cannot exhaust the stack.
const DEEPEST: usize = 256;

/// A place in a text, and the names that the text has declared so far.
#[derive(Debug)]
pub struct Reader<'t, Names = ()> {
    text: &'t str,
    at: usize,
    depth: usize,
    pub names: Names,
}

impl<'t, Names: Default> Reader<'t, Names> {
    /// At the start of a text.
    pub fn new(text: &'t str) -> Self {
        Reader { text, at: 0, depth: 0, names: Names::default() }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// The place to blame for what comes next.
    pub fn here(&mut self) -> usize {
        self.skip();
        self.at
    }

    /// An error at a place that [`Reader::here`] gave.
    pub fn error_at(&self, at: usize, message: impl Into<String>) -> ParseError {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before[before.rfind('\n').map_or(0, |at| at + 1)..].chars().count() + 1;
        ParseError { line, column, message: message.into() }
    }

    /// An error at what comes next.
    pub fn error(&mut self, message: impl Into<String>) -> ParseError {
        self.skip();
        self.error_at(self.at, message)
    }

    /// The error of finding something else than what is wanted.
    pub fn wanted(&mut self, wanted: &str) -> ParseError {
        self.skip();
        let found: String = self.rest().chars().take_while(|c| !c.is_whitespace()).take(20).collect();
        let found = if found.is_empty() { "the end".into() } else { format!("`{found}`") };
        self.error(format!("{wanted} is wanted, found {found}"))
    }

    /// Passes blanks, line ends and `//` comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// Whether nothing is left.
    pub fn at_end(&mut self) -> bool {
        self.skip();
        self.rest().is_empty()
    }

    /// Passes so many bytes.
    pub fn advance(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// Whether a mark comes next; it is not taken.
    pub fn sees(&mut self, mark: &str) -> bool {
        self.skip();
        self.rest().starts_with(mark)
    }

    /// Takes a mark if it comes next.
    pub fn eats(&mut self, mark: &str) -> bool {
        let sees = self.sees(mark);
        self.at += if sees { mark.len() } else { 0 };
        sees
    }

    /// Takes a mark.
    pub fn expect(&mut self, mark: &str) -> Result<(), ParseError> {
        if self.eats(mark) { Ok(()) } else { Err(self.wanted(&format!("`{mark}`"))) }
    }

    /// The word that comes next; it is not taken.
    pub fn peek_word(&mut self) -> &'t str {
        self.skip();
        let rest = self.rest();
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        &rest[..end]
    }

    /// Takes a word.
    pub fn word(&mut self) -> Result<&'t str, ParseError> {
        let word = self.peek_word();
        if word.is_empty() {
            return Err(self.wanted("a word"));
        }
        self.at += word.len();
        Ok(word)
    }

    /// Takes a whole word if it comes next.
    pub fn eats_word(&mut self, word: &str) -> bool {
        let eats = self.peek_word() == word;
        self.at += if eats { word.len() } else { 0 };
        eats
    }

    /// Takes a certain word.
    pub fn expect_word(&mut self, word: &str) -> Result<(), ParseError> {
        if self.eats_word(word) { Ok(()) } else { Err(self.wanted(&format!("`{word}`"))) }
    }

    /// One of a few words.
    pub fn one_of<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> Result<T, ParseError> {
        let word = self.peek_word();
        let Some(found) = find(word) else { return Err(self.wanted(what)) };
        self.at += word.len();
        Ok(found)
    }

    /// A whole number.
    pub fn integer<T: std::str::FromStr>(&mut self) -> Result<T, ParseError> {
        self.one_of("a whole number", |word| word.parse().ok())
    }

    /// `a, b, c` between two marks.
    pub fn list<T>(
        &mut self,
        open: &str,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        self.expect(open)?;
        let mut items = Vec::new();
        while !self.eats(close) {
            if !items.is_empty() {
                self.expect(",")?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// `"…"` with Rust's escapes `\"` and `\\`.
    pub fn string(&mut self) -> Result<String, ParseError> {
        self.expect("\"")?;
        let mut string = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(string);
                }
                '\\' => string.extend(chars.next().map(|(_, c)| c)),
                c => string.push(c),
            }
        }
        Err(self.error("a string without end"))
    }

    /// The name of an axis.
    pub fn axis(&mut self) -> Result<Axis, ParseError> {
        Ok(Axis::new(self.word()?))
    }

    /// `(A, B)`.
    pub fn axes(&mut self) -> Result<Vec<Axis>, ParseError> {
        self.list("(", ")", Self::axis)
    }

    /// `S`, `D=64`, and any other [`Reader::size`] behind the `=`.
    pub fn dim(&mut self) -> Result<Dim, ParseError> {
        let axis = self.axis()?;
        if !self.eats("=") {
            return Ok(Dim::new(axis.clone(), Size::Input(axis)));
        }
        Ok(Dim::new(axis, self.size()?))
    }

    /// `64`, `S`, `past(S)`, `slots(S, 2)`, `floor(S * 2 / 8)`.
    pub fn size(&mut self) -> Result<Size, ParseError> {
        let word = self.peek_word();
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(Size::Fixed(self.integer()?));
        }
        let of = self.axis()?;
        let size = match (word, self.sees("(")) {
            ("past", true) => {
                self.expect("(")?;
                Size::Past(self.axis()?)
            }
            ("slots", true) => {
                self.expect("(")?;
                let tokens = Box::new(self.deeper(Self::size)?);
                self.expect(",")?;
                Size::Slots { tokens, choices: self.integer()? }
            }
            ("floor" | "ceil", true) => {
                self.expect("(")?;
                let of = self.axis()?;
                self.expect("*")?;
                let times = self.integer()?;
                self.expect("/")?;
                let per = self.one_of("a whole number above 0", |word| word.parse().ok().filter(|per| *per > 0))?;
                Size::Share { of, times, per, up: word == "ceil" }
            }
            _ => return Ok(Size::Input(of)),
        };
        self.expect(")")?;
        Ok(size)
    }

    /// An element type.
    pub fn dtype(&mut self) -> Result<DType, ParseError> {
        self.one_of("an element type", |word| word.parse().ok())
    }

    /// As [`TensorType`] prints.
    pub fn tensor_type(&mut self) -> Result<TensorType, ParseError> {
        let dtype = self.dtype()?;
        Ok(TensorType::new(dtype, self.list("[", "]", Self::dim)?))
    }

    /// The characters of a number, `inf` and `NaN` included.
    fn number_text(&mut self) -> &'t str {
        self.skip();
        let rest = self.rest();
        let sign = usize::from(rest.starts_with('-'));
        let body = &rest[sign..];
        if let Some(word) = ["inf", "NaN"].into_iter().find(|word| body.starts_with(word)) {
            return &rest[..sign + word.len()];
        }
        let exponent_sign = |at: usize, c: char| c == '-' && body[..at].ends_with(['e', 'E']);
        let end = body
            .char_indices()
            .find(|(at, c)| !(c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E') || exponent_sign(*at, *c)))
            .map_or(body.len(), |(at, _)| at);
        &rest[..sign + end]
    }

    /// A number, `inf` and `NaN` included.
    pub fn number(&mut self) -> Result<f64, ParseError> {
        let text = self.number_text();
        let Ok(number) = text.parse() else { return Err(self.wanted("a number")) };
        self.at += text.len();
        Ok(number)
    }

    /// Calls `read` one level deeper.
    pub fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        if self.depth == DEEPEST {
            return Err(self.error(format!("nested deeper than {DEEPEST}")));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// As `Expr` prints.
    pub fn expr(&mut self) -> Result<Expr, ParseError> {
        self.deeper(Self::expr_here)
    }

    fn expr_here(&mut self) -> Result<Expr, ParseError> {
        if self.eats("$") {
            return Ok(Expr::Arg(self.integer()?));
        }
        let word = self.peek_word();
        let is_number =
            word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) || word == "inf" || word == "NaN";
        if is_number {
            let text = self.number_text();
            if self.rest()[text.len()..].starts_with('i') {
                let Ok(value) = text.parse() else { return Err(self.wanted("an i32")) };
                self.at += text.len() + 1;
                return Ok(Expr::I32(value));
            }
            let Ok(value) = text.parse() else { return Err(self.wanted("an expression")) };
            self.at += text.len();
            return Ok(Expr::F32(value));
        }
        if self.eats_word("true") {
            return Ok(Expr::Bool(true));
        }
        if self.eats_word("false") {
            return Ok(Expr::Bool(false));
        }
        self.at += word.len();
        let at = self.at - word.len();
        let arguments = self.list("(", ")", Self::expr)?;
        let known = word == "where"
            || UnaryOp::from_name(word).is_some()
            || BinaryOp::from_name(word).is_some()
            || word.parse::<DType>().is_ok();
        if !known {
            return Err(self.error_at(at, format!("no scalar operation `{word}`")));
        }
        let count = arguments.len();
        let mut arguments = arguments.into_iter();
        let (a, b, c) = (arguments.next(), arguments.next(), arguments.next());
        let expr = match (a, b, c) {
            (Some(x), None, None) => match (UnaryOp::from_name(word), word.parse()) {
                (Some(op), _) => Some(Expr::unary(op, x)),
                (None, Ok(dtype)) => Some(Expr::cast(dtype, x)),
                (None, Err(())) => None,
            },
            (Some(a), Some(b), None) => BinaryOp::from_name(word).map(|op| Expr::binary(op, a, b)),
            (Some(a), Some(b), Some(c)) if count == 3 && word == "where" => Some(Expr::select(a, b, c)),
            _ => None,
        };
        expr.ok_or_else(|| self.error_at(at, format!("`{word}` does not take {count} operands")))
    }
}

/// Whether a character may stand in a word.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '\'')
}
