//! Listening: plain or TLS, HTTP/1.1, with bounds on slow clients and on their number.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::Service as _;
use tracing::{debug, info, warn};

use crate::platform::error::chain;
use crate::platform::tasks::TaskGroup;
use crate::platform::tls;

/// Connections at one time, over all addresses.
const CONNECTIONS_MAX: usize = 1024;
/// A client that does not finish its request head in this time is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

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
            let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
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
                let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                    debug!(%address, "too many connections, refused one");
                    continue;
                };
                let peer = Peer { address, open: self.open };
                let (router, tls) = (router.clone(), self.tls.clone());
                tasks.spawn_until_stop("connection", async move {
                    serve_connection(stream, peer, router, tls).await;
                    drop(slot);
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
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            let answer: Result<_, Infallible> = router.call(request).await;
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
