//! Stages that turn a line into labels: json, logfmt, regexp, pattern, unpack.

use std::fmt;

use regex::Regex;
use serde_json::Value;

use crate::model::quote::Quoted;

use super::labels::{LineLabels, sanitize};

const JSON_ERROR: &str = "JSONParserErr";
const NOT_AN_OBJECT: &str = "Value looks like object, but can't find closing '}' symbol";
const MALFORMED: &str = "Malformed JSON error";

/// `name="path"` after `json` or `logfmt`.
#[derive(Clone, Debug)]
pub struct Extraction {
    pub(super) name: String,
    pub(super) path: String,
}

impl fmt::Display for Extraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, Quoted(&self.path))
    }
}

fn json_object(line: &str, labels: &mut LineLabels<'_>) -> Option<Value> {
    match serde_json::from_str::<Value>(line) {
        Ok(value) if value.is_object() => Some(value),
        Ok(_) => {
            labels.set_error(JSON_ERROR, NOT_AN_OBJECT);
            None
        }
        Err(_) => {
            labels.set_error(JSON_ERROR, if line.trim_start().starts_with('{') { MALFORMED } else { NOT_AN_OBJECT });
            None
        }
    }
}

fn json_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// All leaves of an object as labels, nested names joined by `_`; arrays and nulls are left out.
pub(super) fn json_all(line: &str, labels: &mut LineLabels<'_>) {
    fn walk(prefix: &str, value: &Value, labels: &mut LineLabels<'_>) {
        let Value::Object(members) = value else { return };
        for (name, value) in members {
            let name = if prefix.is_empty() { sanitize(name) } else { format!("{prefix}_{}", sanitize(name)) };
            match json_text(value) {
                Some(text) => labels.set_extracted(&name, text),
                None => walk(&name, value, labels),
            }
        }
    }
    if let Some(object) = json_object(line, labels) {
        walk("", &object, labels);
    }
}

/// The value at a path like `a.b[0]["c d"]`.
fn json_at<'v>(mut value: &'v Value, path: &str) -> Option<&'v Value> {
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (key, after) = after.split_once(']')?;
            value = match key.strip_prefix('"').and_then(|key| key.strip_suffix('"')) {
                Some(name) => value.get(name)?,
                None => value.get(key.parse::<usize>().ok()?)?,
            };
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            value = value.get(name)?;
            rest = after;
        }
    }
    Some(value)
}

pub(super) fn json_some(line: &str, extractions: &[Extraction], labels: &mut LineLabels<'_>) {
    let Some(object) = json_object(line, labels) else { return };
    for extraction in extractions {
        let text = match json_at(&object, &extraction.path) {
            None | Some(Value::Null) => String::new(),
            Some(value) => json_text(value).unwrap_or_else(|| value.to_string()),
        };
        labels.set_extracted(&extraction.name, text);
    }
}

/// `unpack`: string members become labels, `_entry` the line.
pub(super) fn unpack(line: &str, labels: &mut LineLabels<'_>) -> Option<String> {
    let object = json_object(line, labels)?;
    let mut entry = None;
    for (name, value) in object.as_object()? {
        match (name.as_str(), value) {
            ("_entry", Value::String(text)) => entry = Some(text.clone()),
            (name, Value::String(text)) => labels.set_extracted(&sanitize(name), text.clone()),
            _ => {}
        }
    }
    entry
}

/// Pairs of a logfmt line; `Err` at the first place that is none.
fn logfmt_pairs(line: &str) -> impl Iterator<Item = Result<(&str, String), ()>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        let key_end = rest.find(|c: char| c.is_whitespace() || c == '=' || c == '"').unwrap_or(rest.len());
        let (key, after) = rest.split_at(key_end);
        if after.starts_with('"') || key.is_empty() {
            rest = after.find(char::is_whitespace).and_then(|end| after.get(end..)).unwrap_or("");
            return Some(Err(()));
        }
        let Some(value) = after.strip_prefix('=') else {
            rest = after;
            return Some(Ok((key, String::new())));
        };
        let Some(quoted) = value.strip_prefix('"') else {
            let end = value.find(char::is_whitespace).unwrap_or(value.len());
            let (value, after) = value.split_at(end);
            rest = after;
            return Some(if value.contains('"') { Err(()) } else { Ok((key, value.to_owned())) });
        };
        let mut escaped = false;
        let end = quoted.find(|c| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let Some(end) = end else {
            rest = "";
            return Some(Err(()));
        };
        let (value, after) = quoted.split_at(end);
        rest = after.get(1..).unwrap_or("");
        // JSON's escapes are those that logfmt writers use.
        let text = if value.contains('\\') {
            serde_json::from_str(&format!("\"{value}\"")).unwrap_or_else(|_| value.to_owned())
        } else {
            value.to_owned()
        };
        Some(Ok((key, text)))
    })
}

/// `logfmt` with its flags. Of equal keys the first stays.
pub(super) fn logfmt(
    line: &str,
    (strict, keep_empty): (bool, bool),
    extractions: &[Extraction],
    labels: &mut LineLabels<'_>,
) {
    let mut seen: Vec<String> = Vec::new();
    let mut found: Vec<(String, String)> = Vec::new();
    for pair in logfmt_pairs(line) {
        let Ok((key, value)) = pair else {
            if strict {
                labels.set_error("LogfmtParserErr", "logfmt syntax error");
                return;
            }
            continue;
        };
        let name = sanitize(key);
        if (value.is_empty() && !keep_empty) || name.is_empty() || seen.contains(&name) {
            continue;
        }
        seen.push(name.clone());
        if extractions.is_empty() {
            labels.set_extracted(&name, value);
        } else {
            found.push((key.to_owned(), value));
        }
    }
    for extraction in extractions {
        let value = found.iter().find(|(key, _)| *key == extraction.path).map(|(_, value)| value.clone());
        labels.set_extracted(&extraction.name, value.unwrap_or_default());
    }
}

/// `regexp` with at least one named group.
#[derive(Clone, Debug)]
pub struct RegexpParser(Regex);

impl RegexpParser {
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let regex = super::filters::line_regex(pattern).map_err(|error| error.to_string())?;
        if regex.capture_names().flatten().next().is_none() {
            return Err("at least one named capture must be supplied".to_owned());
        }
        Ok(Self(regex))
    }

    pub(super) fn text(&self) -> &str {
        self.0.as_str()
    }

    pub(super) fn apply(&self, line: &str, labels: &mut LineLabels<'_>) {
        let Some(captures) = self.0.captures(line) else { return };
        for name in self.0.capture_names().flatten() {
            if let Some(found) = captures.name(name) {
                labels.set_extracted(&sanitize(name), found.as_str());
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Literal(String),
    /// `<name>`, or `<_>` without a name.
    Capture(Option<String>),
}

/// `<a> text <_>`.
#[derive(Clone, Debug)]
pub struct PatternParser {
    text: String,
    pieces: Vec<Piece>,
}

impl PatternParser {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let capture = rest.strip_prefix('<').and_then(|after| after.split_once('>')).filter(|(name, _)| {
                let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
                first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            });
            if let Some((name, after)) = capture {
                if matches!(pieces.last(), Some(Piece::Capture(_))) {
                    return Err("found consecutive capture".to_owned());
                }
                pieces.push(Piece::Capture((name != "_").then(|| name.to_owned())));
                rest = after;
                continue;
            }
            let Some(first) = rest.chars().next() else { break };
            let (literal, after) = rest.split_at(first.len_utf8());
            match pieces.last_mut() {
                Some(Piece::Literal(text)) => text.push_str(literal),
                _ => pieces.push(Piece::Literal(literal.to_owned())),
            }
            rest = after;
        }
        Ok(Self { text: text.to_owned(), pieces })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn has_name(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Capture(Some(_))))
    }

    /// Whether the whole line has this shape, no capture being empty.
    pub(super) fn matches_whole(&self, line: &str) -> bool {
        let mut rest = line;
        for (index, piece) in self.pieces.iter().enumerate() {
            let Piece::Literal(literal) = piece else { continue };
            let Some(at) = rest.find(literal.as_str()) else { return false };
            if (index == 0) != (at == 0) {
                return false;
            }
            rest = rest.get(at + literal.len()..).unwrap_or("");
        }
        match self.pieces.last() {
            None => line.is_empty(),
            Some(Piece::Capture(_)) => !rest.is_empty(),
            Some(Piece::Literal(_)) => rest.is_empty(),
        }
    }

    pub(super) fn apply(&self, line: &str, labels: &mut LineLabels<'_>) {
        let mut rest = line;
        let mut pieces = self.pieces.as_slice();
        if let [Piece::Literal(literal), after @ ..] = pieces {
            let Some(found) = rest.strip_prefix(literal.as_str()) else { return };
            rest = found;
            pieces = after;
        }
        while let [Piece::Capture(name), after @ ..] = pieces {
            let (value, next) = match after {
                [Piece::Literal(literal), ..] => {
                    rest.split_once(literal.as_str()).map_or((rest, None), |(v, n)| (v, Some(n)))
                }
                _ => (rest, None),
            };
            if let Some(name) = name {
                labels.set_extracted(name, value);
            }
            let Some(next) = next else { return };
            rest = next;
            pieces = after.get(1..).unwrap_or_default();
        }
    }
}

/// Removes terminal colours.
pub(super) fn decolorize(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        let end = after.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(after.len());
        rest = after.get(end..).unwrap_or("");
        let mut chars = rest.chars();
        chars.next();
        rest = chars.as_str();
    }
    plain.push_str(rest);
    plain
}
