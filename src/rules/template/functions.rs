//! Functions of templates: Go's builtins and Prometheus'.

use std::cmp::Ordering;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use regex::Regex;

use crate::platform::units::parse_duration;

use super::TemplateContext;
use super::format::{format_value, go_float, sprintf};
use super::value::{MapKind, Value};

const FUNCTIONS: &[&str] = &[
    "and",
    "or",
    "not",
    "len",
    "index",
    "print",
    "printf",
    "println",
    "html",
    "urlquery",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "query",
    "first",
    "label",
    "value",
    "sortByLabel",
    "strvalue",
    "args",
    "reReplaceAll",
    "match",
    "safeHtml",
    "title",
    "toUpper",
    "toLower",
    "graphLink",
    "tableLink",
    "stripPort",
    "stripDomain",
    "humanize",
    "humanize1024",
    "humanizeDuration",
    "humanizePercentage",
    "humanizeTimestamp",
    "now",
    "pathPrefix",
    "externalURL",
    "parseDuration",
    "urlQueryEscape",
];

pub(super) fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

/// Calls a function; `and` and `or` are evaluated by the caller.
pub(super) fn call(name: &str, arguments: &[Value], context: &TemplateContext<'_>) -> Result<Value, String> {
    let text = |value: String| Ok(Value::Str(value));
    match (name, arguments) {
        ("not", [value]) => Ok(Value::Bool(!value.is_true())),
        ("len", [value]) => length(value),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), index),
        ("print", values) => text(print(values, false)),
        ("println", values) => text(print(values, true)),
        ("printf", [Value::Str(format), values @ ..]) => text(sprintf(format, values)),
        ("html", [value]) => text(escape_html(&format_value(value))),
        ("urlquery" | "urlQueryEscape", [value]) => text(escape_query(&format_value(value))),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            for other in others {
                if compare(first, other)? == Some(Ordering::Equal) {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        ("ne", [a, b]) => Ok(Value::Bool(compare(a, b)? != Some(Ordering::Equal))),
        ("lt", [a, b]) => Ok(Value::Bool(ordered(a, b)? == Some(Ordering::Less))),
        ("le", [a, b]) => Ok(Value::Bool(ordered(a, b)?.is_some_and(Ordering::is_le))),
        ("gt", [a, b]) => Ok(Value::Bool(ordered(a, b)? == Some(Ordering::Greater))),
        ("ge", [a, b]) => Ok(Value::Bool(ordered(a, b)?.is_some_and(Ordering::is_ge))),
        ("query", [Value::Str(expr)]) => {
            let query = context.query.ok_or("queries are not possible here")?;
            Ok(Value::List(query(expr)?.iter().map(|(labels, value)| Value::sample(labels, *value)).collect()))
        }
        ("first", [Value::List(items)]) => {
            items.first().cloned().ok_or_else(|| "first() called on vector with no elements".to_owned())
        }
        ("label", [Value::Str(name), sample]) => sample.field("Labels")?.field(name),
        ("value", [sample]) => sample.field("Value"),
        ("strvalue", [sample]) => sample.field("Labels")?.field("__value__"),
        ("sortByLabel", [Value::Str(name), Value::List(items)]) => sort_by_label(name, items),
        ("args", values) => {
            let named = values.iter().enumerate().map(|(i, value)| (format!("arg{i}"), value.clone()));
            Ok(Value::Map(MapKind::Object, named.collect()))
        }
        ("now", []) => Ok(Value::Float(context.now_seconds)),
        ("externalURL", []) => text(context.external_url.to_owned()),
        ("pathPrefix", []) => text(path_prefix(context.external_url)),
        _ => call_text(name, arguments),
    }
}

/// Functions of texts and numbers.
fn call_text(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let text = |value: String| Ok(Value::Str(value));
    match (name, arguments) {
        ("reReplaceAll", [pattern, with, value]) => {
            let regex = Regex::new(pattern.as_text()?).map_err(|error| error.to_string())?;
            text(regex.replace_all(value.as_text()?, with.as_text()?).into_owned())
        }
        ("match", [pattern, value]) => {
            let regex = Regex::new(pattern.as_text()?).map_err(|error| error.to_string())?;
            Ok(Value::Bool(regex.is_match(value.as_text()?)))
        }
        ("safeHtml", [value]) => text(value.as_text()?.to_owned()),
        ("title", [value]) => text(title(value.as_text()?)),
        ("toUpper", [value]) => text(value.as_text()?.to_uppercase()),
        ("toLower", [value]) => text(value.as_text()?.to_lowercase()),
        ("graphLink", [expr]) => text(format!("/graph?g0.expr={}&g0.tab=0", escape_query(expr.as_text()?))),
        ("tableLink", [expr]) => text(format!("/graph?g0.expr={}&g0.tab=1", escape_query(expr.as_text()?))),
        ("stripPort", [value]) => text(strip_port(value.as_text()?).to_owned()),
        ("stripDomain", [value]) => text(strip_domain(value.as_text()?)),
        ("humanize", [value]) => text(humanize(value.to_float()?)),
        ("humanize1024", [value]) => text(humanize1024(value.to_float()?)),
        ("humanizeDuration", [value]) => text(humanize_duration(value.to_float()?)),
        ("humanizePercentage", [value]) => text(format!("{}%", go_float(value.to_float()? * 100.0, 'g', Some(4)))),
        ("humanizeTimestamp", [value]) => text(humanize_timestamp(value.to_float()?)),
        ("parseDuration", [value]) => {
            let duration = parse_duration(value.as_text()?).map_err(|error| error.to_string())?;
            Ok(Value::Float(duration.as_secs_f64()))
        }
        (_, arguments) => {
            let types: Vec<_> = arguments.iter().map(Value::type_name).collect();
            Err(format!("wrong number or type of arguments: ({})", types.join(", ")))
        }
    }
}

fn length(value: &Value) -> Result<Value, String> {
    let length = match value {
        Value::Str(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(_, entries) => entries.len(),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(value: Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::List(items), Value::Int(at)) => {
            let item = usize::try_from(*at).ok().and_then(|at| items.get(at).cloned());
            item.ok_or_else(|| format!("index out of range: {at}"))
        }
        (map @ Value::Map(..), Value::Str(name)) => map.field(name),
        (value, key) => Err(format!("can't index item of type {} with {}", value.type_name(), key.type_name())),
    }
}

/// `fmt.Sprint`: spaces between operands when neither is a string; `Sprintln`: always, and a line end.
fn print(values: &[Value], line: bool) -> String {
    let mut output = String::new();
    let mut previous_is_text = true;
    for (i, value) in values.iter().enumerate() {
        let is_text = matches!(value, Value::Str(_));
        if i > 0 && (line || (!is_text && !previous_is_text)) {
            output.push(' ');
        }
        output.push_str(&format_value(value));
        previous_is_text = is_text;
    }
    if line {
        output.push('\n');
    }
    output
}

/// `None` when not comparable in order (NaN).
fn compare(a: &Value, b: &Value) -> Result<Option<Ordering>, String> {
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Str(a), Value::Str(b)) => Some(a.cmp(b)),
        (Value::Nil, Value::Nil) => Some(Ordering::Equal),
        _ => return Err("incompatible types for comparison".to_owned()),
    })
}

fn ordered(a: &Value, b: &Value) -> Result<Option<Ordering>, String> {
    if matches!(a, Value::Bool(_) | Value::Nil) {
        return Err("invalid type for comparison".to_owned());
    }
    compare(a, b)
}

fn sort_by_label(name: &str, items: &[Value]) -> Result<Value, String> {
    let mut keyed = Vec::with_capacity(items.len());
    for item in items {
        keyed.push((format_value(&item.field("Labels")?.field(name)?), item.clone()));
    }
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Value::List(keyed.into_iter().map(|(_, item)| item).collect()))
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
}

/// Percent-encoding for the value of a URL's query, a space as `+`.
pub(crate) fn escape_query(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => output.push(char::from(byte)),
            b' ' => output.push('+'),
            _ => output.extend(["%", &format!("{byte:02X}")]),
        }
    }
    output
}

fn path_prefix(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or_else(String::new, |(_, path)| format!("/{}", path.trim_end_matches('/')))
}

fn title(text: &str) -> String {
    let mut at_start = true;
    let mut output = String::with_capacity(text.len());
    for c in text.chars() {
        if at_start {
            output.extend(c.to_uppercase());
        } else {
            output.push(c);
        }
        at_start = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    output
}

/// The host of `host:port`, `[v6]:port`; anything else unchanged.
fn strip_port(text: &str) -> &str {
    match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            bracketed.unwrap_or(if host.contains(':') { text } else { host })
        }
        _ => text,
    }
}

/// `host.example.org:80` becomes `host:80`; addresses stay.
fn strip_domain(text: &str) -> String {
    let host = strip_port(text);
    if host.parse::<IpAddr>().is_ok() {
        return text.to_owned();
    }
    let port = text.get(host.len()..).unwrap_or("");
    format!("{}{port}", host.split('.').next().unwrap_or(host))
}

fn humanize(mut value: f64) -> String {
    let mut prefix = "";
    if value != 0.0 && value.is_finite() {
        if value.abs() >= 1.0 {
            for next in ["k", "M", "G", "T", "P", "E", "Z", "Y"] {
                if value.abs() < 1000.0 {
                    break;
                }
                prefix = next;
                value /= 1000.0;
            }
        } else {
            (value, prefix) = scale_up(value);
        }
    }
    format!("{}{prefix}", go_float(value, 'g', Some(4)))
}

fn scale_up(mut value: f64) -> (f64, &'static str) {
    let mut prefix = "";
    for next in ["m", "u", "n", "p", "f", "a", "z", "y"] {
        if value.abs() >= 1.0 {
            break;
        }
        prefix = next;
        value *= 1000.0;
    }
    (value, prefix)
}

fn humanize1024(mut value: f64) -> String {
    let mut prefix = "";
    if value.abs() > 1.0 && value.is_finite() {
        for next in ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"] {
            if value.abs() < 1024.0 {
                break;
            }
            prefix = next;
            value /= 1024.0;
        }
    }
    format!("{}{prefix}", go_float(value, 'g', Some(4)))
}

#[expect(clippy::cast_possible_truncation, reason = "float to int casts saturate, which is what is wanted")]
fn humanize_duration(value: f64) -> String {
    if !value.is_finite() {
        return go_float(value, 'g', Some(4));
    }
    if value.abs() < 1.0 {
        let (scaled, prefix) = if value == 0.0 { (value, "") } else { scale_up(value) };
        return format!("{}{prefix}s", go_float(scaled, 'g', Some(4)));
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let total = value.abs() as i64;
    let (days, hours, minutes, seconds) = (total / 86_400, total / 3600 % 24, total / 60 % 60, total % 60);
    if days != 0 {
        format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
    } else if hours != 0 {
        format!("{sign}{hours}h {minutes}m {seconds}s")
    } else if minutes != 0 {
        format!("{sign}{minutes}m {seconds}s")
    } else {
        format!("{sign}{}s", go_float(value.abs(), 'g', Some(4)))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "float to int casts saturate, which is what is wanted")]
fn humanize_timestamp(value: f64) -> String {
    if !value.is_finite() {
        return go_float(value, 'g', Some(4));
    }
    match DateTime::<Utc>::from_timestamp_millis((value * 1000.0).round() as i64) {
        Some(time) => {
            let text = time.format("%Y-%m-%d %H:%M:%S%.3f").to_string();
            let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
            format!("{text} +0000 UTC")
        }
        None => go_float(value, 'g', Some(4)),
    }
}
