//! LogQL text to tokens with their places.

use super::ParseError;
use super::units::{parse_bytes, parse_duration_ns};

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tok {
    Ident(String),
    Str(String),
    Number(f64),
    /// Nanoseconds.
    Duration(f64),
    Bytes(f64),
    /// Punctuation and operators, as written.
    Op(&'static str),
    /// `--strict`, `--keep-empty`.
    Flag(&'static str),
    End,
}

impl Tok {
    /// How an error names it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Ident(name) if name.chars().all(|c| c.is_ascii_lowercase() || c == '_') => name.clone(),
            Self::Ident(_) => "IDENTIFIER".to_owned(),
            Self::Str(_) => "STRING".to_owned(),
            Self::Number(_) => "NUMBER".to_owned(),
            Self::Duration(_) => "DURATION".to_owned(),
            Self::Bytes(_) => "BYTES".to_owned(),
            Self::Op(op) => (*op).to_owned(),
            Self::Flag(flag) => (*flag).to_owned(),
            Self::End => "$end".to_owned(),
        }
    }
}

/// Line and column, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub line: u32,
    pub column: u32,
}

/// A token and where it starts.
#[derive(Clone, Debug)]
pub(super) struct Spanned {
    pub(super) tok: Tok,
    pub(super) place: Place,
}

/// Longer ones first, so that the first that fits is the right one.
const OPS: [&str; 29] = [
    "|=", "|~", "|>", "!=", "!~", "!>", "=~", "==", ">=", "<=", "=", ">", "<", "|", "{", "}", "(", ")", "[", "]", ",",
    "+", "-", "*", "/", "%", "^", ".", ":",
];
const FLAGS: [&str; 2] = ["--strict", "--keep-empty"];

struct Lexer<'a> {
    rest: &'a str,
    place: Place,
}

/// All tokens; the last is [`Tok::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Spanned>, ParseError> {
    let mut lexer = Lexer { rest: text, place: Place { line: 1, column: 1 } };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let place = lexer.place;
        let tok = lexer.next()?;
        let end = tok == Tok::End;
        tokens.push(Spanned { tok, place });
        if end {
            return Ok(tokens);
        }
    }
}

impl<'a> Lexer<'a> {
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        for c in taken.chars() {
            if c == '\n' {
                self.place = Place { line: self.place.line + 1, column: 1 };
            } else {
                self.place.column += 1;
            }
        }
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        self.take(self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len()))
    }

    fn skip_blank(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if !self.rest.starts_with('#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn next(&mut self) -> Result<Tok, ParseError> {
        let Some(first) = self.rest.chars().next() else { return Ok(Tok::End) };
        if first == '"' || first == '`' {
            return self.string(first);
        }
        if first.is_ascii_digit() || (first == '.' && self.rest.chars().nth(1).is_some_and(|c| c.is_ascii_digit())) {
            return self.number();
        }
        if first.is_alphabetic() || first == '_' {
            let name = self.take_while(|c| c.is_alphanumeric() || c == '_' || c == '.');
            return Ok(Tok::Ident(name.to_owned()));
        }
        if let Some(flag) = FLAGS.iter().find(|flag| self.rest.starts_with(**flag)) {
            self.take(flag.len());
            return Ok(Tok::Flag(flag));
        }
        match OPS.iter().find(|op| self.rest.starts_with(**op)) {
            Some(op) => {
                self.take(op.len());
                Ok(Tok::Op(op))
            }
            None => Err(ParseError::at(self.place, format!("syntax error: unexpected character {first:?}"))),
        }
    }

    fn number(&mut self) -> Result<Tok, ParseError> {
        let place = self.place;
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '.').unwrap_or(self.rest.len());
        let word = self.rest.get(..end).unwrap_or("");
        // An exponent may have a sign: `1e-05`.
        let exponent = word.ends_with(['e', 'E']) && !word.starts_with("0x");
        let signed = exponent && self.rest.get(end..).is_some_and(|rest| rest.starts_with(['-', '+']));
        let end = if signed {
            let digits = self.rest.get(end + 1..).unwrap_or("");
            end + 1 + digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())
        } else {
            end
        };
        let word = self.take(end);
        let hex = word.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
        if let Some(number) = word.parse::<f64>().ok().filter(|n| n.is_finite()).or(hex.map(|number| number as f64)) {
            return Ok(Tok::Number(number));
        }
        let duration = parse_duration_ns(word).map(Tok::Duration);
        duration.or_else(|| parse_bytes(word).map(Tok::Bytes)).ok_or_else(|| {
            ParseError::at(place, format!("syntax error: {word:?} is not a number, a duration or a size"))
        })
    }

    fn string(&mut self, quote: char) -> Result<Tok, ParseError> {
        let place = self.place;
        let unclosed = || ParseError::at(place, "syntax error: literal not terminated");
        self.take(1);
        if quote == '`' {
            let end = self.rest.find('`').ok_or_else(unclosed)?;
            let text = self.take(end).to_owned();
            self.take(1);
            return Ok(Tok::Str(text));
        }
        let mut escaped = false;
        let end = self.rest.find(|c| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes || c == '\n'
        });
        let end =
            end.filter(|end| self.rest.get(*end..).is_some_and(|rest| rest.starts_with('"'))).ok_or_else(unclosed)?;
        let raw = self.take(end);
        self.take(1);
        unescape(raw).map(Tok::Str).ok_or_else(|| ParseError::at(place, "syntax error: invalid escape in string"))
    }
}

/// Go's escapes. Bytes given as `\xHH` must make up valid UTF-8.
fn unescape(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        let (before, after) = rest.split_at(at);
        bytes.extend_from_slice(before.as_bytes());
        let kind = after.chars().nth(1)?;
        let tail = after.get(1 + kind.len_utf8()..)?;
        let simple = match kind {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' | '"' | '\'' => u8::try_from(kind).ok(),
            _ => None,
        };
        if let Some(byte) = simple {
            bytes.push(byte);
            rest = tail;
            continue;
        }
        let digits = match kind {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return None,
        };
        let code = u32::from_str_radix(tail.get(..digits)?, 16).ok()?;
        if kind == 'x' {
            bytes.push(u8::try_from(code).ok()?);
        } else {
            bytes.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
        }
        rest = tail.get(digits..)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[Tok]) {
        let found: Vec<Tok> = tokens(text).unwrap().into_iter().map(|spanned| spanned.tok).collect();
        assert_eq!(found.split_last().unwrap().1, expected, "{text}");
    }

    #[test]
    fn tokens_of_the_language() {
        let ident = |name: &str| Tok::Ident(name.to_owned());
        let text = |text: &str| Tok::Str(text.to_owned());
        check(
            "{a=\"b\"} # c\n |= `x`",
            &[Tok::Op("{"), ident("a"), Tok::Op("="), text("b"), Tok::Op("}"), Tok::Op("|="), text("x")],
        );
        check(
            "1 1.5 1e-05 0x10 5m 1h30m 5KB 250us",
            &[
                Tok::Number(1.0),
                Tok::Number(1.5),
                Tok::Number(1e-5),
                Tok::Number(16.0),
                Tok::Duration(300e9),
                Tok::Duration(5_400e9),
                Tok::Bytes(5000.0),
                Tok::Duration(250e3),
            ],
        );
        check(r#""a\"\n\x41\u00e9""#, &[text("a\"\nAé")]);
        check(
            "| logfmt --keep-empty a.b != 1-2",
            &[
                Tok::Op("|"),
                ident("logfmt"),
                Tok::Flag("--keep-empty"),
                ident("a.b"),
                Tok::Op("!="),
                Tok::Number(1.0),
                Tok::Op("-"),
                Tok::Number(2.0),
            ],
        );
    }

    #[test]
    fn errors_have_a_place() {
        for (bad, message) in [
            ("{a=\"b", "parse error at line 1, col 4: syntax error: literal not terminated"),
            ("\n  ~", "parse error at line 2, col 3: syntax error: unexpected character '~'"),
            (
                "5parsecs",
                "parse error at line 1, col 1: syntax error: \"5parsecs\" is not a number, a duration or a size",
            ),
            (r#""\q""#, "parse error at line 1, col 1: syntax error: invalid escape in string"),
        ] {
            assert_eq!(tokens(bad).unwrap_err().to_string(), message);
        }
    }
}
