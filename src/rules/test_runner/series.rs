//! Promtool's notation of series and their values.

use crate::model::labels::METRIC_NAME;
use crate::model::sample::STALE_NAN;
use crate::model::{Labels, LabelsBuilder};

/// Values of one series; a typing error must not fill memory.
const VALUES_MAX: usize = 1_000_000;

/// `name{label="value", …}`, `{label="value"}` or `name`.
pub(super) fn parse_name(text: &str) -> Result<Labels, String> {
    let bad = || format!("{text:?} is not a series like name{{label=\"value\"}}");
    let trimmed = text.trim();
    let (name, rest) = trimmed.split_at(trimmed.find('{').unwrap_or(trimmed.len()));
    let mut builder = LabelsBuilder::default();
    builder.set(METRIC_NAME, name.trim());
    if rest.is_empty() {
        return Ok(builder.build());
    }
    let mut rest = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(bad)?.trim();
    while !rest.is_empty() {
        let (label, after) = rest.split_once('=').ok_or_else(bad)?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or_else(bad)?;
        let (value, after) = quoted(after.get(1..).unwrap_or(""), quote).ok_or_else(bad)?;
        builder.set(label.trim(), value);
        rest = after.trim_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix(',').ok_or_else(bad)?.trim_start();
        }
    }
    Ok(builder.build())
}

fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                other => value.push(other),
            },
            c if c == quote => return Some((value, text.get(at + 1..).unwrap_or(""))),
            _ => value.push(c),
        }
    }
    None
}

/// `1 2 _ stale 0+10x5 3x2 _x4`.
pub(super) fn parse_values(text: &str) -> Result<Vec<Option<f64>>, String> {
    let mut values = Vec::new();
    for word in text.split_whitespace() {
        one(word, &mut values).ok_or_else(|| {
            format!("{word:?} is not a value like 5, _, stale, 0+10x5 or 3x2 (histograms are not supported)")
        })?;
        if values.len() > VALUES_MAX {
            return Err(format!("more than {VALUES_MAX} values"));
        }
    }
    Ok(values)
}

fn one(word: &str, values: &mut Vec<Option<f64>>) -> Option<()> {
    if word == "stale" {
        values.push(Some(STALE_NAN));
        return Some(());
    }
    let (start, times) = match word.rsplit_once('x') {
        Some((start, times)) => (start, Some(times.parse::<usize>().ok().filter(|times| *times <= VALUES_MAX)?)),
        None => (word, None),
    };
    if start == "_" {
        values.extend(std::iter::repeat_n(None, times.unwrap_or(1)));
        return Some(());
    }
    if let Ok(value) = start.parse::<f64>() {
        values.extend(std::iter::repeat_n(Some(value), times.map_or(1, |times| times + 1)));
        return Some(());
    }
    // `start+step` or `start-step`; a sign behind an exponent's `e` belongs to the number.
    let mut signs = start.match_indices(['+', '-']).map(|(at, _)| at);
    let at = signs.rfind(|at| *at > 0 && !start.get(..*at).unwrap_or("").ends_with(['e', 'E', '+', '-']))?;
    let (first, step) = start.split_at(at);
    let (first, step): (f64, f64) = (first.parse().ok()?, step.trim_start_matches('+').replace("--", "").parse().ok()?);
    for i in 0..=times? {
        values.push(Some(first + step * i as f64));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let some = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        for (text, expected) in [
            ("1 2.5 -3 1e3", some(&[1.0, 2.5, -3.0, 1000.0])),
            ("0+10x3", some(&[0.0, 10.0, 20.0, 30.0])),
            ("10-2x2", some(&[10.0, 8.0, 6.0])),
            ("-1+1x1 1e1+1e1x1", some(&[-1.0, 0.0, 10.0, 20.0])),
            ("3x2", some(&[3.0, 3.0, 3.0])),
            ("1 _ _x2 2", vec![Some(1.0), None, None, None, Some(2.0)]),
            ("+Inf -Inf", some(&[f64::INFINITY, f64::NEG_INFINITY])),
            ("", vec![]),
        ] {
            assert_eq!(parse_values(text), Ok(expected), "{text}");
        }
        assert_eq!(parse_values("stale").unwrap()[0].unwrap().to_bits(), STALE_NAN.to_bits());
        for bad in ["a", "1x", "1+x2", "1+1", "{{schema:1}}", "1x99999999999"] {
            assert!(parse_values(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names() {
        for (text, expected) in [
            ("up", "up"),
            (r#"up{job="a", instance="b\"c"}"#, r#"up{instance="b\"c", job="a"}"#),
            ("{a='b',}", r#"{a="b"}"#),
        ] {
            assert_eq!(parse_name(text).unwrap().to_string(), expected);
        }
        for bad in ["up{", "up{a}", "up{a=b}", r#"up{a="b" c="d"}"#, r#"up{a="b}"#] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
    }
}
