//! Tokens of PromQL, split as Prometheus splits them.
//!
//! An error is the last token: the parser meets it only where it looks that far, so that what is wrong earlier in the
//! text is told first.

use super::ast::{AggregateOp, BinaryOp};
use crate::model::quote::Quoted;

/// What a token is; its text is in the source.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Identifier,
    /// An identifier with a colon.
    MetricIdentifier,
    Number,
    Duration,
    String,
    Op(BinaryOp),
    Aggregator(AggregateOp),
    Keyword(Keyword),
    EqualRegex,
    NotEqualRegex,
    At,
    /// Brackets and separators.
    Mark(char),
    End,
    /// The text goes on in a way that has no token.
    Error(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Anchored,
    Bool,
    By,
    EndOfQuery,
    Fill,
    FillLeft,
    FillRight,
    GroupLeft,
    GroupRight,
    Ignoring,
    Offset,
    On,
    Range,
    Smoothed,
    StartOfQuery,
    Step,
    Without,
}

impl Keyword {
    const ALL: [(&'static str, Self); 17] = [
        ("anchored", Self::Anchored),
        ("bool", Self::Bool),
        ("by", Self::By),
        ("end", Self::EndOfQuery),
        ("fill", Self::Fill),
        ("fill_left", Self::FillLeft),
        ("fill_right", Self::FillRight),
        ("group_left", Self::GroupLeft),
        ("group_right", Self::GroupRight),
        ("ignoring", Self::Ignoring),
        ("offset", Self::Offset),
        ("on", Self::On),
        ("range", Self::Range),
        ("smoothed", Self::Smoothed),
        ("start", Self::StartOfQuery),
        ("step", Self::Step),
        ("without", Self::Without),
    ];

    /// Whether the word only means something in its place, and is quoted like a name in errors.
    fn is_plain(self) -> bool {
        matches!(self, Self::StartOfQuery | Self::EndOfQuery | Self::Step | Self::Range)
    }
}

/// A token and its place in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    /// How the parser names it in an error.
    pub(super) fn describe(&self, source: &str) -> String {
        let text = source.get(self.start..self.end).unwrap_or_default();
        match &self.kind {
            Kind::End => "end of input".to_owned(),
            Kind::Error(message) => message.clone(),
            Kind::Identifier => format!("identifier {}", Quoted(text)),
            Kind::MetricIdentifier => format!("metric identifier {}", Quoted(text)),
            Kind::Number => format!("number {}", shortened(text)),
            Kind::Duration => format!("duration {}", shortened(text)),
            Kind::String => format!("string {}", shortened(text)),
            Kind::Op(_) | Kind::EqualRegex | Kind::NotEqualRegex | Kind::At => format!("<op:{text}>"),
            Kind::Aggregator(_) => format!("<aggr:{text}>"),
            Kind::Keyword(keyword) if !keyword.is_plain() => format!("<{text}>"),
            Kind::Keyword(_) | Kind::Mark(_) => Quoted(text).to_string(),
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(10) {
        Some((at, _)) if text.len() > 10 => format!("{}...", Quoted(text.get(..at).unwrap_or_default())),
        _ => Quoted(text).to_string(),
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(c: char) -> bool {
    is_alpha(c) || c.is_ascii_digit()
}

/// A character as Go quotes it.
fn rune(c: char) -> String {
    match c {
        '\'' => "'\\''".to_owned(),
        '"' => "'\"'".to_owned(),
        c => format!("'{}'", Quoted(c.encode_utf8(&mut [0; 4])).to_string().trim_matches('"')),
    }
}

/// What follows an operator's first character, where only some characters may.
fn next_rune(c: Option<char>) -> String {
    c.map_or_else(|| "'\u{fffd}'".to_owned(), rune)
}

/// Splits the text; the last token is always [`Kind::End`] or [`Kind::Error`].
pub(super) fn tokenize(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, ..Lexer::default() };
    let mut tokens: Vec<Token> = Vec::new();
    loop {
        lexer.start = lexer.at;
        let kind = match lexer.next_kind() {
            Ok(Some(kind)) => kind,
            Ok(None) => continue,
            Err(message) => Kind::Error(message),
        };
        let last = matches!(kind, Kind::End | Kind::Error(_));
        tokens.push(Token { kind, start: lexer.start, end: lexer.at });
        if last {
            return tokens;
        }
    }
}

#[derive(Default)]
struct Lexer<'a> {
    text: &'a str,
    /// Start of the token.
    start: usize,
    at: usize,
    parens: usize,
    in_braces: bool,
    brackets: Brackets,
    seen_colon: bool,
}

/// Where the lexer is in square brackets.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Brackets {
    #[default]
    Outside,
    /// Before the first number.
    BeforeDuration,
    Inside,
}

type Lexed = Result<Option<Kind>, String>;

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn advance(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !accept(c)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> bool {
        let found = self.peek().is_some_and(wanted);
        if found {
            self.advance();
        }
        found
    }

    /// Prometheus places this error behind the character.
    fn error_behind(&mut self, message: &str) -> Lexed {
        self.start = self.at;
        Err(message.to_owned())
    }

    /// The next token, or `None` where there was only space or a comment.
    fn next_kind(&mut self) -> Lexed {
        if !self.take_while(is_space).is_empty() {
            return Ok(None);
        }
        if self.rest().starts_with('#') && self.brackets != Brackets::BeforeDuration {
            self.take_while(|c| !matches!(c, '\n' | '\r'));
            return Ok(None);
        }
        if self.in_braces {
            return self.inside_braces();
        }
        if self.brackets == Brackets::BeforeDuration {
            return self.before_duration();
        }
        self.statement()
    }

    fn statement(&mut self) -> Lexed {
        let Some(c) = self.peek() else { return self.at_end() };
        let second_is_digit = self.rest().chars().nth(1).is_some_and(|c| c.is_ascii_digit());
        if c.is_ascii_digit() || (c == '.' && second_is_digit) {
            return self.number().map(Some);
        }
        if is_alpha(c) || c == ':' {
            return if self.brackets == Brackets::Inside { self.word_in_brackets(c) } else { Ok(Some(self.word())) };
        }
        self.advance();
        match c {
            '"' | '\'' | '`' => self.string(c),
            '=' | '!' | '<' | '>' => self.comparison(c),
            '*' => Ok(Some(Kind::Op(BinaryOp::Mul))),
            '/' => Ok(Some(Kind::Op(BinaryOp::Div))),
            '%' => Ok(Some(Kind::Op(BinaryOp::Mod))),
            '+' => Ok(Some(Kind::Op(BinaryOp::Add))),
            '-' => Ok(Some(Kind::Op(BinaryOp::Sub))),
            '^' => Ok(Some(Kind::Op(BinaryOp::Pow))),
            '@' => Ok(Some(Kind::At)),
            ',' => Ok(Some(Kind::Mark(c))),
            '(' | ')' | '{' | '[' | ']' => self.bracket(c),
            other => Err(format!("unexpected character: {}", rune(other))),
        }
    }

    fn at_end(&self) -> Lexed {
        if self.parens > 0 {
            return Err("unclosed left parenthesis".to_owned());
        }
        if self.brackets != Brackets::Outside {
            return Err("unclosed left bracket".to_owned());
        }
        Ok(Some(Kind::End))
    }

    fn comparison(&mut self, first: char) -> Lexed {
        let next = self.peek();
        let mut is_next = |wanted: char| {
            let found = next == Some(wanted);
            self.at += usize::from(found);
            found
        };
        let kind = match first {
            '=' if is_next('=') => Kind::Op(BinaryOp::Eq),
            '=' if next == Some('~') => return Err("unexpected character after '=': '~'".to_owned()),
            '=' => Kind::Mark('='),
            '!' if is_next('=') => Kind::Op(BinaryOp::Ne),
            '!' => return Err(format!("unexpected character after '!': {}", next_rune(next))),
            '<' if is_next('=') => Kind::Op(BinaryOp::Le),
            '<' if is_next('/') => Kind::Op(BinaryOp::TrimUpper),
            '<' => Kind::Op(BinaryOp::Lt),
            _ if is_next('=') => Kind::Op(BinaryOp::Ge),
            _ if is_next('/') => Kind::Op(BinaryOp::TrimLower),
            _ => Kind::Op(BinaryOp::Gt),
        };
        Ok(Some(kind))
    }

    fn bracket(&mut self, c: char) -> Lexed {
        match c {
            '(' => self.parens += 1,
            ')' if self.parens == 0 => return self.error_behind("unexpected right parenthesis ')'"),
            ')' => self.parens -= 1,
            '{' => self.in_braces = true,
            '[' if self.brackets != Brackets::Outside => return Err("unexpected left bracket '['".to_owned()),
            '[' => {
                self.brackets = Brackets::BeforeDuration;
                self.seen_colon = false;
            }
            _ if self.brackets == Brackets::Outside => return Err("unexpected right bracket ']'".to_owned()),
            _ => self.brackets = Brackets::Outside,
        }
        Ok(Some(Kind::Mark(c)))
    }

    /// Durations may be computed: only numbers, operators and a few words stand here.
    fn before_duration(&mut self) -> Lexed {
        let Some(c) = self.peek() else {
            return Err("unexpected end of input in duration expression".to_owned());
        };
        if c.is_ascii_digit() || c == '.' || matches!(c, '(' | ')' | '+' | '-' | '*' | '/' | '%' | '^' | ',' | ']') {
            if c.is_ascii_digit() || c == '.' {
                self.brackets = Brackets::Inside;
            }
            return self.statement();
        }
        if c == ':' {
            self.advance();
            return self.error_behind("unexpected colon before duration in duration expression");
        }
        let start = self.at;
        let word = self.take_while(is_alpha);
        if let Some(kind) = duration_word(word) {
            self.brackets = Brackets::Inside;
            return Ok(Some(kind));
        }
        self.at = start + c.len_utf8();
        Err(format!("unexpected character in duration expression: {}", rune(c)))
    }

    fn word_in_brackets(&mut self, c: char) -> Lexed {
        if c != ':' {
            let start = self.at;
            if let Some(kind) = duration_word(self.take_while(is_alpha)) {
                return Ok(Some(kind));
            }
            self.at = start + 1;
            return Err(format!("unexpected character: {}, expected ':'", rune(c)));
        }
        self.advance();
        if std::mem::replace(&mut self.seen_colon, true) {
            return Err("unexpected colon ':'".to_owned());
        }
        Ok(Some(Kind::Mark(':')))
    }

    fn word(&mut self) -> Kind {
        let word = self.take_while(|c| is_alphanumeric(c) || c == ':');
        let lower = word.to_ascii_lowercase();
        if matches!(lower.as_str(), "inf" | "nan") {
            return Kind::Number;
        }
        let op = [BinaryOp::And, BinaryOp::Or, BinaryOp::Unless, BinaryOp::Atan2];
        if let Some(op) = op.into_iter().find(|op| op.symbol() == lower) {
            return Kind::Op(op);
        }
        if let Some((op, _)) = AggregateOp::ALL.iter().find(|(_, name)| *name == lower) {
            return Kind::Aggregator(*op);
        }
        let is_fill = lower.starts_with("fill");
        match Keyword::ALL.iter().find(|(name, _)| *name == lower) {
            // These came late: where no value follows, they are still names.
            Some((_, keyword)) if !is_fill || self.rest().trim_start_matches(is_space).starts_with('(') => {
                Kind::Keyword(*keyword)
            }
            _ if word.contains(':') => Kind::MetricIdentifier,
            _ => Kind::Identifier,
        }
    }

    fn inside_braces(&mut self) -> Lexed {
        let Some(c) = self.peek() else { return Err("unexpected end of input inside braces".to_owned()) };
        if is_alpha(c) {
            self.take_while(is_alphanumeric);
            return Ok(Some(Kind::Identifier));
        }
        self.advance();
        let next = self.peek();
        match c {
            '"' | '\'' | '`' => self.string(c),
            '=' if self.take(|c| c == '~') => Ok(Some(Kind::EqualRegex)),
            ',' | '=' => Ok(Some(Kind::Mark(c))),
            '!' if self.take(|c| c == '~') => Ok(Some(Kind::NotEqualRegex)),
            '!' if self.take(|c| c == '=') => Ok(Some(Kind::Op(BinaryOp::Ne))),
            '!' => Err(format!("unexpected character after '!' inside braces: {}", next_rune(next))),
            '{' => Err("unexpected left brace '{'".to_owned()),
            '}' => {
                self.in_braces = false;
                Ok(Some(Kind::Mark(c)))
            }
            other => Err(format!("unexpected character inside braces: {}", rune(other))),
        }
    }

    fn string(&mut self, quote: char) -> Lexed {
        loop {
            match self.advance() {
                Some(c) if c == quote => return Ok(Some(Kind::String)),
                None if quote == '`' => return Err("unterminated raw string".to_owned()),
                None => return Err("unterminated quoted string".to_owned()),
                Some('\n') if quote != '`' => return Err("unterminated quoted string".to_owned()),
                Some('\\') if quote != '`' => self.escape(quote)?,
                Some(_) => {}
            }
        }
    }

    /// Checks what follows a backslash.
    fn escape(&mut self, quote: char) -> Result<(), String> {
        let Some(c) = self.advance() else { return Err("escape sequence not terminated".to_owned()) };
        let (digits, radix, max) = match c {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(()),
            c if c == quote => return Ok(()),
            '0'..='7' => (2, 8, 255),
            'x' => (2, 16, 255),
            'u' => (4, 16, 0x10_ffff),
            'U' => (8, 16, 0x10_ffff),
            other => return Err(format!("unknown escape sequence U+{:04X} {}", u32::from(other), rune(other))),
        };
        let mut code = c.to_digit(8).filter(|_| radix == 8).unwrap_or(0);
        for _ in 0..digits {
            let Some(c) = self.advance() else { return Err("escape sequence not terminated".to_owned()) };
            let Some(digit) = c.to_digit(radix) else {
                let code = u32::from(c);
                return Err(format!("illegal character U+{code:04X} {} in escape sequence", rune(c)));
            };
            code = code.wrapping_mul(radix).wrapping_add(digit);
        }
        if code > max || (0xd800..0xe000).contains(&code) {
            return Err("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Kind, String> {
        if self.scan_number() {
            return Ok(Kind::Number);
        }
        if self.scan_duration_rest() {
            return Ok(Kind::Duration);
        }
        let seen = self.text.get(self.start..self.at).unwrap_or_default();
        Err(format!("bad number or duration syntax: {}", Quoted(seen)))
    }

    /// Reads as far as a number goes; whether it is one the parser finds out.
    fn scan_number(&mut self) -> bool {
        let is_hex = self.take(|c| c == '0') && self.take(|c| matches!(c, 'x' | 'X'));
        let is_digit = move |c: char| if is_hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
        if is_hex {
            self.take(|c| c == '_');
        }
        self.take(|c| c == '.');
        self.take(is_digit);
        let (mut dots, mut exponents) = (0, 0);
        while let Some(c) = self.peek().filter(|c| is_digit(*c) || matches!(c, '.' | '_' | 'e' | 'E')) {
            dots += u32::from(c == '.');
            exponents += u32::from(matches!(c, 'e' | 'E'));
            if (c == '.' && dots > 1) || (matches!(c, 'e' | 'E') && exponents > 1 && !is_hex) {
                self.advance();
                return false;
            }
            match c {
                '.' => {
                    self.advance();
                    if self.take(|c| matches!(c, '_' | '.')) || is_hex {
                        return false;
                    }
                }
                'e' | 'E' if !is_hex => {
                    self.advance();
                    self.take(|c| matches!(c, '+' | '-'));
                    if self.take(|c| matches!(c, '.' | '_' | 'e' | 'E')) || self.peek().is_none() {
                        return false;
                    }
                }
                '_' => {
                    self.advance();
                    if self.take(|c| matches!(c, '.' | '_' | 'e' | 'E')) || self.peek().is_none() {
                        return false;
                    }
                }
                _ => {
                    self.take_while(is_digit);
                }
            }
        }
        !self.peek().is_some_and(is_alphanumeric)
    }

    /// The rest of a duration whose first number was read; which units may follow which the parser checks.
    fn scan_duration_rest(&mut self) -> bool {
        if !self.take(|c| "smhdwy".contains(c)) {
            return false;
        }
        self.take(|c| c == 's');
        while self.take(|c| c.is_ascii_digit()) {
            self.take_while(|c| c.is_ascii_digit());
            if !self.take(|c| "smhdw".contains(c)) {
                return false;
            }
            self.take(|c| c == 's');
        }
        let follows = self.peek().filter(|c| is_alphanumeric(*c));
        self.at += follows.map_or(0, char::len_utf8);
        follows.is_none()
    }
}

/// The words of computed durations.
fn duration_word(word: &str) -> Option<Kind> {
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "step" => Some(Kind::Keyword(Keyword::Step)),
        "range" => Some(Kind::Keyword(Keyword::Range)),
        // The names of 3.6, and those of 3.14.
        "min" | "min_of" => Some(Kind::Aggregator(AggregateOp::Min)),
        "max" | "max_of" => Some(Kind::Aggregator(AggregateOp::Max)),
        _ => None,
    }
}
