//! The embedded UI: files with their ETag; any other page path is the application itself.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use rust_embed::RustEmbed;
use serde_json::json;

use crate::http::error::ApiError;
use crate::platform::random::hex;

#[derive(RustEmbed)]
#[folder = "ui/dist"]
#[allow_missing = true]
struct Assets;

const INDEX: &str = "index.html";
/// Paths of APIs: an unknown one is a 404 in JSON, never the application (Grafana probes such paths).
pub(super) const API_PREFIXES: [&str; 7] =
    ["/api/", "/loki/", "/prometheus/", "/alertmanager/", "/otlp/", "/-/", "/metrics/"];

/// Answers whatever no API did.
pub(super) async fn fallback(request: Request<Body>) -> Response {
    let path = request.uri().path();
    if API_PREFIXES.iter().any(|prefix| path.starts_with(prefix)) {
        let message = format!("there is no path {path}");
        if path.starts_with("/api/daraji/") {
            return ApiError::not_found(message).into_response();
        }
        return (StatusCode::NOT_FOUND, axum::Json(json!({"message": message}))).into_response();
    }
    let name = path.trim_start_matches('/');
    let file = Assets::get(name).map(|file| (name, file));
    let Some((name, file)) = file.or_else(|| Assets::get(INDEX).map(|file| (INDEX, file))) else {
        return (StatusCode::NOT_FOUND, "this build has no UI; build it with `npm ci && npm run build` in ui/")
            .into_response();
    };
    let hash = file.metadata.sha256_hash();
    let etag = format!("\"{}\"", hex(hash.get(..8).unwrap_or(&hash)));
    let unchanged = request.headers().get(header::IF_NONE_MATCH).is_some_and(|seen| seen.as_bytes() == etag.as_bytes());
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(file.data.into_owned()).into_response()
    };
    let headers = response.headers_mut();
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, &etag);
    set(header::CACHE_CONTROL, "no-cache");
    set(header::CONTENT_TYPE, content_type(name));
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "same-origin");
    set(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'self'",
    );
    response
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}
