//! Listening: plain or TLS, HTTP/1.1, with bounds on slow clients and on their number.
//!
//! Invariant: head, body and handshake each have a deadline that does not depend on who asks.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::IntoResponse as _;
use hyper::body::{Frame, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tower::Service as _;
use tracing::{debug, error, info, warn};

use crate::http::admission::{Admission, Refusal};
use crate::http::error::ApiError;
use crate::platform::error::chain;
use crate::platform::tasks::{TaskGroup, caught};
use crate::platform::tls;

/// A client that does not finish its request head in this time is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for the whole body: a push of megabytes over a slow line fits.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Refused connections are told in the log this often.
const REFUSALS_EVERY: Duration = Duration::from_mins(1);

/// Where a request came from, as an extension of it.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// Nothing is asked on this address.
    pub open: bool,
}

/// Certificate files that are read again when they change.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// One address to listen on.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    open: bool,
    tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
}

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{address} is in use by another program; stop it, or choose another address with --listen or `listen`")]
    InUse { address: String },
    #[error("listen on {address}")]
    Bind { address: String, source: io::Error },
    #[error("set up TLS for {address}")]
    Tls { address: String, source: tls::TlsError },
}

impl Listener {
    /// Binds an address. `open` means that no token is asked there.
    pub async fn bind(address: &str, open: bool, tls: Option<&TlsFiles>) -> Result<Self, ListenError> {
        let bind_error = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { address: address.to_owned() },
            _ => ListenError::Bind { address: address.to_owned(), source },
        };
        let socket = TcpListener::bind(address).await.map_err(bind_error)?;
        let local = socket.local_addr().map_err(bind_error)?;
        let tls = match tls {
            None => None,
            Some(files) => {
                let config = tls::server_config(&files.certificate, &files.key)
                    .map_err(|source| ListenError::Tls { address: address.to_owned(), source })?;
                Some(Arc::new(ArcSwap::new(config)))
            }
        };
        Ok(Self { socket, address: local, open, tls })
    }

    /// The bound address, with the port that port 0 became.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether no token is asked here.
    pub fn is_open(&self) -> bool {
        self.open
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Accepts connections until the group stops.
    pub fn serve(self, router: Router, group: &TaskGroup, tls_files: Option<TlsFiles>) {
        if let (Some(files), Some(config)) = (tls_files, &self.tls) {
            group.spawn_until_stop("tls-reload", reload_certificates(files, Arc::clone(config)));
        }
        let tasks = group.clone();
        let stop = group.stop_token();
        group.spawn(format!("listen {}", self.address), async move {
            let admission = Admission::default();
            let mut refusals = Refusals::default();
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = self.socket.accept() => accepted,
                };
                let (stream, address) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors or the like: wait instead of spinning.
                        warn!(error = %chain(&error), "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let admitted = match admission.admit(address.ip()) {
                    Ok(admitted) => admitted,
                    Err(refusal) => {
                        refusals.note(address, refusal);
                        continue;
                    }
                };
                let peer = Peer { address, open: self.open };
                let (router, tls) = (router.clone(), self.tls.clone());
                tasks.spawn_isolated("connection", async move {
                    serve_connection(stream, peer, router, tls).await;
                    drop(admitted);
                });
            }
        });
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
) {
    // Failing to turn Nagle off only costs latency.
    drop(stream.set_nodelay(true));
    let Some(tls) = tls else {
        return serve_http(stream, peer, router).await;
    };
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.load_full());
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => serve_http(stream, peer, router).await,
        Ok(Err(error)) => debug!(address = %peer.address, error = %chain(&error), "TLS handshake failed"),
        Err(_elapsed) => debug!(address = %peer.address, "TLS handshake took too long"),
    }
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Peer, router: Router) {
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let mut router = router.clone();
        async move {
            let mut request = request.map(|body| Body::new(TimedBody::new(body, BODY_TIMEOUT)));
            request.extensions_mut().insert(peer);
            let path = request.uri().path().to_owned();
            // A handler that panics costs its caller an answer, and nobody else anything.
            let answer: Result<_, Infallible> = match caught(router.call(request)).await {
                Ok(answer) => answer,
                Err(panic) => {
                    error!(path, %panic, "a request could not be answered; this is a bug");
                    Ok(ApiError::internal("the server failed on this request; its log says more").into_response())
                }
            };
            answer
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        debug!(address = %peer.address, error = %chain(&error), "connection ended");
    }
}

/// Connections that were refused, for the log.
#[derive(Debug, Default)]
struct Refusals {
    count: u64,
    told_at: Option<Instant>,
}

impl Refusals {
    fn note(&mut self, address: SocketAddr, refusal: Refusal) {
        self.count += 1;
        if self.told_at.is_none_or(|at| at.elapsed() >= REFUSALS_EVERY) {
            warn!(count = self.count, last = %address, reason = %refusal, "connections are refused");
            *self = Self { count: 0, told_at: Some(Instant::now()) };
        }
    }
}

/// A body that fails when it is not complete in time.
struct TimedBody<B> {
    body: B,
    deadline: Pin<Box<Sleep>>,
}

impl<B> TimedBody<B> {
    fn new(body: B, within: Duration) -> Self {
        Self { body, deadline: Box::pin(tokio::time::sleep(within)) }
    }
}

impl<B> HttpBody for TimedBody<B>
where
    B: HttpBody<Data = bytes::Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = bytes::Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        self.deadline.as_mut().poll(context).map(|()| Some(Err("the request body did not come in time".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads changed certificate files; a bad pair is reported and the old one stays.
async fn reload_certificates(files: TlsFiles, config: Arc<ArcSwap<rustls::ServerConfig>>) {
    let modified = || {
        let of = |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        (of(&files.certificate), of(&files.key))
    };
    let mut seen = modified();
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = modified();
        if now == seen {
            continue;
        }
        seen = now;
        match tls::server_config(&files.certificate, &files.key) {
            Ok(fresh) => {
                config.store(fresh);
                info!(certificate = %files.certificate.display(), "read the changed TLS certificate");
            }
            Err(error) => warn!(error = %chain(&error), "the changed TLS files cannot be used, the old ones stay"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;

    async fn get_status(url: &str) -> u16 {
        tls::install();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(url).send().await.unwrap().status().as_u16()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_fails_in_time() {
        let drops = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            Some((Ok::<_, io::Error>(bytes::Bytes::from_static(b"x")), ()))
        });
        let body = Body::new(TimedBody::new(Body::from_stream(drops), BODY_TIMEOUT));
        let started = Instant::now();
        let error = axum::body::to_bytes(body, 1000).await.unwrap_err();
        assert!(chain(&error).contains("did not come in time"), "{error:?}");
        assert_eq!(started.elapsed(), BODY_TIMEOUT);
    }

    #[tokio::test]
    async fn a_request_that_panics_is_answered_and_the_next_one_too() {
        let bad = || async { crate::platform::tasks::blocking(|| -> &'static str { panic!("planned") }).await };
        let router = Router::new().route("/bad", get(bad)).route("/good", get(|| async { "good" }));
        let group = TaskGroup::new("test");
        let listener = Listener::bind("127.0.0.1:0", true, None).await.unwrap();
        let url = listener.url();
        listener.serve(router, &group, None);
        for _ in 0..2 {
            assert_eq!(get_status(&format!("{url}/bad")).await, 500);
            assert_eq!(get_status(&format!("{url}/good")).await, 200);
        }
        assert!(!group.is_stopped());
        group.stop(Duration::from_secs(5)).await;
    }
}
