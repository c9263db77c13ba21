//! Parameters as query strings and form bodies carry them.

use axum::body::Body;
use axum::http::Method;
use axum::http::request::Parts;

/// Larger forms are refused; dashboards send long expressions, not megabytes.
const FORM_BYTES_MAX: usize = 4 << 20;

/// Decoded parameters in order: for POST those of the form body come first, as in Go.
#[derive(Debug)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Parameters of a request; the error says why the body could not be read.
    pub(super) async fn of_request(parts: &Parts, body: Body) -> Result<Self, String> {
        let mut pairs = Vec::new();
        if parts.method == Method::POST {
            let body = axum::body::to_bytes(body, FORM_BYTES_MAX).await;
            pairs = decode_form(&body.map_err(|error| format!("error parsing form values: {error}"))?);
        }
        pairs.extend(Self::of_query(parts.uri.query().unwrap_or("")).0);
        Ok(Self(pairs))
    }

    pub(super) fn of_query(query: &str) -> Self {
        Self(decode_form(query.as_bytes()))
    }

    /// The first value of a parameter that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, value)| other == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Decodes `a=b&c=d`; what is not UTF-8 becomes replacement characters.
pub(super) fn decode_form(form: &[u8]) -> Vec<(String, String)> {
    form.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (name, value) = pair.split_at_checked(at).unwrap_or((pair, &[]));
            (decode_text(name), decode_text(value.strip_prefix(b"=").unwrap_or(value)))
        })
        .collect()
}

fn decode_text(encoded: &[u8]) -> String {
    let mut out = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let code = after.first_chunk::<2>().and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, code.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'+', _) => out.push(b' '),
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (byte, _) => out.push(*byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            decode_form(b"a=1+2&b=%7Bx%3D%22y%22%7D&&c&%zz=%"),
            [pair("a", "1 2"), pair("b", "{x=\"y\"}"), pair("c", ""), pair("%zz", "%"),]
        );
        assert_eq!(decode_form(b"a=%ff"), [pair("a", "\u{fffd}")]);
    }
}
