//! TLS to PostgreSQL by libpq's `sslmode`.
//!
//! `prefer` and `require` encrypt without proof; `verify-ca` proves the chain, `verify-full` the host name too.
//! `require` with a root certificate proves the chain, as libpq does.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::collect::config::SslMode;
use crate::platform::tls::{TlsError, certificates};

/// TLS to PostgreSQL cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostgresTlsError {
    #[error("read sslrootcert")]
    RootCertificates(#[source] TlsError),
    #[error("trust the certificates of sslrootcert")]
    Verifier(#[source] rustls::client::VerifierBuilderError),
    #[error("trust a certificate of sslrootcert")]
    RootCertificate(#[source] rustls::Error),
    #[error("find the system's root certificates")]
    NoSystemRoots,
    #[error("sslmode verify-ca needs sslrootcert")]
    NoRootCertificates,
}

/// A connector for the mode.
pub(crate) fn connector(mode: SslMode, roots: Option<&Path>) -> Result<MakeRustlsConnect, PostgresTlsError> {
    match (mode, roots) {
        (SslMode::Disable | SslMode::Prefer, _) | (SslMode::Require, None) => Ok(dangerous(Proof::None)),
        (SslMode::Require | SslMode::VerifyCa, Some(path)) => Ok(dangerous(Proof::Chain(chain_verifier(path)?))),
        (SslMode::VerifyCa, None) => Err(PostgresTlsError::NoRootCertificates),
        (SslMode::VerifyFull, Some(path)) => {
            let config = ClientConfig::builder().with_root_certificates(root_store(path)?).with_no_client_auth();
            Ok(MakeRustlsConnect::new(config))
        }
        (SslMode::VerifyFull, None) => match MakeRustlsConnect::with_native_certs() {
            Ok((connector, _unreadable)) => Ok(connector),
            Err(_errors) => Err(PostgresTlsError::NoSystemRoots),
        },
    }
}

fn dangerous(proof: Proof) -> MakeRustlsConnect {
    let verifier = Arc::new(Verifier(proof));
    MakeRustlsConnect::new(
        ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth(),
    )
}

fn root_store(path: &Path) -> Result<RootCertStore, PostgresTlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path).map_err(PostgresTlsError::RootCertificates)? {
        store.add(certificate).map_err(PostgresTlsError::RootCertificate)?;
    }
    Ok(store)
}

fn chain_verifier(path: &Path) -> Result<Arc<WebPkiServerVerifier>, PostgresTlsError> {
    WebPkiServerVerifier::builder(Arc::new(root_store(path)?)).build().map_err(PostgresTlsError::Verifier)
}

/// What is proven about the server.
#[derive(Debug)]
enum Proof {
    None,
    Chain(Arc<WebPkiServerVerifier>),
}

#[derive(Debug)]
struct Verifier(Proof);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Proof::Chain(verifier) = &self.0 else { return Ok(ServerCertVerified::assertion()) };
        match verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is verified before the name is.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &provider()?.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider()?.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .map_or_else(|_| Vec::new(), |provider| provider.signature_verification_algorithms.supported_schemes())
    }
}

fn provider() -> Result<&'static Arc<CryptoProvider>, rustls::Error> {
    CryptoProvider::get_default().ok_or_else(|| rustls::Error::General("no cryptography provider".to_owned()))
}
