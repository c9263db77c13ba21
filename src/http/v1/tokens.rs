//! Sessions of the UI and the administration of tokens.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, http::HeaderMap};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use crate::http::auth::{SESSION_COOKIE, token_of};
use crate::http::error::ApiError;
use crate::http::listen::Peer;
use crate::platform::error::chain;
use crate::platform::secret::Secret;
use crate::store::state::tokens::Role;

#[derive(Debug, Deserialize)]
pub(super) struct SessionRequest {
    token: Secret,
}

/// Checks a token and keeps it in a cookie that scripts cannot read.
pub(super) async fn open_session(
    State(api): State<Api>,
    Json(request): Json<SessionRequest>,
) -> Result<Response, ApiError> {
    api.tokens.role_of(request.token.expose()).ok_or_else(ApiError::unauthorized)?;
    let cookie =
        format!("{SESSION_COOKIE}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000", request.token.expose());
    set_cookie(&cookie)
}

pub(super) async fn close_session() -> Result<Response, ApiError> {
    set_cookie(&format!("{SESSION_COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"))
}

fn set_cookie(cookie: &str) -> Result<Response, ApiError> {
    let value = HeaderValue::from_str(cookie).map_err(|_| ApiError::bad_request("a token is letters and digits"))?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::SET_COOKIE, value);
    Ok(response)
}

/// Tokens are for administrators, and for whoever sits on the machine itself.
fn require_admin(api: &Api, peer: Option<Extension<Peer>>, headers: &HeaderMap) -> Result<(), ApiError> {
    let role = token_of(headers).and_then(|token| api.tokens.role_of(&token));
    if peer.is_some_and(|peer| peer.open) || role == Some(Role::Admin) {
        Ok(())
    } else {
        Err(ApiError::forbidden("only an administrator may see and change tokens"))
    }
}

pub(super) async fn list(
    State(api): State<Api>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    require_admin(&api, peer, &headers)?;
    let tokens = api.state.list_tokens().map_err(|error| ApiError::internal(chain(&error)))?;
    Ok(Json(tokens).into_response())
}

#[derive(Debug, Deserialize)]
pub(super) struct CreateRequest {
    name: String,
    role: String,
}

pub(super) async fn create(
    State(api): State<Api>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Json(request): Json<CreateRequest>,
) -> Result<Json<Value>, ApiError> {
    require_admin(&api, peer, &headers)?;
    let role = Role::parse(&request.role).ok_or_else(|| {
        ApiError::bad_request(format!("{:?} is not one of viewer, operator, admin, agent", request.role))
    })?;
    let token = api.state.create_token(&request.name, role, api.clock.now());
    let token = token.map_err(|error| ApiError::bad_request(chain(&error)))?;
    Ok(Json(json!({"name": request.name, "role": request.role, "token": token.expose()})))
}

pub(super) async fn revoke(
    State(api): State<Api>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    require_admin(&api, peer, &headers)?;
    let known = api.state.revoke_token(&name).map_err(|error| ApiError::internal(chain(&error)))?;
    if known { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::not_found(format!("no token is called {name:?}"))) }
}
