//! When to try again (A9).
//!
//! - [`Backoff`], between log-ins that were answered and failed: at once, then after 1, 2, 4, 8,
//!   15 s, and 15 s from then on, each spread by ±30% so that clients do not come back together.
//! - [`Pace`], between rounds of TCP connection attempts (C5). A path that is **silent** costs the
//!   gateway nothing, so it is knocked at every half second, which finds its return within that
//!   time, and the more seldom the longer it lasts: every second after a minute, every 3 s after
//!   10 minutes, every 10 s after an hour. A host that **refuses** is most likely one whose gateway
//!   is starting again: every 250 ms for 10 s, then as [`Backoff`] says.

use std::time::{Duration, Instant};

use crate::jitter::Jitter;

const STEPS_S: [u64; 6] = [0, 1, 2, 4, 8, 15];
const SPREAD_PERCENT: u32 = 30;

/// How long a path has been silent at least, and how long the pause is then. The last that fits.
const SILENT: [(Duration, Duration); 4] = [
    (Duration::ZERO, Duration::from_millis(500)),
    (Duration::from_secs(60), Duration::from_secs(1)),
    (Duration::from_secs(600), Duration::from_secs(3)),
    (Duration::from_secs(3_600), Duration::from_secs(10)),
];
const REFUSED: Duration = Duration::from_millis(250);
/// How long a gateway may take to start again before it is left alone for longer.
const RESTARTING: Duration = Duration::from_secs(10);
/// A refusal that comes later than this after it was due is the first of another restart.
const REFUSALS_APART: Duration = Duration::from_secs(3);
const PACE_SPREAD_PERCENT: u32 = 15;

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

/// The pauses between rounds of connection attempts.
#[derive(Debug, Clone)]
pub struct Pace {
    silent_since: Instant,
    refusals: Option<Refusals>,
    seed: u64,
    jitter: Jitter,
}

/// A series of refusals.
#[derive(Debug, Clone)]
struct Refusals {
    since: Instant,
    /// When the next one is expected.
    next: Instant,
    backoff: Backoff,
}

impl Pace {
    /// A first round begins; the seed decides the jitter.
    pub fn new(now: Instant, seed: u64) -> Self {
        Self { silent_since: now, refusals: None, seed, jitter: Jitter::new(seed) }
    }

    /// The pause between the beginning of a round and that of the next, if nobody answers.
    pub fn after_silence(&mut self, now: Instant) -> Duration {
        let lasted = now.saturating_duration_since(self.silent_since);
        let fitting = SILENT.iter().rev().find(|(since, _)| lasted >= *since);
        let (_, pause) = fitting.unwrap_or(&SILENT[0]);
        self.jitter.spread(*pause, PACE_SPREAD_PERCENT)
    }

    /// The pause after a round that was refused, from now on.
    pub fn after_refusal(&mut self, now: Instant) -> Duration {
        self.silent_since = now;
        let goes_on = self.refusals.as_ref().is_some_and(|r| now < r.next + REFUSALS_APART);
        if !goes_on {
            self.refusals = None;
        }
        let refusals = self.refusals.get_or_insert_with(|| Refusals {
            since: now,
            next: now,
            backoff: Backoff::new(self.seed),
        });
        let pause = if now.saturating_duration_since(refusals.since) < RESTARTING {
            self.jitter.spread(REFUSED, PACE_SPREAD_PERCENT)
        } else {
            // its first step, at once, is what the short pauses were
            refusals.backoff.next_delay().max(REFUSED)
        };
        refusals.next = now + pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(expected: f64, pause: Duration, spread: f64) -> bool {
        (expected * (1.0 - spread)..=expected * (1.0 + spread)).contains(&pause.as_secs_f64())
    }

    #[test]
    fn a_silent_path_is_knocked_at_every_half_second_and_more_seldom_after_minutes() {
        let start = Instant::now();
        for seed in 0..20 {
            let mut pace = Pace::new(start, seed);
            for (lasted, expected) in [
                (0, 0.5),
                (59, 0.5),
                (60, 1.0),
                (599, 1.0),
                (600, 3.0),
                (3_599, 3.0),
                (3_600, 10.0),
                (100_000, 10.0),
            ] {
                let pause = pace.after_silence(start + Duration::from_secs(lasted));
                assert!(about(expected, pause, 0.15), "{pause:?} after {lasted} s");
            }
        }
    }

    #[test]
    fn a_gateway_that_restarts_is_tried_every_quarter_second_and_then_as_the_backoff_says() {
        for seed in 0..20 {
            let start = Instant::now();
            let mut pace = Pace::new(start, seed);
            let mut now = start;
            while now < start + RESTARTING {
                let pause = pace.after_refusal(now);
                assert!(about(0.25, pause, 0.15), "{pause:?}");
                now += pause;
            }
            assert_eq!(pace.after_refusal(now), REFUSED);
            for expected in [1.0, 2.0, 4.0, 8.0, 15.0, 15.0] {
                let pause = pace.after_refusal(now);
                assert!(about(expected, pause, 0.3), "{pause:?} for {expected}");
                now += pause;
            }
            // the host itself restarts
            assert!(about(0.5, pace.after_silence(now), 0.15), "silence that has just begun");
            now += REFUSALS_APART;
            assert!(about(0.25, pace.after_refusal(now), 0.15), "a restart that has just begun");
        }
    }

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
