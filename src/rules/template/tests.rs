//! Expected texts are those that Prometheus' promtool gives for the same templates.

use super::*;

fn render_with(text: &str, value: f64) -> Result<String, TemplateError> {
    let labels = Value::strings([("instance", "db1.example.org:5432"), ("a", "1"), ("b", "<x>")]);
    let query = |expr: &str| match expr {
        "two" => Ok(vec![(Labels::from_pairs([("x", "b")]), 2.0), (Labels::from_pairs([("x", "a")]), 1.0)]),
        "none" => Ok(Vec::new()),
        _ => Err("cannot parse".to_owned()),
    };
    let context = TemplateContext {
        dot: Value::object([("Labels", labels.clone()), ("Value", Value::Float(value))]),
        variables: vec![("labels", labels), ("value", Value::Float(value))],
        external_url: "http://daraji.example.org/base/",
        query: Some(&query),
        now_seconds: 1_643_114_203.0,
    };
    Template::parse(text, &["labels", "value"])?.render(&context)
}

#[test]
fn templates_of_rules() {
    for (text, value, expected) in [
        ("plain", 0.0, "plain"),
        ("{{ $labels.instance }} is {{ $value }}", 1_048_576.0, "db1.example.org:5432 is 1.048576e+06"),
        ("{{$value}}", 999_999.0, "999999"),
        ("{{$value}}", 1e-5, "1e-05"),
        ("{{$value}}", 0.0001, "0.0001"),
        ("{{$value}}", 123_456_789.0, "1.23456789e+08"),
        ("{{$value}}", 0.5, "0.5"),
        ("{{$value}}", f64::INFINITY, "+Inf"),
        ("{{$value}}", f64::NAN, "NaN"),
        ("[{{ $labels.missing }}]", 0.0, "[]"),
        ("{{ $labels }}", 0.0, "map[a:1 b:<x> instance:db1.example.org:5432]"),
        ("{{ .Labels.a }}{{ .Value }}", 2.0, "12"),
        ("{{ printf \"%.1f\" $value }}", 2.25, "2.2"),
        ("{{ $value | printf \"%.2f%%\" }}", 2.0, "2.00%"),
        ("{{ printf \"%5d|%-5s|%05.1f|%q\" 42 \"ab\" 1.5 \"x\" }}", 0.0, "   42|ab   |001.5|\"x\""),
        ("{{ printf \"%d\" $value }}", 3.0, "%!d(float64=3)"),
        ("{{ printf \"%s\" }}", 3.0, "%!s(MISSING)"),
        ("{{ printf \"a\" 1 }}", 3.0, "a%!(EXTRA int=1)"),
        ("{{ printf \"%g %.3g %e\" $value $value $value }}", 12_345.0, "12345 1.23e+04 1.234500e+04"),
        ("{{ if gt $value 10.0 }}big{{ else if gt $value 5.0 }}mid{{ else }}small{{ end }}", 7.0, "mid"),
        ("{{ if eq $labels.a \"0\" \"1\" }}y{{ end }}", 0.0, "y"),
        ("{{ if and $labels.a (not $labels.zz) }}y{{ end }}", 0.0, "y"),
        ("a {{- \" b \" -}} c", 0.0, "a b c"),
        ("a {{/* no */}} c", 0.0, "a  c"),
        ("a {{- /* no */ -}} c", 0.0, "ac"),
        (
            "{{ range $i, $e := query \"two\" | sortByLabel \"x\" }}{{ $i }}{{ .Labels.x }}{{ $e.Value }} {{ end }}",
            0.0,
            "0a1 1b2 ",
        ),
        ("{{ with query \"two\" }}{{ . | first | value | humanize }}{{ end }}", 0.0, "2"),
        ("{{ with query \"none\" }}x{{ else }}no data{{ end }}", 0.0, "no data"),
        ("{{ query \"two\" | first | label \"x\" }}", 0.0, "b"),
        ("{{ define \"t\" }}<{{ .arg0 }}{{ .arg1 }}>{{ end }}{{ template \"t\" (args 1 \"x\") }}", 0.0, "<1x>"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", 0.0, "2"),
        ("{{ range 3 }}{{ if eq . 1 }}{{ continue }}{{ end }}{{ . }}{{ end }}", 0.0, "02"),
        ("{{ print 1 2 \"a\" 3 }}", 0.0, "1 2a3"),
        ("{{ len \"héé\" }}", 0.0, "5"),
        ("{{ \"a b\" | title }} {{ toUpper \"x\" }} {{ $labels.instance | stripPort }}", 0.0, "A B X db1.example.org"),
        ("{{ $labels.instance | stripDomain }} {{ stripPort \"[::1]:9\" }}", 0.0, "db1:5432 ::1"),
        ("{{ reReplaceAll \"(.)b\" \"${1}x\" \"abcb\" }} {{ match \"^a\" \"abc\" }}", 0.0, "axcx true"),
        ("{{ parseDuration \"1h30m\" }} {{ pathPrefix }} {{ html $labels.b }}", 0.0, "5400 /base &lt;x&gt;"),
        (
            "{{ humanize 1048576.0 }} {{ humanize1024 1048576.0 }} {{ humanize 0.00123 }} {{ humanize 0 }}",
            0.0,
            "1.049M 1Mi 1.23m 0",
        ),
        (
            "{{ humanizeDuration 135.3563 }} {{ humanizeDuration 100000 }} {{ humanizeDuration 0.012 }} {{ humanizeDuration 59.5 }}",
            0.0,
            "2m 15s 1d 3h 46m 40s 12ms 59.5s",
        ),
        (
            "{{ humanizePercentage 0.959 }} {{ humanizeTimestamp 1643114203 }}",
            0.0,
            "95.9% 2022-01-25 12:36:43 +0000 UTC",
        ),
    ] {
        assert_eq!(render_with(text, value).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn mistakes_are_found_when_parsing() {
    for (text, message) in [
        ("{{ $labels.a", "unclosed action"),
        ("{{ humanise 1 }}", "function \"humanise\" not defined"),
        ("{{ $nope }}", "undefined variable \"$nope\""),
        ("{{ if true }}x", "{{if}} without {{end}}"),
        ("x{{ end }}", "unexpected {{end}}"),
        ("{{ break }}", "{{break}} outside {{range}}"),
        ("{{ }}", "missing value for command"),
        ("{{ 1 | 2 }}", "non executable command in pipeline"),
        ("{{ (1 }}", "unclosed left paren"),
        ("{{ template \"x\" }}", "template \"x\" not defined"),
        ("{{ \"a }}", "unclosed action"),
        ("a\nb{{ ~ }}", "unexpected '~' in action"),
    ] {
        let error = Template::parse(text, &["labels", "value"]).unwrap_err();
        assert_eq!(error.message, message, "{text}");
    }
    assert_eq!(Template::parse("a\nb{{ ~ }}", &[]).unwrap_err().line, 2);
    assert!(Template::parse(&"{{if true}}".repeat(500), &[]).is_err());
    assert!(Template::parse(&format!("{{{{ {} }}}}", "(".repeat(5000)), &[]).is_err());
}

#[test]
fn mistakes_that_only_values_show_stop_the_rendering() {
    for (text, message) in [
        ("{{ gt $value 10 }}", "error calling gt: incompatible types for comparison"),
        ("{{ .Nope }}", "can't evaluate field Nope"),
        ("{{ query \"(\" }}", "error calling query: cannot parse"),
        ("{{ query \"none\" | first }}", "error calling first: first() called on vector with no elements"),
        ("{{ range 100000 }}{{ range 100000 }}{{ end }}{{ end }}", "more than 100000 steps"),
        ("{{ range 9000 }}0123456789{{ end }}", "output is longer than 65536 bytes"),
        (
            "{{ define \"t\" }}{{ template \"t\" }}{{ end }}{{ template \"t\" }}",
            "templates call each other deeper than 30",
        ),
    ] {
        assert_eq!(render_with(text, 1.0).unwrap_err().message, message, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[{} $.|()a-z\"`:=,0-9%/*\\-é\n]{0,60}") {
        drop(render_with(&text, 1.0));
        drop(render_with(&format!("{{{{ {text} }}}}"), 1.0));
    }
}
