//! Past incidents that looked like this one.
//!
//! Pure. The score is the mean of two: whether both have the same first cause, and how much the names of their events
//! overlap (Jaccard). Where one has no cause, only the events count.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::incident::INCIDENT_REOPENED;

/// Similar incidents that are shown.
const SHOWN_MAX: usize = 5;
/// What is less similar is not.
const SCORE_MIN: f64 = 0.5;

/// What comparing needs of an incident; reads its row without the rest.
#[derive(Clone, Debug, Deserialize)]
pub struct Outline {
    pub id: String,
    pub cluster: String,
    pub title: String,
    pub opened_at: Timestamp,
    pub settled_at: Option<Timestamp>,
    #[serde(default)]
    causes: Vec<NamedCause>,
    #[serde(default)]
    events: Vec<NamedEvent>,
}

/// A cause without its proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedCause {
    pub name: String,
    pub title: String,
}

#[derive(Clone, Debug, Deserialize)]
struct NamedEvent {
    event: String,
}

/// A past incident with its likeness, from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Similar {
    pub id: String,
    pub cluster: String,
    pub title: String,
    pub opened_at: Timestamp,
    pub settled_at: Option<Timestamp>,
    pub cause: Option<NamedCause>,
    pub score: f64,
}

/// The incidents before `this` that are most like it: best first, of equal ones those of the same cluster, then the newest.
pub fn similar(this: &Outline, all: impl IntoIterator<Item = Outline>) -> Vec<Similar> {
    let names = this.event_names();
    let mut found: Vec<Similar> = all
        .into_iter()
        .filter(|other| other.id != this.id && other.opened_at < this.opened_at)
        .filter_map(|other| {
            let score = (score(this, &names, &other) * 100.0).round() / 100.0;
            let Outline { id, cluster, title, opened_at, settled_at, causes, .. } = other;
            let cause = causes.into_iter().next();
            (score >= SCORE_MIN).then_some(Similar { id, cluster, title, opened_at, settled_at, cause, score })
        })
        .collect();
    found.sort_by(|a, b| {
        let here = |one: &Similar| one.cluster == this.cluster;
        b.score.total_cmp(&a.score).then(here(b).cmp(&here(a))).then(b.opened_at.cmp(&a.opened_at))
    });
    found.truncate(SHOWN_MAX);
    found
}

fn score(this: &Outline, names: &BTreeSet<&str>, other: &Outline) -> f64 {
    let others = other.event_names();
    let union = names.union(&others).count();
    let overlap = if union == 0 { 0.0 } else { names.intersection(&others).count() as f64 / union as f64 };
    match (this.causes.first(), other.causes.first()) {
        (Some(a), Some(b)) => f64::midpoint(f64::from(u8::from(a.name == b.name)), overlap),
        _ => overlap,
    }
}

impl Outline {
    fn event_names(&self) -> BTreeSet<&str> {
        // That it came back says nothing about what it was.
        self.events.iter().map(|event| event.event.as_str()).filter(|name| *name != INCIDENT_REOPENED).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(cluster: &str, opened_at: i64, cause: &str, events: &[&str]) -> Outline {
        Outline {
            id: format!("{cluster}-{opened_at}"),
            cluster: cluster.to_owned(),
            title: "t".to_owned(),
            opened_at: Timestamp::from_secs(opened_at),
            settled_at: None,
            causes: [cause].iter().filter(|name| !name.is_empty()).map(|name| named(name)).collect(),
            events: events.iter().map(|name| NamedEvent { event: (*name).to_owned() }).collect(),
        }
    }

    fn named(name: &str) -> NamedCause {
        NamedCause { name: name.to_owned(), title: name.to_uppercase() }
    }

    #[test]
    fn how_alike_two_are() {
        for (cause, events, expected) in [
            ("host_lost", &["leader_lost", "leader_changed"][..], Some(1.0)),
            ("host_lost", &["leader_lost"], Some(0.75)),
            ("host_lost", &["leader_lost", INCIDENT_REOPENED], Some(0.75)),
            ("host_lost", &["lag_high"], Some(0.5)),
            ("host_lost", &[], Some(0.5)),
            ("disk_full", &["leader_lost", "leader_changed"], Some(0.5)),
            ("disk_full", &["leader_lost"], None),
            ("", &["leader_lost", "leader_changed"], Some(1.0)),
            ("", &["leader_lost", "lag_high", "rest_down"], None),
            ("", &[], None),
        ] {
            let this = outline("demo", 100, "host_lost", &["leader_lost", "leader_changed"]);
            let found = similar(&this, [outline("demo", 50, cause, events)]);
            assert_eq!(found.first().map(|one| one.score), expected, "{cause} {events:?}");
        }
    }

    #[test]
    fn the_best_of_the_past_come_first() {
        let events = ["leader_lost"];
        let mut all: Vec<Outline> = (0..10).map(|n| outline("other", n, "host_lost", &events)).collect();
        all.push(outline("demo", 1, "host_lost", &events));
        all.push(outline("demo", 200, "host_lost", &events));
        all.push(outline("demo", 2, "host_lost", &["leader_lost", "lag_high"]));
        let this = outline("demo", 100, "host_lost", &events);
        all.push(this.clone());
        let ids: Vec<String> = similar(&this, all).into_iter().map(|one| one.id).collect();
        assert_eq!(ids, ["demo-1", "other-9", "other-8", "other-7", "other-6"]);
        let found = similar(&this, [outline("demo", 1, "host_lost", &events)]);
        assert_eq!(found[0].cause, Some(named("host_lost")));
    }
}
