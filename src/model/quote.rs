//! Text in quotes as Go writes it, which is how Prometheus shows label values and strings and what PromQL reads back.

use std::fmt::{self, Write as _};

/// Shows a text in double quotes, with Go's escapes.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\x07' => f.write_str("\\a")?,
                '\x08' => f.write_str("\\b")?,
                '\x0c' => f.write_str("\\f")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\x0b' => f.write_str("\\v")?,
                c if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c))?,
                // The standard library knows what cannot be printed, and says so with `\u{...}`.
                c if !c.is_ascii() && c.escape_debug().len() > 1 => match u32::from(c) {
                    code @ 0..=0xffff => write!(f, "\\u{code:04x}")?,
                    code => write!(f, "\\U{code:08x}")?,
                },
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_go_quotes_it() {
        for (text, quoted) in [
            ("plain 'é' 界", r#""plain 'é' 界""#),
            ("a\"b\\c\n\t\r", r#""a\"b\\c\n\t\r""#),
            ("\0\x01\x07\x08\x0b\x0c\x1b\x7f", r#""\x00\x01\a\b\v\f\x1b\x7f""#),
            ("\u{85}\u{200b}\u{feff}\u{e0001}", r#""\u0085\u200b\ufeff\U000e0001""#),
        ] {
            assert_eq!(Quoted(text).to_string(), quoted);
        }
    }
}
