//! Who may do what: open on loopback, a token everywhere else.
//!
//! Invariant: nothing but health, readiness and the files of the UI is answered without a token on a guarded address.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::http::error::ApiError;
use crate::http::listen::Peer;
use crate::http::origin::{self, OwnName};
use crate::http::ui::API_PREFIXES;
use crate::platform::tasks::blocking;
use crate::store::state::tokens::{Role, Token};

/// The cookie that the UI's session holds the token in; event streams and websockets cannot send a header.
pub const SESSION_COOKIE: &str = "daraji_token";

/// Who calls from the machine itself, where no token is asked.
const LOCAL: &str = "local";

type Lookup = dyn Fn(&str) -> Option<Token> + Send + Sync;

/// Looks a token up by its secret.
#[derive(Clone)]
pub struct TokenCheck(Arc<Lookup>);

impl TokenCheck {
    pub fn new(check: impl Fn(&str) -> Option<Token> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }

    pub fn find(&self, secret: &str) -> Option<Token> {
        (self.0)(secret)
    }

    pub fn role_of(&self, secret: &str) -> Option<Role> {
        self.find(secret).map(|token| token.role)
    }
}

/// Who makes a request, as an extension of it, for what is written down about it: the name of a token; `local` from the
/// machine itself; else the address, where no token is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub String);

impl Caller {
    fn without_token(peer: Option<&Peer>) -> Self {
        let address = peer.map(|peer| peer.address.ip()).filter(|address| !address.is_loopback());
        Self(address.map_or_else(|| LOCAL.to_owned(), |address| address.to_string()))
    }
}

impl fmt::Debug for TokenCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenCheck")
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    Read,
    Change,
    Push,
    Administer,
}

/// Whether a path is answered by an API; anything else is a file of the UI.
fn is_api(path: &str) -> bool {
    path == "/metrics" || path == "/federate" || API_PREFIXES.iter().any(|prefix| path.starts_with(prefix))
}

fn need_of(method: &Method, path: &str) -> Need {
    let reads_by_post = ["/api/v1/", "/loki/api/v1/"].iter().any(|prefix| path.starts_with(prefix));
    match path {
        "/-/healthy" | "/-/ready" | "/ready" | "/api/daraji/v1/session" => Need::Nothing,
        "/-/reload" => Need::Administer,
        "/api/daraji/v1/agent/push" | "/api/v1/write" | "/loki/api/v1/push" => Need::Push,
        _ if path.starts_with("/otlp/") => Need::Push,
        _ if !is_api(path) => Need::Nothing,
        _ if *method == Method::GET || *method == Method::HEAD || reads_by_post => Need::Read,
        _ => Need::Change,
    }
}

fn allows(role: Role, need: Need) -> bool {
    match need {
        Need::Nothing => true,
        Need::Read => matches!(role, Role::Viewer | Role::Operator | Role::Admin),
        Need::Change => matches!(role, Role::Operator | Role::Admin),
        Need::Push => matches!(role, Role::Agent | Role::Operator | Role::Admin),
        Need::Administer => matches!(role, Role::Admin),
    }
}

/// The token of a request: the bearer, else the password of basic authentication (for clients that know only that),
/// else the session cookie.
pub fn token_of(headers: &HeaderMap) -> Option<String> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(value) = authorization {
        if let Some(token) = value.strip_prefix("Bearer ") {
            return Some(token.trim().to_owned());
        }
        let basic =
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD, value.strip_prefix("Basic ")?.trim());
        let text = String::from_utf8(basic.ok()?).ok()?;
        return text.split_once(':').map(|(_, password)| password.to_owned());
    }
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    cookies.split(';').find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == SESSION_COOKIE).then(|| value.to_owned())
    })
}

/// What the guard goes by.
#[derive(Clone, Debug)]
pub struct Guard {
    pub tokens: TokenCheck,
    pub own_name: OwnName,
}

/// Refuses what the caller may not do. Installed around everything.
pub async fn guard(
    State(Guard { tokens, own_name }): State<Guard>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    // A request without a peer did not come through a listener of ours (a test); it is treated as guarded.
    let peer = request.extensions().get::<Peer>();
    let open = peer.is_some_and(|peer| peer.open);
    if let Err(error) = origin::check(request.method(), request.headers(), peer, &own_name) {
        return error.into_response();
    }
    let need = need_of(request.method(), request.uri().path());
    if open || need == Need::Nothing {
        let caller = Caller::without_token(peer);
        request.extensions_mut().insert(caller);
        return next.run(request).await;
    }
    // Reads the state from disk.
    let secret = token_of(request.headers());
    let token = blocking(move || secret.and_then(|secret| tokens.find(&secret))).await;
    let Some(Token { name, role, .. }) = token else {
        return ApiError::unauthorized().into_response();
    };
    if allows(role, need) {
        request.extensions_mut().insert(Caller(name));
        next.run(request).await
    } else {
        ApiError::forbidden(format!("a token of role {} may not do this", role.as_str())).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_needs_what_it_does() {
        for (method, path, need) in [
            (Method::GET, "/-/healthy", Need::Nothing),
            (Method::GET, "/", Need::Nothing),
            (Method::GET, "/c/demo", Need::Nothing),
            (Method::GET, "/app.js", Need::Nothing),
            (Method::GET, "/metrics", Need::Read),
            (Method::GET, "/federate", Need::Read),
            (Method::GET, "/prometheus/api/v1/rules", Need::Read),
            (Method::GET, "/alertmanager/api/v2/alerts", Need::Read),
            (Method::POST, "/api/v1/query", Need::Read),
            (Method::POST, "/api/v1/write", Need::Push),
            (Method::POST, "/loki/api/v1/push", Need::Push),
            (Method::GET, "/api/daraji/v1/clusters", Need::Read),
            (Method::POST, "/api/daraji/v1/agent/push", Need::Push),
            (Method::POST, "/api/v2/silences", Need::Change),
            (Method::DELETE, "/api/v2/silence/x", Need::Change),
            (Method::POST, "/-/reload", Need::Administer),
        ] {
            assert_eq!(need_of(&method, path), need, "{method} {path}");
        }
    }

    #[test]
    fn roles() {
        assert!(!allows(Role::Agent, Need::Read));
        assert!(allows(Role::Agent, Need::Push));
        assert!(!allows(Role::Viewer, Need::Push));
        assert!(!allows(Role::Viewer, Need::Change));
        assert!(allows(Role::Operator, Need::Change));
        assert!(!allows(Role::Operator, Need::Administer));
        assert!(allows(Role::Admin, Need::Administer));
    }

    #[test]
    fn tokens_come_by_header_or_cookie() {
        let with = |name: header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            token_of(&headers)
        };
        assert_eq!(with(header::AUTHORIZATION, "Bearer abc"), Some("abc".into()));
        assert_eq!(with(header::AUTHORIZATION, "Basic dXNlcjphYmM="), Some("abc".into()));
        assert_eq!(with(header::AUTHORIZATION, "Basic !"), None);
        assert_eq!(with(header::COOKIE, "a=b; daraji_token=abc"), Some("abc".into()));
        assert_eq!(token_of(&HeaderMap::new()), None);
    }
}
