//! What PostgreSQL's three log formats have in common: severity words, and how a record looks as text.

use crate::model::Severity;

use super::parsed::Parsed;

/// Keywords that begin a message, longest first where one is the start of another.
pub const SEVERITY_WORDS: &[&str] = &[
    "DEBUG5", "DEBUG4", "DEBUG3", "DEBUG2", "DEBUG1", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "LOG", "FATAL",
    "PANIC",
];

/// Keywords of lines that belong to the message before.
pub const DETAIL_WORDS: &[&str] = &["DETAIL", "HINT", "QUERY", "CONTEXT", "LOCATION", "BACKTRACE", "STATEMENT"];

/// The severity of a record. Where `lc_messages` has translated the word, the SQLSTATE tells enough.
pub fn severity_of(word: &str, sqlstate: &str) -> Option<Severity> {
    severity(word).or_else(|| {
        let is_word = word.chars().count() >= 3 && word.chars().all(char::is_alphabetic);
        let is_code = sqlstate.len() == 5 && sqlstate.bytes().all(|byte| byte.is_ascii_alphanumeric());
        Some(match sqlstate.get(..2).filter(|_| is_word && is_code)? {
            "00" => Severity::Info,
            "01" | "02" => Severity::Warning,
            _ => Severity::Error,
        })
    })
}

/// The severity that a word of the server stands for.
pub fn severity(word: &str) -> Option<Severity> {
    Some(match word {
        "DEBUG5" | "DEBUG4" | "DEBUG3" | "DEBUG2" | "DEBUG1" | "DEBUG" => Severity::Debug,
        "LOG" | "INFO" => Severity::Info,
        "NOTICE" => Severity::Notice,
        "WARNING" => Severity::Warning,
        "ERROR" | "FATAL" => Severity::Error,
        "PANIC" => Severity::Critical,
        _ => return None,
    })
}

/// Fields of a csvlog or jsonlog record by their PostgreSQL names; empty where absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns<'a> {
    pub user: &'a str,
    pub database: &'a str,
    pub pid: &'a str,
    pub client: &'a str,
    pub session_id: &'a str,
    pub session_line: &'a str,
    pub command: &'a str,
    pub session_start: &'a str,
    pub vxid: &'a str,
    pub xid: &'a str,
    pub severity_text: &'a str,
    pub sqlstate: &'a str,
    pub message: &'a str,
    pub detail: &'a str,
    pub hint: &'a str,
    pub internal_query: &'a str,
    pub internal_position: &'a str,
    pub context: &'a str,
    pub statement: &'a str,
    pub cursor_position: &'a str,
    pub location: &'a str,
    pub application: &'a str,
    pub backend_type: &'a str,
    pub leader_pid: &'a str,
    pub query_id: &'a str,
}

impl Columns<'_> {
    /// The record as the stderr format would show it, without a prefix, and the columns as fields.
    pub fn to_parsed(&self) -> Parsed {
        let mut line = format!("{}:  ", self.severity_text);
        push_tabbed(&mut line, self.message);
        let position = if self.cursor_position.is_empty() { self.internal_position } else { self.cursor_position };
        if !matches!(position, "" | "0") {
            line.push_str(" at character ");
            line.push_str(position);
        }
        for (word, text) in [
            ("DETAIL", self.detail),
            ("HINT", self.hint),
            ("QUERY", self.internal_query),
            ("CONTEXT", self.context),
            ("LOCATION", self.location),
            ("STATEMENT", self.statement),
        ] {
            if !text.is_empty() {
                line.push('\n');
                line.push_str(word);
                line.push_str(":  ");
                push_tabbed(&mut line, text);
            }
        }
        let mut parsed = Parsed {
            at: None,
            severity: severity_of(self.severity_text, self.sqlstate),
            line,
            message: self.message.to_owned(),
            fields: Vec::with_capacity(16),
        };
        for (name, value) in [
            ("pid", self.pid),
            ("user", self.user),
            ("database", self.database),
            ("sqlstate", real_sqlstate(self.sqlstate)),
            ("application", self.application),
            ("client", self.client),
            ("backend_type", self.backend_type),
            ("session_id", self.session_id),
            ("session_line", self.session_line),
            ("session_start", self.session_start),
            ("command", self.command),
            ("vxid", self.vxid),
            ("xid", zero_is_none(self.xid)),
            ("leader_pid", zero_is_none(self.leader_pid)),
            ("query_id", zero_is_none(self.query_id)),
            ("severity_text", self.severity_text),
        ] {
            parsed.push_field(name, value);
        }
        parsed
    }
}

/// "Successful completion" stands on most lines and says nothing; jsonlog leaves it out as well.
fn real_sqlstate(code: &str) -> &str {
    if code == "00000" { "" } else { code }
}

fn zero_is_none(number: &str) -> &str {
    if number == "0" { "" } else { number }
}

/// The server indents the further lines of a value with a tab.
fn push_tabbed(line: &mut String, text: &str) {
    for (index, part) in text.split('\n').enumerate() {
        if index > 0 {
            line.push_str("\n\t");
        }
        line.push_str(part);
    }
}
