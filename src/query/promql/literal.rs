//! Values of numbers, durations and strings as PromQL writes them.

/// Longer durations do not fit Go's, in nanoseconds.
pub(super) const DURATION_MS_MAX: f64 = 9_223_372_036_854.0;

/// A number as Go's `strconv` reads it: decimal, hexadecimal or octal integers, floats, `Inf` and `NaN`.
pub(super) fn number(text: &str) -> Result<f64, String> {
    let invalid = || {
        let quoted = crate::model::quote::Quoted(text);
        format!("error parsing number: strconv.ParseFloat: parsing {quoted}: invalid syntax")
    };
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "inf" => return Ok(f64::INFINITY),
        "nan" => return Ok(f64::NAN),
        _ => {}
    }
    if !underscores_fit(&lower) {
        return Err(invalid());
    }
    let digits = lower.replace('_', "");
    if let Some(hex) = digits.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).map(|value| value as f64).map_err(|_| invalid());
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
        // What is not octal is read as a decimal float.
        if let Ok(value) = i64::from_str_radix(&digits, 8) {
            return Ok(value as f64);
        }
    }
    let value: f64 = digits.parse().map_err(|_| invalid())?;
    if value.is_infinite() {
        let quoted = crate::model::quote::Quoted(text);
        return Err(format!("error parsing number: strconv.ParseFloat: parsing {quoted}: value out of range"));
    }
    Ok(value)
}

/// Underscores stand between digits only, or right after `0x`.
fn underscores_fit(text: &str) -> bool {
    let text = text.strip_prefix("0x").map_or_else(|| text.to_owned(), |rest| format!("0{rest}"));
    let bytes = text.as_bytes();
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'_').all(|(at, _)| {
        let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_hexdigit);
        is_digit(at.checked_sub(1)) && is_digit(Some(at + 1))
    })
}

/// A Prometheus duration such as `1h30m` in milliseconds: units in falling order, each once.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    duration_ms(text).ok()
}

/// Like [`parse_duration_ms`], with what is wrong.
pub(super) fn duration_ms(text: &str) -> Result<i64, String> {
    if text == "0" {
        return Ok(0);
    }
    if text.is_empty() {
        return Err("empty duration string".to_owned());
    }
    let invalid = || format!("not a valid duration string: {}", crate::model::quote::Quoted(text));
    let out_of_range = || "duration out of range".to_owned();
    let mut rest = text;
    let mut total = 0i64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0).ok_or_else(invalid)?;
        let (number, after) = rest.split_at_checked(digits).ok_or_else(invalid)?;
        let unit_len = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_len).ok_or_else(invalid)?;
        let at = DURATION_UNITS.iter().position(|(name, _)| *name == unit).filter(|at| *at >= next_unit);
        let at = at.ok_or_else(invalid)?;
        next_unit = at + 1;
        let unit_ms = DURATION_UNITS.get(at).map_or(1, |(_, ms)| *ms);
        let part = number.parse::<i64>().ok().and_then(|number| number.checked_mul(unit_ms));
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(out_of_range)?;
        rest = after;
    }
    if total as f64 > DURATION_MS_MAX { Err(out_of_range()) } else { Ok(total) }
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

/// Whole milliseconds of a length in seconds: the rest is cut off, as in Go.
#[expect(clippy::cast_possible_truncation, reason = "saturates")]
pub(super) fn seconds_to_ms(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}

/// The contents of a quoted string whose escapes the lexer checked. Bytes that are not UTF-8 become replacement characters.
pub(super) fn unquote(quoted: &str) -> String {
    let quote = quoted.chars().next().unwrap_or('"');
    let body = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if quote == '`' || !body.contains('\\') {
        return body.to_owned();
    }
    let mut out = Vec::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend(c.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        let Some(escape) = chars.next() else { break };
        let mut code = |first: u32, digits: usize, radix: u32| {
            (0..digits).fold(first, |code, _| {
                let digit = chars.next().and_then(|c| c.to_digit(radix)).unwrap_or(0);
                code.wrapping_mul(radix).wrapping_add(digit)
            })
        };
        match escape {
            'a' => out.push(0x07),
            'b' => out.push(0x08),
            'f' => out.push(0x0c),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(0x0b),
            '0'..='7' => out.push(byte(code(escape.to_digit(8).unwrap_or(0), 2, 8))),
            'x' => out.push(byte(code(0, 2, 16))),
            'u' | 'U' => {
                let c = char::from_u32(code(0, if escape == 'u' { 4 } else { 8 }, 16)).unwrap_or('\u{fffd}');
                out.extend(c.encode_utf8(&mut [0; 4]).bytes());
            }
            other => out.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn byte(code: u32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, value) in [
            ("1_000", 1000.0),
            ("0x1_0", 16.0),
            ("0x_1F", 31.0),
            ("1_0.5", 10.5),
            ("1e1_0", 1e10),
            ("08", 8.0),
            ("010", 8.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("Inf", f64::INFINITY),
        ] {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        for text in ["0x", "1_", "1e", "1._0", "1e999"] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [("5m", 300_000), ("1h30m", 5_400_000), ("1y2w3d4h5m6s7ms", 33_019_506_007), ("0", 0)] {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "5", "m", "1s1m", "5m5m", "1ss", "300y", "99999999999999999999s"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn strings() {
        for (text, value) in [
            (r#""a\n\"\u00e9\x41\101""#, "a\n\"éAA"),
            ("`a\\n`", "a\\n"),
            (r"'it\'s'", "it's"),
            (r#""\xc3\xa9 \xff""#, "é \u{fffd}"),
        ] {
            assert_eq!(unquote(text), value, "{text}");
        }
    }
}
