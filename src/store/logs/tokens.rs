//! Words of a line, for the index and for planning a search. One function for both, or the index would lie.
//!
//! A token is a maximal run of ASCII letters, digits, `_` and non-ASCII characters, lower-cased in ASCII only. A line that
//! contains a needle contains every whole token of the needle; the reverse is verified on the line itself.

/// Longer tokens are indexed by their head: at most this many bytes.
const TOKEN_BYTES_MAX: usize = 64;

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

fn head(token: &str) -> &str {
    let mut end = token.len().min(TOKEN_BYTES_MAX);
    while !token.is_char_boundary(end) {
        end -= 1;
    }
    token.get(..end).unwrap_or(token)
}

/// The tokens of a text in its order, repeated ones too.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c| !is_token_char(c)).filter(|token| !token.is_empty()).map(|token| head(token).to_ascii_lowercase())
}

/// Tokens that every line containing `needle` must have. The first and the last may be parts of longer words there,
/// so they count only where the needle itself ends them.
pub(super) fn required_tokens(needle: &str) -> Vec<String> {
    let mut required = Vec::new();
    let mut rest = needle;
    let mut ended_before = false;
    while let Some(start) = rest.find(is_token_char) {
        let ended_left = ended_before || start > 0;
        let from = rest.get(start..).unwrap_or("");
        let Some(length) = from.find(|c| !is_token_char(c)) else { break };
        if ended_left {
            required.push(head(from.get(..length).unwrap_or("")).to_ascii_lowercase());
        }
        ended_before = true;
        rest = from.get(length..).unwrap_or("");
    }
    required
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_digits_underscores_and_non_ascii() {
        let check = |text: &str, expected: &[&str]| assert_eq!(tokens(text).collect::<Vec<_>>(), expected, "{text}");
        check("", &[]);
        check("LSN 0/3000148, 40P01", &["lsn", "0", "3000148", "40p01"]);
        check("pg_stat_activity läuft ✓", &["pg_stat_activity", "läuft", "✓"]);
        check(&"é".repeat(40), &["é".repeat(32).as_str()]);
    }

    #[test]
    fn only_whole_words_of_a_needle_are_required() {
        for (needle, expected) in [
            ("", &[][..]),
            ("leader", &[]),
            (" leader ", &["leader"]),
            ("lock: no ACTION. x", &["no", "action"]),
            ("/3000148,", &["3000148"]),
            ("a b c", &["b"]),
        ] {
            assert_eq!(required_tokens(needle), expected, "{needle:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_line_has_every_required_token_of_its_parts(line in "[ -~äß✓]{0,80}", from in 0usize..80, length in 0usize..80) {
            let chars: Vec<char> = line.chars().collect();
            let from = from.min(chars.len());
            let to = (from + length).min(chars.len());
            let needle: String = chars[from..to].iter().collect();
            let words: Vec<String> = tokens(&line).collect();
            for token in required_tokens(&needle) {
                proptest::prop_assert!(words.contains(&token), "{token:?} of {needle:?} in {line:?}");
            }
        }
    }
}
