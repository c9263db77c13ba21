//! The two bodies of a mail, text and HTML, from one set of values.

use std::time::Duration;

use minijinja::Environment;
use serde::Serialize;

use crate::alert::NotificationDraft;
use crate::model::alert::{IncidentNotice, IncidentReport, MemberNotice};
use crate::model::incident::{Confidence, Evidence, Impact};
use crate::model::{Alert, Timestamp};
use crate::platform::units::format_duration;

/// Rows of each table; mail programs cut long mails, and the web page has the rest.
const TIMELINE_MAX: usize = 15;
const MEMBERS_MAX: usize = 20;
const ALERTS_MAX: usize = 20;
const PHASES_MAX: usize = 24;
const TEXT_CHARS_MAX: usize = 1000;
/// Of a line of a log.
const LINE_CHARS_MAX: usize = 240;

#[derive(Debug, Serialize)]
struct View {
    state: &'static str,
    colour: &'static str,
    severity: String,
    cluster: String,
    title: String,
    since: String,
    until: String,
    duration: String,
    reopened: String,
    acknowledged_by: String,
    verdict: String,
    confidence: &'static str,
    proofs: Vec<ProofView>,
    advice: String,
    impact: Vec<String>,
    phases: Vec<PhaseView>,
    description: String,
    timeline: Vec<LineView>,
    timeline_hidden: usize,
    members: Vec<MemberView>,
    alerts: Vec<AlertView>,
    alerts_hidden: usize,
    held_back: String,
    url: String,
}

#[derive(Debug, Serialize)]
struct ProofView {
    time: String,
    sign: String,
    source: String,
    text: String,
}

#[derive(Debug, Serialize)]
struct PhaseView {
    time: String,
    after: String,
    name: &'static str,
}

#[derive(Debug, Serialize)]
struct LineView {
    time: String,
    member: String,
    text: String,
}

#[derive(Debug, Serialize)]
struct MemberView {
    name: String,
    role: String,
    state: String,
    writable: &'static str,
    timeline: String,
    lag: String,
}

#[derive(Debug, Serialize)]
struct AlertView {
    state: &'static str,
    name: String,
    severity: String,
    member: String,
    since: String,
    summary: String,
    description: String,
}

/// Text and HTML. A template that fails gives a plain body rather than no mail.
pub(super) fn render(draft: &NotificationDraft, external_url: &str) -> (String, String) {
    let view = View::of(draft, external_url);
    let mut environment = Environment::new();
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    let mut body = |name: &'static str, template: &'static str| {
        environment.add_template(name, template)?;
        environment.get_template(name)?.render(minijinja::Value::from(minijinja::value::Serde(&view)))
    };
    // The name's ending decides about escaping.
    let text = body("mail.txt", include_str!("mail.txt"));
    let html = body("mail.html", include_str!("mail.html"));
    match (text, html) {
        (Ok(text), Ok(html)) => (text, html),
        (text, html) => {
            for error in [text.err(), html.err()].into_iter().flatten() {
                tracing::error!(error = crate::platform::error::chain(&error), "the mail's template failed");
            }
            let plain = format!("{}: {} {}\n{}\n", view.state, view.title, view.verdict, view.url);
            (plain.clone(), format!("<pre>{}</pre>", plain.replace('&', "&amp;").replace('<', "&lt;")))
        }
    }
}

impl View {
    fn of(draft: &NotificationDraft, external_url: &str) -> Self {
        let base = external_url.trim_end_matches('/');
        let firing = draft.status() == "firing";
        let first = draft.alerts().next();
        let annotation = |name: &str| first.map_or("", |alert| alert.annotation(name)).to_owned();
        let notice = draft.incident.as_ref();
        let severity = notice.map_or_else(
            || first.map_or("", |alert| alert.label("severity")).to_owned(),
            |notice| notice.severity.clone(),
        );
        let since = draft.alerts().map(|alert| alert.starts_at).min();
        let until = if firing { None } else { draft.alerts().filter_map(|alert| alert.ends_at).max() };
        // An incident's own alert is the headline, not one of the list.
        let alerts: Vec<&Alert> = draft.alerts().filter(|alert| alert.incident.is_none()).collect();
        let single = notice.is_none() && alerts.len() == 1;
        Self {
            state: match (notice, firing) {
                (Some(notice), true) if notice.reopened_at.is_some() => "OPEN AGAIN",
                (Some(_), true) => "OPEN",
                (Some(_), false) => "SETTLED",
                (None, true) => "FIRING",
                (None, false) => "RESOLVED",
            },
            colour: match (firing, severity.as_str()) {
                (false, _) => "#1e7d46",
                (true, "critical" | "page") => "#b42318",
                (true, "warning") => "#a15c07",
                (true, _) => "#3b5b8c",
            },
            cluster: first.map_or("", |alert| alert.label("cluster")).to_owned(),
            title: match notice {
                Some(notice) => cut(&notice.title),
                None if single && !annotation("summary").is_empty() => cut(&annotation("summary")),
                None => super::subject(draft),
            },
            since: since.map(clock).unwrap_or_default(),
            until: until.map(clock).unwrap_or_default(),
            duration: match (since, until) {
                (Some(since), Some(until)) => whole_seconds(until.since(since)),
                _ => String::new(),
            },
            reopened: notice.and_then(|notice| notice.reopened_at).map(clock).unwrap_or_default(),
            acknowledged_by: notice.and_then(|notice| notice.acknowledged_by.clone()).unwrap_or_default(),
            verdict: notice.map(|notice| verdict(&notice.report, firing)).unwrap_or_default(),
            confidence: notice.and_then(|notice| notice.report.confidence).map_or("", Confidence::as_str),
            proofs: notice.map(|notice| proofs(&notice.report)).unwrap_or_default(),
            advice: notice.and_then(|notice| notice.report.advice.as_deref()).map(cut).unwrap_or_default(),
            impact: notice.map(|notice| impact(&notice.report.impact, firing)).unwrap_or_default(),
            phases: notice.map(|notice| phases(&notice.report)).unwrap_or_default(),
            description: if single { cut(&annotation("description")) } else { String::new() },
            timeline: notice.map(timeline).unwrap_or_default(),
            timeline_hidden: notice.map_or(0, |notice| notice.timeline.len().saturating_sub(TIMELINE_MAX)),
            members: notice.map(members).unwrap_or_default(),
            alerts_hidden: alerts.len().saturating_sub(ALERTS_MAX),
            alerts: alerts.iter().take(ALERTS_MAX).map(|alert| AlertView::of(alert, draft.at)).collect(),
            held_back: held_back(&draft.held_back),
            url: match notice {
                Some(notice) => format!("{base}/incidents/{}", notice.id),
                None => format!("{base}/alerts"),
            },
            severity,
        }
    }
}

impl AlertView {
    fn of(alert: &Alert, now: Timestamp) -> Self {
        Self {
            state: if alert.is_resolved(now) { "resolved" } else { "firing" },
            name: alert.name().to_owned(),
            severity: alert.label("severity").to_owned(),
            member: alert.label("member").to_owned(),
            since: clock(alert.starts_at),
            summary: cut(alert.annotation("summary")),
            description: cut(alert.annotation("description")),
        }
    }
}

/// What is concluded. At the end that is always said, also when it is nothing.
fn verdict(report: &IncidentReport, firing: bool) -> String {
    match &report.verdict {
        Some(text) => cut(text),
        None if firing => String::new(),
        None => "unknown: the causes were not looked for".to_owned(),
    }
}

fn proofs(report: &IncidentReport) -> Vec<ProofView> {
    let proof = |one: &Evidence| ProofView {
        time: time_of_day(one.time),
        sign: cut(&one.sign),
        source: one.source.clone(),
        text: first_chars(one.text.lines().next().unwrap_or_default(), LINE_CHARS_MAX),
    };
    report.evidence.iter().map(proof).collect()
}

/// What it cost. What is not known is said at the end; before, it may still become known.
fn impact(impact: &Impact, firing: bool) -> Vec<String> {
    let mut lines = impact.lines();
    lines.retain(|line| !(firing && line.ends_with("unknown")));
    lines
}

fn phases(report: &IncidentReport) -> Vec<PhaseView> {
    let skip = report.phases.len().saturating_sub(PHASES_MAX);
    let start = report.phases.get(skip).map(|phase| phase.at);
    let phases = report.phases.iter().skip(skip);
    phases
        .map(|phase| PhaseView {
            time: time_of_day(phase.at),
            after: start.map(|start| format!("+{:.1} s", phase.at.since(start).as_secs_f64())).unwrap_or_default(),
            name: phase.name.words(),
        })
        .collect()
}

fn timeline(notice: &IncidentNotice) -> Vec<LineView> {
    let hidden = notice.timeline.len().saturating_sub(TIMELINE_MAX);
    let shown = notice.timeline.iter().skip(hidden);
    shown
        .map(|event| LineView {
            time: time_of_day(event.time),
            member: event.member.clone().unwrap_or_default(),
            text: cut(&event.text),
        })
        .collect()
}

fn members(notice: &IncidentNotice) -> Vec<MemberView> {
    notice.members.iter().take(MEMBERS_MAX).map(MemberView::of).collect()
}

impl MemberView {
    fn of(member: &MemberNotice) -> Self {
        let unknown = || "unknown".to_owned();
        Self {
            name: member.name.clone(),
            role: member.role.clone(),
            state: member.state.clone(),
            writable: match member.writable {
                Some(true) => "writable",
                Some(false) => "read only",
                None => "unknown",
            },
            timeline: member.timeline.map_or_else(unknown, |timeline| timeline.to_string()),
            lag: member.lag_bytes.map_or_else(unknown, bytes),
        }
    }
}

fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

fn held_back(alerts: &[Alert]) -> String {
    let mut names: Vec<String> = alerts
        .iter()
        .map(|alert| match alert.label("member") {
            "" => alert.name().to_owned(),
            member => format!("{} ({member})", alert.name()),
        })
        .collect();
    names.sort();
    names.dedup();
    names.truncate(ALERTS_MAX);
    names.join(", ")
}

fn cut(text: &str) -> String {
    first_chars(text, TEXT_CHARS_MAX)
}

fn first_chars(text: &str, count: usize) -> String {
    let mut short: String = text.chars().take(count).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// `2026-11-25 08:00:03 UTC`.
fn clock(at: Timestamp) -> String {
    let text = at.to_rfc3339_millis();
    let (date, time) = text.split_once('T').unwrap_or((&text, ""));
    format!("{date} {} UTC", time.get(..8).unwrap_or(time))
}

/// `08:00:03.123`.
fn time_of_day(at: Timestamp) -> String {
    let text = at.to_rfc3339_millis();
    text.split_once('T').map_or(text.as_str(), |(_, time)| time).trim_end_matches('Z').to_owned()
}

fn whole_seconds(duration: Duration) -> String {
    format_duration(Duration::from_secs(duration.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Integration;
    use crate::model::alert::Annotations;
    use crate::model::incident::{Phase, PhaseName};
    use crate::model::{Event, EventSeverity, Labels};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(1_764_043_200 + seconds)
    }

    fn alert(name: &str, member: &str, severity: &str) -> Alert {
        let labels = [("alertname", name), ("cluster", "demo"), ("member", member), ("severity", severity)];
        let annotations = Annotations::from([
            ("summary".to_owned(), format!("{member} of demo does not <follow>")),
            ("description".to_owned(), "Its PostgreSQL log says why.".to_owned()),
        ]);
        Alert::firing(Labels::from_pairs(labels), annotations, at(5))
    }

    fn draft() -> NotificationDraft {
        NotificationDraft {
            receiver: "ops".into(),
            integration: Integration { kind: "email", index: 0, send_resolved: true },
            group_key: "{}:{}".into(),
            group_labels: Labels::default(),
            firing: vec![alert("ReplicaBroken", "n3", "warning"), alert("DiskSpaceLow", "n1", "warning")],
            resolved: Vec::new(),
            reason: "first notification",
            at: at(10),
            opened_at: at(10),
            thread_title: None,
            incident: None,
            held_back: Vec::new(),
        }
    }

    fn incident(settled: bool) -> NotificationDraft {
        let event = |second: i64, member: &str, text: &str| Event {
            id: second.to_string(),
            time: at(second),
            cluster: "demo".into(),
            member: (!member.is_empty()).then(|| member.to_owned()),
            event: "leader_lost".into(),
            severity: EventSeverity::Critical,
            source: "dcs".into(),
            text: text.into(),
            fields: std::collections::BTreeMap::new(),
        };
        let member = |name: &str, role: &str, writable, lag_bytes| MemberNotice {
            name: name.into(),
            role: role.into(),
            state: "running".into(),
            writable,
            timeline: Some(4),
            lag_bytes,
        };
        let notice = IncidentNotice {
            id: "demo-7".into(),
            cluster: "demo".into(),
            title: "n1 lost the leader key, n2 took over".into(),
            severity: "critical".into(),
            cause: settled.then(|| "host_lost".to_owned()),
            report: if settled { report() } else { IncidentReport::default() },
            opened_at: at(0),
            settled_at: settled.then(|| at(95)),
            timeline: vec![
                event(-1, "", "etcd lost sight of n1"),
                event(0, "n1", "the leader key of n1 is gone: its lease expired"),
                event(2, "n2", "n2 holds the leader key <timeline 4>"),
            ],
            members: vec![
                member("n1", "unknown", None, None),
                member("n2", "primary", Some(true), Some(0)),
                member("n3", "replica", Some(false), Some(5 << 20)),
            ],
            ..IncidentNotice::default()
        };
        let alert_of_incident = Alert::of_incident(notice.clone(), "https://daraji.example.org");
        let (firing, resolved) =
            if settled { (Vec::new(), vec![alert_of_incident]) } else { (vec![alert_of_incident], Vec::new()) };
        NotificationDraft {
            firing,
            resolved,
            incident: Some(notice),
            at: at(if settled { 95 } else { 1 }),
            held_back: vec![alert("MemberDown", "n1", "warning"), alert("NoLeader", "", "critical")],
            ..draft()
        }
    }

    fn report() -> IncidentReport {
        let proof = |second: i64, source: &str, text: &str, sign: &str| Evidence {
            source: source.into(),
            time: at(second),
            text: text.into(),
            link: None,
            sign: sign.into(),
        };
        let phase = |name, second: i64| Phase { name, at: at(second) };
        IncidentReport {
            verdict: Some("The host of n1 is gone: nothing of it answers".into()),
            confidence: Some(Confidence::High),
            evidence: vec![
                proof(-1, "etcd n2", "lost the TCP streaming connection with peer <n1>", "its peers lost it"),
                proof(0, "daraji", "the leader key of n1 is gone: its lease expired", "nobody renewed its lease"),
            ],
            advice: Some("Look at the host's console; Patroni rejoins it when it is back.".into()),
            phases: vec![
                phase(PhaseName::Trigger, -1),
                phase(PhaseName::Detected, 0),
                phase(PhaseName::LeaseExpired, 0),
                phase(PhaseName::LockTaken, 2),
                phase(PhaseName::Promoted, 3),
            ],
            impact: Impact {
                write_outage_seconds: Some(21.5),
                write_outage_error_seconds: Some(0.6),
                lost_wal: Some("0/3000148..0/3012000".into()),
                lost_wal_bytes: Some(73_400),
                ..Impact::default()
            },
        }
    }

    #[test]
    fn mails_read_well() {
        insta::with_settings!({snapshot_path => "../../../tests/golden", prepend_module_to_snapshot => false}, {
            let mut unknown = incident(true);
            unknown.incident.as_mut().unwrap().report = IncidentReport::default();
            let mut again = incident(false);
            let notice = again.incident.as_mut().unwrap();
            (notice.reopened_at, notice.report) = (Some(at(80)), report());
            notice.acknowledged_by = Some("anna".to_owned());
            let all = [("open", incident(false)), ("settled", incident(true)), ("unknown", unknown), ("again", again)];
            for (name, draft) in all.into_iter().chain([("alerts", draft())]) {
                let (text, html) = render(&draft, "https://daraji.example.org/");
                insta::assert_snapshot!(format!("mail_{name}_text"), text);
                insta::assert_snapshot!(format!("mail_{name}_html"), html);
            }
        });
    }

    #[test]
    fn a_mail_stays_short() {
        let mut long = incident(false);
        if let Some(notice) = &mut long.incident {
            notice.timeline = std::iter::repeat_n(notice.timeline[0].clone(), 500).collect();
            notice.members = std::iter::repeat_n(notice.members[0].clone(), 500).collect();
            notice.report = report();
            notice.report.verdict = Some("x".repeat(1 << 20));
            notice.report.evidence[0].text = "y".repeat(1 << 20);
            notice.report.phases = std::iter::repeat_n(notice.report.phases[0].clone(), 500).collect();
        }
        long.firing.extend(std::iter::repeat_n(alert("ReplicaBroken", "n3", "warning"), 500));
        let (text, html) = render(&long, "https://daraji.example.org");
        assert!(html.len() < 100_000, "mail programs cut longer ones: {}", html.len());
        assert!(text.contains("(485 earlier lines are in the web page)") && text.contains("and 480 more"), "{text}");
    }
}
