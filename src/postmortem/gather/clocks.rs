//! Zones of times that carry none, and clocks that are off.
//!
//! Both come from happenings that two logs tell of. For a zone the two logs are of one host, so the difference is a
//! multiple of a quarter of an hour. For a clock they are of two hosts, and the difference lies in an interval: how far
//! the clocks are apart, and how long the happening itself takes from one host to the other.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Timestamp;

use super::happenings::{Happening, Mark};
use super::part::{Facts, ZONE_SECONDS_MAX, corrected, zone_between};
use super::{Certainty, Finding, GatherError, GatherOptions, MemberClock};

/// The program that orders something writes so long before or after the one that obeys, at most.
const ORDER_TO_DEED_NANOS: std::ops::Range<i64> = -30_000_000_000..5_000_000_000;
/// Happenings that must agree before a clock is corrected.
const AGREEING_MIN: usize = 2;
/// A clock is not looked for further away than this.
const SKEW_SECONDS_MAX: f64 = 3600.0;
/// Happenings without a key are paired within this only.
const SKEW_UNKEYED_SECONDS_MAX: f64 = 600.0;
/// Pairs whose middles lie so close together agree.
const AGREE_SECONDS: f64 = 1.0;
/// Pairs of two hosts that are looked at.
const PAIRS_MAX: usize = 20_000;

/// The zone of each part; `None` for one whose times carry it.
pub(super) fn zones(
    surveyed: &[(usize, Facts)],
    members: &[Finding<String>],
    options: &GatherOptions,
) -> Vec<Option<Finding<i32>>> {
    let mut found: Vec<Option<Finding<i32>>> = surveyed
        .iter()
        .zip(members)
        .map(|((_, facts), member)| {
            if !facts.zone_less {
                return None;
            }
            if let Some(seconds) = options.timezone {
                return Some(finding(seconds, Certainty::Given, "--timezone".to_owned()));
            }
            let here = || surveyed.iter().zip(members).filter(|(_, other)| other.value == member.value);
            let zoned: Vec<&Facts> = here().map(|((_, facts), _)| facts).filter(|facts| !facts.zone_less).collect();
            Some(zone_of(facts, &zoned).unwrap_or_else(|| finding(0, Certainty::Assumed, String::new())))
        })
        .collect();
    borrow_zones(&mut found, members);
    found
}

fn finding(value: i32, certainty: Certainty, why: String) -> Finding<i32> {
    Finding { value, certainty, why }
}

/// The zone that the happenings of this host agree on.
fn zone_of(facts: &Facts, zoned: &[&Facts]) -> Option<Finding<i32>> {
    let mut votes: BTreeMap<i64, usize> = BTreeMap::new();
    for (zone, count) in &facts.envelope_zones {
        *votes.entry(*zone).or_default() += *count as usize;
    }
    for mark in &facts.marks {
        let mut offsets = BTreeSet::new();
        let others = zoned.iter().filter(|other| other.key.source != facts.key.source).flat_map(|other| &other.marks);
        for other in others.filter(|other| other.what == mark.what && other.key == mark.key) {
            let (zone, rest) = zone_between(mark.at, other.at);
            let rest = if facts.key.source == "patroni" { rest } else { -rest };
            if zone.abs() <= ZONE_SECONDS_MAX && ORDER_TO_DEED_NANOS.contains(&rest) {
                offsets.insert(zone);
            }
        }
        let weight = if mark.key.is_empty() { 1 } else { 5 };
        for zone in offsets {
            *votes.entry(zone).or_default() += weight;
        }
    }
    let mut ranked: Vec<(usize, i64)> = votes.into_iter().map(|(zone, count)| (count, zone)).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    let (count, zone) = *ranked.first()?;
    let second = ranked.get(1).map_or(0, |(count, _)| *count);
    if count == second {
        return None;
    }
    let against = if second > 0 { format!(", against {second}") } else { String::new() };
    let why = format!("{count} happenings are in other logs of the host, {} apart{against}", zone_text(zone));
    Some(finding(i32::try_from(zone).ok()?, Certainty::Certain, why))
}

/// `+02:00`
pub(super) fn zone_text(seconds: i64) -> String {
    let minutes = seconds.abs() / 60;
    format!("{}{:02}:{:02}", if seconds < 0 { '-' } else { '+' }, minutes / 60, minutes % 60)
}

/// Where nothing tells: the zone of another log of the host, of most other hosts, or UTC.
fn borrow_zones(found: &mut [Option<Finding<i32>>], members: &[Finding<String>]) {
    let mut of_member: BTreeMap<&str, i32> = BTreeMap::new();
    let mut of_all: BTreeMap<i32, usize> = BTreeMap::new();
    for (zone, member) in found.iter().zip(members) {
        if let Some(zone) = zone.as_ref().filter(|zone| zone.certainty >= Certainty::Certain) {
            of_member.insert(&member.value, zone.value);
            *of_all.entry(zone.value).or_default() += 1;
        }
    }
    let usual = of_all.iter().max_by_key(|(_, count)| **count).map(|(zone, _)| *zone);
    for (zone, member) in found.iter_mut().zip(members) {
        let Some(zone) = zone.as_mut().filter(|zone| zone.certainty == Certainty::Assumed) else { continue };
        *zone = match (of_member.get(member.value.as_str()), usual) {
            (Some(seconds), _) => finding(*seconds, Certainty::Likely, format!("as another log of {}", member.value)),
            (None, Some(seconds)) => finding(seconds, Certainty::Likely, "as on other hosts".to_owned()),
            (None, None) => {
                finding(0, Certainty::Assumed, "times carry no zone and nothing tells; --timezone does".to_owned())
            }
        };
    }
}

/// How far apart two clocks are by one pair of records: between `low` and `high` seconds.
#[derive(Clone, Copy, Debug)]
struct Pair {
    low: f64,
    high: f64,
    /// Which happening on the second host.
    which: usize,
    /// Happenings that cannot be mistaken for another one count twice.
    weight: usize,
}

/// What two hosts agree on: the second clock minus the first.
#[derive(Clone, Copy, Debug)]
struct Apart {
    seconds: f64,
    error: f64,
    agreeing: usize,
}

/// The clock of each member that has logs.
pub(super) fn skews(
    surveyed: &[(usize, Facts)],
    members: &[Finding<String>],
    zones: &[Option<Finding<i32>>],
    options: &GatherOptions,
) -> Result<Vec<MemberClock>, GatherError> {
    let mut marks: BTreeMap<&str, Vec<Mark>> = BTreeMap::new();
    for (((_, facts), member), zone) in surveyed.iter().zip(members).zip(zones) {
        let zone_seconds = zone.as_ref().map_or(0, |zone| zone.value);
        let all = marks.entry(member.value.as_str()).or_default();
        all.extend(facts.marks.iter().map(|mark| Mark { at: corrected(mark.at, zone_seconds, 0.0), ..mark.clone() }));
    }
    if let Some(member) = options.skews.keys().find(|member| !marks.contains_key(member.as_str())) {
        let known = marks.keys().copied().collect::<Vec<_>>().join(", ");
        return Err(GatherError::UnknownMember { member: member.clone(), known });
    }
    let names: Vec<&str> = marks.keys().copied().collect();
    let mut links: BTreeMap<(&str, &str), Apart> = BTreeMap::new();
    for (index, first) in names.iter().enumerate() {
        for second in names.iter().skip(index + 1) {
            if let Some(apart) = apart((first, &marks), (second, &marks)) {
                links.insert((first, second), apart);
                links.insert((second, first), Apart { seconds: -apart.seconds, ..apart });
            }
        }
    }
    Ok(chain(&names, &links, options))
}

type MarksByMember<'a> = BTreeMap<&'a str, Vec<Mark>>;

/// Compares two hosts.
fn apart(first: (&str, &MarksByMember<'_>), second: (&str, &MarksByMember<'_>)) -> Option<Apart> {
    let of = |(name, marks): (&str, &MarksByMember<'_>)| marks.get(name).cloned().unwrap_or_default();
    let (a, b) = (of(first), of(second));
    let mut pairs = Vec::new();
    both_see(&a, &b, &mut pairs);
    sends_to(&a, (second.0, &b), 1.0, &mut pairs);
    sends_to(&b, (first.0, &a), -1.0, &mut pairs);
    agree(pairs)
}

fn seconds_between(later: Timestamp, earlier: Timestamp) -> f64 {
    later.nanos().saturating_sub(earlier.nanos()) as f64 / 1e9
}

/// etcd's members learn of a new leader within one heartbeat.
fn both_see(a: &[Mark], b: &[Mark], pairs: &mut Vec<Pair>) {
    const HEARTBEATS: f64 = 0.3;
    let known = |marks: &[Mark]| {
        let known: Vec<Mark> = marks.iter().filter(|mark| mark.what == Happening::EtcdLeaderKnown).cloned().collect();
        known
    };
    for (which, mark) in known(b).iter().enumerate() {
        for other in known(a).iter().filter(|other| other.key == mark.key) {
            let delta = seconds_between(mark.at, other.at);
            push(pairs, Pair { low: delta - HEARTBEATS, high: delta + HEARTBEATS, which, weight: 1 });
        }
    }
}

/// A receiver says that it streams just after its sender let it in. `sign` is -1 when the receiver is the first host.
fn sends_to(sender: &[Mark], (name, receiver): (&str, &[Mark]), sign: f64, pairs: &mut Vec<Pair>) {
    let started = receiver.iter().enumerate().filter(|(_, mark)| mark.what == Happening::WalReceiveStarted);
    let count = |marks: &[Mark], what: Happening, key: &str| {
        marks.iter().filter(|mark| mark.what == what && mark.key == key).count()
    };
    for (which, mark) in started {
        let is_alone = count(receiver, Happening::WalReceiveStarted, &mark.key) == 1
            && count(sender, Happening::WalSendStarted, &mark.key) == 1;
        for other in sender.iter().filter(|other| other.who == name) {
            let (takes, is_same) = match other.what {
                Happening::WalSendStarted => (0.5, other.key == mark.key),
                Happening::WalSendAuthorized => (1.0, true),
                _ => continue,
            };
            let delta = seconds_between(mark.at, other.at);
            if !is_same || other.key.is_empty() && delta.abs() > SKEW_UNKEYED_SECONDS_MAX {
                continue;
            }
            let (low, high) = (delta - takes, delta + 0.05);
            let (low, high) = if sign < 0.0 { (-high, -low) } else { (low, high) };
            let weight = 1 + usize::from(is_alone && !other.key.is_empty());
            push(pairs, Pair { low, high, which: which + 1_000_000 * usize::from(sign < 0.0), weight });
        }
    }
}

fn push(pairs: &mut Vec<Pair>, pair: Pair) {
    if pairs.len() < PAIRS_MAX && pair.low.abs() <= SKEW_SECONDS_MAX {
        pairs.push(pair);
    }
}

/// The difference that most happenings agree on. Equal clocks are believed in before different ones.
fn agree(mut pairs: Vec<Pair>) -> Option<Apart> {
    let middle = |pair: &Pair| f64::midpoint(pair.low, pair.high);
    pairs.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
    let group = |from: f64| -> Vec<Pair> {
        pairs.iter().filter(|pair| (0.0..=AGREE_SECONDS).contains(&(middle(pair) - from))).copied().collect()
    };
    let count = |group: &[Pair]| {
        let mut weights: BTreeMap<usize, usize> = BTreeMap::new();
        for pair in group {
            let weight = weights.entry(pair.which).or_default();
            *weight = pair.weight.max(*weight);
        }
        weights.values().sum::<usize>()
    };
    let zero: Vec<Pair> = pairs.iter().filter(|pair| pair.low <= 0.0 && pair.high >= 0.0).copied().collect();
    let distance = |group: &[Pair]| group.first().map_or(0.0, |pair| pair.low.abs());
    // Of groups of the same weight the one nearest to no skew.
    let best = pairs
        .iter()
        .map(|pair| group(middle(pair)))
        .max_by(|a, b| count(a).cmp(&count(b)).then_with(|| distance(b).total_cmp(&distance(a))))?;
    let chosen = if 2 * count(&zero) >= count(&best) { zero } else { best };
    let low = chosen.iter().map(|pair| pair.low).fold(f64::NEG_INFINITY, f64::max);
    let high = chosen.iter().map(|pair| pair.high).fold(f64::INFINITY, f64::min);
    let middles: Vec<f64> = chosen.iter().map(middle).collect();
    let median = *middles.get(middles.len() / 2)?;
    let half = chosen.iter().map(|pair| (pair.high - pair.low) / 2.0).fold(0.0, f64::max);
    // Where the intervals have nothing in common, one of them took longer than it should.
    let (seconds, error) =
        if low <= high { (f64::midpoint(low, high), (high - low) / 2.0) } else { (median, half.max(low - high)) };
    Some(Apart { seconds, error, agreeing: count(&chosen) })
}

/// From the member with most links to all others, errors adding up on the way.
fn chain(names: &[&str], links: &BTreeMap<(&str, &str), Apart>, options: &GatherOptions) -> Vec<MemberClock> {
    let degree = |name: &str| links.keys().filter(|(from, _)| *from == name).count();
    let reference = names.iter().rev().max_by_key(|name| degree(name)).copied().unwrap_or("");
    let mut reached: BTreeMap<&str, (f64, f64, usize)> = BTreeMap::from([(reference, (0.0, 0.0, usize::MAX))]);
    let mut frontier = vec![reference];
    while let Some(from) = frontier.pop() {
        let (ahead, error, _) = reached.get(from).copied().unwrap_or_default();
        for ((_, to), apart) in links.iter().filter(|((start, _), _)| *start == from) {
            let candidate = (ahead + apart.seconds, error + apart.error, apart.agreeing);
            if reached.get(to).is_none_or(|known| known.1 > candidate.1 + 1e-9) {
                reached.insert(to, candidate);
                frontier.push(to);
            }
        }
    }
    names.iter().map(|name| clock(name, reference, reached.get(name).copied(), options)).collect()
}

fn clock(name: &str, reference: &str, reached: Option<(f64, f64, usize)>, options: &GatherOptions) -> MemberClock {
    let mut clock = MemberClock {
        member: name.to_owned(),
        ahead_seconds: 0.0,
        error_seconds: None,
        corrected: false,
        certainty: Certainty::Assumed,
        why: "no happening is in its logs and in those of another host; taken as right".to_owned(),
    };
    if let Some(seconds) = options.skews.get(name) {
        clock.ahead_seconds = *seconds;
        clock.error_seconds = Some(0.0);
        clock.corrected = *seconds != 0.0;
        clock.certainty = Certainty::Given;
        clock.why = format!("--skew {name}={seconds}");
    } else if let Some((ahead, error, agreeing)) = reached {
        if name == reference {
            clock.error_seconds = Some(0.0);
            "the clock that the others are compared with".clone_into(&mut clock.why);
            return clock;
        }
        let is_off = ahead.abs() > error;
        clock.corrected = is_off && agreeing >= AGREEING_MIN;
        clock.ahead_seconds = if clock.corrected { round(ahead) } else { 0.0 };
        clock.error_seconds = Some(round(if clock.corrected { error } else { error.max(ahead.abs() + error) }));
        clock.certainty = if agreeing >= AGREEING_MIN { Certainty::Certain } else { Certainty::Likely };
        let happenings = if agreeing == 1 { "happening" } else { "happenings" };
        clock.why = match (is_off, clock.corrected) {
            (true, false) => format!("{agreeing} {happenings} would have it {ahead:+.1} s off, too few to believe it"),
            _ => format!("{agreeing} {happenings} seen on {reference} and other hosts"),
        };
    }
    clock
}

fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(low: f64, high: f64, which: usize) -> Pair {
        Pair { low, high, which, weight: 1 }
    }

    #[test]
    fn what_pairs_agree_on() {
        for (pairs, expected) in [
            (vec![], None),
            (vec![pair(-0.3, 0.3, 0)], Some((0.0, 0.3, 1))),
            // Two of three say that the clock is 5 s ahead.
            (vec![pair(4.8, 5.2, 0), pair(4.9, 5.3, 1), pair(-40.2, -39.8, 2)], Some((5.05, 0.15, 2))),
            // As many say that it is right: right it is.
            (vec![pair(4.8, 5.2, 0), pair(-0.2, 0.2, 1)], Some((0.0, 0.2, 1))),
            // One happening counts once, however many partners it has.
            (vec![pair(4.8, 5.2, 0), pair(4.8, 5.2, 0), pair(-0.2, 0.2, 1)], Some((0.0, 0.2, 1))),
        ] {
            let found = agree(pairs.clone());
            let found = found.map(|apart| (round(apart.seconds), round(apart.error), apart.agreeing));
            assert_eq!(found, expected, "{pairs:?}");
        }
    }

    #[test]
    fn zones_as_text() {
        for (seconds, text) in [(0, "+00:00"), (7200, "+02:00"), (-12_600, "-03:30")] {
            assert_eq!(zone_text(seconds), text);
        }
    }
}
