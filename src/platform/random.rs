//! Random bytes from the operating system, and bytes as text.

use std::fmt::Write as _;

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("get random bytes from the operating system")]
pub struct RandomError;

/// Bytes that nobody can guess.
pub fn bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut buffer = [0; N];
    let generator = rustls::crypto::ring::default_provider().secure_random;
    generator.fill(&mut buffer).map_err(|_| RandomError)?;
    Ok(buffer)
}

/// A random (version 4) UUID.
pub fn uuid() -> Result<String, RandomError> {
    let digits = hex(&bytes::<16>()?);
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or("");
    let variant = match part(16, 17) {
        "0" | "4" | "8" | "c" => "8",
        "1" | "5" | "9" | "d" => "9",
        "2" | "6" | "a" | "e" => "a",
        _ => "b",
    };
    Ok(format!("{}-{}-4{}-{variant}{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32)))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ok = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_version_4() {
        let first = uuid().unwrap();
        assert_eq!(first.len(), 36, "{first}");
        assert_eq!(first.chars().nth(14), Some('4'));
        assert_ne!(first, uuid().unwrap());
    }

    #[test]
    fn bytes_as_text() {
        assert_eq!(hex(&[0, 10, 255]), "000aff");
    }
}
