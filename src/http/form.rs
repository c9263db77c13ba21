//! Parameters as query strings and form bodies carry them.

/// Larger forms are refused; dashboards send long expressions, not megabytes.
pub(super) const FORM_BYTES_MAX: usize = 4 << 20;

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
