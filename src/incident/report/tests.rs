use std::collections::BTreeMap;

use super::*;
use crate::model::incident::{Confidence, Handling, Impact, IncidentState, Note, Phase, PhaseName};
use crate::model::{Event, EventSeverity};

const HOSTILE: &str = "<script>alert('1')</script>\"&\u{1b}[2J{{ 7 }}";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(1_795_412_519 + seconds)
}

fn event(word: &str, member: &str, seconds: i64, fields: &[(&str, &str)]) -> Event {
    Event {
        id: format!("{word}-{seconds}"),
        time: at(seconds),
        cluster: "demo".to_owned(),
        member: Some(member.to_owned()),
        event: word.to_owned(),
        severity: EventSeverity::Critical,
        source: "dcs".to_owned(),
        text: format!("{word} {HOSTILE}"),
        fields: fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn incident() -> Incident {
    let proof = Evidence {
        source: HOSTILE.to_owned(),
        time: at(3),
        text: HOSTILE.to_owned(),
        link: Some("javascript:alert(1)".to_owned()),
        sign: HOSTILE.to_owned(),
    };
    Incident {
        id: "demo-1".to_owned(),
        cluster: HOSTILE.to_owned(),
        title: HOSTILE.to_owned(),
        subject: HOSTILE.to_owned(),
        severity: EventSeverity::Critical,
        state: IncidentState::Settled,
        opened_at: at(5),
        settled_at: Some(at(100)),
        causes: vec![Cause {
            name: "host_lost".to_owned(),
            title: HOSTILE.to_owned(),
            member: Some(HOSTILE.to_owned()),
            confidence: Confidence::High,
            score: 0.9,
            evidence: vec![proof.clone()],
            against: vec![proof],
            missing: vec![HOSTILE.to_owned()],
            symptom_of: Some(HOSTILE.to_owned()),
            advice: HOSTILE.to_owned(),
            reopens: true,
        }],
        verdict: Some(HOSTILE.to_owned()),
        missing: vec![HOSTILE.to_owned()],
        phases: vec![Phase { name: PhaseName::Trigger, at: at(2) }, Phase { name: PhaseName::LockTaken, at: at(30) }],
        impact: Impact { write_outage_seconds: Some(28.0), ..Impact::default() },
        events: vec![
            event("leader_lost", "n1", 5, &[("reason", "lease_expired")]),
            event("leader_changed", "n2", 30, &[("old_leader", "n1")]),
        ],
        alerts: Vec::new(),
        opener: None,
        is_ha: true,
        events_left_out: 7,
        reopened: 1,
        reopened_at: vec![at(50)],
        handling: Handling {
            acknowledged_at: Some(at(60)),
            acknowledged_by: Some(HOSTILE.to_owned()),
            notes: vec![Note { at: at(61), by: HOSTILE.to_owned(), text: HOSTILE.to_owned() }],
        },
    }
}

#[test]
fn a_page_is_whole_and_its_text_is_only_text() {
    let frame = Frame {
        title: HOSTILE.to_owned(),
        made_from: vec![HOSTILE.to_owned()],
        notices: vec![HOSTILE.to_owned()],
        unknown: vec![HOSTILE.to_owned()],
    };
    let page = html(&frame, &[Account::of(incident())]).unwrap();
    for bad in ["<script", "javascript:", "http://", "https://", "src=", "url(", "@import"] {
        assert!(!page.contains(bad), "{bad}");
    }
    assert!(page.contains("&lt;script&gt;") && page.contains("{{ 7 }}"), "the text itself is shown");
    for wanted in ["Who led when", "T+00:28.000", "no member was seen to take writes for 28.0 s", "7 more events"] {
        assert!(page.contains(wanted), "{wanted}");
    }
}

#[test]
fn a_page_without_incidents_says_so() {
    let page = html(&Frame { title: "x".to_owned(), ..Frame::default() }, &[]).unwrap();
    assert!(page.contains("No disturbance was found."));
}

#[test]
fn lanes_come_from_the_events() {
    let account = Account::of(incident());
    let lanes: Vec<_> = account
        .lanes
        .iter()
        .map(|lane| {
            (lane.member.as_str(), lane.states.iter().map(|change| (change.from, change.state)).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(
        lanes,
        [("n1", vec![(at(2), LaneState::Leader), (at(5), LaneState::Down)]), ("n2", vec![(at(30), LaneState::Leader)]),]
    );
}

#[test]
fn the_terminal_gets_no_control_characters_of_others() {
    let account = Account::of(incident());
    let shown = text(&account, Style { colours: false });
    assert!(!shown.contains('\u{1b}'), "{shown}");
    assert!(text(&account, Style { colours: true }).contains("\u{1b}[1;31mCRITICAL"));
}
