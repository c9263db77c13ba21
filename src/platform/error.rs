//! Printing errors with everything that led to them.

use std::fmt::Write as _;

/// The error and its sources, joined by `: `. A source whose text the error already ends with is not repeated.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            // Writing to a String cannot fail.
            let _ok = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("open the journal")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_whole_chain_is_printed_once() {
        let error = Outer(std::io::Error::other("disk full"));
        assert_eq!(chain(&error), "open the journal: disk full");
    }
}
