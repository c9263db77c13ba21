//! Durations and sizes as Go programs print them, since that is what log lines hold.

use std::fmt::Write as _;

const DURATION_UNITS: [(&str, f64); 11] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3_600e9),
    ("d", 86_400e9),
    ("w", 604_800e9),
    ("y", 31_536_000e9),
];

/// Nanoseconds of `1h2m3.5s`, `-250us`, `0`. Units in any order, as in Go; days, weeks and years too.
pub(super) fn parse_duration_ns(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1.0, text.get(1..)?),
        b'+' => (1.0, text.get(1..)?),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Some(0.0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let factor = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    Some(sign * total).filter(|ns| ns.is_finite())
}

/// Prints nanoseconds as Go does for whole units: `5m0s` is `5m`, `1500ms` is `1s500ms`.
pub(super) fn format_duration_ns(ns: i64) -> String {
    if ns == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    if ns < 0 {
        text.push('-');
    }
    let mut rest = ns.unsigned_abs();
    let units = [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    for (unit, size) in units {
        if rest >= size {
            // Writing to a String cannot fail.
            let _ok = write!(text, "{}{unit}", rest / size);
            rest %= size;
        }
    }
    text
}

const BYTE_UNITS: [(&str, f64); 22] = [
    ("", 1.0),
    ("b", 1.0),
    ("k", 1e3),
    ("kb", 1e3),
    ("m", 1e6),
    ("mb", 1e6),
    ("g", 1e9),
    ("gb", 1e9),
    ("t", 1e12),
    ("tb", 1e12),
    ("p", 1e15),
    ("pb", 1e15),
    ("ki", 1024.0),
    ("kib", 1024.0),
    ("mi", 1_048_576.0),
    ("mib", 1_048_576.0),
    ("gi", 1_073_741_824.0),
    ("gib", 1_073_741_824.0),
    ("ti", 1_099_511_627_776.0),
    ("tib", 1_099_511_627_776.0),
    ("pi", 1_125_899_906_842_624.0),
    ("pib", 1_125_899_906_842_624.0),
];

/// Bytes of `512B`, `1.2MiB`, `5 KB`; whole bytes, fractions cut off.
pub(super) fn parse_bytes(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.replace(',', "").parse().ok()?;
    let unit = unit.trim().to_ascii_lowercase();
    let factor = BYTE_UNITS.iter().find(|(name, _)| *name == unit)?.1;
    Some((number * factor).trunc()).filter(|bytes| bytes.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go() {
        for (text, ns) in [
            ("2m3s", Some(123e9)),
            ("250us", Some(250e3)),
            ("1.5s", Some(1.5e9)),
            ("49.559679ms", Some(49_559_679.0)),
            ("-1h", Some(-3_600e9)),
            ("0", Some(0.0)),
            ("5", None),
            ("", None),
            ("s", None),
            ("1x", None),
        ] {
            assert_eq!(parse_duration_ns(text), ns, "{text}");
        }
        for (ns, text) in
            [(0, "0s"), (300_000_000_000, "5m"), (-1_500_000_000, "-1s500ms"), (5_400_000_000_000, "1h30m")]
        {
            assert_eq!(format_duration_ns(ns), text);
        }
    }

    #[test]
    fn sizes_of_go() {
        for (text, bytes) in [
            ("512B", Some(512.0)),
            ("5KB", Some(5000.0)),
            ("1.2MiB", Some(1_258_291.0)),
            ("1 GiB", Some(1_073_741_824.0)),
            ("7", Some(7.0)),
            ("x", None),
            ("1XB", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
    }
}
