//! The model: three members under Patroni, a DCS, and sources that tell of them badly.
//!
//! What an observation says was true at some instant between its `sent` and `received`, both on our own clock. It is
//! delivered later, twice, out of order with other sources, or never. Only the watch of the DCS keeps its order: it
//! breaks and begins anew with a snapshot instead, as the real one does.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::observation::{
    Claim, DcsChange, DcsHealth, DcsKey, DcsSnapshot, Failure, FailureKind, LeaseStatus, MemberAddress, PatroniStatus,
    PostgresStatus, Source, WalReceiver,
};
use crate::model::{Lsn, Observation, Timestamp};

const NAMES: [&str; 3] = ["n1", "n2", "n3"];
const STEP_MS: i64 = 100;
const LENGTH_MS: i64 = 80_000;
const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const TTL_MS: i64 = 30_000;
/// How far back the leader key is remembered.
const HISTORY: usize = 400;

/// What may happen in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Load, and nothing else, for so many minutes; told as well as a working network tells it.
    Quiet {
        minutes: i64,
    },
    /// Nothing but switchovers, badly told.
    Switchovers,
    Anything,
}

/// A small generator of our own: the same seed is the same run on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn ms(&mut self, from: u64, to: u64) -> i64 {
        i64::try_from(from + self.below(to - from)).unwrap()
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[expect(clippy::struct_excessive_bools, reason = "conditions of a host, each by itself")]
#[derive(Clone, Debug)]
struct Node {
    primary: bool,
    /// PostgreSQL accepts connections.
    up: bool,
    patroni: bool,
    /// The monitor can reach the host.
    visible: bool,
    timeline: u32,
    lsn: u64,
    /// Start of the postmaster by the host's own clock.
    started: Timestamp,
    /// Seconds that the host's clock is ahead.
    ahead: f64,
    renewed_ms: i64,
}

/// Something that happens later.
#[derive(Clone, Copy, Debug)]
enum Due {
    Promote(usize),
    Follow(usize),
    Restart(usize),
    Return(usize),
    Show(usize),
    Release(usize, usize),
    Elect,
    QuorumBack,
    DemoteWithoutDcs,
}

pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) plan: Plan,
    dice: Dice,
    at_ms: i64,
    length_ms: i64,
    nodes: Vec<Node>,
    keys: BTreeMap<String, DcsKey>,
    revision: i64,
    quorum: bool,
    due: Vec<(i64, Due)>,
    /// Percent of observations that are lost, and delays in milliseconds.
    loss: u64,
    delay: u64,
    underway: Vec<(i64, u64, Observation)>,
    /// The watch delivers in order: nothing before this.
    watch_free_ms: i64,
    watch_broken_until: i64,
    told_revision: i64,
    number: u64,
    led: Vec<(Timestamp, Option<String>)>,
    changes: usize,
    last_leader: Option<String>,
    two_primaries: bool,
    busy_until: i64,
    story: String,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        let mut dice = Dice(seed);
        let nodes = (0..3).map(|index| Node {
            primary: index == 0,
            up: true,
            patroni: true,
            visible: true,
            timeline: 1,
            lsn: 0x300_0000,
            started: START - Duration::from_hours(1),
            ahead: dice.ms(0, 20_000) as f64 / 1_000.0 - 10.0,
            renewed_ms: 0,
        });
        let nodes = nodes.collect();
        let (loss, delay) = if matches!(plan, Plan::Quiet { .. }) {
            (1, 50 + dice.below(400))
        } else {
            (dice.below(25), 50 + dice.below(1_500))
        };
        let length_ms = if let Plan::Quiet { minutes } = plan { minutes * 60_000 } else { LENGTH_MS };
        let mut world = Self {
            now: START,
            plan,
            dice,
            at_ms: 0,
            length_ms,
            nodes,
            keys: BTreeMap::new(),
            revision: 100,
            quorum: true,
            due: Vec::new(),
            loss,
            delay,
            underway: Vec::new(),
            watch_free_ms: 0,
            watch_broken_until: 0,
            told_revision: 0,
            number: 0,
            led: Vec::new(),
            changes: 0,
            last_leader: Some("n1".to_owned()),
            two_primaries: false,
            busy_until: 12_000,
            story: String::new(),
        };
        for (key, value) in [
            ("leader", "n1"),
            ("config", r#"{"ttl":30,"loop_wait":10,"retry_timeout":10}"#),
            ("failover", "{}"),
            ("members/n1", "{}"),
            ("members/n2", "{}"),
            ("members/n3", "{}"),
        ] {
            let key = world.key(key, value);
            world.keys.insert(key.key.clone(), key);
        }
        world.members();
        world.snapshot();
        world
    }

    /// A step of the clock; false at the end.
    pub(super) fn step(&mut self) -> bool {
        self.at_ms += STEP_MS;
        self.now = START + Duration::from_millis(self.at_ms.unsigned_abs());
        self.happen();
        self.live();
        self.tell();
        let leader = self.leader();
        self.led.push((self.now, leader));
        if self.led.len() > HISTORY {
            self.led.remove(0);
        }
        self.two_primaries |= self.primaries(|_| true) > 1;
        self.at_ms < self.length_ms
    }

    /// What arrives by now, in the order of arrival.
    pub(super) fn delivered(&mut self) -> Vec<Observation> {
        let now = self.at_ms;
        let (mut ripe, rest): (Vec<_>, Vec<_>) = self.underway.drain(..).partition(|(at, _, _)| *at <= now);
        self.underway = rest;
        ripe.sort_by_key(|(at, number, _)| (*at, *number));
        ripe.into_iter().map(|(_, _, observation)| observation).collect()
    }

    pub(super) fn led_within(&self, name: &str, age: Duration) -> bool {
        self.led
            .iter()
            .rev()
            .take_while(|(at, _)| self.now.since(*at) <= age)
            .any(|(_, led)| led.as_deref() == Some(name))
    }

    fn primaries(&self, of: impl Fn(&Node) -> bool) -> usize {
        self.nodes.iter().filter(|node| node.primary && node.up && of(node)).count()
    }

    /// Members that take writes and that the monitor can ask.
    pub(super) fn visible_primaries(&self) -> usize {
        self.primaries(|node| node.visible)
    }

    pub(super) fn ever_two_primaries(&self) -> bool {
        self.two_primaries
    }

    pub(super) fn leader_changes(&self) -> usize {
        self.changes
    }

    pub(super) fn story(&self) -> &str {
        &self.story
    }

    fn note(&mut self, what: &str) {
        let now = self.now;
        self.story.extend(["\n  ", &now.to_string(), " ", what]);
    }

    fn leader(&self) -> Option<String> {
        self.keys.get("leader").map(|key| key.value.clone())
    }

    fn leader_index(&self) -> Option<usize> {
        let leader = self.leader()?;
        NAMES.iter().position(|name| *name == leader)
    }
}

/// What happens.
impl World {
    fn later(&mut self, from: u64, to: u64, due: Due) {
        let at = self.at_ms + self.dice.ms(from, to);
        self.due.push((at, due));
    }

    fn happen(&mut self) {
        let now = self.at_ms;
        let (ripe, rest): (Vec<_>, Vec<_>) = self.due.drain(..).partition(|(at, _)| *at <= now);
        self.due = rest;
        for (_, due) in ripe {
            self.perform(due);
        }
        // Near the end nothing new begins that could not be told any more.
        let is_quiet = matches!(self.plan, Plan::Quiet { .. });
        if is_quiet || self.at_ms < self.busy_until || self.at_ms > self.length_ms - 25_000 || !self.dice.chance(8) {
            return;
        }
        self.busy_until = self.at_ms + self.dice.ms(3_000, 20_000);
        if self.plan == Plan::Switchovers {
            self.busy_until = self.at_ms + self.dice.ms(15_000, 40_000);
            return self.switchover();
        }
        let member = usize::try_from(self.dice.below(3)).unwrap();
        match self.dice.below(8) {
            0 => self.switchover(),
            1 | 2 => {
                self.note(&format!("Patroni of {} dies", NAMES[member]));
                self.nodes[member].patroni = false;
                self.later(20_000, 60_000, Due::Return(member));
            }
            3 => {
                self.note(&format!("PostgreSQL of {} is killed", NAMES[member]));
                self.nodes[member].up = false;
                self.later(2_000, 9_000, Due::Restart(member));
            }
            4 => {
                self.note(&format!("host {} is lost", NAMES[member]));
                let node = &mut self.nodes[member];
                (node.visible, node.patroni, node.up) = (false, false, false);
                self.later(20_000, 50_000, Due::Return(member));
                self.later(20_000, 50_000, Due::Show(member));
            }
            5 => {
                self.note(&format!("the monitor does not see {}", NAMES[member]));
                self.nodes[member].visible = false;
                self.later(3_000, 30_000, Due::Show(member));
            }
            6 if self.quorum => {
                self.note("the DCS loses its quorum");
                self.quorum = false;
                self.later(12_000, 16_000, Due::DemoteWithoutDcs);
                self.later(5_000, 35_000, Due::QuorumBack);
            }
            _ => {
                self.note("the watch breaks");
                self.watch_broken_until = self.at_ms + self.dice.ms(1_000, 15_000);
            }
        }
    }

    fn perform(&mut self, due: Due) {
        match due {
            Due::Promote(member) => self.promote(member),
            Due::Follow(member) | Due::Return(member) => self.follow(member),
            Due::Restart(member) if !self.nodes[member].up && self.nodes[member].patroni => {
                self.start_postgres(member);
                // Who lost the key while it was down does not come back as a primary.
                self.nodes[member].primary &= self.leader_index() == Some(member);
            }
            Due::Restart(_) => {}
            Due::Show(member) => self.nodes[member].visible = true,
            Due::Release(from, to) => self.hand_over(from, to),
            Due::Elect => self.elect(),
            Due::QuorumBack => {
                self.note("the DCS has a quorum again");
                self.quorum = true;
                for node in &mut self.nodes {
                    node.renewed_ms = self.at_ms;
                }
                let idle = |leader: &usize| {
                    let node = &self.nodes[*leader];
                    node.patroni && !(node.primary && node.up)
                };
                if let Some(leader) = self.leader_index().filter(idle) {
                    self.later(200, 2_000, Due::Promote(leader));
                }
            }
            Due::DemoteWithoutDcs => {
                let Some(leader) = self.leader_index().filter(|_| !self.quorum) else { return };
                if self.nodes[leader].patroni && self.nodes[leader].primary {
                    self.note(&format!("{} demotes itself", NAMES[leader]));
                    self.nodes[leader].up = false;
                    self.nodes[leader].primary = false;
                    self.later(1_000, 3_000, Due::Restart(leader));
                }
            }
        }
    }

    fn start_postgres(&mut self, member: usize) {
        let now = self.now;
        let node = &mut self.nodes[member];
        node.up = true;
        node.started = now.shifted(node.ahead);
    }

    /// Patroni lives again: it follows whoever leads, or goes on to lead.
    fn follow(&mut self, member: usize) {
        let leads = self.leader_index() == Some(member);
        self.nodes[member].patroni = true;
        self.nodes[member].renewed_ms = self.at_ms;
        if self.quorum {
            let key = format!("members/{}", NAMES[member]);
            self.change(&[(key, "{}".to_owned())], &[]);
        }
        if leads {
            if !self.nodes[member].up {
                self.start_postgres(member);
            }
            return;
        }
        self.note(&format!("{} follows", NAMES[member]));
        self.nodes[member].primary = false;
        self.start_postgres(member);
        if self.leader().is_none() {
            self.later(500, 2_000, Due::Elect);
        }
    }

    fn promote(&mut self, member: usize) {
        if self.leader_index() != Some(member) || !self.nodes[member].patroni {
            return;
        }
        if !self.nodes[member].up {
            self.start_postgres(member);
        }
        if !self.nodes[member].primary {
            self.note(&format!("{} is promoted", NAMES[member]));
            let timeline = self.nodes.iter().map(|node| node.timeline).max().unwrap() + 1;
            let node = &mut self.nodes[member];
            (node.primary, node.timeline) = (true, timeline);
        }
    }

    fn switchover(&mut self) {
        let Some(from) = self.leader_index().filter(|from| self.nodes[*from].patroni && self.quorum) else { return };
        let to = (from + 1 + usize::try_from(self.dice.below(2)).unwrap()) % 3;
        let fit = |node: &Node| node.up && node.patroni;
        if !fit(&self.nodes[to]) || !self.nodes[from].primary || !fit(&self.nodes[from]) {
            return;
        }
        self.note(&format!("switchover from {} to {}", NAMES[from], NAMES[to]));
        let request = format!(r#"{{"leader":"{}","member":"{}"}}"#, NAMES[from], NAMES[to]);
        self.change(&[("failover".to_owned(), request)], &[]);
        self.later(500, 4_000, Due::Release(from, to));
        self.busy_until = self.at_ms + 15_000;
    }

    /// PostgreSQL is down before the key is released; only then another one leads.
    fn hand_over(&mut self, from: usize, to: usize) {
        if self.leader_index() != Some(from) || !self.quorum || !self.nodes[from].patroni {
            return;
        }
        if self.nodes[from].up {
            self.nodes[from].up = false;
            self.nodes[from].primary = false;
            self.later(200, 1_500, Due::Release(from, to));
            return;
        }
        self.change(&[], &["leader".to_owned()]);
        if self.nodes[to].patroni && self.nodes[to].up {
            self.take(to);
            self.change(&[("failover".to_owned(), "{}".to_owned())], &[]);
        } else {
            self.later(500, 2_000, Due::Elect);
        }
        self.later(1_000, 5_000, Due::Follow(from));
    }

    fn take(&mut self, member: usize) {
        let name = NAMES[member].to_owned();
        self.note(&format!("{name} takes the key"));
        self.changes += usize::from(self.last_leader.as_ref() != Some(&name));
        self.last_leader = Some(name.clone());
        self.change(&[("leader".to_owned(), name)], &[]);
        self.later(200, 2_500, Due::Promote(member));
    }

    fn elect(&mut self) {
        if self.leader().is_some() || !self.quorum {
            return;
        }
        let fit = |index: &usize| self.nodes[*index].patroni && self.nodes[*index].up;
        let best = (0..3).filter(fit).max_by_key(|index| self.nodes[*index].lsn);
        match best {
            Some(member) => self.take(member),
            None => self.later(1_000, 3_000, Due::Elect),
        }
    }

    /// WAL, leases, and what follows from them.
    fn live(&mut self) {
        let front = self.leader_index().filter(|index| self.nodes[*index].up).map(|index| self.nodes[index].lsn);
        for index in 0..3 {
            let node = &mut self.nodes[index];
            if node.primary && node.up {
                node.lsn += 2_000;
            } else if let Some(front) = front.filter(|front| node.up && *front > node.lsn) {
                node.lsn = front;
            }
            if node.patroni && self.at_ms - node.renewed_ms >= 10_000 {
                node.renewed_ms = self.at_ms;
            }
        }
        let timeline = self.leader_index().map(|index| self.nodes[index].timeline);
        for node in self.nodes.iter_mut().filter(|node| !node.primary && node.up) {
            node.timeline = timeline.unwrap_or(node.timeline).max(node.timeline);
        }
        if self.quorum {
            self.expire();
        }
    }

    fn expire(&mut self) {
        for (index, name) in NAMES.iter().enumerate() {
            let expired = self.at_ms - self.nodes[index].renewed_ms > TTL_MS;
            let key = format!("members/{name}");
            if !expired || !self.keys.contains_key(&key) {
                continue;
            }
            let mut deletes = vec![key];
            if self.leader_index() == Some(index) {
                self.note(&format!("the lease of {name} ends"));
                deletes.push("leader".to_owned());
                self.later(200, 3_000, Due::Elect);
            }
            self.change(&[], &deletes);
        }
    }
}

/// What is told of it.
impl World {
    fn key(&self, key: &str, value: &str) -> DcsKey {
        let created = self.keys.get(key).map_or(self.revision, |key| key.create_revision);
        DcsKey {
            key: key.to_owned(),
            value: value.to_owned(),
            mod_revision: self.revision,
            create_revision: created,
            lease: if key == "leader" { 7 } else { 0 },
        }
    }

    fn change(&mut self, puts: &[(String, String)], deletes: &[String]) {
        self.revision += 1;
        let puts: Vec<_> = puts.iter().map(|(key, value)| self.key(key, value)).collect();
        for key in deletes {
            self.keys.remove(key);
        }
        for key in &puts {
            self.keys.insert(key.key.clone(), key.clone());
        }
        let claim = Claim::DcsChange(DcsChange { revision: self.revision, puts, deletes: deletes.to_vec() });
        if self.at_ms < self.watch_broken_until {
            return;
        }
        self.told_revision = self.revision;
        self.watch(&claim, self.now);
    }

    /// In order, and never lost while the watch stands; sometimes twice.
    fn watch(&mut self, claim: &Claim, sent: Timestamp) {
        let at = (self.at_ms + self.dice.ms(5, self.delay)).max(self.watch_free_ms);
        self.watch_free_ms = at;
        let times = if self.dice.chance(5) { 2 } else { 1 };
        for _ in 0..times {
            self.send(at, Source::Dcs, (sent, self.now), claim.clone());
        }
    }

    fn send(&mut self, at: i64, source: Source, (sent, received): (Timestamp, Timestamp), claim: Claim) {
        self.number += 1;
        let observation = Observation { cluster: "demo".to_owned(), source, sent, received, claim };
        self.underway.push((at, self.number, observation));
    }

    fn snapshot(&mut self) {
        let keys = self.keys.values().cloned().collect();
        self.told_revision = self.revision;
        self.watch(&Claim::DcsSnapshot(DcsSnapshot { revision: self.revision, keys }), self.now);
    }

    fn members(&mut self) {
        let address =
            |name: &&str| MemberAddress { member: (*name).to_owned(), present: true, ..MemberAddress::default() };
        let list = NAMES.iter().map(address).collect();
        self.send(self.at_ms, Source::Dcs, (self.now, self.now), Claim::Members(list));
    }

    /// An answer that was asked for: lost, late, twice, and overtaken by others.
    fn poll(&mut self, source: &Source, claim: &Claim) {
        let took = Duration::from_millis(self.dice.ms(1, 80).unsigned_abs());
        let times = if self.dice.chance(self.loss) { 0 } else { 1 + u64::from(self.dice.chance(5)) };
        for _ in 0..times {
            let at = self.at_ms + self.dice.ms(1, self.delay);
            self.send(at, source.clone(), (self.now - took, self.now), claim.clone());
        }
    }

    fn tell(&mut self) {
        for (index, name) in NAMES.iter().enumerate() {
            let member = (*name).to_owned();
            let phase = i64::try_from(index).unwrap() * 300;
            if (self.at_ms + phase) % 1_000 == 0 {
                let claim = self.sql(index);
                self.poll(&Source::Sql { member: member.clone() }, &claim);
            }
            if (self.at_ms + phase) % 2_000 == 500 {
                let claim = self.rest(index);
                self.poll(&Source::Rest { member }, &claim);
            }
        }
        if self.at_ms % 2_000 == 1_100 {
            self.tell_dcs();
        }
    }

    fn failed(kind: FailureKind) -> Claim {
        Claim::Failed(Failure { kind, error: String::new() })
    }

    fn sql(&self, index: usize) -> Claim {
        let node = &self.nodes[index];
        if !node.visible {
            return Self::failed(FailureKind::Timeout);
        }
        if !node.up {
            return Self::failed(FailureKind::Refused);
        }
        let standby = !node.primary;
        Claim::Postgres(PostgresStatus {
            in_recovery: standby,
            timeline: Some(node.timeline),
            current_lsn: node.primary.then_some(Lsn(node.lsn)),
            receive_lsn: standby.then_some(Lsn(node.lsn)),
            replay_lsn: standby.then_some(Lsn(node.lsn)),
            postmaster_start_time: Some(node.started),
            server_now: Some(self.now.shifted(node.ahead)),
            receiver: standby.then(|| WalReceiver { status: "streaming".to_owned(), ..WalReceiver::default() }),
            ..PostgresStatus::default()
        })
    }

    fn rest(&self, index: usize) -> Claim {
        let node = &self.nodes[index];
        if !node.visible {
            return Self::failed(FailureKind::Timeout);
        }
        if !node.patroni {
            return Self::failed(FailureKind::Refused);
        }
        let live = node.up;
        Claim::Patroni(PatroniStatus {
            state: if live { "running" } else { "stopped" }.to_owned(),
            role: if node.primary { "primary" } else { "replica" }.to_owned(),
            timeline: Some(node.timeline),
            location: (node.primary && live).then_some(Lsn(node.lsn)),
            received_location: (!node.primary && live).then_some(Lsn(node.lsn)),
            replayed_location: (!node.primary && live).then_some(Lsn(node.lsn)),
            postmaster_start_time: Some(node.started),
            ..PatroniStatus::default()
        })
    }

    /// The reads beside the watch, and a DCS member about itself.
    fn tell_dcs(&mut self) {
        let health = DcsHealth { healthy: self.quorum, has_leader: Some(self.quorum), ..DcsHealth::default() };
        for url in ["http://e1:2379", "http://e2:2379", "http://e3:2379"] {
            self.poll(&Source::DcsMember { url: url.to_owned() }, &Claim::DcsHealth(health.clone()));
        }
        if !self.quorum {
            let claim = Self::failed(FailureKind::Timeout);
            return self.poll(&Source::Dcs, &claim);
        }
        if self.told_revision != self.revision || self.leader().is_none() {
            return self.snapshot();
        }
        // The lease is asked for only after a read that agrees with what the watch has told.
        if let Some(leader) = self.leader_index() {
            let elapsed = (self.at_ms - self.nodes[leader].renewed_ms) / 1_000;
            let lease = LeaseStatus { lease: 7, ttl_seconds: TTL_MS / 1_000 - elapsed, granted_ttl_seconds: 30 };
            self.poll(&Source::Dcs, &Claim::Lease(lease));
        }
    }
}
