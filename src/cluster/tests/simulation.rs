//! A small model of a Patroni cluster that goes through random trouble, and tells of it truly but late, twice, not at
//! all, in any order, and by wrong clocks. What the judge makes of it must hold for every seed.
//!
//! `DARAJI_SIMULATION_SEEDS=100000` runs more seeds than the default; `DARAJI_SIMULATION_SEED=17` runs only that one.
//! `DARAJI_SIMULATION_QUIET_MINUTES=10080` is a week in which nothing happens, instead of a day.

mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::{Judge, JudgeOptions};
use crate::model::cluster::Cluster;
use crate::model::observation::{Claim, Source};
use crate::model::{Event, Observation, Timestamp};
use world::{Plan, World};

const SEEDS: u64 = 2_000;
/// A whole day, which takes less than half a minute.
const QUIET_MINUTES: u64 = 24 * 60;
/// As many tests share the seeds, so that they use more than one core.
const SHARES: u64 = 2;
const TICK: Duration = Duration::from_millis(500);
/// The belief is looked at every so many ticks.
const LOOK_TICKS: u64 = 2;
/// How long a proof counts, and how late it may come.
const PROOF_AGE_MAX: Duration = Duration::from_secs(6);
/// Two primaries that both answer must be told by then, in spite of losses and delays.
const SPLIT_BRAIN_TOLD_WITHIN: Duration = Duration::from_secs(20);

/// A run of one seed and what was found wrong with it.
struct Run {
    world: World,
    judge: Judge,
    events: Vec<Event>,
    ids: BTreeSet<String>,
    /// The newest that each source was heard with.
    heard: Vec<(Source, Timestamp)>,
    /// When the DCS was last heard to prove its keys.
    proven_at: Option<Timestamp>,
    two_since: Option<Timestamp>,
    ticks: u64,
}

impl Run {
    fn new(seed: u64, plan: Plan) -> Self {
        Self {
            world: World::new(seed, plan),
            judge: Judge::new(JudgeOptions::default()),
            events: Vec::new(),
            ids: BTreeSet::new(),
            heard: Vec::new(),
            proven_at: None,
            two_since: None,
            ticks: 0,
        }
    }

    fn go(&mut self) -> Result<(), String> {
        let mut due = self.world.now;
        while self.world.step() {
            for observation in self.world.delivered() {
                self.hear(&observation);
                let events = self.judge.observe(&observation);
                self.take(events)?;
            }
            if self.world.now >= due {
                due = due + TICK;
                let events = self.judge.tick(self.world.now);
                self.take(events)?;
                self.ticks += 1;
                if !self.ticks.is_multiple_of(LOOK_TICKS) {
                    continue;
                }
                let Some(cluster) = self.judge.cluster("demo", self.world.now) else { continue };
                self.holds(&cluster)?;
            }
        }
        self.ends()
    }

    fn hear(&mut self, observation: &Observation) {
        let proves = matches!(observation.claim, Claim::DcsSnapshot(_) | Claim::DcsChange(_) | Claim::Lease(_));
        if proves {
            self.proven_at = self.proven_at.max(Some(observation.received));
        }
        match self.heard.iter_mut().find(|(source, _)| *source == observation.source) {
            Some((_, at)) => *at = (*at).max(observation.received),
            None => self.heard.push((observation.source.clone(), observation.received)),
        }
    }

    fn heard_at(&self, source: &Source) -> Option<Timestamp> {
        self.heard.iter().find(|(of, _)| of == source).map(|(_, at)| *at)
    }

    fn take(&mut self, events: Vec<Event>) -> Result<(), String> {
        for event in events {
            if !self.ids.insert(event.id.clone()) {
                return Err(format!("the event {} is told twice", event.id));
            }
            self.events.push(event);
        }
        Ok(())
    }

    /// What must be so at any time.
    fn holds(&mut self, cluster: &Cluster) -> Result<(), String> {
        if cluster.writable.len() > 1 && cluster.split_brain.is_none() {
            return Err(format!("{:?} are writable without a split brain", cluster.writable));
        }
        if let Some(leader) = &cluster.leader
            && !self.world.led_within(leader, PROOF_AGE_MAX + TICK)
        {
            return Err(format!("{leader} is shown as the leader, and has not held the key lately"));
        }
        let proven = self.proven_at.is_some_and(|at| self.world.now.since(at) <= PROOF_AGE_MAX);
        if let Some(leader) = cluster.leader.as_ref().filter(|_| !proven) {
            return Err(format!(
                "{leader} is shown as the leader, and the DCS has proven nothing since {:?}",
                self.proven_at
            ));
        }
        self.is_not_newer_than_its_sources(cluster)?;
        self.two_primaries_are_told(cluster)
    }

    fn is_not_newer_than_its_sources(&self, cluster: &Cluster) -> Result<(), String> {
        let dcs = self.heard_at(&Source::Dcs);
        if let Some(lock) = &cluster.lock
            && Some(lock.seen_at) > dcs
        {
            return Err(format!("the lock was seen at {}, the DCS was heard at {dcs:?}", lock.seen_at));
        }
        for member in &cluster.members {
            let name = || member.name.clone();
            let of = |source: &str| match source {
                "rest" => Some(Source::Rest { member: name() }),
                "sql" => Some(Source::Sql { member: name() }),
                _ => None,
            };
            for view in &member.sources {
                let Some(source) = of(&view.source) else { continue };
                if view.seen_at > self.heard_at(&source) {
                    return Err(format!("{} of {} is newer than what it said", view.source, member.name));
                }
            }
            let newest = ["rest", "sql"].iter().filter_map(|word| self.heard_at(&of(word)?)).max();
            if member.seen_at > newest {
                return Err(format!("{} was seen before anything was heard of it", member.name));
            }
        }
        Ok(())
    }

    /// Two members that take writes and both answer: told within a bound.
    fn two_primaries_are_told(&mut self, cluster: &Cluster) -> Result<(), String> {
        if self.world.visible_primaries() < 2 || cluster.split_brain.is_some() {
            self.two_since = None;
            return Ok(());
        }
        let since = *self.two_since.get_or_insert(self.world.now);
        if self.world.now.since(since) > SPLIT_BRAIN_TOLD_WITHIN {
            return Err("two primaries answer and no split brain is told".to_owned());
        }
        Ok(())
    }

    /// What must be so at the end.
    fn ends(&self) -> Result<(), String> {
        if matches!(self.world.plan, Plan::Quiet { .. })
            && let Some(event) = self.events.iter().find(|event| event.event != "watch_started")
        {
            return Err(format!("nothing happened, and {} is told: {}", event.event, event.text));
        }
        let named = |names: &[&str]| self.events.iter().find(|event| names.contains(&event.event.as_str()));
        if self.world.plan == Plan::Switchovers {
            let loud = ["split_brain_possible", "split_brain_confirmed", "leader_lost", "lock_role_mismatch"];
            if let Some(event) = named(&loud) {
                return Err(format!("only switchovers, and {} is told: {}", event.event, event.text));
            }
            let unplanned = |event: &&Event| event.event == "leader_changed" && event.fields["planned"] == "false";
            if let Some(event) = self.events.iter().find(unplanned) {
                return Err(format!("a switchover counts as unplanned: {}", event.text));
            }
        }
        if !self.world.ever_two_primaries()
            && let Some(event) = named(&["split_brain_confirmed"])
        {
            return Err(format!("there was one primary at any time, and a split brain is told: {}", event.text));
        }
        let changes = self.events.iter().filter(|event| event.event == "leader_changed").count();
        if changes > self.world.leader_changes() {
            return Err(format!("{changes} leader changes are told of {}", self.world.leader_changes()));
        }
        Ok(())
    }
}

fn run(seed: u64) {
    run_plan(seed, if seed.is_multiple_of(3) { Plan::Switchovers } else { Plan::Anything });
}

fn run_plan(seed: u64, plan: Plan) {
    let mut run = Run::new(seed, plan);
    if let Err(problem) = run.go() {
        let told: Vec<_> =
            run.events.iter().map(|event| format!("\n  {} {}: {}", event.time, event.event, event.text)).collect();
        panic!(
            "seed {seed}: {problem}\nat {}\nhappened:{}\ntold:{}\n\
             again: DARAJI_SIMULATION_SEED={seed} cargo test --lib cluster::tests::simulation",
            run.world.now,
            run.world.story(),
            told.concat()
        );
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number, not {value:?}")))
}

fn run_share(share: u64) {
    let mine = |seed: &u64| seed % SHARES == share;
    if let Some(seed) = setting("DARAJI_SIMULATION_SEED") {
        return Some(seed).filter(mine).map_or((), run);
    }
    (0..setting("DARAJI_SIMULATION_SEEDS").unwrap_or(SEEDS)).filter(mine).for_each(run);
}

#[test]
fn in_quiet_hours_nothing_is_told() {
    let minutes = setting("DARAJI_SIMULATION_QUIET_MINUTES").unwrap_or(QUIET_MINUTES);
    run_plan(1, Plan::Quiet { minutes: minutes.cast_signed() });
}

#[test]
fn any_history_told_badly_is_judged_well_even_seeds() {
    run_share(0);
}

#[test]
fn any_history_told_badly_is_judged_well_odd_seeds() {
    run_share(1);
}
