//! An incident in one line: from its events, without guessing causes.

use crate::model::incident::Incident;
use crate::model::{Event, Timestamp};

fn field<'a>(event: &'a Event, name: &str) -> &'a str {
    event.fields.get(name).map_or("", String::as_str)
}

/// What one event says, short.
pub(super) fn subject(event: &Event) -> String {
    let member = event.member.as_deref().unwrap_or("");
    match event.event.as_str() {
        "leader_lost" => {
            let reason = match field(event, "reason") {
                "lease_expired" => " (lease expired)",
                "released" => " (released)",
                "deleted_by_hand" => " (deleted by hand)",
                _ => "",
            };
            format!("{member} lost the leader key{reason}")
        }
        "leader_changed" if field(event, "old_leader").is_empty() => format!("{member} took over"),
        "leader_changed" => format!("{member} took over from {}", field(event, "old_leader")),
        "leader_returned" => format!("{member} took the leader key again"),
        "split_brain_confirmed" => format!("split brain of {}", field(event, "members").replace(',', " and ")),
        "split_brain_possible" => format!("split brain is possible: {member} cannot be seen"),
        "dcs_quorum_lost" => "the DCS lost its quorum".to_owned(),
        "replica_broken" => format!("{member} does not replicate"),
        "primary_interrupted" | "primary_restarted_in_place" if field(event, "crashed") == "true" => {
            format!("PostgreSQL of the leader {member} crashed and recovered")
        }
        "primary_interrupted" | "primary_restarted_in_place" if !field(event, "crashed").is_empty() => {
            format!("the leader {member} took no writes for a while")
        }
        "primary_promoted_again" if !field(event, "new_timeline").is_empty() => {
            format!("the leader {member} was demoted and promoted again")
        }
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
    // A switchover that was asked for meanwhile turned nothing.
    let tells = |event: &&Event| TELLING.contains(&event.event.as_str()) && field(event, "planned") != "true";
    for event in incident.events.iter().filter(tells) {
        let mut part = subject(event);
        if event.event == "leader_lost" {
            lost = event.member.as_deref().unwrap_or("");
        } else if event.event == "leader_changed" && field(event, "old_leader") == lost && !lost.is_empty() {
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

/// Conditions that may be the sign of what opens an incident, with what ends them. What is over by its nature (a restart
/// in place, a failed switchover) is no sign of what comes later.
const CONDITIONS: [(&str, &[&str]); 14] = [
    ("rest_down", &["rest_up"]),
    ("postgres_down", &["postgres_up"]),
    ("member_lost", &["member_returned"]),
    ("primary_not_writable", &["primary_interrupted", "primary_restarted_in_place", "primary_promoted_again"]),
    ("postgres_hung", &["postgres_hung_ended"]),
    ("client_writes_failed", &["client_writes_resumed"]),
    ("lease_not_renewed", &["lease_renewed"]),
    ("dcs_alarm", &["dcs_alarm_ended"]),
    ("dcs_member_down", &["dcs_member_up"]),
    ("dcs_blind", &["dcs_visible"]),
    ("lag_high", &["lag_normal"]),
    ("failsafe_entered", &["failsafe_left"]),
    ("paused", &["resumed"]),
    ("split_brain_possible", &["split_brain_ended"]),
];

/// Of what happened before an incident opened: what went on when it did.
pub(super) fn signs(recent: &[Event]) -> Vec<Event> {
    let same = |sign: &Event, later: &Event| {
        sign.event == "split_brain_possible"
            || later.member == sign.member
                && ["url", "address"].iter().all(|field| later.fields.get(*field) == sign.fields.get(*field))
    };
    let goes_on = |index: usize, sign: &Event| {
        let Some((_, ends)) = CONDITIONS.iter().find(|(begin, _)| *begin == sign.event) else { return false };
        !recent.iter().skip(index).any(|later| ends.contains(&later.event.as_str()) && same(sign, later))
    };
    recent.iter().enumerate().filter(|(index, sign)| goes_on(*index, sign)).map(|(_, sign)| sign.clone()).collect()
}
