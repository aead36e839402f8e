//! Datagrams that are sent twice, on a path that loses some and has room: what is lost then arrives
//! milliseconds later instead of a round trip, and with it everything behind it in the stream. What is
//! tunnelled sees a path without loss while it looks for the path's rate.
//!
//! This costs the path nothing that others want ([`Control::has_spare`](super::control::Control)), and
//! the owner of the line a bounded amount.

use std::{
    collections::VecDeque,
    ops::Range,
    time::{Duration, Instant},
};

use super::outbox::Counts;

/// The second one follows so much later: losses come in groups, and what takes longer is noticed by the
/// congestion control of what is tunnelled (RFC 9406: 4 to 16 ms).
const AFTER: Duration = Duration::from_millis(8);
/// By then it is no use.
const TOO_LATE: Duration = Duration::from_millis(40);
/// Only where a round trip is much longer than that, is something gained.
const LENGTH_MIN: Duration = Duration::from_millis(40);
const WAITING_MAX: usize = 64;
/// A path that has lost such a part of the latest segments loses some; with more it is full.
const LOSSY: Range<f64> = 0.004..0.2;
/// That is the mean of so many segments.
const MEAN: f64 = 200.0;
/// So many segments are sent twice at once: what it takes to find the rate of a path of 20 Mbit/s and
/// 300 ms.
const ALLOWANCE_MAX: f64 = 1_200.0;
/// And again after so many others, or at so many a second: typing and talking.
const ALLOWANCE_EACH: f64 = 0.05;
const ALLOWANCE_RATE: f64 = 16.0;

/// What is to be sent once more.
#[derive(Debug)]
pub(super) struct Repeats {
    /// When, and the KCP bytes of a datagram.
    waiting: VecDeque<(Instant, Vec<u8>)>,
    /// The part of the latest segments that was lost.
    loss: f64,
    /// So many segments may be sent twice.
    allowance: f64,
    allowance_at: Instant,
}

impl Repeats {
    pub(super) fn new(now: Instant) -> Self {
        Self { waiting: VecDeque::new(), loss: 0.0, allowance: ALLOWANCE_MAX, allowance_at: now }
    }

    /// Segments have been sent for the first time, or for they were lost.
    pub(super) fn on_sent(&mut self, now: Instant, counts: Counts) {
        let sent = (counts.new + counts.again) as f64;
        if sent == 0.0 {
            return;
        }
        self.loss += (counts.again as f64 / sent - self.loss) * (sent / MEAN).min(1.0);
        let elapsed = now.saturating_duration_since(self.allowance_at).as_secs_f64();
        self.allowance_at = now;
        let more = sent * ALLOWANCE_EACH + elapsed * ALLOWANCE_RATE;
        self.allowance = (self.allowance + more).min(ALLOWANCE_MAX);
    }

    /// Whether something that leaves now is to be sent once more, on a path of this length.
    pub(super) fn wants(&self, length: Option<Duration>) -> bool {
        LOSSY.contains(&self.loss)
            && self.allowance >= 1.0
            && self.waiting.len() < WAITING_MAX
            && length.is_some_and(|length| length >= LENGTH_MIN)
    }

    /// This has been sent for the first time.
    pub(super) fn push(&mut self, now: Instant, kcp: &[u8]) {
        self.waiting.push_back((now + AFTER, kcp.to_vec()));
    }

    /// What is due, if something is.
    pub(super) fn due(&self, now: Instant) -> Option<&[u8]> {
        self.waiting.front().filter(|(at, _)| *at <= now).map(|(_, kcp)| kcp.as_slice())
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, _)| *at)
    }

    /// The one that was due has been sent.
    pub(super) fn on_repeated(&mut self) {
        self.waiting.pop_front();
        self.allowance -= 1.0;
    }

    /// Forgets what is too late, or everything that is due if the path has no room.
    pub(super) fn forget(&mut self, now: Instant, has_room: bool) {
        let late = if has_room { TOO_LATE } else { Duration::ZERO };
        while self.waiting.pop_front_if(|(at, _)| *at + late <= now).is_some() {}
        if self.waiting.is_empty() {
            // a gateway may have thousands of these that do nothing
            self.waiting = VecDeque::new();
        }
    }
}
