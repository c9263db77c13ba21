//! Reads a folder of logs as the agents would, with the names that `tests/data/faults` uses.

use std::path::Path;

use daraji::collect::logs::LogSource;
use daraji::collect::logs::assemble::Assembler;
use daraji::collect::logs::format::Format;
use daraji::collect::logs::parsed::Context;
use daraji::collect::logs::prefix::Prefix;
use daraji::collect::logs::stream::Stream;
use daraji::collect::logs::time::ZoneSetting;
use daraji::model::{LogRecord, Timestamp};

/// All records of a folder, in order of time.
pub fn read(folder: &Path, cluster: &str) -> Vec<LogRecord> {
    let mut records = Vec::new();
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.file_name().unwrap() != "events.json") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut parts = name.split('.');
        let (member, source) = (parts.next().unwrap(), parts.next().unwrap());
        let member = if member == "mon" { "" } else { member };
        let bytes = std::fs::read(path).unwrap();
        records.extend(read_file(path, &bytes, source, (cluster, member)));
    }
    records.sort_by_key(|record| record.at);
    records
}

fn read_file(path: &Path, bytes: &[u8], source: &str, (cluster, member): (&str, &str)) -> Vec<LogRecord> {
    let settings = LogSource {
        source: source.to_owned(),
        path: path.to_owned(),
        format: None,
        cluster: None,
        member: None,
        timezone: Some(ZoneSetting::Fixed(0)),
        log_line_prefix: None,
    };
    let stream = Stream::new(&settings, cluster, member).unwrap();
    let format = Format::detect(source, path, bytes).unwrap();
    let prefix = if format == Format::Stderr { Prefix::detect(bytes).ok() } else { None };
    let mut assembler = Assembler::new(format, prefix.clone(), 0);
    let mut raw = Vec::new();
    assembler.feed(bytes, &mut raw, usize::MAX);
    assembler.flush_all(&mut raw);
    let now = Timestamp::parse_rfc3339("2026-12-01T00:00:00Z").unwrap();
    let mut last_at = None;
    raw.iter()
        .map(|raw| {
            let context = Context { zone: ZoneSetting::Fixed(0), last_at, now };
            let record = stream.to_record(raw, format, (prefix.as_ref(), path), context);
            last_at = Some(record.at);
            record
        })
        .collect()
}
