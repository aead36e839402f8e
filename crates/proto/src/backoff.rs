//! When to try again (A9): at once, then after 1, 2, 4, 8, 15 s, and 15 s from then on, each
//! spread by ±30% so that clients do not come back together.

use std::time::Duration;

use crate::jitter::Jitter;

const STEPS_S: [u64; 6] = [0, 1, 2, 4, 8, 15];
const SPREAD_PERCENT: u32 = 30;

/// The waiting times of one series of tries.
#[derive(Debug, Clone)]
pub struct Backoff {
    step: usize,
    jitter: Jitter,
}

impl Backoff {
    /// A new series; the seed decides the jitter.
    pub fn new(seed: u64) -> Self {
        Self { step: 0, jitter: Jitter::new(seed) }
    }

    /// How long to wait before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let seconds = STEPS_S[self.step];
        self.step = (self.step + 1).min(STEPS_S.len() - 1);
        self.jitter.spread(Duration::from_secs(seconds), SPREAD_PERCENT)
    }

    /// Begins again: a try has succeeded, the link has changed, the computer woke up.
    pub fn reset(&mut self) {
        self.step = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_try_is_at_once_and_the_last_step_stays() {
        for seed in 0..50 {
            let mut backoff = Backoff::new(seed);
            assert_eq!(backoff.next_delay(), Duration::ZERO);
            for around in [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0] {
                let delay = backoff.next_delay().as_secs_f64();
                assert!((around * 0.7..=around * 1.3).contains(&delay), "{delay} for {around}");
            }
            backoff.reset();
            assert_eq!(backoff.next_delay(), Duration::ZERO);
        }
    }
}
