//! Tokens of PromQL.

use super::ast::Span;
use super::parser::ParseError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name: metric, label, function, keyword.
    Word(String),
    Number(f64),
    /// A duration in milliseconds.
    Duration(i64),
    String(String),
    /// Brackets, operators and separators.
    Symbol(&'static str),
    End,
}

impl Token {
    /// How the parser names it in an error.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Word(word) => format!("identifier {word:?}"),
            Self::Number(value) => format!("number {:?}", super::format::number(*value)),
            Self::Duration(ms) => format!("duration \"{}\"", super::ast::DurationText(*ms)),
            Self::String(text) => format!("string {text:?}"),
            Self::Symbol(symbol) => match *symbol {
                "(" | ")" | "{" | "}" | "[" | "]" | "," | "=" | ":" => format!("{symbol:?}"),
                other => format!("<op:{other}>"),
            },
            Self::End => "end of input".to_owned(),
        }
    }
}

const SYMBOLS: [&str; 25] = [
    "=~", "!~", "==", "!=", ">=", "<=", "(", ")", "{", "}", "[", "]", ",", "=", "+", "-", "*", "/", "%", "^", ">", "<",
    "@", ":", "!",
];

/// Splits the text; the last token is always [`Token::End`].
pub(super) fn tokenize(text: &str) -> Result<Vec<(Token, Span)>, ParseError> {
    let mut lexer = Lexer { text, at: 0, braces: 0, brackets: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_space();
        let start = lexer.at;
        let token = lexer.next_token()?;
        let end = token == Token::End;
        tokens.push((token, Span { start, end: lexer.at }));
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    braces: u32,
    brackets: u32,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error(&self, start: usize, message: impl Into<String>) -> ParseError {
        ParseError::new(self.text, Span { start, end: self.at }, message)
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn take_while(&mut self, mut accept: impl FnMut(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !accept(c)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    fn next_token(&mut self) -> Result<Token, ParseError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return self.at_end();
        };
        let second_is_digit = rest.chars().nth(1).is_some_and(|c| c.is_ascii_digit());
        if first.is_ascii_digit() || (first == '.' && second_is_digit) {
            return self.number();
        }
        if matches!(first, '"' | '\'' | '`') {
            return self.string(first);
        }
        // A colon can begin a recording rule's name, but in brackets it separates a subquery's step.
        if first == '_' || first.is_alphabetic() || (first == ':' && self.brackets == 0) {
            let is_colon_ok = self.brackets == 0 && self.braces == 0;
            let word = self.take_while(|c| c == '_' || c.is_ascii_alphanumeric() || (c == ':' && is_colon_ok));
            if !word.is_empty() {
                return Ok(Token::Word(word.to_owned()));
            }
        }
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            self.at += symbol.len();
            match *symbol {
                "{" => self.braces += 1,
                "}" => self.braces = self.braces.saturating_sub(1),
                "[" => self.brackets += 1,
                "]" => self.brackets = self.brackets.saturating_sub(1),
                _ => {}
            }
            return Ok(Token::Symbol(symbol));
        }
        let start = self.at;
        self.at += first.len_utf8();
        Err(self.error(start, format!("unexpected character: {first:?}")))
    }

    fn at_end(&self) -> Result<Token, ParseError> {
        if self.braces > 0 {
            return Err(self.error(self.at, "unexpected end of input inside braces"));
        }
        if self.brackets > 0 {
            return Err(self.error(self.at, "unexpected end of input in duration expression"));
        }
        Ok(Token::End)
    }

    fn number(&mut self) -> Result<Token, ParseError> {
        let start = self.at;
        let rest = self.rest();
        if rest.starts_with("0x") || rest.starts_with("0X") {
            self.at += 2;
            let digits = self.take_while(|c| c.is_ascii_hexdigit());
            let value = u64::from_str_radix(digits, 16).map_err(|_| self.error(start, "bad number"))?;
            return Ok(Token::Number(value as f64));
        }
        let bytes = rest.as_bytes();
        let mut len = 0;
        let digit_at = |at: usize| bytes.get(at).is_some_and(|b| b.is_ascii_digit() || *b == b'_');
        while digit_at(len) || bytes.get(len) == Some(&b'.') {
            len += 1;
        }
        if matches!(bytes.get(len), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
            if digit_at(len + 1 + sign) {
                len += 1 + sign;
                while digit_at(len) {
                    len += 1;
                }
            }
        }
        self.at += len;
        let digits = rest.get(..len).unwrap_or_default();
        let follows = self.rest().chars().next();
        if follows.is_some_and(|c| c.is_ascii_alphabetic() || c == '_') {
            self.at = start;
            let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
            return match parse_duration_ms(word) {
                Some(ms) => Ok(Token::Duration(ms)),
                None => Err(self.error(start, format!("bad number or duration syntax: {word:?}"))),
            };
        }
        let octal = digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| (b'0'..b'8').contains(&b));
        if octal {
            let value = u64::from_str_radix(digits, 8).map_err(|_| self.error(start, "bad number"))?;
            return Ok(Token::Number(value as f64));
        }
        let value = digits.replace('_', "").parse().map_err(|_| {
            self.error(start, format!("error parsing number: strconv.ParseFloat: parsing {digits:?}: invalid syntax"))
        })?;
        Ok(Token::Number(value))
    }

    fn string(&mut self, quote: char) -> Result<Token, ParseError> {
        let start = self.at;
        let body = self.text.get(start + 1..).unwrap_or_default();
        let mut out = String::new();
        let mut chars = body.char_indices();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.at = start + 1 + at + 1;
                return Ok(Token::String(out));
            }
            if c == '\\' && quote != '`' {
                if unescape(&mut chars, &mut out).is_none() {
                    self.at = start + 1 + at;
                    return Err(self.error(start, "invalid escape sequence in quoted string"));
                }
                continue;
            }
            if c == '\n' && quote != '`' {
                break;
            }
            out.push(c);
        }
        self.at = self.text.len();
        let what = if quote == '`' { "unterminated raw string" } else { "unterminated quoted string" };
        Err(self.error(start, what))
    }
}

/// Reads what follows a backslash.
fn unescape(chars: &mut std::str::CharIndices<'_>, out: &mut String) -> Option<()> {
    let (_, escape) = chars.next()?;
    let mut code = |radix: u32, first: Option<char>, len: usize| -> Option<u32> {
        let mut digits: String = first.into_iter().collect();
        while digits.len() < len {
            digits.push(chars.next()?.1);
        }
        u32::from_str_radix(&digits, radix).ok()
    };
    let c = match escape {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' | '\'' | '"' => escape,
        'x' => char::from_u32(code(16, None, 2)?)?,
        'u' => char::from_u32(code(16, None, 4)?)?,
        'U' => char::from_u32(code(16, None, 8)?)?,
        '0'..='7' => char::from_u32(code(8, Some(escape), 3)?)?,
        _ => return None,
    };
    out.push(c);
    Some(())
}

/// A Prometheus duration such as `1h30m` in milliseconds: units in falling order, each once.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total = 0i64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let (number, after) = rest.split_at_checked(digits)?;
        let unit_len = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_len)?;
        let at = DURATION_UNITS.iter().position(|(name, _)| *name == unit).filter(|at| *at >= next_unit)?;
        next_unit = at + 1;
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(DURATION_UNITS.get(at)?.1)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

const DURATION_UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
