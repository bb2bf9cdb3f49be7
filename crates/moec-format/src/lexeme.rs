//! The tokens of a file with their parts in the grammar, and the comments between them.

use moec_syntax::concrete::Rule;
use pest::iterators::Pair;

/// A token, and what the grammar says of it.
#[derive(Clone, Debug)]
pub struct Lexeme<'t> {
    pub text: &'t str,
    pub rule: Rule,
    /// The rule that it is a direct part of.
    pub parent: Rule,
    /// It is the first token of an item, an entry, a statement, a clause or a weight rule.
    pub begins: Option<Begins>,
    /// The bracket that goes with this one.
    pub partner: Option<usize>,
    /// How many brackets it stands in; a bracket counts as outside itself.
    pub depth: usize,
    /// Of an `else`: the first `if` of its chain.
    pub first_if: Option<usize>,
    /// What stands between the token before and this one.
    pub gap: Gap<'t>,
}

/// What a token begins. Consecutive lines that begin alike have columns in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    Entry,
    Binding,
    Param,
    Part,
    State,
    Let,
    Assign,
    /// Anything else that may have a line of its own.
    Other,
}

#[derive(Clone, Debug, Default)]
pub struct Gap<'t> {
    /// At least one line ends here.
    pub newline: bool,
    /// After the last comment, if any, a line is left empty.
    pub blank: bool,
    /// A `;` stands here.
    pub separator: bool,
    pub comments: Vec<Comment<'t>>,
}

#[derive(Clone, Debug)]
pub struct Comment<'t> {
    /// Marks included, white space at the end not.
    pub text: &'t str,
    /// Nothing else stands before it on its line.
    pub own_line: bool,
    /// A line before it is empty.
    pub blank_before: bool,
}

/// A file as tokens and gaps.
pub struct Sheet<'t> {
    pub lexemes: Vec<Lexeme<'t>>,
    /// What stands after the last token.
    pub end: Gap<'t>,
}

impl<'t> Sheet<'t> {
    pub fn of(text: &'t str, file: Pair<'t, Rule>) -> Self {
        let mut reader = Reader { text, at: 0, open: Vec::new(), lexemes: Vec::new() };
        for pair in file.into_inner().filter(|pair| pair.as_rule() != Rule::EOI) {
            reader.walk(pair, Rule::file, &mut None);
        }
        let end = gap(&text[reader.at..], reader.lexemes.is_empty());
        Sheet { lexemes: reader.lexemes, end }
    }

    /// The token before, if there is one.
    pub fn before(&self, at: usize) -> Option<&Lexeme<'t>> {
        at.checked_sub(1).map(|before| &self.lexemes[before])
    }

    /// The innermost bracket that a token stands in.
    pub fn brackets(&self) -> Vec<Option<usize>> {
        let mut open: Vec<usize> = Vec::new();
        let mut inside = Vec::with_capacity(self.lexemes.len());
        for (at, lexeme) in self.lexemes.iter().enumerate() {
            if lexeme.is_close() {
                open.pop();
            }
            inside.push(open.last().copied());
            if lexeme.is_open() {
                open.push(at);
            }
        }
        inside
    }
}

impl Lexeme<'_> {
    pub fn is_open(&self) -> bool {
        matches!(self.rule, Rule::open_paren | Rule::open_bracket | Rule::open_brace)
    }

    pub fn is_close(&self) -> bool {
        matches!(self.rule, Rule::close_paren | Rule::close_bracket | Rule::close_brace)
    }

    /// A brace around statements, entries, clauses or rules.
    pub fn is_block_brace(&self) -> bool {
        self.is_brace() && matches!(self.parent, Rule::config | Rule::body | Rule::moe | Rule::weights)
    }

    /// A brace around an expression, or around members of a bank.
    pub fn is_branch_brace(&self) -> bool {
        self.is_brace() && matches!(self.parent, Rule::condition | Rule::iterate | Rule::bank)
    }

    fn is_brace(&self) -> bool {
        matches!(self.rule, Rule::open_brace | Rule::close_brace)
    }

    /// Characters.
    pub fn width(&self) -> usize {
        self.text.chars().count()
    }
}

struct Reader<'t> {
    text: &'t str,
    /// The end of the last token.
    at: usize,
    open: Vec<usize>,
    lexemes: Vec<Lexeme<'t>>,
}

impl<'t> Reader<'t> {
    /// `first_if` is that of the innermost condition.
    fn walk(&mut self, pair: Pair<'t, Rule>, parent: Rule, first_if: &mut Option<usize>) {
        let (rule, span, start) = (pair.as_rule(), pair.as_span(), self.lexemes.len());
        let begins = begins(rule);
        let mut children = pair.into_inner().peekable();
        if children.peek().is_none() {
            return self.token(rule, parent, span.as_str(), span.start(), first_if);
        }
        let mut own_if = None;
        let chain = if rule == Rule::condition { &mut own_if } else { first_if };
        for child in children {
            self.walk(child, rule, chain);
        }
        if let (Some(begins), Some(first)) = (begins, self.lexemes.get_mut(start)) {
            // The innermost rule knows best.
            first.begins.get_or_insert(begins);
        }
    }

    fn token(&mut self, rule: Rule, parent: Rule, text: &'t str, start: usize, first_if: &mut Option<usize>) {
        let number = self.lexemes.len();
        if rule == Rule::word_if {
            first_if.get_or_insert(number);
        }
        let mut lexeme = Lexeme {
            text,
            rule,
            parent,
            begins: None,
            partner: None,
            depth: self.open.len(),
            first_if: first_if.filter(|_| rule == Rule::word_else),
            gap: gap(&self.text[self.at..start], number == 0),
        };
        if lexeme.is_open() {
            self.open.push(number);
        } else if lexeme.is_close() {
            lexeme.partner = self.open.pop();
            lexeme.depth = self.open.len();
            if let Some(partner) = lexeme.partner {
                self.lexemes[partner].partner = Some(number);
            }
        }
        self.lexemes.push(lexeme);
        self.at = start + text.len();
    }
}

fn begins(rule: Rule) -> Option<Begins> {
    match rule {
        Rule::entry => Some(Begins::Entry),
        Rule::bind => Some(Begins::Binding),
        Rule::param => Some(Begins::Param),
        Rule::part => Some(Begins::Part),
        Rule::state => Some(Begins::State),
        Rule::let_value => Some(Begins::Let),
        Rule::assign => Some(Begins::Assign),
        Rule::item | Rule::setting | Rule::statement | Rule::clause | Rule::weight_rule => Some(Begins::Other),
        _ => None,
    }
}

/// White space, comments and `;`. `first`: no token stands before it.
fn gap(text: &str, first: bool) -> Gap<'_> {
    let mut gap = Gap::default();
    let mut rest = text;
    let mut newlines = 0;
    while let Some(next) = rest.chars().next() {
        if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            let own_line = newlines > 0 || (first && gap.comments.is_empty());
            gap.comments.push(Comment { text: rest[..end].trim_end(), own_line, blank_before: newlines > 1 });
            newlines = 0;
            rest = &rest[end..];
            continue;
        }
        match next {
            '\n' => {
                newlines += 1;
                gap.newline = true;
            }
            ';' => gap.separator = true,
            _ => debug_assert!(next.is_ascii_whitespace(), "`{next}` between tokens"),
        }
        rest = &rest[next.len_utf8()..];
    }
    gap.blank = newlines > 1;
    gap
}
