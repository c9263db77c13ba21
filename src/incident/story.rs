//! An incident in one line: from its events, without guessing causes.

use crate::model::incident::Incident;
use crate::model::{Event, EventSeverity, Timestamp};

fn field<'a>(event: &'a Event, name: &str) -> &'a str {
    event.fields.get(name).map_or("", String::as_str)
}

/// What one event says, short.
pub(super) fn subject(event: &Event) -> String {
    let member = event.member.as_deref().unwrap_or("");
    match event.event.as_str() {
        "leader_lost" => {
            let kind = match field(event, "kind") {
                "expired" => " (lease expired)",
                "released" => " (released)",
                _ => "",
            };
            format!("{member} lost the leader key{kind}")
        }
        "leader_changed" if field(event, "old").is_empty() => format!("{member} took over"),
        "leader_changed" => format!("{member} took over from {}", field(event, "old")),
        "leader_returned" => format!("{member} took the leader key again"),
        "split_brain_confirmed" => format!("split brain of {}", field(event, "members").replace(',', " and ")),
        "split_brain_possible" => format!("split brain is possible: {member} cannot be seen"),
        "dcs_quorum_lost" => "the DCS lost its quorum".to_owned(),
        "replica_broken" => format!("{member} does not replicate"),
        _ => event.text.clone(),
    }
}

/// All that opened or turned the incident, in order, each once.
pub(super) fn title(incident: &Incident) -> String {
    const TELLING: [&str; 6] = [
        "leader_lost",
        "leader_changed",
        "leader_returned",
        "split_brain_confirmed",
        "dcs_quorum_lost",
        "replica_broken",
    ];
    let mut parts: Vec<String> = Vec::new();
    let mut lost = "";
    for event in incident.events.iter().filter(|event| TELLING.contains(&event.event.as_str())) {
        let mut part = subject(event);
        if event.event == "leader_lost" {
            lost = event.member.as_deref().unwrap_or("");
        } else if event.event == "leader_changed" && field(event, "old") == lost && !lost.is_empty() {
            part = format!("{} took over", event.member.as_deref().unwrap_or(""));
        }
        if !parts.contains(&part) && parts.len() < 6 {
            parts.push(part);
        }
    }
    if parts.is_empty() { incident.subject.clone() } else { parts.join(", ") }
}

/// When the condition began that the event tells of, where it tells.
pub(super) fn since(event: &Event) -> Option<Timestamp> {
    Timestamp::parse_rfc3339(event.fields.get("since")?).ok()
}

/// Of what happened before an incident opened: the signs that something was wrong and was not over.
pub(super) fn signs(recent: &[Event]) -> Vec<Event> {
    const OVER: [(&str, &str); 7] = [
        ("rest_down", "rest_up"),
        ("postgres_down", "postgres_up"),
        ("member_lost", "member_returned"),
        ("lease_not_renewed", "lease_renewed"),
        ("dcs_member_down", "dcs_member_up"),
        ("dcs_blind", "dcs_visible"),
        ("lag_high", "lag_normal"),
    ];
    let same =
        |sign: &Event, later: &Event| later.member == sign.member && later.fields.get("url") == sign.fields.get("url");
    let over = |index: usize, sign: &Event| {
        let end = OVER.iter().find(|(begin, _)| *begin == sign.event).map(|(_, end)| *end);
        recent.iter().skip(index).any(|later| Some(later.event.as_str()) == end && same(sign, later))
    };
    let bad = |(index, sign): &(usize, &Event)| sign.severity >= EventSeverity::Warning && !over(*index, sign);
    recent.iter().enumerate().filter(bad).map(|(_, sign)| sign.clone()).collect()
}
