//! PostgreSQL's jsonlog, since 15: one object per line, absent keys where csvlog has empty columns.

use serde::Deserialize;
use serde_json::Value;

use super::parsed::{Context, Parsed};
use super::postgres::{self, Columns};
use super::time::parse_time;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Record {
    timestamp: String,
    user: String,
    dbname: String,
    pid: Value,
    remote_host: String,
    remote_port: Value,
    session_id: String,
    line_num: Value,
    ps: String,
    session_start: String,
    vxid: String,
    txid: Value,
    error_severity: String,
    state_code: String,
    message: String,
    detail: String,
    hint: String,
    internal_query: String,
    internal_position: Value,
    context: String,
    statement: String,
    cursor_position: Value,
    func_name: String,
    file_name: String,
    file_line_num: Value,
    application_name: String,
    backend_type: String,
    leader_pid: Value,
    query_id: Value,
}

/// Parses one line. `None` when it is not a record.
pub fn parse(record: &str, context: Context) -> Option<Parsed> {
    let record: Record = match serde_json::from_str(record) {
        Ok(record) => record,
        Err(_) => return parse_cut(record, context),
    };
    let sqlstate = if record.state_code.is_empty() { "00000" } else { &record.state_code };
    postgres::severity_of(&record.error_severity, sqlstate)?;
    let time = parse_time(record.timestamp.as_bytes(), context.zone, context.last_at)?;
    let client = match number(&record.remote_port) {
        port if port.is_empty() => record.remote_host.clone(),
        port => format!("{}:{port}", record.remote_host),
    };
    let location = match number(&record.file_line_num) {
        line if line.is_empty() => String::new(),
        line => format!("{}, {}:{line}", record.func_name, record.file_name),
    };
    let columns = Columns {
        user: &record.user,
        database: &record.dbname,
        pid: &number(&record.pid),
        client: &client,
        session_id: &record.session_id,
        session_line: &number(&record.line_num),
        command: &record.ps,
        session_start: &record.session_start,
        vxid: &record.vxid,
        xid: &number(&record.txid),
        severity_text: &record.error_severity,
        sqlstate,
        message: &record.message,
        detail: &record.detail,
        hint: &record.hint,
        internal_query: &record.internal_query,
        internal_position: &number(&record.internal_position),
        context: &record.context,
        statement: &record.statement,
        cursor_position: &number(&record.cursor_position),
        location: &location,
        application: &record.application_name,
        backend_type: &record.backend_type,
        leader_pid: &number(&record.leader_pid),
        query_id: &number(&record.query_id),
    };
    let mut parsed = columns.to_parsed();
    parsed.at = Some(time.at);
    Some(parsed)
}

/// A record whose end is missing: its time and severity are near the start, and the text is shown as it is.
fn parse_cut(record: &str, context: Context) -> Option<Parsed> {
    let value = |key: &str| record.split_once(key).and_then(|(_, rest)| rest.split('"').next());
    let time = record.strip_prefix("{\"timestamp\":\"")?;
    let word = value("\"error_severity\":\"")?;
    let mut parsed = Parsed::unknown(record);
    parsed.at = Some(parse_time(time.as_bytes(), context.zone, context.last_at)?.at);
    parsed.severity = postgres::severity(word);
    value("\"message\":\"").unwrap_or("").clone_into(&mut parsed.message);
    parsed.push_field("severity_text", word);
    Some(parsed)
}

/// Numbers come as numbers; versions to come may quote them.
fn number(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::time::ZoneSetting;
    use super::*;
    use crate::model::Timestamp;

    const CONTEXT: Context = Context { zone: ZoneSetting::Fixed(0), last_at: None, now: Timestamp(0) };

    #[test]
    fn the_same_event_reads_the_same_in_csv_and_json() {
        let json = r#"{"timestamp":"2026-11-23 05:47:28.131 UTC","user":"app","dbname":"db","pid":42,"remote_host":"10.0.0.1","remote_port":5432,"session_id":"6b03d370.77e","line_num":7,"ps":"SELECT","session_start":"2026-11-23 05:47:28 UTC","vxid":"3/12","txid":0,"error_severity":"ERROR","state_code":"42P01","message":"relation \"x\" does not exist","statement":"SELECT *\nFROM x","cursor_position":15,"application_name":"psql","backend_type":"client backend","query_id":0}"#;
        let csv = "2026-11-23 05:47:28.131 UTC,\"app\",\"db\",42,\"10.0.0.1:5432\",6b03d370.77e,7,\"SELECT\",2026-11-23 05:47:28 UTC,3/12,0,ERROR,42P01,\"relation \"\"x\"\" does not exist\",,,,,,\"SELECT *\nFROM x\",15,,\"psql\",\"client backend\",,0";
        assert_eq!(parse(json, CONTEXT).unwrap(), super::super::postgres_csv::parse(csv, CONTEXT).unwrap());
    }

    #[test]
    fn what_is_no_record() {
        for text in ["", "{", "[]", "{}", r#"{"timestamp":"x","error_severity":"LOG"}"#, r#"{"error_severity":5}"#] {
            assert_eq!(parse(text, CONTEXT), None, "{text}");
        }
    }

    #[test]
    fn a_cut_record_keeps_its_time_and_severity() {
        let text = r#"{"timestamp":"2026-11-23 05:47:28.131 UTC","pid":42,"error_severity":"ERROR","message":"x","statement":"SELECT"#;
        let parsed = parse(text, CONTEXT).unwrap();
        assert_eq!(parsed.at.unwrap().to_string(), "2026-11-23T05:47:28.131Z");
        assert_eq!((parsed.message.as_str(), parsed.line.as_str()), ("x", text));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,100}") {
            drop(parse(&text, CONTEXT));
        }
    }
}
