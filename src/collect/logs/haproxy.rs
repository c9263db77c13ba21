//! HAProxy's log, as syslog (RFC 3164, RFC 5424), as `format iso` or `raw` on a file, and what it writes to stderr.
//!
//! From connection lines (tcplog, httplog) the proxy, server, timers and the termination state become fields: the state
//! tells who ended a session and when.

use std::sync::LazyLock;

use regex::Regex;

use crate::model::Severity;

use super::parsed::{Context, Parsed};
use super::time::{parse_syslog_time, parse_time};

/// `[WARNING]  (123) : message`, and `[WARNING] 001/100000 (123) : message` of old.
static STDERR: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^\[(?P<word>[A-Z]+)\]\s+(?:\d+/\d+ )?\((?P<pid>\d+)\) : (?P<message>(?s).*)$").ok());

/// What stands between the time and the message in syslog lines.
static SYSLOG_TAG: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^\s*(?:\S+ )??(?:haproxy(?:\[(?P<pid>\d+)\])?: |haproxy (?P<pid2>\d+) \S+ (?:-|\[[^\]]*\]) )(?P<message>(?s).*)$").ok()
});

static CONNECTION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^(?P<client>\S+:\d+) \[(?P<accepted>[^\]]+)\] (?P<frontend>\S+) (?P<backend>[^/\s]+)/(?P<server>\S+) ",
        r"(?P<timers>[+\d/-]+) (?:(?P<status>-?\d+) )?\+?\d+ (?:\S+ \S+ )?(?P<state>[A-Za-z-]{2,4}) "
    ))
    .ok()
});

/// Parses a line; every text is one.
pub fn parse(record: &str, context: Context) -> Parsed {
    let mut parsed = Parsed::unknown(record);
    if let Some(found) = STDERR.as_ref().and_then(|regex| regex.captures(record)) {
        let get = |name| found.name(name).map_or("", |value| value.as_str());
        parsed.severity = word_severity(get("word"));
        get("message").clone_into(&mut parsed.message);
        parsed.push_field("pid", get("pid"));
        parsed.push_field("severity_text", get("word"));
    } else {
        parse_timed(record, context, &mut parsed);
    }
    if let Some(found) = CONNECTION.as_ref().and_then(|regex| regex.captures(&parsed.message)) {
        let fields: Vec<_> = ["client", "frontend", "backend", "server", "timers", "status", "state"]
            .into_iter()
            .filter_map(|name| {
                let value = found.name(name)?.as_str();
                Some((if name == "state" { "termination_state" } else { name }, value.to_owned()))
            })
            .collect();
        for (name, value) in fields {
            parsed.push_field(name, &value);
        }
        parsed.severity.get_or_insert(Severity::Info);
    }
    parsed
}

fn parse_timed(record: &str, context: Context, parsed: &mut Parsed) {
    let (priority, rest) = split_priority(record);
    parsed.severity = priority.map(priority_severity);
    // RFC 5424 puts a version before the time.
    let rest = rest.strip_prefix("1 ").unwrap_or(rest);
    let time = parse_time(rest.as_bytes(), context.zone, context.last_at)
        .or_else(|| parse_syslog_time(rest.as_bytes(), context.zone, context.now));
    parsed.at = time.map(|time| time.at);
    let rest = rest.get(time.map_or(0, |time| time.length)..).unwrap_or("");
    let tag = SYSLOG_TAG.as_ref().and_then(|regex| regex.captures(rest));
    let message = tag.as_ref().and_then(|tag| tag.name("message")).map_or(rest.trim_start(), |found| found.as_str());
    message.clone_into(&mut parsed.message);
    let pid = tag.as_ref().and_then(|tag| tag.name("pid").or_else(|| tag.name("pid2")));
    parsed.push_field("pid", pid.map_or("", |pid| pid.as_str()));
}

/// `<165>` at the start.
fn split_priority(text: &str) -> (Option<u8>, &str) {
    let split = text.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    match split.and_then(|(number, rest)| Some((number.parse::<u8>().ok()?, rest))) {
        Some((number, rest)) => (Some(number), rest),
        None => (None, text),
    }
}

fn priority_severity(priority: u8) -> Severity {
    match priority % 8 {
        0..=2 => Severity::Critical,
        3 => Severity::Error,
        4 => Severity::Warning,
        5 => Severity::Notice,
        6 => Severity::Info,
        _ => Severity::Debug,
    }
}

fn word_severity(word: &str) -> Option<Severity> {
    Some(match word {
        "DEBUG" => Severity::Debug,
        "INFO" => Severity::Info,
        "NOTICE" => Severity::Notice,
        "WARNING" => Severity::Warning,
        "ERR" | "ERROR" => Severity::Error,
        "ALERT" | "CRIT" | "EMERG" => Severity::Critical,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::time::ZoneSetting;
    use super::*;
    use crate::model::Timestamp;

    const CONTEXT: Context = Context { zone: ZoneSetting::Fixed(0), last_at: None, now: Timestamp(0) };

    #[test]
    fn all_the_ways_to_log_one_message() {
        let message = "Server primary/n2 is DOWN. 0 active and 0 backup servers left.";
        for (head, severity, has_time) in [
            ("[WARNING]  (19819) : ", Some(Severity::Warning), false),
            ("[WARNING] 001/100000 (19819) : ", Some(Severity::Warning), false),
            ("2026-11-23T05:47:02.440289+00:00 ", None, true),
            ("<132>Nov 23 05:47:02 haproxy[19819]: ", Some(Severity::Warning), true),
            ("<133>Nov 23 05:47:02 proxy1 haproxy[19819]: ", Some(Severity::Notice), true),
            ("Nov 23 05:47:02 proxy1 haproxy[19819]: ", None, true),
            ("<129>1 2026-11-23T05:47:02.440289Z proxy1 haproxy 19819 - - ", Some(Severity::Critical), true),
            ("<128>", Some(Severity::Critical), false),
        ] {
            let text = format!("{head}{message}");
            let parsed = parse(&text, CONTEXT);
            assert_eq!(parsed.message, message, "{text}");
            assert_eq!((parsed.severity, parsed.at.is_some()), (severity, has_time), "{text}");
            assert_eq!(parsed.line, text);
        }
    }

    #[test]
    fn connections() {
        let text = "2026-11-23T05:47:10.100000+00:00 10.77.1.100:50000 [23/Nov/2026:05:47:09.987] primary primary/n2 1/0/7 146 SD 5/4/3/2/0 0/0";
        let parsed = parse(text, CONTEXT);
        let fields: Vec<_> = parsed.fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            fields,
            [
                ("client", "10.77.1.100:50000"),
                ("frontend", "primary"),
                ("backend", "primary"),
                ("server", "n2"),
                ("timers", "1/0/7"),
                ("termination_state", "SD")
            ]
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,100}") {
            drop(parse(&text, CONTEXT));
            drop(parse(&format!("<13>{text}"), CONTEXT));
        }
    }
}
