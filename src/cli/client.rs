//! Talking to a running server.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use crate::model::Timestamp;
use crate::platform::http_client::{HttpClient, percent_encode};
use crate::platform::secret::Secret;
use crate::platform::units::parse_duration;

const TIMEOUT: Duration = Duration::from_mins(1);
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Where the server is and who we are.
#[derive(Debug, Clone, Args)]
pub(super) struct ServerArgs {
    /// URL of the server
    #[arg(long, env = "DARAJI_URL", default_value = "http://127.0.0.1:7432")]
    url: String,
    /// File with the access token
    #[arg(long, env = "DARAJI_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// CA certificates to trust, besides the system's
    #[arg(long, env = "DARAJI_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// A client of one server.
#[derive(Debug)]
pub(super) struct Client {
    http: HttpClient,
    base: String,
    token: Option<Secret>,
}

impl Client {
    pub(super) fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        let http = HttpClient::new(TIMEOUT, ANSWER_BYTES_MAX, args.ca_file.as_deref())?;
        let token = match &args.token_file {
            Some(path) => Some(Secret::read_file(path)?),
            None => std::env::var("DARAJI_TOKEN").ok().map(Secret::new),
        };
        Ok(Self { http, base: args.url.trim_end_matches('/').to_owned(), token })
    }

    /// The JSON answer to a GET with query parameters.
    pub(super) async fn get(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<Value> {
        let pairs: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
        let with_query = if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) };
        self.send(reqwest::Method::GET, &with_query, None).await
    }

    /// The JSON answer to a request; an error answer becomes an error with the server's words.
    pub(super) async fn send(
        &self,
        method: reqwest::Method,
        path_and_query: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let url = format!("{}{path_and_query}", self.base);
        let mut request = self.http.request(method, &url);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let answer = self.http.send(request, &self.base).await.with_context(|| {
            format!("ask the server at {} (is `daraji serve` running? another address: --url)", self.base)
        })?;
        let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
        if answer.status == 204 {
            return Ok(Value::Null);
        }
        if answer.status < 300 {
            return body.with_context(|| format!("{} did not answer with JSON", self.base));
        }
        let text = body.as_ref().and_then(error_text);
        let text = text.unwrap_or_else(|| String::from_utf8_lossy(&answer.body).into_owned());
        bail!("the server answered {}: {}", answer.status, text.trim());
    }
}

/// The message in any of the shapes that our APIs use for errors.
fn error_text(body: &Value) -> Option<String> {
    let error = body.get("error")?;
    let text = error.as_str().or_else(|| error.get("message")?.as_str())?;
    Some(text.to_owned())
}

/// A point in time as people give it: `now`, `2h` (ago), RFC 3339, or Unix seconds.
pub(super) fn parse_time(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if text == "now" {
        return Ok(now);
    }
    if let Ok(ago) = parse_duration(text.trim_start_matches('-')) {
        return Ok(now - ago);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(Timestamp::from_secs_f64(seconds));
    }
    Timestamp::parse_rfc3339(text)
        .with_context(|| format!("{text:?} is not a time: use now, a duration like 2h, RFC 3339 or Unix seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let now = Timestamp::from_secs(10_000);
        for (text, seconds) in
            [("now", 10_000), ("1h", 6_400), ("-1h", 6_400), ("5000", 5_000), ("1970-01-01T00:00:07Z", 7)]
        {
            assert_eq!(parse_time(text, now).unwrap(), Timestamp::from_secs(seconds), "{text}");
        }
        assert!(parse_time("tomorrow", now).is_err());
    }

    #[test]
    fn encoding() {
        assert_eq!(percent_encode("{a=\"b c\"}é"), "%7Ba%3D%22b%20c%22%7D%C3%A9");
    }
}
