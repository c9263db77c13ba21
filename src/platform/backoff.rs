//! Waiting longer after each failure, with jitter.

use std::time::Duration;

/// Doubles from `first` up to `max`; the actual wait is between half and all of it.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
    seed: u64,
}

impl Backoff {
    /// The seed makes the jitter differ between users and repeatable in tests.
    pub fn new(first: Duration, max: Duration, seed: u64) -> Self {
        Self { first, max, next: first, seed: seed | 1 }
    }

    /// The wait before the next try.
    pub fn next_wait(&mut self) -> Duration {
        let full = self.next;
        self.next = (self.next * 2).min(self.max);
        // xorshift64: good enough to spread retries.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let fraction = (self.seed % 1024) as f64 / 2048.0;
        full.mul_f64(0.5 + fraction)
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4), 42);
        for full in [1, 2, 4, 4] {
            let wait = backoff.next_wait();
            let full = Duration::from_secs(full);
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_secs(1));
    }
}
