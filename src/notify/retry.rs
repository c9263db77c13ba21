//! When to try again, and when to give up.

use std::time::Duration;

use crate::model::Timestamp;

/// How an attempt to deliver ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// Try again, not before `after` if the receiver named a time.
    Retry {
        error: String,
        after: Option<Duration>,
    },
    /// The receiver says no; a few more tries in case it changes its mind.
    Refused {
        error: String,
    },
    /// Somebody must mend the settings (a password): try on, rarely.
    Misconfigured {
        error: String,
    },
    /// It will never work.
    Dead {
        error: String,
    },
}

/// The first minutes of trying are dense, then it is every five minutes.
const DENSE_FOR: Duration = Duration::from_mins(10);
const FIRST: Duration = Duration::from_secs(1);
const DENSE_MAX: Duration = Duration::from_mins(1);
const SPARSE: Duration = Duration::from_mins(5);
/// Between tries with settings that somebody must mend.
const MISCONFIGURED: Duration = Duration::from_mins(15);
/// A receiver's own wish is not followed further than this.
const AFTER_MAX: Duration = Duration::from_hours(1);
/// Tries of a message that is refused.
const REFUSED_TRIES: u32 = 3;

/// What to do with a row after a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    TryAt(Timestamp),
    GiveUp,
}

/// How long a message is worth delivering.
pub fn lifetime(integration: &str) -> Duration {
    Duration::from_secs(if integration == "email" { 72 * 3600 } else { 24 * 3600 })
}

/// Decides after attempt number `attempts` (from 1) of a row made at `created_at`. `jitter` is between 0 and 1.
pub fn after_failure(outcome: &Outcome, attempts: u32, created_at: Timestamp, now: Timestamp, jitter: f64) -> Next {
    let age = now.since(created_at);
    let wait = match outcome {
        Outcome::Delivered | Outcome::Dead { .. } => return Next::GiveUp,
        Outcome::Refused { .. } if attempts >= REFUSED_TRIES => return Next::GiveUp,
        Outcome::Misconfigured { .. } => MISCONFIGURED,
        Outcome::Retry { .. } | Outcome::Refused { .. } if age >= DENSE_FOR => SPARSE,
        Outcome::Retry { .. } | Outcome::Refused { .. } => {
            let full = FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(DENSE_MAX);
            // Never at once: half is fixed, half is spread.
            full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
        }
    };
    let asked = match outcome {
        Outcome::Retry { after: Some(after), .. } => (*after).min(AFTER_MAX),
        _ => Duration::ZERO,
    };
    Next::TryAt(now + wait.max(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits() {
        let at = Timestamp::from_secs;
        let error = String::new;
        let retry = Outcome::Retry { error: error(), after: None };
        let later = Outcome::Retry { error: error(), after: Some(Duration::from_mins(2)) };
        let refused = Outcome::Refused { error: error() };
        for (outcome, attempts, now, expected) in [
            (&retry, 1, 0, Next::TryAt(at(1))),
            (&retry, 4, 20, Next::TryAt(at(28))),
            (&retry, 40, 100, Next::TryAt(at(160))),
            (&retry, 40, 600, Next::TryAt(at(900))),
            (&later, 1, 0, Next::TryAt(at(120))),
            (&refused, 2, 0, Next::TryAt(at(2))),
            (&refused, 3, 0, Next::GiveUp),
            (&Outcome::Misconfigured { error: error() }, 9, 0, Next::TryAt(at(900))),
            (&Outcome::Dead { error: error() }, 1, 0, Next::GiveUp),
        ] {
            assert_eq!(after_failure(outcome, attempts, at(0), at(now), 1.0), expected, "{outcome:?} {attempts}");
        }
        assert_eq!(after_failure(&retry, 1, at(0), at(0), 0.0), Next::TryAt(Timestamp::from_millis(500)));
    }
}
