//! Opening, joining and settling.

use std::collections::BTreeMap;

use crate::incident::{
    ClusterIncidents, CorrelatorOptions, FROM_LOGS, FiringAlert, IncidentChange, IncidentChangeKind, story,
};
use crate::model::cluster::{Cluster, Health, Member, Role, SplitBrainState};
use crate::model::event::OWN_SOURCE;
use crate::model::incident::{
    Handling, INCIDENT_REOPENED, Impact, Incident, IncidentAlert, IncidentState, Phase, PhaseName,
};
use crate::model::{Event, EventSeverity, Timestamp};

/// What an event means for incidents.
enum Meaning {
    /// Opens one; goes on until `Ends` with the same name.
    Opens(&'static str),
    /// Opens one when it lasts.
    OpensIfLasting,
    /// Opens one, and nothing goes on.
    Happened,
    Ends(&'static str),
    /// Joins what is open, or is remembered as a sign.
    Joins,
}

fn meaning(event: &Event) -> Meaning {
    let planned = event.fields.get("planned").is_some_and(|planned| planned == "true");
    match event.event.as_str() {
        "leader_lost" => Meaning::Opens("no_leader"),
        "leader_changed" if planned => Meaning::Ends("no_leader"),
        // Opens when the loss itself was not seen; either way there is a leader again.
        "leader_changed" => Meaning::Opens("leader_changed"),
        "leader_returned" => Meaning::Ends("no_leader"),
        "split_brain_confirmed" => Meaning::Opens("split_brain"),
        "split_brain_possible" => Meaning::OpensIfLasting,
        "split_brain_ended" => Meaning::Ends("split_brain"),
        "dcs_quorum_lost" => Meaning::Opens("dcs_quorum"),
        "dcs_quorum_restored" => Meaning::Ends("dcs_quorum"),
        "replica_broken" => Meaning::Opens("replica_broken"),
        "replica_recovered" => Meaning::Ends("replica_broken"),
        "postgres_hung" if event.severity == EventSeverity::Critical => Meaning::Opens("postgres_hung"),
        "postgres_hung_ended" => Meaning::Ends("postgres_hung"),
        // A restart in order is a notice.
        "primary_interrupted" | "primary_restarted_in_place" | "primary_promoted_again"
            if event.severity >= EventSeverity::Warning =>
        {
            Meaning::Happened
        }
        _ if event.source == FROM_LOGS && event.severity >= EventSeverity::Warning => Meaning::Happened,
        _ => Meaning::Joins,
    }
}

/// Conditions of members are told apart by the member.
fn condition(word: &str, event: &Event) -> String {
    match (word, &event.member) {
        ("replica_broken", Some(member)) => format!("{word} {member}"),
        _ => word.to_owned(),
    }
}

pub(super) fn event(
    state: &mut ClusterIncidents,
    event: &Event,
    options: &CorrelatorOptions,
) -> Option<IncidentChange> {
    let opens = match meaning(event) {
        Meaning::Opens("leader_changed") => {
            state.going_on.remove("no_leader");
            true
        }
        Meaning::Opens(word) => state.going_on.insert(condition(word, event)) || state.open.is_none(),
        Meaning::Happened => true,
        Meaning::OpensIfLasting => {
            state.possible_since.get_or_insert(event.time);
            false
        }
        Meaning::Ends(word) => {
            state.going_on.remove(&condition(word, event));
            if word == "split_brain" {
                state.possible_since = None;
            }
            false
        }
        Meaning::Joins => false,
    };
    if let Some(incident) = &mut state.open {
        join(incident, event, options);
        return Some(IncidentChange { kind: IncidentChangeKind::Updated, incident: incident.clone() });
    }
    if opens {
        return Some(open(state, event.time, &Opening::Event(event), options));
    }
    remember(state, event, options);
    None
}

fn remember(state: &mut ClusterIncidents, event: &Event, options: &CorrelatorOptions) {
    state.recent.push_back(event.clone());
    while state.recent.len() > options.recent_max {
        state.recent.pop_front();
    }
}

enum Opening<'a> {
    Event(&'a Event),
    Alert(&'a FiringAlert),
}

impl Opening<'_> {
    fn cluster(&self) -> &str {
        match self {
            Self::Event(event) => &event.cluster,
            Self::Alert(alert) => &alert.cluster,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Event(event) => &event.event,
            Self::Alert(alert) => &alert.name,
        }
    }

    fn severity(&self) -> EventSeverity {
        match self {
            Self::Event(event) => event.severity,
            Self::Alert(alert) => alert.severity,
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::Event(event) => story::subject(event),
            Self::Alert(alert) if alert.summary.is_empty() => format!("alert {} fires", alert.name),
            Self::Alert(alert) => alert.summary.clone(),
        }
    }

    /// Whether it is of the HA cluster, as opposed to an alert about something else.
    fn is_ha(&self) -> bool {
        !matches!(self, Self::Alert(alert) if !alert.part)
    }

    /// Whether it is the same trouble as that of an incident that settled.
    fn continues(&self, settled: &Incident, at: Timestamp, options: &CorrelatorOptions) -> bool {
        let is_soon = settled.settled_at.is_some_and(|ended| at.since(ended) < options.reopen_within);
        let is_over = settled.likely_cause().is_some_and(|cause| !cause.reopens);
        let is_alike = if self.is_ha() {
            settled.is_more_than_its_alert()
        } else {
            settled.opener.as_deref() == Some(self.name())
        };
        is_soon && !is_over && is_alike
    }
}

fn open(
    state: &mut ClusterIncidents,
    at: Timestamp,
    opening: &Opening<'_>,
    options: &CorrelatorOptions,
) -> IncidentChange {
    let (kind, mut incident) = match state.settled.take().filter(|old| opening.continues(old, at, options)) {
        Some(old) => (IncidentChangeKind::Reopened, reopened(old, at, opening, options)),
        None => (IncidentChangeKind::Opened, opened(at, opening)),
    };
    let recent: Vec<_> = state.recent.drain(..).filter(|sign| at.since(sign.time) <= options.look_back).collect();
    let signs = story::signs(&recent);
    let since = match opening {
        Opening::Event(event) => story::since(event),
        Opening::Alert(_) => None,
    };
    // A pause explains much and triggers nothing.
    let troubles = signs.iter().filter(|sign| sign.severity >= EventSeverity::Warning).map(|sign| sign.time);
    let trigger = troubles.chain(since).min().unwrap_or(at);
    phase(&mut incident, PhaseName::Trigger, trigger.min(at));
    phase(&mut incident, PhaseName::Detected, at);
    for sign in &signs {
        join(&mut incident, sign, options);
    }
    match opening {
        Opening::Event(event) => join(&mut incident, event, options),
        Opening::Alert(_) => {}
    }
    state.healthy_since = None;
    state.stable_since = None;
    state.open = Some(incident.clone());
    IncidentChange { kind, incident }
}

fn opened(at: Timestamp, opening: &Opening<'_>) -> Incident {
    let subject = opening.subject();
    Incident {
        id: format!("{}-{}", opening.cluster(), at.millis()),
        cluster: opening.cluster().to_owned(),
        title: subject.clone(),
        subject,
        severity: opening.severity(),
        state: IncidentState::Open,
        opened_at: at,
        settled_at: None,
        causes: Vec::new(),
        verdict: None,
        missing: Vec::new(),
        phases: Vec::new(),
        impact: Impact::default(),
        events: Vec::new(),
        alerts: Vec::new(),
        events_left_out: 0,
        opener: match opening {
            Opening::Event(_) => None,
            Opening::Alert(alert) => Some(alert.name.clone()),
        },
        is_ha: opening.is_ha(),
        reopened: 0,
        reopened_at: Vec::new(),
        handling: Handling::default(),
    }
}

/// The incident that settled, open again, with an event that says so and what was concluded before.
fn reopened(mut incident: Incident, at: Timestamp, opening: &Opening<'_>, options: &CorrelatorOptions) -> Incident {
    let settled_at = incident.settled_at.unwrap_or(at);
    let before = incident.verdict.take().map_or_else(String::new, |verdict| format!("; it was concluded: {verdict}"));
    incident.reopen(at);
    incident.is_ha |= opening.is_ha();
    incident.severity = incident.severity.max(opening.severity());
    // What comes now must find room.
    let surplus = incident.events.len().saturating_sub(options.events_max / 2);
    incident.events.drain(..surplus);
    incident.events_left_out += surplus as u64;
    let seconds = at.since(settled_at).as_secs();
    let event = Event {
        id: format!("{}-reopened-{}", incident.id, incident.reopened),
        time: at,
        cluster: incident.cluster.clone(),
        member: None,
        event: INCIDENT_REOPENED.to_owned(),
        severity: EventSeverity::Notice,
        source: OWN_SOURCE.to_owned(),
        text: format!("the incident is open again, {seconds} s after it settled: {}{before}", opening.subject()),
        fields: BTreeMap::from([
            ("incident".to_owned(), incident.id.clone()),
            ("reopened".to_owned(), incident.reopened.to_string()),
            ("settled_at".to_owned(), settled_at.to_string()),
            ("because".to_owned(), opening.name().to_owned()),
        ]),
    };
    join(&mut incident, &event, options);
    incident
}

/// Adds a phase, once since the incident was opened last.
fn phase(incident: &mut Incident, name: PhaseName, at: Timestamp) {
    let since = incident.reopened_at.last().copied().unwrap_or(Timestamp::MIN);
    if incident.phases.iter().all(|phase| phase.name != name || phase.at < since) {
        incident.phases.push(Phase { name, at });
        incident.phases.sort_by_key(|phase| (phase.at, phase.name));
    }
}

fn join(incident: &mut Incident, event: &Event, options: &CorrelatorOptions) {
    if incident.events.iter().any(|known| known.id == event.id) {
        return;
    }
    let reason = event.fields.get("reason").map(String::as_str);
    match (event.event.as_str(), reason) {
        ("leader_lost", Some("lease_expired")) => phase(incident, PhaseName::LeaseExpired, event.time),
        ("leader_lost", Some("released")) => phase(incident, PhaseName::Released, event.time),
        ("leader_changed" | "leader_returned", _) => phase(incident, PhaseName::LockTaken, event.time),
        ("split_brain_ended", _) if event.fields.get("confirmed").is_some_and(|word| word == "true") => {
            let seconds = event.fields.get("seconds").and_then(|seconds| seconds.parse::<f64>().ok());
            let before = incident.impact.split_brain_seconds.unwrap_or(0.0);
            incident.impact.split_brain_seconds = seconds.map(|seconds| seconds + before);
        }
        ("writes_resumed", _) => outage_measured(incident, event),
        ("client_writes_resumed", _) => client_outage_measured(incident, event),
        ("leader_change_measured", _) => wal_measured(&mut incident.impact, event),
        _ => {}
    }
    incident.severity = incident.severity.max(event.severity);
    if incident.events.len() < options.events_max {
        incident.events.push(event.clone());
    } else {
        incident.events_left_out += 1;
    }
    incident.title = story::title(incident);
}

fn number<T: std::str::FromStr>(event: &Event, name: &str) -> Option<T> {
    event.fields.get(name)?.parse().ok()
}

/// WAL is a better witness than our looks at who takes writes: it replaces them.
fn outage_measured(incident: &mut Incident, event: &Event) {
    phase(incident, PhaseName::FirstWrite, event.time);
    let impact = &mut incident.impact;
    let (Some(seconds), Some(error)) =
        (number::<f64>(event, "write_outage_seconds"), number::<f64>(event, "write_outage_error_seconds"))
    else {
        return;
    };
    let measured = impact.write_outage_error_seconds.unwrap_or(0.0);
    let before = impact.write_outage_seconds.filter(|_| measured > 0.0).unwrap_or(0.0);
    impact.write_outage_seconds = Some(before + seconds);
    impact.write_outage_error_seconds = Some(measured + error);
}

/// Outages of one address add up; of several addresses the worst counts.
fn client_outage_measured(incident: &mut Incident, event: &Event) {
    let of = |event: &Event| {
        Some((number::<f64>(event, "client_outage_seconds")?, number::<f64>(event, "client_outage_error_seconds")?))
    };
    let address = event.fields.get("address");
    let told = incident.events.iter().filter(|told| told.event == event.event && told.fields.get("address") == address);
    let sum = |(seconds, error): (f64, f64), (more, wrong): (f64, f64)| (seconds + more, error + wrong);
    let (seconds, error) = told.chain([event]).filter_map(of).fold((0.0, 0.0), sum);
    let impact = &mut incident.impact;
    if seconds > impact.client_outage_seconds.unwrap_or(0.0) {
        impact.client_outage_seconds = Some(seconds);
        impact.client_outage_error_seconds = Some(error);
    }
}

fn wal_measured(impact: &mut Impact, event: &Event) {
    let Some(bytes) = number::<u64>(event, "lost_wal_bytes") else { return };
    impact.lost_wal_bytes = Some(impact.lost_wal_bytes.unwrap_or(0).saturating_add(bytes));
    let range = event.fields.get("switch_lsn").zip(event.fields.get("old_leader_last_lsn"));
    if let Some((from, to)) = range.filter(|_| bytes > 0) {
        impact.lost_wal = Some(format!("{from}..{to}"));
    }
}

/// Brings the incident's alerts up to date. Warnings belong to it when they began with it; critical ones always do.
fn join_alerts(incident: &mut Incident, firing: &[&FiringAlert], now: Timestamp, options: &CorrelatorOptions) {
    for known in incident.alerts.iter_mut().filter(|known| known.resolved_at.is_none()) {
        if firing.iter().all(|alert| alert.name != known.name) {
            known.resolved_at = Some(now);
        }
    }
    let begin = incident.opened_at - options.look_back;
    for alert in firing.iter().filter(|alert| alert.severity == EventSeverity::Critical || alert.since >= begin) {
        let is_known = incident.alerts.iter().any(|known| known.name == alert.name && known.resolved_at.is_none());
        if !is_known && incident.alerts.len() < options.events_max {
            incident.severity = incident.severity.max(alert.severity);
            incident.alerts.push(IncidentAlert {
                name: alert.name.clone(),
                severity: alert.severity,
                firing_since: alert.since,
                resolved_at: None,
            });
        }
    }
}

/// All alerts of the cluster that fire now.
pub(super) fn alerts(
    state: &mut ClusterIncidents,
    firing: &[&FiringAlert],
    now: Timestamp,
    options: &CorrelatorOptions,
) -> Option<IncidentChange> {
    let critical = || firing.iter().filter(|alert| alert.severity == EventSeverity::Critical);
    let new = critical().find(|alert| !state.critical_alerts.contains(&alert.name));
    state.critical_alerts = critical().map(|alert| alert.name.clone()).collect();
    let mut kind = IncidentChangeKind::Updated;
    if let Some(new) = new.filter(|_| state.open.is_none()) {
        kind = open(state, now, &Opening::Alert(new), options).kind;
    }
    let incident = state.open.as_mut()?;
    let before = incident.alerts.clone();
    join_alerts(incident, firing, now, options);
    let changed = before != incident.alerts;
    changed.then(|| IncidentChange { kind, incident: incident.clone() })
}

pub(super) fn belief(
    state: &mut ClusterIncidents,
    cluster: &Cluster,
    now: Timestamp,
    options: &CorrelatorOptions,
) -> Option<IncidentChange> {
    let outage = outage(state, cluster, now);
    if state.open.is_none() {
        let over = |old: &mut Incident| old.settled_at.is_none_or(|at| now.since(at) >= options.reopen_within);
        drop(state.settled.take_if(over));
        let possible = state.possible_since.is_some_and(|since| now.since(since) >= options.possible_hold);
        let raised = state.recent.iter().rfind(|event| event.event == "split_brain_possible").cloned();
        let (true, Some(raised)) = (possible, raised) else { return None };
        state.recent.retain(|event| event.id != raised.id);
        return Some(open(state, raised.time, &Opening::Event(&raised), options));
    }
    settle_times(state, cluster, now);
    let lasted = |since: Option<Timestamp>, after| since.is_some_and(|since| now.since(since) >= after);
    let settled =
        lasted(state.healthy_since, options.settle_after) || lasted(state.stable_since, options.settle_degraded_after);
    let incident = state.open.as_mut()?;
    let before = (incident.phases.clone(), incident.impact.clone());
    progress(incident, cluster, now, outage);
    let changed = before != (incident.phases.clone(), incident.impact.clone());
    if !settled {
        return changed.then(|| IncidentChange { kind: IncidentChangeKind::Updated, incident: incident.clone() });
    }
    settle(state, now)
}

/// The cluster is not judged: nothing but alerts is known about it, and their end is the end.
pub(super) fn without_belief(
    state: &mut ClusterIncidents,
    now: Timestamp,
    options: &CorrelatorOptions,
) -> Option<IncidentChange> {
    let quiet = state.critical_alerts.is_empty();
    state.healthy_since = quiet.then(|| state.healthy_since.unwrap_or(now));
    let settled = state.healthy_since.is_some_and(|since| now.since(since) >= options.settle_after);
    if settled { settle(state, now) } else { None }
}

fn settle(state: &mut ClusterIncidents, now: Timestamp) -> Option<IncidentChange> {
    let mut incident = state.open.take()?;
    incident.state = IncidentState::Settled;
    incident.settled_at = Some(now);
    state.settled = Some(incident.clone());
    state.going_on.clear();
    state.healthy_since = None;
    state.stable_since = None;
    Some(IncidentChange { kind: IncidentChangeKind::Settled, incident })
}

/// Keeps since when the cluster has been healthy, and since when at least stable.
fn settle_times(state: &mut ClusterIncidents, cluster: &Cluster, now: Timestamp) {
    let quiet = state.critical_alerts.is_empty();
    let confirmed = cluster.split_brain.as_ref().is_some_and(|split| split.state == SplitBrainState::Confirmed);
    let healthy = quiet && cluster.health == Health::Ok;
    let leads = cluster.leader.as_ref().is_some_and(|leader| {
        cluster.writable.contains(leader)
            || cluster.members.iter().any(|member| member.name == *leader && member.role == Role::StandbyLeader)
    });
    let stable = quiet && !confirmed && leads && state.going_on.is_empty() && cluster.health != Health::Critical;
    state.healthy_since = healthy.then(|| state.healthy_since.unwrap_or(now));
    state.stable_since = stable.then(|| state.stable_since.unwrap_or(now));
}

/// Seconds from the last belief with a writable member to this one, when beliefs in between showed none. Beliefs in which
/// nothing at all is known count for nothing: then it is us who cannot see.
fn outage(state: &mut ClusterIncidents, cluster: &Cluster, now: Timestamp) -> Option<f64> {
    if cluster.writable.is_empty() {
        let known = cluster.members.iter().any(|member| member.writable == Some(false));
        if let Some(written_at) = state.written_at.filter(|_| known) {
            state.dark_since.get_or_insert(written_at);
        }
        return None;
    }
    state.written_at = Some(now);
    state.dark_since.take().map(|since| now.since(since).as_secs_f64())
}

/// Phases and impact that only the belief shows.
fn progress(incident: &mut Incident, cluster: &Cluster, now: Timestamp, outage: Option<f64>) {
    let since = incident.reopened_at.last().copied().unwrap_or(Timestamp::MIN);
    let taken = incident.phases.iter().any(|phase| phase.name == PhaseName::LockTaken && phase.at >= since);
    let leader = cluster.leader.as_ref().filter(|leader| cluster.writable.contains(leader));
    if let Some(leader) = leader.filter(|_| taken) {
        phase(incident, PhaseName::Promoted, now);
        // From the new leader, on its timeline: for a moment all still stream from the old one. A member that has left
        // counts too until it is forgotten: it is the last to return.
        let follows = |member: &Member| {
            member.state == "streaming"
                && member.timeline == cluster.timeline
                && member.upstream.as_ref().is_none_or(|upstream| upstream == leader)
        };
        let mut others = cluster.members.iter().filter(|member| member.name != *leader).peekable();
        if others.peek().is_some() && others.all(follows) {
            phase(incident, PhaseName::LastReplicaStreaming, now);
        }
    }
    if let Some(seconds) = outage.filter(|_| incident.impact.write_outage_error_seconds.is_none()) {
        *incident.impact.write_outage_seconds.get_or_insert(0.0) += seconds;
    }
}
