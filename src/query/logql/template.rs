//! The part of Go's text/template that log queries use: fields, pipelines, calls, `if`/`else`, comments and trimming.

use std::fmt::Write as _;
use std::iter::Peekable;
use std::vec::IntoIter;

use super::filters::line_regex;
use super::labels::LineLabels;
use super::units::{parse_bytes, parse_duration_ns};

/// Blocks inside blocks; deeper is refused.
const DEPTH_MAX: usize = 32;
/// Text that one line may become.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    text: String,
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Value(Pipeline),
    If(Vec<(Pipeline, Vec<Node>)>, Vec<Node>),
}

/// Calls joined by `|`; each gets the one before as its last argument.
type Pipeline = Vec<Call>;

#[derive(Clone, Debug)]
struct Call {
    head: Term,
    arguments: Vec<Term>,
}

#[derive(Clone, Debug)]
enum Term {
    Field(String),
    Text(String),
    Number(f64),
    Function(String),
    Nested(Pipeline),
}

enum Part {
    Text(String),
    Action(String),
}

fn split(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = split_action(after).ok_or("unclosed action")?;
        let mut before = if trim_next { before.trim_start() } else { before };
        let action = action.strip_prefix("- ").map_or(action, |action| {
            before = before.trim_end();
            action
        });
        let trimmed = action.strip_suffix(" -");
        trim_next = trimmed.is_some();
        parts.push(Part::Text(before.to_owned()));
        let action = trimmed.unwrap_or(action).trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            parts.push(Part::Action(action.to_owned()));
        }
        rest = after;
    }
    parts.push(Part::Text(if trim_next { rest.trim_start() } else { rest }.to_owned()));
    Ok(parts)
}

/// Up to the `}}` that stands outside of strings.
fn split_action(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some(q) => {
                if c == q && !escaped {
                    quote = None;
                }
                escaped = c == '\\' && !escaped && q == '"';
            }
            None if c == '"' || c == '`' => quote = Some(c),
            None if text.get(at..)?.starts_with("}}") => return Some((text.get(..at)?, text.get(at + 2..)?)),
            None => {}
        }
    }
    None
}

enum Block {
    End,
    Else(Option<String>),
    Eof,
}

type Parts = Peekable<IntoIter<Part>>;

fn nodes(parts: &mut Parts, depth: usize) -> Result<(Vec<Node>, Block), String> {
    if depth > DEPTH_MAX {
        return Err("blocks are nested too deep".to_owned());
    }
    let mut nodes = Vec::new();
    while let Some(part) = parts.next() {
        let action = match part {
            Part::Text(text) if text.is_empty() => continue,
            Part::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Part::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action.as_str(), ""));
        match word {
            "end" => return Ok((nodes, Block::End)),
            "else" => {
                let condition = rest.trim().strip_prefix("if ").map(str::to_owned);
                return Ok((nodes, Block::Else(condition)));
            }
            "if" => nodes.push(branches(rest, parts, depth)?),
            "range" | "with" | "define" | "template" | "block" | "break" | "continue" => {
                return Err(format!("{word} is not supported in templates"));
            }
            _ => nodes.push(Node::Value(pipeline(&action)?)),
        }
    }
    Ok((nodes, Block::Eof))
}

fn branches(condition: &str, parts: &mut Parts, depth: usize) -> Result<Node, String> {
    let mut branches = Vec::new();
    let mut condition = Some(condition.to_owned());
    loop {
        let (body, end) = nodes(parts, depth + 1)?;
        let last = match condition.take() {
            Some(test) => {
                branches.push((pipeline(&test)?, body));
                Vec::new()
            }
            None => body,
        };
        match end {
            Block::End => return Ok(Node::If(branches, last)),
            Block::Else(next) => condition = next,
            Block::Eof => return Err("unexpected EOF: an if lacks its end".to_owned()),
        }
    }
}

fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => {
                let mut escaped = false;
                let end = rest.char_indices().skip(1).find(|(_, c)| {
                    let closes = *c == '"' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    closes
                });
                end.ok_or("unterminated string")?.0 + 1
            }
            '`' => rest.get(1..).and_then(|tail| tail.find('`')).ok_or("unterminated raw string")? + 2,
            '(' | ')' | '|' => 1,
            _ => rest.find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '|')).unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at(length);
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}

fn pipeline(text: &str) -> Result<Pipeline, String> {
    let mut words = words(text)?.into_iter().peekable();
    let found = calls(&mut words, 0)?;
    if words.next().is_some() { Err("unexpected ) in template".to_owned()) } else { Ok(found) }
}

fn calls(words: &mut Peekable<IntoIter<String>>, depth: usize) -> Result<Pipeline, String> {
    if depth > DEPTH_MAX {
        return Err("parentheses are nested too deep".to_owned());
    }
    let mut calls = Vec::new();
    let mut terms = Vec::new();
    let finish = |terms: &mut Vec<Term>, calls: &mut Pipeline| {
        let mut terms = std::mem::take(terms).into_iter();
        let head = terms.next().ok_or_else(|| "missing value for command".to_owned())?;
        calls.push(Call { head, arguments: terms.collect() });
        Ok::<_, String>(())
    };
    while let Some(word) = words.peek().cloned() {
        if word == ")" {
            break;
        }
        words.next();
        match word.as_str() {
            "|" => finish(&mut terms, &mut calls)?,
            "(" => {
                let nested = self::calls(words, depth + 1)?;
                words.next().ok_or("unclosed left paren")?;
                terms.push(Term::Nested(nested));
            }
            word => terms.push(term(word)?),
        }
    }
    finish(&mut terms, &mut calls)?;
    Ok(calls)
}

fn term(word: &str) -> Result<Term, String> {
    if let Some(name) = word.strip_prefix('.') {
        return Ok(Term::Field(name.to_owned()));
    }
    if word.starts_with(['"', '`']) {
        let text = match word.strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
            Some(raw) => raw.to_owned(),
            None => serde_json::from_str(word).map_err(|_| format!("bad string {word}"))?,
        };
        return Ok(Term::Text(text));
    }
    if let Ok(number) = word.parse() {
        return Ok(Term::Number(number));
    }
    if FUNCTIONS.contains(&word) {
        Ok(Term::Function(word.to_owned()))
    } else {
        Err(format!("function {word:?} not defined"))
    }
}

const FUNCTIONS: [&str; 62] = [
    "ToLower",
    "ToUpper",
    "lower",
    "upper",
    "title",
    "Replace",
    "replace",
    "Trim",
    "trim",
    "TrimLeft",
    "TrimRight",
    "TrimPrefix",
    "TrimSuffix",
    "TrimSpace",
    "trimAll",
    "trimPrefix",
    "trimSuffix",
    "trunc",
    "substr",
    "contains",
    "hasPrefix",
    "hasSuffix",
    "repeat",
    "alignLeft",
    "alignRight",
    "regexReplaceAll",
    "regexReplaceAllLiteral",
    "count",
    "default",
    "int",
    "float64",
    "add",
    "sub",
    "mul",
    "div",
    "mod",
    "addf",
    "subf",
    "mulf",
    "divf",
    "max",
    "min",
    "round",
    "floor",
    "ceil",
    "bytes",
    "duration",
    "duration_seconds",
    "len",
    "print",
    "printf",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "and",
    "or",
    "not",
    "__line__",
    "__timestamp__",
];

#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Number(f64),
    Bool(bool),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
        }
    }

    fn number(&self) -> f64 {
        match self {
            Self::Number(number) => *number,
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Text(text) => text.parse().unwrap_or(0.0),
        }
    }

    fn is_true(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Number(number) => *number != 0.0,
            Self::Bool(value) => *value,
        }
    }
}

struct Context<'c, 'a> {
    line: &'c str,
    at_ns: i64,
    labels: &'c LineLabels<'a>,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = split(text)?.into_iter().peekable();
        let (nodes, end) = nodes(&mut parts, 0)?;
        match end {
            Block::Eof => Ok(Self { text: text.to_owned(), nodes }),
            Block::End => Err("unexpected {{end}}".to_owned()),
            Block::Else(_) => Err("unexpected {{else}}".to_owned()),
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn render(&self, line: &str, at_ns: i64, labels: &LineLabels<'_>) -> Result<String, String> {
        let mut output = String::new();
        render(&self.nodes, &Context { line, at_ns, labels }, &mut output)?;
        Ok(output)
    }
}

fn render(nodes: &[Node], context: &Context<'_, '_>, output: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => output.push_str(text),
            Node::Value(pipeline) => output.push_str(&run(pipeline, context)?.text()),
            Node::If(branches, last) => {
                let mut body = last;
                for (test, branch) in branches {
                    if run(test, context)?.is_true() {
                        body = branch;
                        break;
                    }
                }
                render(body, context, output)?;
            }
        }
        if output.len() > OUTPUT_BYTES_MAX {
            return Err(format!("the template makes more than {OUTPUT_BYTES_MAX} bytes"));
        }
    }
    Ok(())
}

fn run(pipeline: &Pipeline, context: &Context<'_, '_>) -> Result<Value, String> {
    let mut last = None;
    for call in pipeline {
        let mut arguments = call.arguments.iter().map(|term| value_of(term, context)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(last.take());
        last = Some(match &call.head {
            Term::Function(name) => apply(name, &arguments, context)?,
            term if arguments.is_empty() => value_of(term, context)?,
            _ => return Err("can't give argument to non-function".to_owned()),
        });
    }
    last.ok_or_else(|| "empty pipeline".to_owned())
}

fn value_of(term: &Term, context: &Context<'_, '_>) -> Result<Value, String> {
    Ok(match term {
        Term::Field(name) => Value::Text(context.labels.get(name).unwrap_or("").to_owned()),
        Term::Text(text) => Value::Text(text.clone()),
        Term::Number(number) => Value::Number(*number),
        Term::Function(name) => apply(name, &[], context)?,
        Term::Nested(pipeline) => run(pipeline, context)?,
    })
}

fn head(text: &str, count: usize) -> String {
    text.chars().take(count).collect()
}

fn tail(text: &str, count: usize) -> String {
    text.chars().skip(text.chars().count().saturating_sub(count)).collect()
}

fn apply(name: &str, arguments: &[Value], context: &Context<'_, '_>) -> Result<Value, String> {
    let missing = || format!("wrong number of args for {name}");
    let argument = |index: usize| arguments.get(index).ok_or_else(missing);
    let text = |index: usize| argument(index).map(Value::text);
    if let Some(value) = apply_text(name, &text, arguments.len(), context) {
        return value;
    }
    let number = |index: usize| argument(index).map(Value::number);
    let fold =
        |f: fn(f64, f64) -> f64| arguments.iter().map(Value::number).reduce(f).map(Value::Number).ok_or_else(missing);
    let order = || -> Result<Option<std::cmp::Ordering>, String> {
        match (argument(0)?, argument(1)?) {
            (Value::Text(left), Value::Text(right)) => Ok(Some(left.cmp(right))),
            (left, right) => Ok(left.number().partial_cmp(&right.number())),
        }
    };
    let whole_division = || number(1).map(|divisor| divisor == 0.0);
    Ok(match name {
        "int" => Value::Number(number(0)?.trunc()),
        "float64" => Value::Number(number(0)?),
        "add" | "addf" => fold(|a, b| a + b)?,
        "sub" | "subf" => fold(|a, b| a - b)?,
        "mul" | "mulf" => fold(|a, b| a * b)?,
        "divf" => fold(|a, b| a / b)?,
        "div" | "mod" if whole_division()? => return Err("division by zero".to_owned()),
        "div" => Value::Number((number(0)? / number(1)?).trunc()),
        "mod" => Value::Number(number(0)? % number(1)?),
        "max" => fold(f64::max)?,
        "min" => fold(f64::min)?,
        "floor" => Value::Number(number(0)?.floor()),
        "ceil" => Value::Number(number(0)?.ceil()),
        "round" => {
            let scale = 10f64.powf(if arguments.len() > 1 { number(1)? } else { 0.0 });
            Value::Number((number(0)? * scale).round() / scale)
        }
        "bytes" => Value::Number(parse_bytes(&text(0)?).ok_or("not a size")?),
        "duration" | "duration_seconds" => Value::Number(parse_duration_ns(&text(0)?).ok_or("not a duration")? / 1e9),
        "len" => Value::Number(text(0)?.len() as f64),
        "eq" => Value::Bool(argument(0)?.text() == text(1)?),
        "ne" => Value::Bool(argument(0)?.text() != text(1)?),
        "lt" => Value::Bool(order()?.is_some_and(std::cmp::Ordering::is_lt)),
        "le" => Value::Bool(order()?.is_some_and(std::cmp::Ordering::is_le)),
        "gt" => Value::Bool(order()?.is_some_and(std::cmp::Ordering::is_gt)),
        "ge" => Value::Bool(order()?.is_some_and(std::cmp::Ordering::is_ge)),
        "not" => Value::Bool(!argument(0)?.is_true()),
        "and" => arguments.iter().find(|value| !value.is_true()).or(arguments.last()).cloned().ok_or_else(missing)?,
        "or" => arguments.iter().find(|value| value.is_true()).or(arguments.last()).cloned().ok_or_else(missing)?,
        "__timestamp__" => Value::Text(crate::model::Timestamp(context.at_ns).to_string()),
        _ => return Err(format!("function {name:?} not defined")),
    })
}

/// Functions on text; `None` for the others.
#[expect(clippy::too_many_lines, reason = "a table with one function a line")]
fn apply_text(
    name: &str,
    text: &dyn Fn(usize) -> Result<String, String>,
    count: usize,
    context: &Context<'_, '_>,
) -> Option<Result<Value, String>> {
    let whole = |index: usize| text(index).map(|text| text.parse::<f64>().unwrap_or(0.0));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; sizes are bounded below")]
    let size = |index: usize| whole(index).map(|number| (number.abs() as usize).min(OUTPUT_BYTES_MAX));
    let result = || -> Result<Value, String> {
        let one = |change: &dyn Fn(&str) -> String| text(0).map(|text| change(&text));
        // sprig takes the text last, Go's strings package first.
        let two = |change: &dyn Fn(&str, &str) -> String| Ok::<_, String>(change(&text(0)?, &text(1)?));
        let strip = |text: &str, cut: Option<&str>| cut.unwrap_or(text).to_owned();
        let chars = |set: &str| set.chars().collect::<Vec<_>>();
        Ok(Value::Text(match name {
            "ToLower" | "lower" => one(&str::to_lowercase)?,
            "ToUpper" | "upper" => one(&str::to_uppercase)?,
            "TrimSpace" | "trim" => one(&|text| text.trim().to_owned())?,
            "title" => one(&|text| {
                text.split(' ')
                    .map(|word| head(word, 1).to_uppercase() + word.get(head(word, 1).len()..).unwrap_or(""))
                    .collect::<Vec<_>>()
                    .join(" ")
            })?,
            "Replace" => match whole(3)? {
                limit if limit < 0.0 => text(0)?.replace(&text(1)?, &text(2)?),
                _ => text(0)?.replacen(&text(1)?, &text(2)?, size(3)?),
            },
            "replace" => text(2)?.replace(&text(0)?, &text(1)?),
            "Trim" => two(&|text, set| text.trim_matches(chars(set).as_slice()).to_owned())?,
            "trimAll" => two(&|set, text| text.trim_matches(chars(set).as_slice()).to_owned())?,
            "TrimLeft" => two(&|text, set| text.trim_start_matches(chars(set).as_slice()).to_owned())?,
            "TrimRight" => two(&|text, set| text.trim_end_matches(chars(set).as_slice()).to_owned())?,
            "TrimPrefix" => two(&|text, cut| strip(text, text.strip_prefix(cut)))?,
            "TrimSuffix" => two(&|text, cut| strip(text, text.strip_suffix(cut)))?,
            "trimPrefix" => two(&|cut, text| strip(text, text.strip_prefix(cut)))?,
            "trimSuffix" => two(&|cut, text| strip(text, text.strip_suffix(cut)))?,
            "trunc" if whole(0)? < 0.0 => tail(&text(1)?, size(0)?),
            "trunc" => head(&text(1)?, size(0)?),
            "substr" => text(2)?.chars().skip(size(0)?).take(size(1)?.saturating_sub(size(0)?)).collect(),
            "repeat" => {
                let (times, unit) = (size(0)?, text(1)?);
                if times.saturating_mul(unit.len()) > OUTPUT_BYTES_MAX {
                    return Err("repeat makes too much text".to_owned());
                }
                unit.repeat(times)
            }
            "alignLeft" => head(&format!("{:<1$}", text(1)?, size(0)?.min(1000)), size(0)?),
            "alignRight" => tail(&format!("{:>1$}", text(1)?, size(0)?.min(1000)), size(0)?),
            "regexReplaceAll" => {
                let regex = line_regex(&text(0)?).map_err(|error| error.to_string())?;
                regex.replace_all(&text(1)?, text(2)?.as_str()).into_owned()
            }
            "regexReplaceAllLiteral" => {
                let regex = line_regex(&text(0)?).map_err(|error| error.to_string())?;
                regex.replace_all(&text(1)?, regex::NoExpand(&text(2)?)).into_owned()
            }
            "count" => {
                let regex = line_regex(&text(0)?).map_err(|error| error.to_string())?;
                return Ok(Value::Number(regex.find_iter(&text(1)?).count() as f64));
            }
            "default" => {
                if text(1)?.is_empty() {
                    text(0)?
                } else {
                    text(1)?
                }
            }
            "print" => (0..count).map(text).collect::<Result<String, _>>()?,
            "printf" => printf(&text(0)?, &(1..count).map(text).collect::<Result<Vec<_>, _>>()?),
            "__line__" => context.line.to_owned(),
            "contains" => return Ok(Value::Bool(text(1)?.contains(&text(0)?))),
            "hasPrefix" => return Ok(Value::Bool(text(1)?.starts_with(&text(0)?))),
            "hasSuffix" => return Ok(Value::Bool(text(1)?.ends_with(&text(0)?))),
            _ => return Err(String::new()),
        }))
    };
    match result() {
        Err(message) if message.is_empty() => None,
        done => Some(done),
    }
}

/// `%s`, `%v`, `%q`, `%d` and `%%`, with a width.
fn printf(format: &str, arguments: &[String]) -> String {
    let mut output = String::new();
    let mut arguments = arguments.iter();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        output.push_str(before);
        let end = after.find(|c: char| !c.is_ascii_digit() && c != '-' && c != '.').unwrap_or(after.len());
        let (flags, after) = after.split_at(end);
        let mut chars = after.chars();
        let verb = chars.next().unwrap_or('%');
        rest = chars.as_str();
        if verb == '%' {
            output.push('%');
            continue;
        }
        let argument = arguments.next().map_or("", String::as_str);
        let shown = if verb == 'q' { format!("{argument:?}") } else { argument.to_owned() };
        let width = flags.trim_start_matches('-').parse().unwrap_or(0usize).min(1000);
        // Writing to a String cannot fail.
        let _ok =
            if flags.starts_with('-') { write!(output, "{shown:<width$}") } else { write!(output, "{shown:>width$}") };
    }
    output.push_str(rest);
    output
}
