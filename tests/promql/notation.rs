//! Series, values and times as scripts write them.

use daraji::model::Labels;
use daraji::model::sample::STALE_NAN;
use daraji::query::promql::{parse_duration_ms, parse_series_labels};

/// A value of a script.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Given {
    Gap,
    Float(f64),
    /// `{{...}}`
    Histogram,
}

/// A number of seconds or a duration, in milliseconds.
pub(crate) fn time_ms(text: &str) -> Result<i64, String> {
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    let seconds = text.parse::<f64>().ok().map(|seconds| (seconds * 1000.0).round() as i64);
    let negative = || Some(-parse_duration_ms(text.strip_prefix('-')?)?);
    seconds.or_else(|| parse_duration_ms(text)).or_else(negative).ok_or_else(|| format!("{text:?} is not a time"))
}

/// `1 2 _ stale 0+10x5 3x2 _x4 {{...}}`.
pub(crate) fn parse_values(text: &str) -> Result<Vec<Given>, String> {
    let mut values = Vec::new();
    for word in words(text) {
        one(&word, &mut values).ok_or_else(|| format!("{word:?} is not a value"))?;
    }
    Ok(values)
}

/// Words, of which those in double braces may hold spaces.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut depth = 0;
    for c in text.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match words.last_mut() {
            Some(word) if !(c.is_whitespace() && depth == 0) => word.push(c),
            _ => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn one(word: &str, values: &mut Vec<Given>) -> Option<()> {
    if word.starts_with("{{") {
        let times = word.rsplit_once("}}").and_then(|(_, rest)| rest.rsplit_once('x'));
        let times: usize = times.map_or(Some(0), |(_, times)| times.parse().ok())?;
        values.extend((0..=times).map(|_| Given::Histogram));
        return Some(());
    }
    if word == "stale" {
        values.push(Given::Float(STALE_NAN));
        return Some(());
    }
    let (start, times) = match word.rsplit_once('x') {
        Some((start, times)) => (start, Some(times.parse::<u32>().ok()?)),
        None => (word, None),
    };
    if start == "_" {
        values.extend((0..times.unwrap_or(1)).map(|_| Given::Gap));
        return Some(());
    }
    if let Ok(value) = start.replace('_', "").parse::<f64>() {
        values.extend((0..=times.unwrap_or(0)).map(|_| Given::Float(value)));
        return Some(());
    }
    // The step's sign is the last one that is neither first nor in an exponent.
    let mut signs = start.match_indices(['+', '-']).map(|(at, _)| at);
    let at = signs.rfind(|at| *at > 0 && !start[..*at].ends_with(['e', 'E', '+', '-']))?;
    let (first, step): (f64, f64) = (start[..at].parse().ok()?, start[at..].replace("--", "").parse().ok()?);
    let mut value = first;
    for _ in 0..=times? {
        values.push(Given::Float(value));
        value += step;
    }
    Some(())
}

/// Splits `name{labels} rest` after the labels.
pub(crate) fn split_series(line: &str) -> Result<(Labels, &str), String> {
    let mut quoted = None;
    let mut depth = 0;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match (quoted, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(quote), '\\') if quote != '`' => escaped = true,
            (Some(quote), c) if c == quote => quoted = None,
            (None, '"' | '\'' | '`') => quoted = Some(c),
            (None, '{') => depth += 1,
            (None, '}') => depth -= 1,
            (None, c) if c.is_whitespace() && depth == 0 => {
                // A name may stand before a space and its braces.
                if line[at..].trim_start().starts_with('{') && !line[at..].trim_start().starts_with("{{") {
                    continue;
                }
                let labels = parse_series_labels(&line[..at]).map_err(|error| error.to_string())?;
                return Ok((labels, &line[at..]));
            }
            _ => {}
        }
    }
    Err(format!("{line:?} has no values"))
}
