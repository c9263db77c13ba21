//! Links into the web pages that show a piece of evidence in its surroundings.

use std::time::Duration;

use crate::model::Timestamp;
use crate::platform::http_client::percent_encode as encoded;

/// How much of the log is shown around a record.
const AROUND: Duration = Duration::from_secs(30);

/// The Logs page around a record.
pub(super) fn logs(cluster: &str, member: &str, source: &str, at: Timestamp) -> String {
    let mut link = format!("/logs?cluster={}", encoded(cluster));
    if !member.is_empty() {
        link = link + "&member=" + &encoded(member);
    }
    if !source.is_empty() {
        link = link + "&f=source%3D" + &encoded(source);
    }
    link + &range(at - AROUND, at + AROUND)
}

/// The Explore page with an expression over a window.
pub(super) fn metrics(expr: &str, (start, end): (Timestamp, Timestamp)) -> String {
    format!("/explore?expr={}", encoded(expr)) + &range(start, end)
}

fn range(from: Timestamp, to: Timestamp) -> String {
    format!("&from={}&to={}", encoded(&from.to_rfc3339_millis()), encoded(&to.to_rfc3339_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_carry_what_the_pages_read() {
        let at = Timestamp::from_secs(1_700_000_000);
        assert_eq!(
            logs("my db", "n1", "patroni", at),
            "/logs?cluster=my%20db&member=n1&f=source%3Dpatroni\
             &from=2023-11-14T22%3A12%3A50.000Z&to=2023-11-14T22%3A13%3A50.000Z"
        );
        assert!(metrics("a{b=\"c\"}", (at, at)).starts_with("/explore?expr=a%7Bb%3D%22c%22%7D&from="));
    }
}
