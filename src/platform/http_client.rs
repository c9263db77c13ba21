//! The HTTP client for everything we ask: bounded time, bounded bodies, no redirects, no proxy from the environment.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use crate::model::observation::FailureKind;

/// Why a request gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("set up the HTTP client")]
    Build(#[source] reqwest::Error),
    #[error("read the CA certificates in {path}")]
    Ca { path: String, source: std::io::Error },
    #[error("read the client certificate or its key in {path}")]
    Identity { path: String, source: std::io::Error },
    #[error("{url} did not answer within {} ms", timeout.as_millis())]
    Timeout { url: String, timeout: Duration },
    #[error("request to {url} failed")]
    Request { url: String, source: reqwest::Error },
    #[error("{url} answered with more than {bytes_max} bytes")]
    TooLarge { url: String, bytes_max: usize },
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    pub status: u16,
    pub content_type: String,
    /// `Retry-After` in seconds, if the server named a number.
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

/// A client. Cheap to clone. Connections are not kept: a fresh one proves that the server still accepts.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
    timeout: Duration,
    body_bytes_max: usize,
}

impl HttpClient {
    /// `timeout` covers the whole exchange, from connecting to the last byte.
    pub fn new(timeout: Duration, body_bytes_max: usize, ca_file: Option<&Path>) -> Result<Self, HttpError> {
        Self::with_identity(timeout, body_bytes_max, ca_file, None)
    }

    /// As [`HttpClient::new`], and proves itself by a certificate and its key, both PEM.
    pub fn with_identity(
        timeout: Duration,
        body_bytes_max: usize,
        ca_file: Option<&Path>,
        identity: Option<(&Path, &Path)>,
    ) -> Result<Self, HttpError> {
        let mut builder = builder(timeout);
        if let Some(path) = ca_file {
            let pem =
                std::fs::read(path).map_err(|source| HttpError::Ca { path: path.display().to_string(), source })?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(HttpError::Build)?;
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some((certificate, key)) = identity {
            let read = |path: &Path| {
                std::fs::read(path).map_err(|source| HttpError::Identity { path: path.display().to_string(), source })
            };
            let mut pem = read(certificate)?;
            pem.push(b'\n');
            pem.extend(read(key)?);
            builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(HttpError::Build)?);
        }
        let client = builder.build().map_err(HttpError::Build)?;
        Ok(Self { client, timeout, body_bytes_max })
    }

    /// A client that takes any certificate, for scrape jobs that ask for it.
    pub fn without_verification(timeout: Duration, body_bytes_max: usize) -> Result<Self, HttpError> {
        let client = builder(timeout).tls_danger_accept_invalid_certs(true).build().map_err(HttpError::Build)?;
        Ok(Self { client, timeout, body_bytes_max })
    }

    pub async fn get(&self, url: &str) -> Result<HttpAnswer, HttpError> {
        self.send(self.client.get(url), url).await
    }

    /// Starts a request of any kind; finish it with [`HttpClient::send`].
    pub fn request(&self, method: reqwest::Method, url: &str) -> reqwest::RequestBuilder {
        self.client.request(method, url)
    }

    /// Sends and reads the whole answer within the client's bounds.
    pub async fn send(&self, request: reqwest::RequestBuilder, url: &str) -> Result<HttpAnswer, HttpError> {
        let exchange = async {
            // The URL stands in our own text, without a password.
            let error = |source: reqwest::Error| HttpError::Request { url: redact(url), source: source.without_url() };
            let answer = request.send().await.map_err(error)?;
            let status = answer.status().as_u16();
            let content_type = answer.headers().get("content-type").and_then(|value| value.to_str().ok());
            let content_type = content_type.unwrap_or("").to_owned();
            let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            let retry_after = retry_after.map(Duration::from_secs);
            let mut body = BytesMut::new();
            let mut stream = answer.bytes_stream();
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(error)?;
                if body.len() + chunk.len() > self.body_bytes_max {
                    return Err(HttpError::TooLarge { url: redact(url), bytes_max: self.body_bytes_max });
                }
                body.extend_from_slice(&chunk);
            }
            Ok(HttpAnswer { status, content_type, retry_after, body: body.freeze() })
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_elapsed) => Err(HttpError::Timeout { url: redact(url), timeout: self.timeout }),
        }
    }
}

fn builder(timeout: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        // A host that is not there is told from one that takes connections and hangs.
        .connect_timeout(timeout / 2)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .user_agent(concat!("daraji/", env!("CARGO_PKG_VERSION")))
}

impl HttpError {
    /// What the failure says about the other side.
    pub fn failure_kind(&self) -> FailureKind {
        match self {
            Self::Timeout { .. } => FailureKind::Timeout,
            Self::Request { source, .. } if source.is_connect() && source.is_timeout() => FailureKind::Unreachable,
            Self::Request { source, .. } => io_failure_kind(source).unwrap_or(if source.is_timeout() {
                FailureKind::Timeout
            } else if is_not_http(source) {
                FailureKind::Other
            } else if source.is_request() || source.is_body() {
                FailureKind::Reset
            } else {
                FailureKind::Other
            }),
            Self::Build(_) | Self::Ca { .. } | Self::Identity { .. } | Self::TooLarge { .. } => FailureKind::Other,
        }
    }
}

/// Whether the other side answered with something that is no HTTP.
fn is_not_http(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut current = Some(error);
    while let Some(error) = current {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return true;
        }
        current = error.source();
    }
    false
}

/// Finds the operating system's word for a failure anywhere in an error chain.
pub fn io_failure_kind(error: &(dyn std::error::Error + 'static)) -> Option<FailureKind> {
    use std::io::ErrorKind;
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            match io.kind() {
                ErrorKind::ConnectionRefused => return Some(FailureKind::Refused),
                ErrorKind::TimedOut => return Some(FailureKind::Timeout),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
                    return Some(FailureKind::Reset);
                }
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => {
                    return Some(FailureKind::Unreachable);
                }
                _ => {}
            }
        }
        current = error.source();
    }
    None
}

/// The URL without a user name and password, also where one of them holds an `@`.
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match authority.rfind('@').and_then(|at| rest.get(at..)) {
        Some(tail) => format!("{scheme}://***{tail}"),
        None => url.to_owned(),
    }
}

/// Percent-encodes everything but unreserved characters.
pub fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ok = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_is_refused_and_a_silent_one_times_out() {
        crate::platform::tls::install();
        let client = HttpClient::new(Duration::from_millis(200), 100, None).unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = client.get(&format!("http://{closed}/")).await.unwrap_err();
        assert_eq!(error.failure_kind(), FailureKind::Refused, "{error:?}");

        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = client.get(&format!("http://{}/", silent.local_addr().unwrap())).await.unwrap_err();
        assert_eq!(error.failure_kind(), FailureKind::Timeout, "{error:?}");
    }

    #[test]
    fn passwords_in_urls_are_hidden() {
        for (url, shown) in [
            ("http://user:secret@host/x", "http://***@host/x"),
            ("http://user:sec@ret@host/x@y", "http://***@host/x@y"),
            ("http://host/x", "http://host/x"),
            ("http://host/x@y?z=a@b", "http://host/x@y?z=a@b"),
        ] {
            assert_eq!(redact(url), shown);
        }
    }
}
