//! Logging in to an etcd with authentication: a token by user and password, which goes with every request.
//!
//! Invariant: one log-in at a time per etcd, however many clusters ask, and after a refused one none for
//! [`REFUSED_FOR`]: each costs the etcd a password hash.

use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::collect::config::{DcsConfig, HttpUrl};
use crate::collect::etcd::{parse, post};
use crate::collect::poll::CollectError;
use crate::collect::scrape::read_secret;
use crate::model::observation::FailureKind;
use crate::platform::http_client::HttpClient;
use crate::platform::secret::Secret;

/// After a wrong password the next attempt waits this long.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// A member that did not take part in a log-in is not asked again for this long.
const FAILED_FOR: Duration = Duration::from_secs(2);

/// A failed log-in.
#[derive(Debug)]
struct Failure {
    endpoint: HttpUrl,
    until: Instant,
    error: CollectError,
}

/// User, password and the token that they gave.
#[derive(Debug)]
pub(crate) struct Login {
    username: String,
    password_file: PathBuf,
    /// Empty where the etcd asks for none.
    token: Mutex<Option<Secret>>,
    gate: tokio::sync::Mutex<Option<Failure>>,
}

impl Login {
    pub(crate) fn new(config: &DcsConfig) -> Option<Self> {
        let (username, password_file) = (config.username.clone()?, config.password_file.clone()?);
        Some(Self { username, password_file, token: Mutex::default(), gate: tokio::sync::Mutex::default() })
    }

    /// The token as it stands, if there is one.
    pub(crate) fn token(&self) -> Option<Secret> {
        self.token.lock().clone()
    }

    /// A token other than the one that the etcd refused. The caller has a deadline around this.
    pub(crate) async fn renew(
        &self,
        http: &HttpClient,
        endpoint: &HttpUrl,
        refused: Option<&Secret>,
    ) -> Result<Secret, CollectError> {
        let mut failure = self.gate.lock().await;
        if let Some(token) = self.token().filter(|token| Some(token) != refused) {
            return Ok(token);
        }
        if let Some(last) = &*failure
            && Instant::now() < last.until
            && (last.error.kind == FailureKind::Denied || last.endpoint == *endpoint)
        {
            return Err(last.error.clone());
        }
        match self.authenticate(http, endpoint).await {
            Ok(token) => {
                *failure = None;
                *self.token.lock() = Some(token.clone());
                Ok(token)
            }
            Err(error) => {
                let wait = if error.kind == FailureKind::Denied { REFUSED_FOR } else { FAILED_FOR };
                let (endpoint, until) = (endpoint.clone(), Instant::now() + wait);
                *failure = Some(Failure { endpoint, until, error: error.clone() });
                Err(error)
            }
        }
    }

    async fn authenticate(&self, http: &HttpClient, endpoint: &HttpUrl) -> Result<Secret, CollectError> {
        let password = read_secret(&self.password_file)?;
        let body = json!({"name": self.username, "password": password.expose()});
        match post(http, endpoint, "/v3/auth/authenticate", &body, None).await {
            Ok(answer) => {
                let token = parse::text(&answer, "token");
                let error = || CollectError::new(FailureKind::Other, format!("{endpoint} gave no token"));
                token.map(Secret::new).ok_or_else(error)
            }
            Err(error) if error.error.contains("authentication is not enabled") => Ok(Secret::new("")),
            Err(error) => Err(error),
        }
    }
}
