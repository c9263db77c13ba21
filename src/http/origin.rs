//! Whether a request may come from somebody else's web page.
//!
//! A browser on the operator's machine reaches our loopback port, and any page it shows can make it send requests. Two
//! ways are closed: a page that posts to us (its `Origin` or `Sec-Fetch-Site` is not ours), and a name of the page's own
//! that was turned to our address, so that the browser takes us for the page's server (its `Host` is not ours).
//! Programs send neither header and address us by a name of ours, so they notice nothing.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, Method, header};

use crate::http::error::ApiError;
use crate::http::listen::Peer;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What we are called besides our addresses: host and port of `external_url`.
#[derive(Clone, Debug, Default)]
pub struct OwnName {
    host: String,
    /// With the port, unless it is that of the scheme: as in `Origin` and `Host`.
    authority: String,
}

impl OwnName {
    /// Of a URL; nothing of one that cannot be read.
    pub fn of_url(url: &str) -> Self {
        let Ok(url) = reqwest::Url::parse(url) else { return Self::default() };
        let host = url.host_str().unwrap_or_default().to_owned();
        let authority = url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        Self { host, authority }
    }
}

/// Refuses a request that a foreign page may have made. `peer` is absent in tests only.
pub(super) fn check(method: &Method, headers: &HeaderMap, peer: Option<&Peer>, own: &OwnName) -> Result<(), ApiError> {
    let is_local = peer.is_some_and(|peer| peer.open && peer.address.ip().to_canonical().is_loopback());
    let host = text(headers, &header::HOST);
    if let Some(host) = host.filter(|host| is_local && !is_ours(host, own)) {
        return Err(ApiError::forbidden(format!(
            "{host:?} is no name of this server, so a web page may be behind this request; use the address, or set \
             external_url to the URL that people use"
        )));
    }
    // A page may open a websocket anywhere and read from it.
    let is_harmless = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if (is_harmless && !headers.contains_key(header::UPGRADE)) || headers.contains_key(header::AUTHORIZATION) {
        return Ok(());
    }
    let is_foreign = match (text(headers, &SEC_FETCH_SITE), text(headers, &header::ORIGIN)) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let page = origin.split_once("://").map(|(_, authority)| authority);
            page.is_none_or(|page| host != Some(page) && page != own.authority)
        }
        (None, None) => false,
    };
    if is_foreign {
        return Err(ApiError::forbidden(
            "a page of another site may not do this; use this server's own pages, or a token",
        ));
    }
    Ok(())
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    // What is not text fits no name of ours.
    headers.get(name).map(|value| value.to_str().unwrap_or("?."))
}

/// Whether nobody else's page can be served under this name: addresses, names without a dot (which nobody can register)
/// and the configured one.
fn is_ours(host_and_port: &str, own: &OwnName) -> bool {
    let host = match host_and_port.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host_and_port,
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    is_address || !host.contains('.') || host.ends_with(".localhost") || host == own.host
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(method: &Method, peer: Peer, headers: &[(&'static str, &str)]) -> bool {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
        check(method, &headers, Some(&peer), &OwnName::of_url("https://daraji.example.org/")).is_ok()
    }

    fn peer(address: &str, open: bool) -> Peer {
        Peer { address: address.parse().unwrap(), open }
    }

    #[test]
    fn a_name_that_somebody_else_may_own_is_refused_on_loopback() {
        for (host, is_ours) in [
            ("127.0.0.1:7432", true),
            ("[::1]:7432", true),
            ("localhost:7432", true),
            ("localhost.:7432", true),
            ("daraji.localhost", true),
            ("monitor:7432", true),
            ("daraji.example.org", true),
            ("DARAJI.example.org:443", true),
            ("evil.example.com:7432", false),
            ("127.0.0.1.evil.example.com", false),
            ("localhost.evil.example.com:7432", false),
        ] {
            for method in [Method::GET, Method::POST] {
                assert_eq!(
                    is_allowed(&method, peer("127.0.0.1:5", true), &[("host", host)]),
                    is_ours,
                    "{method} {host}"
                );
                assert!(is_allowed(&method, peer("10.0.0.9:5", true), &[("host", host)]), "not on loopback: {host}");
                assert!(is_allowed(&method, peer("127.0.0.1:5", false), &[("host", host)]), "with tokens: {host}");
            }
        }
    }

    #[test]
    fn a_foreign_page_changes_nothing_and_reads_no_stream() {
        let local = peer("127.0.0.1:5", true);
        let host = ("host", "127.0.0.1:7432");
        for (headers, is_foreign) in [
            // Programs.
            (vec![], false),
            // Our own pages, in new and old browsers, directly and behind a proxy that changes the Host.
            (vec![("sec-fetch-site", "same-origin"), ("origin", "https://daraji.example.org")], false),
            (vec![("origin", "http://127.0.0.1:7432")], false),
            (vec![("origin", "https://daraji.example.org")], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("sec-fetch-site", "cross-site"), ("origin", "http://evil.example.com")], true),
            // Another program's page on this host.
            (vec![("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:3000")], true),
            (vec![("origin", "http://127.0.0.1:3000")], true),
            (vec![("origin", "null")], true),
            (vec![("origin", "http://evil.example.com"), ("authorization", "Bearer x")], false),
        ] {
            let mut headers = headers;
            headers.push(host);
            for method in [Method::POST, Method::DELETE, Method::PUT] {
                assert_eq!(is_allowed(&method, local, &headers), !is_foreign, "{method} {headers:?}");
            }
            assert!(is_allowed(&Method::GET, local, &headers), "{headers:?}");
            headers.push(("upgrade", "websocket"));
            assert_eq!(is_allowed(&Method::GET, local, &headers), !is_foreign, "{headers:?}");
        }
    }
}
