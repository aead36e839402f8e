//! The quality monitor (A32): latency, jitter and loss by pings through the tunnel, and the rates, each
//! second.
//!
//! While packets flow, or somebody looks, a ping is sent each second. On an idle tunnel there are
//! only those that keep it alive anyway, so that nothing is sent for the sake of figures that nobody
//! wants.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cipherwall_ipc::daemon::Sample;

/// How many pings jitter and loss are taken from.
const PINGS: usize = 30;
/// How many seconds a ping may take before it counts as lost.
const LOST_AFTER: u32 = 3;

/// What was measured on a connection.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    /// Round trips of the last pings, oldest first; `None` for those that were lost.
    pings: VecDeque<Option<Duration>>,
    /// How many pings were answered so far.
    answered: u32,
    /// For how many seconds the last ping of ours has been unanswered.
    waiting: Option<u32>,
    /// Bytes received and sent so far.
    traffic: (u64, u64),
}

/// What a second has brought.
pub(crate) struct Second {
    /// The figures.
    pub(crate) sample: Sample,
    /// Whether a ping is to be sent now.
    pub(crate) ping: bool,
}

impl Monitor {
    /// Of a connection that has carried this much so far.
    pub(crate) fn new(traffic: (u64, u64)) -> Monitor {
        Monitor { traffic, ..Monitor::default() }
    }

    /// A second has passed. `latest`: the last round trip, and the number of all so far; `looked_at`:
    /// somebody wants to know.
    pub(crate) fn tick(
        &mut self,
        now: SystemTime,
        latest: Option<(Duration, u32)>,
        traffic: (u64, u64),
        looked_at: bool,
    ) -> Second {
        self.look_for_pong(latest);
        let bytes = |now: u64, before: u64| now.saturating_sub(before);
        let (rx_bytes, tx_bytes) =
            (bytes(traffic.0, self.traffic.0), bytes(traffic.1, self.traffic.1));
        self.traffic = traffic;
        let ping = self.waiting.is_none() && (looked_at || rx_bytes + tx_bytes > 0);
        if ping {
            self.waiting = Some(0);
        }
        let at = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let (latency_ms, jitter_ms, loss) = (self.latency(), self.jitter(), self.loss());
        Second { sample: Sample { at, latency_ms, jitter_ms, loss, rx_bytes, tx_bytes }, ping }
    }

    fn look_for_pong(&mut self, latest: Option<(Duration, u32)>) {
        if let Some((round_trip, answered)) = latest
            && answered != self.answered
        {
            self.answered = answered;
            self.waiting = None;
            return self.note(Some(round_trip));
        }
        self.waiting = self.waiting.map(|seconds| seconds + 1);
        if self.waiting.is_some_and(|seconds| seconds >= LOST_AFTER) {
            self.waiting = None;
            self.note(None);
        }
    }

    fn note(&mut self, ping: Option<Duration>) {
        if self.pings.len() >= PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back(ping);
    }

    fn latency(&self) -> Option<f32> {
        self.pings.iter().rev().flatten().next().copied().map(ms)
    }

    fn jitter(&self) -> Option<f32> {
        let answered: Vec<Duration> = self.pings.iter().flatten().copied().collect();
        let differences = answered.windows(2).map(|pair| pair[0].abs_diff(pair[1]));
        let count =
            u32::try_from(answered.len()).ok()?.checked_sub(1).filter(|count| *count > 0)?;
        Some(ms(differences.sum::<Duration>() / count))
    }

    fn loss(&self) -> Option<f32> {
        let lost = self.pings.iter().filter(|ping| ping.is_none()).count();
        let share = |part: usize, whole: usize| {
            let (part, whole) = (u16::try_from(part).ok()?, u16::try_from(whole).ok()?);
            (whole > 0).then(|| f32::from(part) / f32::from(whole))
        };
        share(lost, self.pings.len())
    }
}

/// To the microsecond.
fn ms(time: Duration) -> f32 {
    (time.as_secs_f32() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn latency_jitter_and_loss_are_those_of_the_last_pings() {
        let mut monitor = Monitor::new((0, 0));
        let mut tick = |latest| monitor.tick(UNIX_EPOCH, latest, (0, 0), true);
        let first = tick(None);
        assert!(first.ping);
        assert_eq!((first.sample.latency_ms, first.sample.loss), (None, None));
        for (count, round_trip) in [(1, 10 * MS), (2, 14 * MS), (3, 10 * MS)] {
            assert!(tick(Some((round_trip, count))).ping, "answered, so the next one is sent");
        }
        // the fourth is lost
        assert!(!tick(Some((10 * MS, 3))).ping, "it is waited for");
        assert!(!tick(Some((10 * MS, 3))).ping);
        let lost = tick(Some((10 * MS, 3)));
        assert!(lost.ping);
        assert_eq!(lost.sample.latency_ms, Some(10.0));
        assert_eq!(lost.sample.jitter_ms, Some(4.0));
        assert_eq!(lost.sample.loss, Some(0.25));
    }

    #[test]
    fn an_idle_tunnel_that_nobody_looks_at_is_left_alone() {
        let mut monitor = Monitor::new((100, 100));
        assert!(!monitor.tick(UNIX_EPOCH, None, (100, 100), false).ping);
        let busy = monitor.tick(UNIX_EPOCH, None, (150, 107), false);
        assert!(busy.ping);
        assert_eq!((busy.sample.rx_bytes, busy.sample.tx_bytes), (50, 7));
        // a ping of the tunnel's own counts, too
        let kept = monitor.tick(UNIX_EPOCH, Some((7 * MS, 1)), (150, 107), false);
        assert_eq!(kept.sample.latency_ms, Some(7.0));
    }
}
