//! One record of every log format: any text. Whatever it is, a record comes out that shows something.

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use daraji::collect::logs::LogSource;
use daraji::collect::logs::assemble::RawRecord;
use daraji::collect::logs::format::Format;
use daraji::collect::logs::parsed::Context;
use daraji::collect::logs::prefix::Prefix;
use daraji::collect::logs::stream::Stream;
use daraji::collect::logs::time::ZoneSetting;
use daraji::model::Timestamp;
use libfuzzer_sys::fuzz_target;

const FORMATS: [(Format, &str); 8] = [
    (Format::Csvlog, "postgresql"),
    (Format::Jsonlog, "postgresql"),
    (Format::Stderr, "postgresql"),
    (Format::Patroni, "patroni"),
    (Format::Etcd, "etcd"),
    (Format::Haproxy, "haproxy"),
    (Format::Pgbouncer, "pgbouncer"),
    (Format::Text, "system"),
];

fn streams() -> &'static [(Format, Stream)] {
    static STREAMS: OnceLock<Vec<(Format, Stream)>> = OnceLock::new();
    STREAMS.get_or_init(|| {
        let stream = |(format, source): &(Format, &str)| {
            let source = LogSource {
                source: (*source).to_owned(),
                path: "/var/log/x.log".into(),
                format: Some(*format),
                cluster: None,
                member: None,
                timezone: None,
                log_line_prefix: None,
            };
            (*format, Stream::new(&source, "c", "m").expect("no prefix to compile"))
        };
        FORMATS.iter().map(stream).collect()
    })
}

fn prefix() -> &'static Prefix {
    static PREFIX: OnceLock<Prefix> = OnceLock::new();
    PREFIX.get_or_init(|| Prefix::compile("%m [%p] %q%u@%d/%a ").expect("a common prefix"))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, text)) = bytes.split_first() else { return };
    let choice = usize::from(*choice);
    let Some((format, stream)) = streams().get(choice % FORMATS.len()) else { return };
    let now = Timestamp::from_secs(1_790_000_000);
    let zone = if choice & 8 == 0 { ZoneSetting::Fixed(0) } else { ZoneSetting::Local };
    let context = Context { zone, last_at: (choice & 16 != 0).then_some(now), now };
    let raw = RawRecord { text: text.to_vec(), cut: None, is_partial: false };
    let record = stream.to_record(&raw, *format, (Some(prefix()), Path::new("/var/log/x.log")), context);
    let mut names: Vec<&str> = record.fields.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert!(!names.windows(2).any(|pair| pair[0] == pair[1]), "a field twice: {:?}", record.fields);
    assert!(text.is_empty() || !record.line.is_empty() || record.fields.len() > 1, "the record shows nothing");
});
