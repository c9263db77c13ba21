//! Cuts a template into texts and the tokens of its actions.

use super::TemplateError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name: function, keyword, `true`, `nil`.
    Word(String),
    /// `.name` with nothing between it and what stands before.
    Field(String),
    /// `.` alone.
    Dot,
    /// `$name`; the empty name is `$` itself.
    Variable(String),
    Text(String),
    Int(i64),
    Float(f64),
    Pipe,
    Open,
    Close,
    Comma,
    Declare,
    Assign,
}

/// A token, and whether a space stands before it (`a .b` has two arguments, `a.b` one).
#[derive(Clone, Debug)]
pub(super) struct Spaced {
    pub(super) token: Token,
    pub(super) after_space: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Piece {
    Text(String),
    Action { line: usize, tokens: Vec<Spaced> },
}

/// Cuts the template; trim markers and comments are gone afterwards.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut line = 1;
    let mut trim_next = false;
    loop {
        let (before, action) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let trim_before = action.is_some_and(|a| a.starts_with("- ") || a.starts_with("-\n") || a.starts_with("-\t"));
        let mut shown = before;
        if trim_next {
            shown = shown.trim_start();
        }
        if trim_before {
            shown = shown.trim_end();
        }
        if !shown.is_empty() {
            pieces.push(Piece::Text(shown.to_owned()));
        }
        line += before.matches('\n').count();
        let Some(action) = action else { return Ok(pieces) };
        let start_line = line;
        let error = |message: &str| TemplateError { line: start_line, message: message.to_owned() };
        let body = if trim_before { action.get(1..).unwrap_or("") } else { action };
        let length = action_length(body).ok_or_else(|| error("unclosed action"))?;
        let (inner, after) = body.split_at(length);
        line += inner.matches('\n').count();
        rest = after.get(2..).unwrap_or("");
        let (inner, trims) = match inner.strip_suffix('-') {
            Some(cut) if cut.ends_with(char::is_whitespace) || cut.ends_with("*/") => (cut, true),
            _ => (inner, false),
        };
        trim_next = trims;
        if inner.trim().starts_with("/*") {
            if !inner.trim().ends_with("*/") {
                return Err(error("unclosed comment"));
            }
            continue;
        }
        let tokens = tokens(inner).map_err(|message| error(&message))?;
        if tokens.is_empty() {
            return Err(error("missing value for command"));
        }
        pieces.push(Piece::Action { line: start_line, tokens });
    }
}

/// Bytes before the `}}` that ends the action, which inside a string or comment does not count.
fn action_length(body: &str) -> Option<usize> {
    if body.trim_start().starts_with("/*") {
        let end = body.find("*/")? + 2;
        return body.get(end..)?.find("}}").map(|at| end + at);
    }
    let mut quote: Option<char> = None;
    let mut escaped = false;
    let mut previous = ' ';
    for (at, c) in body.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '`' => quote = Some(c),
            None if c == '}' && previous == '}' => return Some(at - 1),
            _ => {}
        }
        previous = if quote.is_some() { ' ' } else { c };
    }
    None
}

fn tokens(text: &str) -> Result<Vec<Spaced>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        let after_space = trimmed.len() < rest.len() || tokens.is_empty();
        let Some(first) = trimmed.chars().next() else { return Ok(tokens) };
        let (token, after) = one_token(first, trimmed)?;
        tokens.push(Spaced { token, after_space });
        rest = after;
    }
}

fn one_token(first: char, text: &str) -> Result<(Token, &str), String> {
    let after = text.get(first.len_utf8()..).unwrap_or("");
    let symbol = match first {
        '|' => Some(Token::Pipe),
        '(' => Some(Token::Open),
        ')' => Some(Token::Close),
        ',' => Some(Token::Comma),
        '=' => Some(Token::Assign),
        _ => None,
    };
    if let Some(token) = symbol {
        return Ok((token, after));
    }
    match first {
        ':' => after.strip_prefix('=').map(|after| (Token::Declare, after)).ok_or_else(|| "expected :=".to_owned()),
        '"' => quoted(after),
        '`' => after
            .split_once('`')
            .map(|(raw, after)| (Token::Text(raw.to_owned()), after))
            .ok_or_else(|| "unterminated raw string".to_owned()),
        '.' if after.starts_with(|c: char| c.is_ascii_digit()) => number(text),
        '.' => match word(after) {
            ("", _) => Ok((Token::Dot, after)),
            (name, after) => Ok((Token::Field(name.to_owned()), after)),
        },
        '$' => {
            let (name, after) = word(after);
            Ok((Token::Variable(name.to_owned()), after))
        }
        '0'..='9' | '-' | '+' => number(text),
        c if c.is_alphabetic() || c == '_' => {
            let (name, after) = word(text);
            Ok((Token::Word(name.to_owned()), after))
        }
        c => Err(format!("unexpected {c:?} in action")),
    }
}

fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()))
}

fn number(text: &str) -> Result<(Token, &str), String> {
    let mut previous = ' ';
    let is_part = |c: char, previous: char| {
        c.is_ascii_alphanumeric()
            || c == '.'
            || c == '_'
            || ((c == '-' || c == '+') && matches!(previous, ' ' | 'e' | 'E'))
    };
    let mut end = text.len();
    for (at, c) in text.char_indices() {
        if !is_part(c, previous) {
            end = at;
            break;
        }
        previous = c;
    }
    let (digits, after) = text.split_at(end);
    let plain = digits.trim_start_matches('+').replace('_', "");
    let token = match plain.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok().map(Token::Int),
        None => plain.parse().ok().map(Token::Int).or_else(|| plain.parse().ok().map(Token::Float)),
    };
    token.map(|token| (token, after)).ok_or_else(|| format!("bad number syntax: {digits:?}"))
}

fn quoted(text: &str) -> Result<(Token, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(value), text.get(at + 1..).unwrap_or(""))),
            '\n' => break,
            '\\' => {
                let Some((_, escaped)) = chars.next() else { break };
                value.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '\\' | '"' | '\'' => escaped,
                    'x' => hex_escape(&mut chars, 2)?,
                    'u' => hex_escape(&mut chars, 4)?,
                    _ => return Err(format!("unknown escape \\{escaped} in string")),
                });
            }
            _ => value.push(c),
        }
    }
    Err("unterminated quoted string".to_owned())
}

fn hex_escape(chars: &mut std::str::CharIndices<'_>, digits: usize) -> Result<char, String> {
    let code: String = chars.take(digits).map(|(_, c)| c).collect();
    u32::from_str_radix(&code, 16).ok().and_then(char::from_u32).ok_or_else(|| format!("bad escape {code:?} in string"))
}
