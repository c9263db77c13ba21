//! Go's ways of writing values: `%v`, `printf`, and floats.

use super::value::Value;
use crate::model::quote::Quoted;

/// `%v`.
pub fn format_value(value: &Value) -> String {
    match value {
        Value::Nil => "<no value>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => go_float(*value, 'g', None),
        Value::Str(text) => text.clone(),
        Value::List(items) => {
            format!("[{}]", items.iter().map(format_value).collect::<Vec<_>>().join(" "))
        }
        Value::Map(_, entries) => {
            let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{key}:{}", format_value(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}

/// `strconv.FormatFloat` with format `e`, `f` or `g`; no precision means the fewest digits that read back the same.
pub(crate) fn go_float(value: f64, format: char, precision: Option<usize>) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    match (format, precision) {
        ('f', None) => format!("{value}"),
        ('f', Some(digits)) => format!("{value:.digits$}"),
        ('e', None) => go_exponent(&format!("{value:e}")),
        ('e', Some(digits)) => go_exponent(&format!("{value:.digits$e}")),
        (_, precision) => go_general(value, precision),
    }
}

/// `%g`: exponent form when the exponent is below -4 or not below the precision (6 when there is none).
fn go_general(value: f64, precision: Option<usize>) -> String {
    let digits = precision.map(|digits| digits.max(1));
    let scientific = match digits {
        Some(digits) => format!("{value:.*e}", digits - 1),
        None => format!("{value:e}"),
    };
    let exponent: i32 = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let limit = digits.map_or(6, |digits| i32::try_from(digits).unwrap_or(i32::MAX));
    if value != 0.0 && (exponent < -4 || exponent >= limit) {
        let (mantissa, _) = scientific.split_once('e').unwrap_or((&scientific, ""));
        return go_exponent(&format!("{}e{exponent}", trim_zeros(mantissa)));
    }
    match digits {
        None => format!("{value}"),
        Some(digits) => {
            let decimals = i32::try_from(digits).unwrap_or(i32::MAX) - 1 - exponent;
            let decimals = usize::try_from(decimals).unwrap_or(0);
            trim_zeros(&format!("{value:.decimals$}")).to_owned()
        }
    }
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// `1.5e7` becomes `1.5e+07`.
fn go_exponent(text: &str) -> String {
    let Some((mantissa, exponent)) = text.split_once('e') else { return text.to_owned() };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

struct Directive {
    minus: bool,
    plus: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
    verb: char,
}

/// Widths and precisions beyond this are cut to it.
const WIDTH_MAX: usize = 1000;

/// `fmt.Sprintf`.
pub(super) fn sprintf(format: &str, arguments: &[Value]) -> String {
    let mut output = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            output.push(c);
            continue;
        }
        let Some(verb) = read_verb(&mut chars) else {
            output.push_str("%!(NOVERB)");
            break;
        };
        if verb.verb == '%' {
            output.push('%');
            continue;
        }
        match arguments.next() {
            None => output.extend(["%!", verb.verb.to_string().as_str(), "(MISSING)"]),
            Some(value) => output.push_str(&pad(&verb, one(&verb, value))),
        }
    }
    let extra: Vec<_> = arguments.map(|value| format!("{}={}", value.type_name(), format_value(value))).collect();
    if !extra.is_empty() {
        output.extend(["%!(EXTRA ", &extra.join(", "), ")"]);
    }
    output
}

fn read_verb(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Directive> {
    let mut directive = Directive { minus: false, plus: false, zero: false, width: None, precision: None, verb: '%' };
    while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '+' | '0' | ' ' | '#')) {
        match flag {
            '-' => directive.minus = true,
            '+' => directive.plus = true,
            '0' => directive.zero = true,
            _ => {}
        }
    }
    directive.width = read_number(chars);
    if chars.next_if_eq(&'.').is_some() {
        directive.precision = Some(read_number(chars).unwrap_or(0));
    }
    directive.verb = chars.next()?;
    Some(directive)
}

fn read_number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        number = Some((number.unwrap_or(0) * 10 + digit as usize).min(WIDTH_MAX));
    }
    number
}

fn one(verb: &Directive, value: &Value) -> String {
    let plus = |negative: bool, text: String| if verb.plus && !negative { format!("+{text}") } else { text };
    match (verb.verb, value) {
        ('v', Value::Float(number)) => go_float(*number, 'g', verb.precision),
        ('v', _) | ('s', Value::Map(..) | Value::List(_)) => format_value(value),
        ('f' | 'F', Value::Float(number)) => plus(*number < 0.0, go_float(*number, 'f', verb.precision.or(Some(6)))),
        ('e', Value::Float(number)) => plus(*number < 0.0, go_float(*number, 'e', verb.precision.or(Some(6)))),
        ('g', Value::Float(number)) => plus(*number < 0.0, go_float(*number, 'g', verb.precision)),
        ('d', Value::Int(number)) => plus(*number < 0, number.to_string()),
        ('x', Value::Int(number)) => format!("{number:x}"),
        ('X', Value::Int(number)) => format!("{number:X}"),
        ('s', Value::Str(text)) => match verb.precision {
            Some(length) => text.chars().take(length).collect(),
            None => text.clone(),
        },
        ('q', Value::Str(text)) => Quoted(text).to_string(),
        ('x', Value::Str(text)) => crate::platform::random::hex(text.as_bytes()),
        ('t', Value::Bool(value)) => value.to_string(),
        ('T', value) => value.type_name().to_owned(),
        (letter, value) => format!("%!{letter}({}={})", value.type_name(), format_value(value)),
    }
}

fn pad(verb: &Directive, text: String) -> String {
    let missing = verb.width.unwrap_or(0).saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    let is_number = !matches!(verb.verb, 's' | 'q' | 'v' | 't');
    if verb.minus {
        format!("{text}{}", " ".repeat(missing))
    } else if verb.zero && is_number {
        let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
        format!("{sign}{}{digits}", "0".repeat(missing))
    } else {
        format!("{}{text}", " ".repeat(missing))
    }
}
