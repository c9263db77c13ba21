//! Everything that is asked, and how that went: the page "Targets".
//!
//! Invariant: a target stays listed while it is expected, whatever it answers, so that absence is visible.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::collect::poll::target_labels;
use crate::model::{Labels, Timestamp};
use crate::platform::http_client::redact;
use crate::wire;

/// The source of targets that are agents.
const AGENT: &str = "agent";
/// The label `job` of their `up`; `instance` is the member, since their address may change.
pub const AGENT_JOB: &str = "daraji_agent";
/// Agents say at least every ten seconds that they live.
const AGENT_SILENT_AFTER: Duration = Duration::from_secs(30);
/// An agent that is silent for so long was taken away; until then it is missing.
const AGENT_FORGOTTEN_AFTER: Duration = Duration::from_hours(24);
/// Agents listed at most: more than a server holds, less than a stranger with a token could name.
const AGENTS_MAX: usize = 10_000;

/// Identity of a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetKey {
    pub cluster: String,
    /// Empty where no member is meant.
    pub member: String,
    /// `rest`, `sql`, `statistics`, `dcs`, `etcd`, `haproxy`, `pgbouncer`, `discovery`, `scrape`, `host`.
    pub source: &'static str,
    /// Without a password.
    pub url: String,
}

impl TargetKey {
    pub fn new(cluster: &str, member: &str, source: &'static str, url: &str) -> Self {
        Self { cluster: cluster.to_owned(), member: member.to_owned(), source, url: redact(url) }
    }
}

/// What is known of a target, as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetStatus {
    pub cluster: Option<String>,
    pub member: Option<String>,
    pub source: &'static str,
    pub url: String,
    /// `None` until the first attempt has ended.
    pub up: Option<bool>,
    pub last_ok_at: Option<Timestamp>,
    pub last_try_at: Option<Timestamp>,
    pub duration_ms: Option<f64>,
    /// The whole chain of the last failure, or what is missing although the target answers.
    pub error: Option<String>,
    /// What to do about it.
    pub error_hint: Option<String>,
    pub interval_seconds: f64,
    /// After this time an attempt has failed.
    #[serde(skip)]
    pub deadline_seconds: f64,
    /// Labels of its `up` series.
    #[serde(skip)]
    pub labels: Labels,
    /// Filled in for agents by whoever knows them.
    pub agent: Option<AgentStatus>,
}

/// What an agent says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentStatus {
    pub version: String,
    pub spool_bytes: u64,
}

/// How a target is asked, and the labels of its `up` series.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) interval: Duration,
    pub(crate) deadline: Duration,
    pub(crate) labels: Labels,
}

/// An agent, as it is remembered over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAgent {
    pub cluster: String,
    pub member: String,
    /// Where its last push came from.
    pub address: String,
    pub last_ok_at: Timestamp,
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attempt {
    pub(crate) up: bool,
    pub(crate) at: Timestamp,
    pub(crate) duration: Duration,
    pub(crate) error: Option<String>,
    pub(crate) hint: Option<String>,
}

/// The list of targets. Cheap to clone; clones are one list.
#[derive(Clone, Debug, Default)]
pub struct Targets(Arc<Mutex<BTreeMap<TargetKey, TargetStatus>>>);

impl Targets {
    /// All targets, by cluster, member and source.
    pub fn snapshot(&self) -> Vec<TargetStatus> {
        self.0.lock().values().cloned().collect()
    }

    /// Lists a target before it was asked.
    pub(crate) fn expect(&self, key: &TargetKey, schedule: Schedule) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let status = TargetStatus {
            cluster: some(&key.cluster),
            member: some(&key.member),
            source: key.source,
            url: key.url.clone(),
            up: None,
            last_ok_at: None,
            last_try_at: None,
            duration_ms: None,
            error: None,
            error_hint: None,
            interval_seconds: schedule.interval.as_secs_f64(),
            deadline_seconds: schedule.deadline.as_secs_f64(),
            labels: schedule.labels,
            agent: None,
        };
        self.0.lock().entry(key.clone()).or_insert(status);
    }

    /// Notes an attempt. Returns what is worth a line in the log: a change of state or of the error's kind.
    pub(crate) fn record(&self, key: &TargetKey, attempt: Attempt) -> Option<Change> {
        let mut targets = self.0.lock();
        let status = targets.get_mut(key)?;
        let change = match (status.up, attempt.up, status.error.is_some() != attempt.error.is_some()) {
            (Some(false) | None, true, _) => Some(Change::Up),
            (Some(true) | None, false, _) => Some(Change::Down),
            (Some(true), true, true) => Some(Change::Partly),
            _ => None,
        };
        status.up = Some(attempt.up);
        status.last_try_at = Some(attempt.at);
        if attempt.up {
            status.last_ok_at = Some(attempt.at);
        }
        status.duration_ms = Some((attempt.duration.as_secs_f64() * 1e6).round() / 1e3);
        status.error = attempt.error;
        status.error_hint = attempt.hint;
        change
    }

    /// Notes that an agent pushed. Agents are found, not configured: the first push lists one. An agent is its member's,
    /// wherever it pushes from. `None` when there are too many to list it.
    pub fn heard_agent(&self, push: &wire::agent::Push, address: &str, now: Timestamp) -> Option<TargetKey> {
        let key = TargetKey::new(&push.cluster, &push.member, AGENT, "");
        if !self.expect_agent(&key) {
            return None;
        }
        if let Some(target) = self.0.lock().get_mut(&key) {
            address.clone_into(&mut target.url);
            target.up = Some(true);
            target.last_ok_at = Some(now);
            target.last_try_at = Some(now);
            target.error_hint = None;
            if let Some(status) = &push.status {
                let of_files = status
                    .files
                    .iter()
                    .filter_map(|file| file.error.as_ref().map(|error| format!("{}: {error}", file.path)));
                let problems: Vec<String> = of_files.chain(status.errors.iter().cloned()).collect();
                target.error = (!problems.is_empty()).then(|| problems.join("; "));
                target.agent = Some(AgentStatus { version: status.version.clone(), spool_bytes: status.spool_bytes });
            }
        }
        Some(key)
    }

    /// False when there is no room for one more.
    fn expect_agent(&self, key: &TargetKey) -> bool {
        let is_too_much = {
            let targets = self.0.lock();
            !targets.contains_key(key) && targets.keys().filter(|key| key.source == AGENT).count() >= AGENTS_MAX
        };
        if !is_too_much {
            let labels = target_labels(&key.cluster, &key.member, &key.member, AGENT_JOB);
            self.expect(key, Schedule { interval: AGENT_SILENT_AFTER / 3, deadline: AGENT_SILENT_AFTER, labels });
        }
        !is_too_much
    }

    /// Lists agents of a former run. They are given time to push before they are called silent.
    pub fn remember_agents(&self, agents: Vec<KnownAgent>, now: Timestamp) {
        for agent in agents {
            let key = TargetKey::new(&agent.cluster, &agent.member, AGENT, "");
            if self.expect_agent(&key)
                && let Some(target) = self.0.lock().get_mut(&key)
            {
                target.url = agent.address;
                target.last_ok_at = Some(agent.last_ok_at);
                target.last_try_at = Some(now);
            }
        }
    }

    /// The agents that are listed.
    pub fn known_agents(&self) -> Vec<KnownAgent> {
        let targets = self.0.lock();
        let agents = targets.iter().filter(|(key, _)| key.source == AGENT);
        let known = |(key, target): (&TargetKey, &TargetStatus)| {
            let (cluster, member) = (key.cluster.clone(), key.member.clone());
            Some(KnownAgent { cluster, member, address: target.url.clone(), last_ok_at: target.last_ok_at? })
        };
        agents.filter_map(known).collect()
    }

    /// Marks agents as down that have not pushed for too long, and returns them. Those that are gone for long are forgotten.
    pub fn silent_agents(&self, now: Timestamp) -> Vec<TargetKey> {
        let mut silent = Vec::new();
        let mut targets = self.0.lock();
        targets.retain(|key, target| {
            key.source != AGENT || target.last_ok_at.is_none_or(|at| now.since(at) < AGENT_FORGOTTEN_AFTER)
        });
        for (key, target) in targets.iter_mut().filter(|(key, _)| key.source == AGENT) {
            if target.last_ok_at.max(target.last_try_at).is_none_or(|at| now.since(at) > AGENT_SILENT_AFTER) {
                target.up = Some(false);
                target.error = Some("the agent has not pushed".to_owned());
                target.error_hint = Some("look at the agent's own log on that host".to_owned());
                silent.push(key.clone());
            }
        }
        silent
    }

    /// Takes a target off the list.
    pub(crate) fn forget(&self, key: &TargetKey) {
        self.0.lock().remove(key);
    }
}

/// A change of a target's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Up,
    Down,
    /// It still answers, but something began or ceased to be missing.
    Partly,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(up: bool, error: Option<&str>) -> Attempt {
        Attempt {
            up,
            at: Timestamp::from_secs(5),
            duration: Duration::from_millis(12),
            error: error.map(str::to_owned),
            hint: None,
        }
    }

    #[test]
    fn only_changes_are_worth_a_line() {
        let targets = Targets::default();
        let key = TargetKey::new("main", "n1", "sql", "postgres://daraji:secret@10.0.0.1:5432");
        let (interval, deadline) = (Duration::from_secs(2), Duration::from_secs(1));
        targets.expect(&key, Schedule { interval, deadline, labels: Labels::default() });
        assert_eq!(targets.snapshot()[0].up, None);
        for (up, error, change) in [
            (false, Some("refused"), Some(Change::Down)),
            (false, Some("timeout"), None),
            (true, None, Some(Change::Up)),
            (true, None, None),
            (true, Some("no rights on pg_stat_wal"), Some(Change::Partly)),
            (false, Some("refused"), Some(Change::Down)),
        ] {
            assert_eq!(targets.record(&key, attempt(up, error)), change, "{up} {error:?}");
        }
        let status = targets.snapshot().remove(0);
        assert_eq!(status.up, Some(false));
        assert_eq!(status.last_ok_at, Some(Timestamp::from_secs(5)));
        assert_eq!(status.duration_ms, Some(12.0));
        assert!(!status.url.contains("secret"), "{}", status.url);
        targets.forget(&key);
        assert_eq!(targets.record(&key, attempt(true, None)), None);
        assert!(targets.snapshot().is_empty());
    }

    fn push(member: &str) -> wire::agent::Push {
        wire::agent::Push { cluster: "main".to_owned(), member: member.to_owned(), ..wire::agent::Push::default() }
    }

    fn agents(targets: &Targets) -> Vec<(String, String, Option<bool>)> {
        let agents = targets.snapshot().into_iter().filter(|target| target.source == AGENT);
        agents.map(|target| (target.member.unwrap_or_default(), target.url, target.up)).collect()
    }

    #[test]
    fn an_agent_is_its_members_and_missing_until_it_is_gone_for_a_day() {
        let targets = Targets::default();
        let at = |seconds: i64| Timestamp::from_secs(1_764_000_000 + seconds);
        let row = |member: &str, address: &str, up: Option<bool>| (member.to_owned(), address.to_owned(), up);
        targets.heard_agent(&push("n1"), "10.0.0.1", at(0)).unwrap();
        targets.heard_agent(&push("n2"), "10.0.0.2", at(0)).unwrap();
        targets.heard_agent(&push("n1"), "10.0.0.9", at(20)).unwrap();
        assert_eq!(targets.silent_agents(at(35)).len(), 1);
        let expected = [row("n1", "10.0.0.9", Some(true)), row("n2", "10.0.0.2", Some(false))];
        assert_eq!(agents(&targets), expected, "another address is no other agent");

        let known = serde_json::to_string(&targets.known_agents()).unwrap();
        let restarted = Targets::default();
        restarted.remember_agents(serde_json::from_str(&known).unwrap(), at(100));
        assert_eq!(restarted.silent_agents(at(110)), [], "they have had no time to push yet");
        restarted.heard_agent(&push("n1"), "10.0.0.9", at(111)).unwrap();
        assert_eq!(restarted.silent_agents(at(140)).len(), 1);
        assert_eq!(agents(&restarted), expected, "who is missing stays named");
        assert_eq!(restarted.silent_agents(at(86_400)).len(), 1);
        assert_eq!(agents(&restarted), [row("n1", "10.0.0.9", Some(false))]);
    }

    #[test]
    fn agents_are_bounded() {
        let targets = Targets::default();
        let now = Timestamp::from_secs(5);
        let heard = |n: usize| targets.heard_agent(&push(&format!("m{n}")), "10.0.0.1", now).is_some();
        assert!((0..AGENTS_MAX).all(heard));
        assert!(!heard(AGENTS_MAX) && heard(0));
    }
}
