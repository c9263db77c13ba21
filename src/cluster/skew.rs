//! How far a host's clock is from ours, with the error of that.
//!
//! A host that is asked for its time answers between our question and our receiving: its clock is ahead by
//! `node_now - midpoint`, give or take half the round trip. Nothing else is ever assumed of a host's clock.

use std::collections::VecDeque;
use std::time::Duration;

use crate::cluster::member::Probe;
use crate::model::Timestamp;
use crate::model::observation::ClockOffset;

const READINGS_MAX: usize = 32;
/// Older readings say nothing: clocks drift and are set.
const READING_AGE_MAX: Duration = Duration::from_mins(2);
/// How far a bad oscillator goes in a second.
const DRIFT_PER_SECOND: f64 = 100e-6;

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Timestamp,
    offset: ClockOffset,
}

/// Recent readings of one host's clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Skew {
    readings: VecDeque<Reading>,
}

impl Skew {
    /// The host said what time it is.
    pub(super) fn told(&mut self, probe: Probe, node_now: Timestamp) {
        let half = probe.received.since(probe.sent).as_secs_f64() / 2.0;
        let ahead = |of: Timestamp| (i128::from(node_now.nanos()) - i128::from(of.nanos())) as f64 / 1e9;
        self.add(probe.received, ClockOffset { seconds: ahead(probe.sent) - half, error_seconds: half });
    }

    /// The offset was measured elsewhere, such as by the agent of the host.
    pub(super) fn add(&mut self, at: Timestamp, offset: ClockOffset) {
        if !offset.seconds.is_finite() || !offset.error_seconds.is_finite() || offset.error_seconds < 0.0 {
            return;
        }
        if self.readings.back().is_some_and(|last| last.at > at) {
            return;
        }
        // Readings that cannot both be right: the clock was set in between.
        let drift = |reading: &Reading| at.since(reading.at).as_secs_f64() * DRIFT_PER_SECOND;
        self.readings.retain(|reading| {
            (reading.offset.seconds - offset.seconds).abs()
                <= reading.offset.error_seconds + offset.error_seconds + drift(reading)
        });
        self.readings.push_back(Reading { at, offset });
        if self.readings.len() > READINGS_MAX {
            self.readings.pop_front();
        }
    }

    /// The reading with the least error, which grows with age.
    pub(super) fn estimate(&self, now: Timestamp) -> Option<ClockOffset> {
        let aged = |reading: &Reading| {
            let age = now.since(reading.at);
            let error_seconds = reading.offset.error_seconds + age.as_secs_f64() * DRIFT_PER_SECOND;
            (age <= READING_AGE_MAX).then_some(ClockOffset { error_seconds, ..reading.offset })
        };
        self.readings.iter().filter_map(aged).min_by(|a, b| a.error_seconds.total_cmp(&b.error_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    fn probe(sent: i64, received: i64) -> Probe {
        Probe { sent: at(sent), received: at(received) }
    }

    #[test]
    fn the_true_offset_is_within_the_error() {
        // Host clock ahead by `offset`, answer made anywhere between question and answer.
        for offset in [-90_000, -3, 0, 7, 5_000] {
            for (to, back) in [(1, 1), (0, 400), (400, 0), (20, 80)] {
                let mut skew = Skew::default();
                skew.told(probe(0, to + back), at(to + offset));
                let found = skew.estimate(at(to + back)).unwrap();
                let wrong = (found.seconds - offset as f64 / 1_000.0).abs();
                assert!(wrong <= found.error_seconds + 1e-6, "{offset} {to} {back}: {found:?}");
            }
        }
    }

    #[test]
    fn the_quickest_answer_counts_until_it_is_old() {
        let mut skew = Skew::default();
        assert_eq!(skew.estimate(at(0)), None);
        skew.told(probe(0, 2), at(1_001));
        skew.told(probe(1_000, 1_400), at(2_390));
        let found = skew.estimate(at(2_000)).unwrap();
        assert!((found.seconds - 1.0).abs() < 1e-6 && found.error_seconds < 0.0015, "{found:?}");
        assert!(skew.estimate(at(60_000)).unwrap().error_seconds > 0.006);
        assert_eq!(skew.estimate(at(200_000)), None);
    }

    #[test]
    fn a_clock_that_was_set_starts_over() {
        let mut skew = Skew::default();
        skew.told(probe(0, 2), at(1));
        skew.told(probe(1_000, 1_400), at(31_200));
        assert!((skew.estimate(at(1_400)).unwrap().seconds - 30.0).abs() < 0.3);
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let mut skew = Skew::default();
        for (seconds, error_seconds) in [(f64::NAN, 0.1), (1.0, f64::INFINITY), (1.0, -0.1)] {
            skew.add(at(0), ClockOffset { seconds, error_seconds });
        }
        assert_eq!(skew.estimate(at(0)), None);
    }
}
