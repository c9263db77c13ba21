//! TLS: one cryptography provider for the whole program, and configurations from files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// TLS material that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read certificates from {path}")]
    Certificates { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("read the private key from {path}")]
    PrivateKey { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{path} holds no certificate")]
    Empty { path: PathBuf },
    #[error("use the certificate in {path}")]
    Rejected { path: PathBuf, source: rustls::Error },
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
}

/// Chooses the provider. Call first thing in `main`; a second call does nothing.
pub fn install() {
    // An error only says that a provider is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// A server configuration from PEM files.
pub fn server_config(certificate: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let chain = certificates(certificate)?;
    let key_der =
        PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::PrivateKey { path: key.to_owned(), source })?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|source| TlsError::Rejected { path: certificate.to_owned(), source })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// All certificates of a PEM file, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::Certificates { path: path.to_owned(), source };
    let chain = CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<Vec<_>, _>>().map_err(error)?;
    if chain.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(chain) }
}
