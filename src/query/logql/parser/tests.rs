use super::*;

/// Parses and prints again in canonical form.
fn check(text: &str, expected: &str) {
    match parse(text) {
        Ok(expr) => assert_eq!(expr.to_string(), expected, "{text}"),
        Err(error) => panic!("{text}: {error}"),
    }
}

#[test]
fn canonical_text_is_stable() {
    for (text, expected) in [
        (r#"{a="b",c=~"d.*"}"#, r#"{a="b", c=~"d.*"}"#),
        (r#"{a="b"} |= "x" != `y` |~ "z+""#, r#"{a="b"} |= "x" != "y" |~ "z+""#),
        (r#"{a="b"} | json | level="error" | status >= 500"#, r#"{a="b"} | json | level="error" | status>=500"#),
        (r#"{a="b"} | drop x, y="z""#, r#"{a="b"} | drop x, y="z""#),
        (
            r#"sum by (m) (count_over_time({a="b"} |= "x" [5m]))"#,
            r#"sum by (m) (count_over_time({a="b"} |= "x" [5m]))"#,
        ),
        (r#"sum(rate({a="b"}[1m])) by (m)"#, r#"sum by (m) (rate({a="b"} [1m]))"#),
        (r#"topk(3, sum by (m) (rate({a="b"}[1m])))"#, r#"topk(3, sum by (m) (rate({a="b"} [1m])))"#),
        ("1 + 2 * 3", "(1 + (2 * 3))"),
        ("vector(1)+vector(1)", "(vector(1) + vector(1))"),
        ("2 ^ 3 ^ 2", "(2 ^ (3 ^ 2))"),
        (
            r#"quantile_over_time(0.99, {a="b"} | json | unwrap duration(took) [5m]) by (m)"#,
            r#"quantile_over_time(0.99, {a="b"} | json | unwrap duration(took) [5m]) by (m)"#,
        ),
        (
            r#"{a="b"} | regexp "x\x04(?P<y>.)" |= "\u200b" | line_format "\x1b[0m\n" | json y="z[\"\x01\"]""#,
            r#"{a="b"} | regexp "x\x04(?P<y>.)" |= "\u200b" | line_format "\x1b[0m\n" | json y="z[\"\x01\"]""#,
        ),
        (
            r#"label_replace(vector(1), "a", "\x01", "b", "\x02")"#,
            r#"label_replace(vector(1), "a", "\x01", "b", "\x02")"#,
        ),
        (
            r#"rate({a="b"}[1m]) * ignoring() group_left rate({a="b"}[1m])"#,
            r#"(rate({a="b"} [1m]) * ignoring () group_left () rate({a="b"} [1m]))"#,
        ),
    ] {
        check(text, expected);
        check(expected, expected);
    }
}

#[test]
fn errors_name_their_place() {
    for (text, error) in [
        ("", "parse error at line 1, col 1: syntax error: unexpected $end"),
        ("{a=\"b\"", "parse error at line 1, col 7: syntax error: unexpected $end, expecting } or ,"),
        ("{a=\"b\"} | json |", "parse error at line 1, col 17: syntax error: unexpected $end, expecting IDENTIFIER"),
        ("rate({a=\"b\"})", "parse error at line 1, col 13: syntax error: unexpected ), expecting ["),
        (
            "sum_over_time({a=\"b\"}[1m])",
            "parse error at line 1, col 1: invalid aggregation sum_over_time without unwrap",
        ),
        ("{a=\"b\"} + 1", "parse error at line 1, col 1: unexpected type for a sample expression: lines, not numbers"),
        (
            "topk(0, rate({a=\"b\"}[1m]))",
            "parse error at line 1, col 1: invalid parameter 0 of topk: must be at least 1",
        ),
    ] {
        assert_eq!(parse(text).unwrap_err().to_string(), error, "{text}");
    }
    for bad in [
        "{}",
        "{a=~\".*\"}",
        "{a=~\"(\"}",
        "{a=\"b\"} | nothing",
        "rate({a=\"b\"}[0s])",
        "1 and 2",
        "1e999",
        &"(".repeat(500),
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_ends_in_a_query_or_an_error(text in r#"[{}()|=~!"`a-z0-9\[\], .+*/^<>-]{0,60}"#) {
        if let Ok(expr) = parse(&text) {
            let canonical = expr.to_string();
            proptest::prop_assert!(parse(&canonical).is_ok(), "{canonical}");
        }
    }
}
