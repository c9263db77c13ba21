//! PgBouncer's log: `2026-01-01 10:00:00.123 UTC [pid] LOG C-0x55…: database/user@host:port message`.

use std::sync::LazyLock;

use regex::Regex;

use super::parsed::{Context, Parsed};
use super::postgres;
use super::time::parse_time;

static HEAD: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^\s*\[(?P<pid>\d+)\] (?P<word>[A-Z]+) (?P<message>(?s).*)$").ok());

static PEER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"^(?P<side>[CS])-0x[0-9a-f]+: (?P<database>[^/\s]*)/(?P<user>[^@\s]*)@(?P<client>\S+) (?P<message>(?s).*)$",
    )
    .ok()
});

/// Parses a record. `None` when it is not one; copies that went through syslog or the journal have no time.
pub fn parse(record: &str, context: Context) -> Option<Parsed> {
    let time = parse_time(record.as_bytes(), context.zone, context.last_at);
    let rest = record.get(time.map_or(0, |time| time.length)..)?;
    let head = HEAD.as_ref()?.captures(rest);
    let (word, message) = match &head {
        Some(head) => (head.name("word")?.as_str(), head.name("message")?.as_str()),
        None => rest.trim_start().split_once(' ')?,
    };
    let severity = match word {
        "NOISE" => Some(crate::model::Severity::Debug),
        word => postgres::severity(word),
    }?;
    let mut parsed = Parsed {
        at: time.map(|time| time.at),
        severity: Some(severity),
        line: record.to_owned(),
        message: message.to_owned(),
        fields: Vec::new(),
    };
    parsed.push_field("pid", head.as_ref().and_then(|head| head.name("pid")).map_or("", |pid| pid.as_str()));
    if let Some(peer) = PEER.as_ref().and_then(|regex| regex.captures(message)) {
        for name in ["database", "user", "client"] {
            let value = peer.name(name).map_or("", |value| value.as_str());
            parsed.push_field(name, if value == "(nodb)" || value == "(nouser)" { "" } else { value });
        }
        let side = if peer.name("side").is_some_and(|side| side.as_str() == "C") { "client" } else { "server" };
        parsed.push_field("side", side);
        if let Some(message) = peer.name("message") {
            message.as_str().clone_into(&mut parsed.message);
        }
    }
    parsed.push_field("severity_text", word);
    Some(parsed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::time::ZoneSetting;
    use super::*;
    use crate::model::{Severity, Timestamp};

    const CONTEXT: Context = Context { zone: ZoneSetting::Fixed(0), last_at: None, now: Timestamp(0) };

    #[test]
    fn lines() {
        let text = "2026-11-23 05:47:09.987 UTC [19822] LOG S-0x5578f91d2e00: app/me@10.77.1.100:5000 closing because: server conn crashed? (age=126s)";
        let parsed = parse(text, CONTEXT).unwrap();
        assert_eq!(parsed.message, "closing because: server conn crashed? (age=126s)");
        assert_eq!(parsed.severity, Some(Severity::Info));
        let fields: Vec<_> = parsed.fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            fields,
            [
                ("pid", "19822"),
                ("database", "app"),
                ("user", "me"),
                ("client", "10.77.1.100:5000"),
                ("side", "server"),
                ("severity_text", "LOG")
            ]
        );
        let parsed =
            parse("2026-11-23 05:46:50.084 UTC [1] WARNING C-0x1: (nodb)/(nouser)@1.2.3.4:5 pooler error: x", CONTEXT)
                .unwrap();
        assert_eq!((parsed.message.as_str(), parsed.severity), ("pooler error: x", Some(Severity::Warning)));
        assert_eq!(parse("LOG stats: 1 xacts/s", CONTEXT).unwrap().message, "stats: 1 xacts/s");
        assert_eq!(parse("x", CONTEXT), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,100}") {
            drop(parse(&text, CONTEXT));
            drop(parse(&format!("2026-11-23 05:47:09.987 UTC [1] LOG {text}"), CONTEXT));
        }
    }
}
