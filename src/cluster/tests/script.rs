//! A cluster of three whose sources answer as told, probed as the collectors would, on a clock that the test moves.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::{Judge, JudgeOptions};
use crate::model::cluster::Cluster;
use crate::model::observation::{
    Claim, ClusterView, ClusterViewMember, DcsChange, DcsHealth, DcsKey, DcsSnapshot, Failure, FailureKind,
    LeaseStatus, MemberAddress, PatroniStatus, PostgresStatus, Source, WalReceiver, WalSender,
};
use crate::model::{Event, Lsn, Observation, Timestamp};

pub(super) const NAMES: [&str; 3] = ["n1", "n2", "n3"];
const ETCD: [&str; 3] = ["http://e1:2379", "http://e2:2379", "http://e3:2379"];
const STEP: Duration = Duration::from_millis(100);

/// What PostgreSQL of a member is.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) primary: bool,
    pub(super) timeline: u32,
    /// Streams from this member.
    pub(super) upstream: Option<String>,
    pub(super) replay_blocked: bool,
    /// It runs and its receiver does not: positions stand still.
    pub(super) broken: bool,
    pub(super) started: i64,
    /// As the cumulative statistics count them.
    pub(super) commits: u64,
    lsn: u64,
    replay: u64,
}

pub(super) fn primary(timeline: u32) -> Node {
    Node {
        primary: true,
        timeline,
        upstream: None,
        replay_blocked: false,
        broken: false,
        started: 0,
        commits: 1_000,
        lsn: 0,
        replay: 0,
    }
}

pub(super) fn replica(upstream: &str, timeline: u32) -> Node {
    Node { primary: false, upstream: Some(upstream.to_owned()), ..primary(timeline) }
}

/// How a source fails.
#[derive(Clone, Debug)]
pub(super) struct Fails(pub(super) FailureKind, pub(super) &'static str);

#[derive(Debug)]
pub(super) struct Script {
    pub(super) judge: Judge,
    pub(super) now: Timestamp,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) rest_fails: BTreeMap<String, Fails>,
    pub(super) sql_fails: BTreeMap<String, Fails>,
    /// Changes to what Patroni would say.
    pub(super) patroni: BTreeMap<String, PatroniStatus>,
    pub(super) keys: BTreeMap<String, DcsKey>,
    pub(super) revision: i64,
    pub(super) dcs_fails: Option<Fails>,
    pub(super) etcd_fails: BTreeMap<String, Fails>,
    pub(super) etcd_unhealthy: Vec<String>,
    pub(super) lease_ttl: i64,
    /// Only Patroni's REST API and PostgreSQL are asked.
    pub(super) without_dcs: bool,
    /// Seconds that the clock of a host is ahead.
    pub(super) clock_ahead: BTreeMap<String, f64>,
    /// `recovery_min_apply_delay`.
    pub(super) apply_delay: BTreeMap<String, f64>,
    /// Bytes of WAL that each primary writes in a step.
    pub(super) wal_step: u64,
    pub(super) events: Vec<Event>,
    taken: usize,
    steps: u64,
    /// Members whose SQL is asked every step.
    pub(super) probe_steps: u64,
}

impl Script {
    /// n1 leads, n2 and n3 stream; light load.
    pub(super) fn healthy() -> Self {
        let mut script = Self::new();
        script.snapshot();
        script
    }

    /// The same after a while: what the first looks tell is taken.
    pub(super) fn settled() -> Self {
        let mut script = Self::healthy();
        script.run(12.0);
        script.take();
        script
    }

    /// The same, with only `--patroni` given.
    pub(super) fn healthy_without_dcs() -> Self {
        Self { without_dcs: true, ..Self::new() }
    }

    fn new() -> Self {
        let start = Timestamp::from_secs(1_800_000_000);
        let mut script = Self {
            judge: Judge::new(JudgeOptions::default()),
            now: start,
            nodes: BTreeMap::new(),
            rest_fails: BTreeMap::new(),
            sql_fails: BTreeMap::new(),
            patroni: BTreeMap::new(),
            keys: BTreeMap::new(),
            revision: 100,
            dcs_fails: None,
            etcd_fails: BTreeMap::new(),
            etcd_unhealthy: Vec::new(),
            lease_ttl: 25,
            without_dcs: false,
            clock_ahead: BTreeMap::new(),
            apply_delay: BTreeMap::new(),
            wal_step: 1_000,
            events: Vec::new(),
            taken: 0,
            steps: 0,
            probe_steps: 20,
        };
        script.set("n1", primary(1));
        script.set("n2", replica("n1", 1));
        script.set("n3", replica("n1", 1));
        for (key, value) in [
            ("leader", "n1"),
            ("config", r#"{"ttl":30,"loop_wait":10,"retry_timeout":10,"maximum_lag_on_failover":1048576}"#),
            ("initialize", "7711237130361182642"),
            ("failover", "{}"),
            ("members/n1", r#"{"state":"running","role":"primary","timeline":1,"version":"4.1.5"}"#),
            ("members/n2", r#"{"state":"running","role":"replica","timeline":1,"version":"4.1.5"}"#),
            ("members/n3", r#"{"state":"running","role":"replica","timeline":1,"version":"4.1.5"}"#),
        ] {
            let key = script.key(key, value);
            script.keys.insert(key.key.clone(), key);
        }
        script.members();
        script
    }

    pub(super) fn members(&mut self) {
        let address = |name: &str| MemberAddress {
            member: name.to_owned(),
            host: format!("host-{name}"),
            port: 5432,
            rest_url: Some(format!("http://host-{name}:8008")),
            present: true,
        };
        let list = NAMES.iter().map(|name| address(name)).collect();
        self.observe(Source::Dcs, Claim::Members(list));
    }

    pub(super) fn key(&self, key: &str, value: &str) -> DcsKey {
        let created = self.keys.get(key).map_or(self.revision, |key| key.create_revision);
        DcsKey {
            key: key.to_owned(),
            value: value.to_owned(),
            mod_revision: self.revision,
            create_revision: created,
            lease: 0,
        }
    }

    pub(super) fn snapshot(&mut self) {
        let keys = self.keys.values().cloned().collect();
        self.observe(Source::Dcs, Claim::DcsSnapshot(DcsSnapshot { revision: self.revision, keys }));
    }

    pub(super) fn observe(&mut self, source: Source, claim: Claim) {
        let took = Duration::from_millis(5);
        let observation =
            Observation { cluster: "demo".to_owned(), source, sent: self.now - took, received: self.now, claim };
        self.events.extend(self.judge.observe(&observation));
    }

    pub(super) fn set(&mut self, name: &str, node: Node) {
        let before = self.nodes.get(name);
        let (lsn, replay, started) =
            before.map_or((0x300_0000, 0x300_0000, 0), |node| (node.lsn, node.replay, node.started));
        // A primary that becomes a replica is restarted; a promoted one keeps its postmaster.
        let restarted = before.is_some_and(|before| before.primary && !node.primary);
        let started = if restarted { started + 100 } else { started };
        self.sql_fails.remove(name);
        self.nodes.insert(name.to_owned(), Node { started, lsn, replay, ..node });
    }

    /// All members are made anew under their names: positions start over, with other postmasters.
    pub(super) fn start_over(&mut self) {
        for node in self.nodes.values_mut() {
            (node.lsn, node.replay) = (0x300_0000, 0x300_0000);
            node.started += 1_000;
        }
    }

    pub(super) fn refuse_rest(&mut self, name: &str) {
        self.rest_fails.insert(name.to_owned(), Fails(FailureKind::Refused, "connection refused"));
    }

    pub(super) fn answer_rest(&mut self, name: &str) {
        self.rest_fails.remove(name);
    }

    pub(super) fn refuse_sql(&mut self, name: &str) {
        self.sql_fails.insert(name.to_owned(), Fails(FailureKind::Refused, "connection refused"));
    }

    /// Nobody but Daraji restarts: it remembers what it kept.
    pub(super) fn restart(&mut self) {
        let kept = serde_json::to_string(&self.judge.memory()).unwrap();
        self.judge = Judge::restore(JudgeOptions::default(), serde_json::from_str(&kept).unwrap());
    }

    pub(super) fn fail_sql(&mut self, name: &str, kind: FailureKind, error: &'static str) {
        self.sql_fails.insert(name.to_owned(), Fails(kind, error));
    }

    pub(super) fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).unwrap()
    }

    pub(super) fn fail_etcd(&mut self, member: usize, kind: FailureKind) {
        self.etcd_fails.insert(ETCD[member].to_owned(), Fails(kind, "no answer"));
    }

    pub(super) fn etcd_says_no_leader(&mut self, member: usize) {
        self.etcd_unhealthy.push(ETCD[member].to_owned());
    }

    pub(super) fn heal_etcd(&mut self) {
        self.etcd_fails.clear();
        self.etcd_unhealthy.clear();
        self.dcs_fails = None;
    }

    /// All of the host is silent.
    pub(super) fn lose_host(&mut self, name: &str) {
        let silent = Fails(FailureKind::Unreachable, "connect: no answer");
        self.rest_fails.insert(name.to_owned(), silent.clone());
        self.sql_fails.insert(name.to_owned(), silent);
    }

    pub(super) fn change(&mut self, puts: Vec<(&str, &str)>, deletes: &[&str]) {
        self.revision += 1;
        let puts: Vec<_> = puts.into_iter().map(|(key, value)| self.key(key, value)).collect();
        for key in deletes {
            self.keys.remove(*key);
        }
        for key in &puts {
            self.keys.insert(key.key.clone(), key.clone());
        }
        let deletes = deletes.iter().map(|key| (*key).to_owned()).collect();
        if self.without_dcs {
            return;
        }
        self.observe(Source::Dcs, Claim::DcsChange(DcsChange { revision: self.revision, puts, deletes }));
    }

    pub(super) fn put(&mut self, key: &str, value: &str) {
        self.change(vec![(key, value)], &[]);
    }

    pub(super) fn expire(&mut self, name: &str) {
        self.change(Vec::new(), &["leader", &format!("members/{name}")]);
    }

    pub(super) fn release(&mut self) {
        self.change(Vec::new(), &["leader"]);
    }

    pub(super) fn acquire(&mut self, name: &str) {
        self.change(vec![("leader", name)], &[]);
        self.lease_ttl = 30;
    }

    pub(super) fn cluster(&self) -> Cluster {
        self.judge.cluster("demo", self.now).unwrap()
    }

    fn words(events: &[Event]) -> Vec<String> {
        let word = |event: &Event| match &event.member {
            Some(member) => format!("{} {member}", event.event),
            None => event.event.clone(),
        };
        events.iter().map(word).collect()
    }

    /// Everything said so far.
    pub(super) fn told(&self) -> Vec<String> {
        Self::words(&self.events)
    }

    /// What was said since the last call.
    pub(super) fn take(&mut self) -> Vec<String> {
        let words = Self::words(&self.events[self.taken..]);
        self.taken = self.events.len();
        words
    }

    pub(super) fn event(&self, name: &str) -> &Event {
        self.events.iter().find(|event| event.event == name).unwrap_or_else(|| panic!("no {name} in {:?}", self.told()))
    }

    /// Lets time pass: writes, replicates, probes, ticks.
    pub(super) fn run(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now = self.now + STEP;
            self.steps += 1;
            self.write();
            let fast = self.judge.wants_fast_probe("demo", self.now);
            for (index, name) in NAMES.iter().enumerate() {
                let every = if fast { 4 } else { self.probe_steps };
                if (self.steps + index as u64 * 3).is_multiple_of(every) {
                    self.ask_sql(name);
                }
                if (self.steps + index as u64 * 5).is_multiple_of(20) {
                    self.ask_rest(name);
                }
            }
            if self.steps.is_multiple_of(10) && !self.without_dcs {
                self.ask_dcs();
            }
            if self.steps.is_multiple_of(20) && !self.without_dcs {
                self.ask_etcd();
            }
            if self.steps.is_multiple_of(20) && self.without_dcs {
                self.ask_view();
            }
            if self.steps.is_multiple_of(3) {
                self.events.extend(self.judge.tick(self.now));
            }
        }
    }

    fn write(&mut self) {
        let step = self.wal_step;
        for name in NAMES {
            if let Some(node) = self.nodes.get_mut(name).filter(|node| node.primary) {
                node.lsn += step;
                node.replay = node.lsn;
            }
        }
        for name in NAMES {
            let from = self.nodes.get(name).and_then(|node| node.upstream.clone());
            let Some(lsn) = from.and_then(|from| self.nodes.get(&from)).map(|node| node.lsn) else { continue };
            if let Some(node) = self.nodes.get_mut(name).filter(|node| !node.primary && !node.broken) {
                node.lsn = lsn;
                if !node.replay_blocked {
                    node.replay = lsn;
                }
            }
        }
    }

    fn failure(fails: &Fails) -> Claim {
        Claim::Failed(Failure { kind: fails.0, error: fails.1.to_owned() })
    }

    pub(super) fn ask_sql(&mut self, name: &str) {
        let claim = match self.sql_fails.get(name) {
            Some(fails) => Self::failure(fails),
            None => Claim::Postgres(self.postgres(name)),
        };
        self.observe(Source::Sql { member: name.to_owned() }, claim);
    }

    fn start_time(&self, name: &str) -> Timestamp {
        Timestamp::from_secs(1_799_000_000 + self.nodes[name].started)
    }

    pub(super) fn postgres(&self, name: &str) -> PostgresStatus {
        let node = &self.nodes[name];
        let sender = |(name, other): (&String, &Node)| WalSender {
            application_name: name.clone(),
            state: "streaming".to_owned(),
            sync_state: "async".to_owned(),
            replay_lsn: Some(Lsn(other.replay)),
            ..WalSender::default()
        };
        let receiver = node.upstream.as_ref().filter(|_| !node.broken).map(|upstream| WalReceiver {
            status: "streaming".to_owned(),
            received_timeline: Some(node.timeline),
            sender_host: Some(format!("host-{upstream}")),
            sender_port: Some(5432),
            ..WalReceiver::default()
        });
        let followers = self.nodes.iter().filter(|(_, other)| other.upstream.as_deref() == Some(name) && !other.broken);
        PostgresStatus {
            in_recovery: !node.primary,
            timeline: Some(node.timeline),
            current_lsn: node.primary.then_some(Lsn(node.lsn)),
            receive_lsn: (!node.primary).then_some(Lsn(node.lsn)),
            replay_lsn: (!node.primary).then_some(Lsn(node.replay)),
            postmaster_start_time: Some(self.start_time(name)),
            system_identifier: Some("7711237130361182642".to_owned()),
            server_version: Some(150_018),
            receiver,
            senders: followers.map(sender).collect(),
            server_now: Some(self.now.shifted(self.clock_ahead.get(name).copied().unwrap_or(0.0) - 0.0025)),
            apply_delay_seconds: self.apply_delay.get(name).copied(),
            connections: Some(8),
            commits: Some(node.commits),
            ..PostgresStatus::default()
        }
    }

    fn ask_rest(&mut self, name: &str) {
        let claim = match (self.rest_fails.get(name), self.patroni.get(name)) {
            (Some(fails), _) => Self::failure(fails),
            (None, Some(status)) => Claim::Patroni(status.clone()),
            (None, None) => Claim::Patroni(self.patroni_status(name)),
        };
        self.observe(Source::Rest { member: name.to_owned() }, claim);
    }

    /// What Patroni of this member would say by itself.
    pub(super) fn patroni_status(&self, name: &str) -> PatroniStatus {
        let node = &self.nodes[name];
        let up = !self.sql_fails.contains_key(name);
        PatroniStatus {
            state: if up { "running" } else { "stopped" }.to_owned(),
            role: if node.primary { "primary" } else { "replica" }.to_owned(),
            timeline: Some(node.timeline),
            location: (node.primary && up).then_some(Lsn(node.lsn)),
            received_location: (!node.primary && up).then_some(Lsn(node.lsn)),
            replayed_location: (!node.primary && up).then_some(Lsn(node.replay)),
            replication_state: node.upstream.as_ref().filter(|_| up && !node.broken).map(|_| "streaming".to_owned()),
            postmaster_start_time: Some(self.start_time(name)),
            server_version: Some(150_018),
            patroni_version: Some("4.1.5".to_owned()),
            ..PatroniStatus::default()
        }
    }

    /// `/cluster` as Patroni would make it from the keys.
    fn ask_view(&mut self) {
        let leader = self.keys.get("leader").map(|key| key.value.clone());
        let member = |name: &str| ClusterViewMember {
            name: name.to_owned(),
            role: if leader.as_deref() == Some(name) { "leader" } else { "replica" }.to_owned(),
            state: "running".to_owned(),
            ..ClusterViewMember::default()
        };
        let members =
            NAMES.iter().filter(|name| self.keys.contains_key(&format!("members/{name}"))).map(|name| member(name));
        let view = ClusterView { members: members.collect(), ..ClusterView::default() };
        let Some(from) = NAMES.iter().find(|name| !self.rest_fails.contains_key(**name)) else { return };
        self.observe(Source::Rest { member: (*from).to_owned() }, Claim::ClusterView(view));
    }

    fn ask_dcs(&mut self) {
        if let Some(fails) = &self.dcs_fails {
            let claim = Self::failure(fails);
            self.observe(Source::Dcs, claim);
            return;
        }
        self.snapshot();
        if self.keys.contains_key("leader") {
            let lease = LeaseStatus { lease: 7, ttl_seconds: self.lease_ttl, granted_ttl_seconds: 30 };
            self.observe(Source::Dcs, Claim::Lease(lease));
        }
    }

    fn ask_etcd(&mut self) {
        for url in ETCD {
            let claim = if let Some(fails) = self.etcd_fails.get(url) {
                Self::failure(fails)
            } else {
                let healthy = !self.etcd_unhealthy.iter().any(|other| other == url);
                let reason = (!healthy).then(|| "etcdserver: no leader".to_owned());
                Claim::DcsHealth(DcsHealth { healthy, reason, ..DcsHealth::default() })
            };
            self.observe(Source::DcsMember { url: url.to_owned() }, claim);
        }
    }
}
