//! Parameters of a request: times, ranges, steps and limits as Loki reads them.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;

use super::ApiError;
use crate::http::form::Form;
use crate::model::Timestamp;
use crate::store::logs::Direction;

/// Entries of an answer.
pub(super) const ENTRIES_MAX: usize = 5000;
const ENTRIES_DEFAULT: usize = 100;
const SINCE_DEFAULT: Duration = Duration::from_hours(1);

/// The form, and what stands in the headers.
#[derive(Debug)]
pub(super) struct Params {
    form: Form,
    /// Flags of `X-Loki-Response-Encoding-Flags`, echoed in answers.
    pub(super) flags: Vec<String>,
}

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let form = Form::of_request(&parts, body).await.map_err(ApiError::bad)?;
        Ok(Self { form, flags: encoding_flags(&parts) })
    }
}

impl Params {
    #[cfg(test)]
    pub(super) fn of(query: &str) -> Self {
        Self { form: Form::of_query(query), flags: Vec::new() }
    }

    /// Parameters of a request without its body.
    pub(super) fn of_parts(parts: &Parts) -> Self {
        Self { form: Form::of_query(parts.uri.query().unwrap_or("")), flags: encoding_flags(parts) }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.form.get(name)
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.form.all(name)
    }

    /// Whether structured metadata and parsed labels are to be told apart.
    pub(super) fn categorize(&self) -> bool {
        self.flags.iter().any(|flag| flag == "categorize-labels")
    }

    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let bad = || ApiError::bad(format!("cannot parse {name}={text:?}: nanoseconds, seconds or RFC 3339 are taken"));
        parse_time(text).map(Some).ok_or_else(bad)
    }

    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let bad =
            || ApiError::bad(format!("cannot parse {name}={text:?}: seconds or a duration such as 1m30s are taken"));
        parse_duration(text).map(Some).ok_or_else(bad)
    }

    /// `[start, end)`: by default the last hour.
    pub(super) fn range(&self, now: Timestamp) -> Result<(Timestamp, Timestamp), ApiError> {
        let end = self.time("end")?.unwrap_or(now);
        let since = self.duration("since")?.unwrap_or(SINCE_DEFAULT);
        let start = self.time("start")?.unwrap_or(end.min(now) - since);
        if end < start {
            return Err(ApiError::bad("end timestamp must not be before or equal to start time"));
        }
        Ok((start, end))
    }

    /// The step, by default so that about 250 points fit.
    pub(super) fn step(&self, (start, end): (Timestamp, Timestamp)) -> Result<Duration, ApiError> {
        let default = || Duration::from_secs((end.since(start).as_secs() / 250).max(1));
        let step = self.duration("step")?.unwrap_or_else(default);
        if step.is_zero() {
            return Err(ApiError::bad(
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            ));
        }
        if end.since(start).as_nanos() / step.as_nanos() > 11_000 {
            return Err(ApiError::bad(
                "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter",
            ));
        }
        Ok(step)
    }

    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        let Some(text) = self.get("limit") else { return Ok(ENTRIES_DEFAULT) };
        match text.parse::<i64>() {
            Err(_) => Err(ApiError::bad(format!("cannot parse limit={text:?}: a whole number is taken"))),
            Ok(..=0) => Err(ApiError::bad("limit must be a positive value")),
            Ok(limit) => match usize::try_from(limit) {
                Ok(limit) if limit <= ENTRIES_MAX => Ok(limit),
                _ => {
                    let problem = "max entries limit per query exceeded, limit > max_entries_limit_per_query";
                    Err(ApiError::bad(format!("{problem} ({limit} > {ENTRIES_MAX})")))
                }
            },
        }
    }

    /// A count of other things than entries, with its default; capped instead of refused.
    pub(super) fn count(&self, names: &[&str], default: usize) -> Result<usize, ApiError> {
        let found = names.iter().find_map(|name| Some((name, self.get(name)?)));
        let Some((name, text)) = found else { return Ok(default) };
        let count: usize = text
            .parse()
            .map_err(|_| ApiError::bad(format!("cannot parse {name}={text:?}: a whole number is taken")))?;
        Ok(if count == 0 { default } else { count.min(ENTRIES_MAX) })
    }

    pub(super) fn direction(&self) -> Result<Direction, ApiError> {
        match self.get("direction").unwrap_or("backward").to_ascii_lowercase().as_str() {
            "forward" => Ok(Direction::Forward),
            // Grafana's own word for a query that it splits.
            "backward" | "scan" => Ok(Direction::Backward),
            other => Err(ApiError::bad(format!("invalid direction {other:?}: forward or backward is taken"))),
        }
    }
}

fn encoding_flags(parts: &Parts) -> Vec<String> {
    let header = parts.headers.get("x-loki-response-encoding-flags").and_then(|value| value.to_str().ok());
    header.unwrap_or("").split(',').filter(|flag| !flag.is_empty()).map(str::to_owned).collect()
}

fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(number) = text.parse::<i64>() {
        return Some(if text.len() <= 10 { Timestamp::from_secs(number) } else { Timestamp::from_nanos(number) });
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then(|| Timestamp::from_secs_f64(seconds));
    }
    Timestamp::parse_rfc3339(text).ok()
}

/// Seconds, or numbers with units: `15000ms`, `1h30m`. Negative is zero, which callers refuse.
fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds.max(0.0)).ok().filter(|_| seconds.is_finite());
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            "y" => 31_536_000.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations() {
        for (text, time) in [
            ("1700000000", Some(Timestamp::from_secs(1_700_000_000))),
            ("1700000000000000001", Some(Timestamp::from_nanos(1_700_000_000_000_000_001))),
            ("1700000000.5", Some(Timestamp::from_millis(1_700_000_000_500))),
            ("4", Some(Timestamp::from_secs(4))),
            ("2026-01-01T00:00:00.5Z", Some(Timestamp::from_millis(1_767_225_600_500))),
            ("x", None),
            ("nan", None),
        ] {
            assert_eq!(parse_time(text), time, "{text}");
        }
        for (text, ms) in [
            ("15000ms", Some(15_000)),
            ("1h30m", Some(5_400_000)),
            ("2.5", Some(2_500)),
            ("-1", Some(0)),
            ("5x", None),
            ("m", None),
        ] {
            assert_eq!(parse_duration(text), ms.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn ranges_steps_and_limits() {
        let now = Timestamp::from_secs(10_000);
        let seconds = Timestamp::from_secs;
        for (query, range) in [
            ("", Some((seconds(6_400), now))),
            ("since=10m", Some((seconds(9_400), now))),
            ("end=9000", Some((seconds(5_400), seconds(9_000)))),
            ("start=1&end=2", Some((seconds(1), seconds(2)))),
            ("start=3&end=2", None),
            ("start=x", None),
        ] {
            assert_eq!(Params::of(query).range(now).ok(), range, "{query}");
        }
        let range = (seconds(0), seconds(5_000));
        for (query, step) in
            [("", Some(20)), ("step=7", Some(7)), ("step=0", None), ("step=-1", None), ("step=1ms", None)]
        {
            assert_eq!(Params::of(query).step(range).ok(), step.map(Duration::from_secs), "{query}");
        }
        for (query, limit) in
            [("", Some(100)), ("limit=5000", Some(5000)), ("limit=5001", None), ("limit=0", None), ("limit=x", None)]
        {
            assert_eq!(Params::of(query).limit().ok(), limit, "{query}");
        }
        for (query, direction) in [
            ("", Some(Direction::Backward)),
            ("direction=FORWARD", Some(Direction::Forward)),
            ("direction=scan", Some(Direction::Backward)),
            ("direction=up", None),
        ] {
            assert_eq!(Params::of(query).direction().ok(), direction, "{query}");
        }
    }
}
