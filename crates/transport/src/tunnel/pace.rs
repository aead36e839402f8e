//! How much may be on its way to a socket, so that it never runs dry and nothing stands in line.

use std::time::{Duration, Instant};

/// What waits for the socket, sealed or in the kernel, takes about so long to leave.
const AHEAD: Duration = Duration::from_millis(4);
/// One record.
const BYTES_MIN: usize = 16 * 1024;
/// More than this at once saves no system calls worth the name.
const BYTES_MAX: usize = 128 * 1024;
/// What queues for the socket takes at most so long, or [`QUEUED_ROUND_TRIPS`]: while a lost packet is
/// repeated, or BBR looks for the shortest round trip, the path takes next to nothing, and more than
/// a window comes in.
const QUEUED: Duration = Duration::from_millis(100);
const QUEUED_ROUND_TRIPS: u32 = 2;
const QUEUE_MIN: usize = 256 * 1024;
const QUEUE_MAX: usize = 2 * 1024 * 1024;
/// How long the socket is watched before its rate is taken ...
const WINDOW: Duration = Duration::from_millis(50);
/// ... and after which time it has not been busy all the while.
const WINDOW_MAX: Duration = Duration::from_millis(250);

/// Learns at which rate a socket takes bytes while it is the bottleneck.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Option<Instant>,
    /// Bytes that the socket has taken since then.
    taken: usize,
    /// Whether it has been full since then.
    was_full: bool,
    /// Bytes a second.
    rate: f64,
}

impl Pace {
    /// Bytes that may be handed to the socket at once, and wait for it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes_in(AHEAD).clamp(BYTES_MIN, BYTES_MAX)
    }

    /// Bytes that may queue on a path with this round trip. Many slow connections take no more
    /// together than a fast one.
    pub(super) fn queue_bytes(&self, round_trip: Duration) -> usize {
        let longest = QUEUED.max(round_trip * QUEUED_ROUND_TRIPS);
        self.bytes_in(longest).clamp(QUEUE_MIN, QUEUE_MAX)
    }

    /// The socket has taken so many bytes.
    pub(super) fn took(&mut self, count: usize) {
        self.taken += count;
    }

    /// The socket was written to; `full`: it took not everything. `true` if [`Pace::bytes`] or
    /// [`Pace::queue_bytes`] has changed by enough to act upon.
    pub(super) fn wrote(&mut self, now: Instant, full: bool) -> bool {
        self.was_full |= full;
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed < WINDOW {
            return false;
        }
        let measured = self.taken as f64 / elapsed.as_secs_f64();
        let is_bottleneck = self.was_full && elapsed < WINDOW_MAX;
        (self.since, self.taken, self.was_full) = (Some(now), 0, false);
        // A socket that is never full tells only what it takes at least. Downwards slowly: it may
        // not have been busy all the time, or the other end may have had to wait for a processor.
        let rate = if measured > self.rate {
            measured
        } else if is_bottleneck {
            self.rate * 0.75 + measured * 0.25
        } else {
            return false;
        };
        let before = self.bytes();
        self.rate = rate;
        self.bytes().abs_diff(before) > before / 8
    }

    fn bytes_in(&self, time: Duration) -> usize {
        (self.rate * time.as_secs_f64()) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes `per_ms` bytes a millisecond, for a second.
    fn run(pace: &mut Pace, now: &mut Instant, per_ms: usize, full: bool) {
        for _ in 0..1_000 {
            *now += Duration::from_millis(1);
            pace.took(per_ms);
            pace.wrote(*now, full);
        }
    }

    #[test]
    fn a_slow_socket_gets_little_ahead_and_a_fast_one_much() {
        let (mut now, mut pace) = (Instant::now(), Pace::default());
        run(&mut pace, &mut now, 100_000, true);
        let near = Duration::from_millis(1);
        assert_eq!((pace.bytes(), pace.queue_bytes(near)), (BYTES_MAX, QUEUE_MAX), "800 Mbit/s");
        run(&mut pace, &mut now, 2_500, true);
        assert_eq!(pace.bytes(), BYTES_MIN, "20 Mbit/s");
        assert!(pace.queue_bytes(near) < QUEUE_MIN * 5 / 4, "{}", pace.queue_bytes(near));
        let far = pace.queue_bytes(Duration::from_millis(200));
        assert!((900_000..1_200_000).contains(&far), "{far}");
        run(&mut pace, &mut now, 12_500, true);
        assert!((49_000..51_000).contains(&pace.bytes()), "100 Mbit/s: {}", pace.bytes());
    }

    #[test]
    fn a_socket_that_is_not_full_says_nothing_about_its_limit() {
        let (mut now, mut pace) = (Instant::now(), Pace::default());
        run(&mut pace, &mut now, 12_500, true);
        let before = pace.bytes();
        run(&mut pace, &mut now, 10, false);
        assert!(pace.bytes().abs_diff(before) < before / 50);
    }
}
