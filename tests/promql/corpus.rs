//! The samples that both engines get: two hours of what real systems send, and of what they should not.

use std::collections::BTreeMap;

use daraji::model::sample::STALE_NAN;
use daraji::model::{Labels, Sample, Timestamp};

use crate::dice::Dice;

/// The last second that has samples.
pub(crate) const END_SECS: i64 = 1_700_000_000;
const TICKS: i64 = 240;
const TICK_SECS: i64 = 30;

struct Corpus {
    dice: Dice,
    series: BTreeMap<Labels, Vec<(i64, f64)>>,
}

impl Corpus {
    /// Adds a series with a value for each tick; `None` is a gap. The first tick always has one.
    fn add(&mut self, name: &str, labels: &[(&str, &str)], mut value: impl FnMut(&mut Dice, i64) -> Option<f64>) {
        let labels = Labels::metric(name, labels);
        let jitter_ms = i64::try_from(self.dice.below(900)).unwrap();
        let mut points = Vec::new();
        for tick in 0..TICKS {
            let at_ms = (END_SECS - (TICKS - 1 - tick) * TICK_SECS) * 1000;
            let wobble = if name == "wobbly" { i64::try_from(self.dice.below(15_000)).unwrap() } else { 0 };
            let at_ms = at_ms - jitter_ms - wobble;
            match value(&mut self.dice, tick) {
                Some(value) => points.push((at_ms, value)),
                None if tick == 0 => points.push((at_ms, 1.0)),
                None => {}
            }
        }
        self.series.insert(labels, points);
    }

    fn counters(&mut self) {
        for (instance, job) in INSTANCES {
            for (method, code) in [("get", "200"), ("get", "500"), ("post", "200")] {
                let labels = [("instance", instance), ("job", job), ("method", method), ("code", code)];
                let mut total = 0.0;
                let reset_at = 40 + i64::try_from(self.dice.below(150)).unwrap();
                self.add("http_requests_total", &labels, |dice, tick| {
                    total = if tick == reset_at { 0.0 } else { total + (dice.share() * 50.0).floor() };
                    Some(total)
                });
            }
            let labels = [("instance", instance), ("job", job)];
            let mut seconds = 0.0;
            self.add("cpu_seconds", &labels, |dice, tick| {
                seconds += dice.share() * 3.0;
                (!(80..95).contains(&tick)).then_some(seconds)
            });
        }
    }

    fn gauges(&mut self) {
        for (number, (instance, job)) in INSTANCES.into_iter().enumerate() {
            let labels = [("instance", instance), ("job", job)];
            let room = [("instance", instance), ("job", job), ("room", ["hall", "cellar", "roof", "attic"][number])];
            self.add("temperature", &room, |dice, _| Some((dice.share() - 0.4) * 50.0));
            self.add("odd", &labels, |dice, _| {
                let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, 1e-300, 1e300, STALE_NAN];
                Some(if dice.chance(25) { odd[dice.below(odd.len())] } else { dice.share() })
            });
            self.add("huge", &labels, |dice, _| Some((dice.share() - 0.3) * 1.7e308));
            self.add("up", &labels, |dice, tick| match (number, tick) {
                (1, 100) | (2, 239) => Some(STALE_NAN),
                (1, 101..=130) => None,
                _ => Some(f64::from(u8::from(!dice.chance(10)))),
            });
            self.add("sparse", &labels, |dice, _| dice.chance(12).then(|| dice.share() * 10.0));
            self.add("wobbly", &labels, |dice, _| (!dice.chance(5)).then(|| (dice.share() * 7.0).floor()));
            self.add("constant", &labels, |_, _| Some(42.5));
            let role =
                [("instance", instance), ("job", job), ("role", if number == 0 { "primary" } else { "replica" })];
            self.add("role", &role, |_, _| Some(1.0));
        }
        for n in 1..=14 {
            let text = format!("n{n}");
            self.add("ties", &[("n", &text)], |_, tick| Some(f64::from(n / 3) + (tick / 60) as f64));
        }
        self.add("single", &[], |_, tick| (tick == 200).then_some(7.0));
        self.add("job:requests:sum", &[("job", "api")], |dice, _| Some((dice.share() * 100.0).floor()));
        self.add("dotted.metric", &[("k8s.pod", "a-1"), ("job", "api")], |dice, _| Some(dice.share()));
        self.add("dotted.metric", &[("k8s.pod", "b-2"), ("job", "web")], |dice, _| Some(dice.share()));
    }

    fn histograms(&mut self) {
        for (instance, job) in INSTANCES {
            let labels = [("instance", instance), ("job", job)];
            let mut all = Vec::new();
            for bounds in 0..BOUNDS.len() {
                let mut total = 0.0;
                let seed = self.dice.next();
                let mut dice = Dice::new(seed);
                let counts: Vec<f64> = (0..TICKS)
                    .map(|_| {
                        total += (dice.share() * (bounds + 1) as f64).floor();
                        total
                    })
                    .collect();
                all.push(counts);
            }
            for upto in 0..BOUNDS.len() {
                let with_bound = [("instance", instance), ("job", job), ("le", BOUNDS[upto])];
                let counts = all.clone();
                self.add("latency_seconds_bucket", &with_bound, |_, tick| {
                    Some(counts[..=upto].iter().map(|counts| counts[usize::try_from(tick).unwrap()]).sum())
                });
            }
            self.add("latency_seconds_sum", &labels, |_, tick| Some(tick as f64 * 1.5));
            self.add("latency_seconds_count", &labels, |_, tick| Some(tick as f64 * 3.0));
        }
        // Counts that fall, a bound that is none, no bound, no infinite bound, the same bound in two spellings.
        for (kind, le, count) in [
            ("falling", "1", 10.0),
            ("falling", "2", 8.0),
            ("falling", "5", 20.0),
            ("falling", "+Inf", 19.0),
            ("malformed", "one", 1.0),
            ("malformed", "2", 8.0),
            ("malformed", "+Inf", 9.0),
            ("finite", "1", 3.0),
            ("finite", "2", 4.0),
            ("twice", "1", 2.0),
            ("twice", "1.0", 3.0),
            ("twice", "2", 9.0),
            ("twice", "+Inf", 9.0),
            ("negative", "-5", 1.0),
            ("negative", "-1", 4.0),
            ("negative", "+Inf", 6.0),
            ("empty", "1", 0.0),
            ("empty", "+Inf", 0.0),
        ] {
            self.add("strange_bucket", &[("kind", kind), ("le", le)], |_, _| Some(count));
        }
        self.add("strange_bucket", &[("kind", "boundless")], |_, _| Some(1.0));
    }

    fn infos(&mut self) {
        for (number, (instance, job)) in INSTANCES.into_iter().enumerate() {
            let version = ["1.0", "1.1"][number % 2];
            let labels = [("instance", instance), ("job", job), ("version", version), ("env", "prod")];
            self.add("target_info", &labels, |_, _| Some(1.0));
            let build = [("instance", instance), ("job", job), ("revision", "abc"), ("version", version)];
            self.add("build_info", &build, |_, _| Some(1.0));
        }
    }
}

const INSTANCES: [(&str, &str); 4] = [("a:1", "api"), ("a:2", "api"), ("b:1", "web"), ("c:1", "db")];
const BOUNDS: [&str; 5] = ["0.1", "0.5", "1", "2.5", "+Inf"];

/// Batches to write one after the other: first one sample of every series, ordered by labels, so that both sides know
/// the series in the same order; then the rest in order of time.
pub(crate) fn batches() -> Vec<Vec<Sample>> {
    let mut corpus = Corpus { dice: Dice::new(2023), series: BTreeMap::new() };
    corpus.counters();
    corpus.gauges();
    corpus.histograms();
    corpus.infos();
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for (labels, points) in corpus.series {
        for (number, (at_ms, value)) in points.into_iter().enumerate() {
            let sample = Sample::new(labels.clone(), Timestamp::from_millis(at_ms), value);
            if number == 0 { first.push(sample) } else { rest.push(sample) }
        }
    }
    rest.sort_by_key(|sample| sample.at);
    let mut batches = vec![first];
    batches.extend(rest.chunks(10_000).map(<[Sample]>::to_vec));
    batches
}
