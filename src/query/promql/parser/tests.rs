//! Printing: what was parsed prints to something that parses to the same.

use super::parse;

#[test]
fn what_is_printed_parses_and_prints_the_same() {
    for text in ["a{o=\"\\x01\\000jbx\"}", "\"\\u200b\\n\\x7f\"", "{\"a\\tb\"=~\"c\\\\.d\"}", "sum by (\"a b\") (x)"] {
        let printed = parse(text).unwrap().to_string();
        let again = parse(&printed).unwrap_or_else(|error| panic!("{printed} does not parse: {error}"));
        assert_eq!(again.to_string(), printed, "{text}");
    }
}
