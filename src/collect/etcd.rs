//! etcd over the JSON gateway of its v3 API: the keys of Patroni clusters, and the health of every etcd member.
//!
//! Invariant: what is passed on as the DCS's word was read through the quorum (linearizable) or came by a watch that
//! such reads confirm. A member's local view never counts as the DCS's word.

pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod login;
pub(crate) mod parse;
pub(crate) mod pool;
pub(crate) mod watch;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::collect::config::{DcsConfig, HttpUrl};
use crate::collect::etcd::login::Login;
use crate::collect::poll::CollectError;
use crate::model::observation::FailureKind;
use crate::platform::http_client::{HttpAnswer, HttpClient, HttpError};
use crate::platform::secret::Secret;

/// One request; a member without quorum answers later than this or never.
///
/// A little less than the interval, so that a hanging member delays no next question.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_millis(1800);
/// Enough for the keys of a cluster of hundreds of members and for etcd's metrics page.
pub(crate) const BODY_BYTES_MAX: usize = 8 << 20;
/// Members of one etcd that are used; etcd itself recommends at most seven.
const ENDPOINTS_MAX: usize = 15;

/// What a member says about itself.
#[derive(Debug)]
pub(crate) enum MemberWord {
    Status(Value),
    /// The member list, from a member that tells its status to the role root only, as newer ones with authentication
    /// do. Who leads is not in it.
    List(Value),
}

impl MemberWord {
    pub(crate) fn member_id(&self) -> Option<String> {
        let (Self::Status(value) | Self::List(value)) = self;
        value.get("header").and_then(|header| parse::text(header, "member_id"))
    }
}

/// A client of one etcd, which asks its members in turn until one answers.
#[derive(Debug)]
pub(crate) struct EtcdClient {
    pub(crate) http: HttpClient,
    login: Option<Login>,
    endpoints: Mutex<Vec<HttpUrl>>,
    /// The endpoint that answered last.
    preferred: AtomicUsize,
}

impl EtcdClient {
    pub(crate) fn new(config: &DcsConfig) -> Result<Self, HttpError> {
        let identity = config.cert_file.as_deref().zip(config.key_file.as_deref());
        let ca_file = config.ca_file.as_deref();
        let http = HttpClient::with_identity(REQUEST_TIMEOUT, BODY_BYTES_MAX, ca_file, identity)?;
        let endpoints = Mutex::new(config.etcd.iter().take(ENDPOINTS_MAX).cloned().collect());
        Ok(Self { http, login: Login::new(config), endpoints, preferred: AtomicUsize::new(0) })
    }

    /// Endpoints to try, the one that answered last first.
    pub(crate) fn endpoints(&self) -> Vec<HttpUrl> {
        let mut endpoints = self.endpoints.lock().clone();
        let first = self.preferred.load(Ordering::Relaxed) % endpoints.len().max(1);
        endpoints.rotate_left(first);
        endpoints
    }

    /// Adds an endpoint that was found.
    pub(crate) fn add_endpoint(&self, url: HttpUrl) {
        let mut endpoints = self.endpoints.lock();
        if endpoints.len() < ENDPOINTS_MAX && !endpoints.contains(&url) {
            endpoints.push(url);
        }
    }

    /// Makes another endpoint the first to try.
    pub(crate) fn rotate(&self) {
        self.preferred.fetch_add(1, Ordering::Relaxed);
    }

    /// Posts to the first endpoint that answers. The caller has a deadline around this.
    pub(crate) async fn call(&self, path: &str, body: &Value) -> Result<Value, CollectError> {
        let mut last = CollectError::new(FailureKind::Other, "no etcd URL is configured");
        for (tried, endpoint) in self.endpoints().iter().enumerate() {
            match self.call_at(endpoint, path, body).await {
                Ok(answer) => {
                    self.preferred.fetch_add(tried, Ordering::Relaxed);
                    return Ok(answer);
                }
                // Another member cannot know better than one that answers "permission denied".
                Err(error) if error.kind == FailureKind::Denied => return Err(error),
                Err(error) => last = worse(last, error),
            }
        }
        Err(last)
    }

    /// Posts to one endpoint, with a token where a login is configured.
    pub(crate) async fn call_at(&self, endpoint: &HttpUrl, path: &str, body: &Value) -> Result<Value, CollectError> {
        let Some(login) = &self.login else { return post(&self.http, endpoint, path, body, None).await };
        let token = match login.token() {
            Some(token) => token,
            None => login.renew(&self.http, endpoint, None).await?,
        };
        match post(&self.http, endpoint, path, body, Some(&token)).await {
            Err(error) if is_about_token(&error) => {
                let token = login.renew(&self.http, endpoint, Some(&token)).await?;
                post(&self.http, endpoint, path, body, Some(&token)).await
            }
            result => result,
        }
    }

    /// Asks one member about itself.
    pub(crate) async fn ask_member(&self, endpoint: &HttpUrl) -> Result<MemberWord, CollectError> {
        match self.call_at(endpoint, "/v3/maintenance/status", &json!({})).await {
            Ok(status) => Ok(MemberWord::Status(status)),
            Err(error) if error.kind == FailureKind::Denied && self.login.is_some() => {
                self.call_at(endpoint, "/v3/cluster/member/list", &json!({})).await.map(MemberWord::List)
            }
            Err(error) => Err(error),
        }
    }

    /// Begins a request that answers without end; a token that an earlier call got goes with it.
    pub(crate) fn stream(&self, url: &str, body: &Value) -> reqwest::RequestBuilder {
        let token = self.login.as_ref().and_then(Login::token);
        with_token(self.http.request(reqwest::Method::POST, url).json(body), token.as_ref())
    }

    /// All keys below a prefix, read through the quorum.
    pub(crate) async fn range(&self, prefix: &str, keys_only: bool) -> Result<parse::Range, CollectError> {
        let body = json!({
            "key": parse::encode(prefix),
            "range_end": parse::encode(parse::prefix_end(prefix)),
            "keys_only": keys_only,
            "limit": parse::KEYS_MAX,
        });
        parse::range(&self.call("/v3/kv/range", &body).await?, prefix)
    }
}

/// A hanging member tells more about the quorum than one that is gone.
fn worse(a: CollectError, b: CollectError) -> CollectError {
    let rank = |error: &CollectError| match error.kind {
        FailureKind::Timeout | FailureKind::Rejecting => 2,
        FailureKind::Other if error.error.starts_with("no etcd URL") => 0,
        _ => 1,
    };
    if rank(&a) > rank(&b) { a } else { b }
}

/// Posts to one endpoint.
async fn post(
    http: &HttpClient,
    endpoint: &HttpUrl,
    path: &str,
    body: &Value,
    token: Option<&Secret>,
) -> Result<Value, CollectError> {
    let url = endpoint.join(path);
    let request = with_token(http.request(reqwest::Method::POST, &url).json(body), token);
    let answer = http.send(request, &url).await?;
    read_answer(endpoint, path, &answer)
}

fn with_token(request: reqwest::RequestBuilder, token: Option<&Secret>) -> reqwest::RequestBuilder {
    match token.filter(|token| !token.expose().is_empty()) {
        Some(token) => request.header("authorization", token.expose()),
        None => request,
    }
}

/// Whether another token may help: this one has expired, is unknown to a restarted etcd, or is older than its users.
fn is_about_token(error: &CollectError) -> bool {
    ["invalid auth token", "revision of auth store is old", "user name is empty"]
        .iter()
        .any(|text| error.error.contains(text))
}

fn read_answer(endpoint: &HttpUrl, path: &str, answer: &HttpAnswer) -> Result<Value, CollectError> {
    let value: Option<Value> = serde_json::from_slice(&answer.body).ok();
    match (answer.status, value) {
        (200, Some(value)) => Ok(value),
        (404, _) => Err(CollectError::new(FailureKind::Other, format!("{endpoint} knows no {path}"))
            .with_hint("etcd 3.4 or newer with its gRPC gateway is needed, on its client URL")),
        (status, value) => {
            let message = value.as_ref().and_then(parse::error_message).unwrap_or_else(|| format!("HTTP {status}"));
            Err(refusal(endpoint, &message))
        }
    }
}

/// What etcd's own error text means.
pub(crate) fn refusal(endpoint: &HttpUrl, message: &str) -> CollectError {
    let error = format!("{endpoint} answered: {message}");
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let denied = |hint: &str| CollectError::new(FailureKind::Denied, error.clone()).with_hint(hint);
    if has(&["authentication failed"]) {
        return denied("check username and what stands in password_file, beside etcd: in the configuration");
    }
    if has(&["user name is empty"]) {
        return denied("this etcd asks for a login: add username: and password_file: beside etcd:");
    }
    if has(&["permission denied", "authentication"]) {
        return denied(
            "let the user read the namespace: etcdctl role grant-permission ROLE read --prefix=true /service/",
        );
    }
    if has(&["invalid auth token", "revision of auth store"]) {
        return CollectError::new(FailureKind::Rejecting, error);
    }
    if has(&["timed out", "deadline"]) {
        return CollectError::new(FailureKind::Timeout, error);
    }
    if has(&["no leader", "leader changed", "not leader", "unavailable", "stopped"]) {
        return CollectError::new(FailureKind::Rejecting, error);
    }
    CollectError::new(FailureKind::Other, error)
}
