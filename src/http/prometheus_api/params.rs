//! Parameters of a request: times, durations and limits as Prometheus reads them.

use std::time::Duration;

use axum::extract::{FromRequest, Request};

use super::ApiError;
use crate::http::form::Form;
use crate::model::{Matcher, Timestamp};
use crate::query::promql::{parse_duration_ms, parse_selector};

#[derive(Debug)]
pub(super) struct Params(Form);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        Form::of_request(&parts, body).await.map(Self).map_err(ApiError::bad_data)
    }
}

impl Params {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.all(name)
    }

    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse_time(text)
            .map(Some)
            .ok_or_else(|| ApiError::bad_parameter(name, format!("cannot parse {text:?} to a valid timestamp")))
    }

    pub(super) fn required_time(&self, name: &str) -> Result<Timestamp, ApiError> {
        let missing = || ApiError::bad_parameter(name, "cannot parse \"\" to a valid timestamp");
        self.time(name)?.ok_or_else(missing)
    }

    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse_duration(text)
            .map(Some)
            .ok_or_else(|| ApiError::bad_parameter(name, format!("cannot parse {text:?} to a valid duration")))
    }

    pub(super) fn required_duration(&self, name: &str) -> Result<Duration, ApiError> {
        let missing = || ApiError::bad_parameter(name, "cannot parse \"\" to a valid duration");
        self.duration(name)?.ok_or_else(missing)
    }

    /// 0 means no limit.
    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        let text = self.get("limit").unwrap_or("0");
        text.parse().map_err(|_| ApiError::bad_parameter("limit", "limit must be a non-negative number"))
    }

    /// `start` and `end` in milliseconds; all time where they are missing.
    pub(super) fn range_ms(&self) -> Result<(i64, i64), ApiError> {
        let start = self.time("start")?.unwrap_or(Timestamp::MIN).millis();
        let end = self.time("end")?.unwrap_or(Timestamp::MAX).millis();
        if end < start {
            return Err(ApiError::bad_parameter("end", "end timestamp must not be before start time"));
        }
        Ok((start, end))
    }

    /// The selectors of `match[]`.
    pub(super) fn selectors(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let parse = |text| parse_selector(text).map_err(|error| ApiError::bad_parameter("match[]", error));
        self.all("match[]").map(parse).collect()
    }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<f64>() {
        // Milliseconds are what the store has; rounding here keeps 1.001 from becoming 1.000.
        return seconds.is_finite().then(|| Timestamp::from_millis(rounded_ms(seconds)));
    }
    Timestamp::parse_rfc3339(text).ok()
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn rounded_ms(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

fn parse_duration(text: &str) -> Option<Duration> {
    let ms = match text.parse::<f64>() {
        // Go counts nanoseconds, of which part of a millisecond is cut off.
        #[expect(clippy::cast_possible_truncation, reason = "checked")]
        Ok(seconds) if seconds.abs() <= GO_DURATION_SECONDS_MAX => (seconds * 1000.0) as i64,
        Ok(_) => return None,
        Err(_) => parse_duration_ms(text)?,
    };
    // A negative step is as wrong as none, and reported as such.
    Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

/// Longer durations do not fit Go's 64 bits of nanoseconds.
const GO_DURATION_SECONDS_MAX: f64 = 9_223_372_036.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_decoded() {
        assert_eq!(parse_time("1.0015"), Some(Timestamp::from_millis(1002)));
        assert_eq!(parse_time("1970-01-01T00:00:02Z"), Some(Timestamp::from_secs(2)));
        assert_eq!(parse_time("x"), None);
        assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.0019"), Some(Duration::from_millis(1001)));
        assert_eq!(parse_duration("9e18"), None);
        assert_eq!(parse_duration("-1"), Some(Duration::ZERO));
    }
}
