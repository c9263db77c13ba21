//! Records that shippers push.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::{ApiError, LokiApi};
use crate::model::event::{OWN_SOURCE, is_own};
use crate::model::{Labels, LogRecord};
use crate::platform::error::chain;
use crate::platform::tasks::blocking;
use crate::wire::loki_push::{LokiPushError, decode, with_service_name};

/// Answers 204 when the records are stored. A shipper drops what gets 4xx and repeats what gets 5xx, so only what can
/// never be read gets 4xx.
pub(super) async fn push(State(api): State<LokiApi>, headers: HeaderMap, body: Bytes) -> Result<Response, ApiError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let (kind, encoding) = (text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING));
    let service_labels = Arc::clone(&api.service_labels);
    let decoded = blocking(move || {
        let mut records = decode(&body, &kind, &encoding)?;
        name_services(&mut records, &service_labels);
        Ok(records)
    })
    .await;
    let records = decoded.map_err(|error: LokiPushError| {
        let status = if matches!(error, LokiPushError::TooLarge) {
            StatusCode::PAYLOAD_TOO_LARGE
        } else {
            StatusCode::BAD_REQUEST
        };
        ApiError { status, message: chain(&error) }
    })?;
    if records.iter().any(|record| is_own(&record.stream)) {
        let message = format!(
            "streams with the label source={OWN_SOURCE:?} hold the server's own events; push under another source"
        );
        return Err(ApiError { status: StatusCode::BAD_REQUEST, message });
    }
    if !records.is_empty() {
        let stored = (api.push)(records).await;
        stored.map_err(|error| ApiError { status: StatusCode::SERVICE_UNAVAILABLE, message: chain(&error) })?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Gives the streams that have none a `service_name`, which Grafana's log views start from.
fn name_services(records: &mut [LogRecord], labels: &[String]) {
    if labels.is_empty() {
        return;
    }
    let mut last: Option<(Labels, Labels)> = None;
    for record in records {
        // Records of one stream come together.
        let (plain, named) = match last.take() {
            Some(pair) if pair.0 == record.stream => pair,
            _ => (record.stream.clone(), with_service_name(&record.stream, labels)),
        };
        record.stream = named.clone();
        last = Some((plain, named));
    }
}
