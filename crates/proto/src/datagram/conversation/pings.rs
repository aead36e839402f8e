//! Pings that wait for their answer, and the round trip they tell.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::Purpose;

/// More are never on their way for a good reason; the oldest is given up.
const OPEN_MAX: usize = 32;

/// The pings of one channel.
#[derive(Debug, Default)]
pub(super) struct Pings {
    sequence: u64,
    open: VecDeque<Ping>,
    smoothed: Option<Duration>,
}

#[derive(Debug)]
struct Ping {
    sequence: u64,
    sent: Instant,
    purpose: Purpose,
}

impl Pings {
    /// The payload of a ping that goes out now.
    pub(super) fn send(&mut self, now: Instant, purpose: Purpose) -> [u8; 8] {
        self.sequence += 1;
        if self.open.len() == OPEN_MAX {
            self.open.pop_front();
        }
        self.open.push_back(Ping { sequence: self.sequence, sent: now, purpose });
        self.sequence.to_be_bytes()
    }

    /// What the ping of this answer was for; each is answered once.
    pub(super) fn answered(&mut self, now: Instant, payload: [u8; 8]) -> Option<Purpose> {
        let sequence = u64::from_be_bytes(payload);
        let at = self.open.iter().position(|ping| ping.sequence == sequence)?;
        let ping = self.open.remove(at)?;
        let sample = now.saturating_duration_since(ping.sent);
        // RFC 6298, 2.3
        self.smoothed = Some(self.smoothed.map_or(sample, |s| s * 7 / 8 + sample / 8));
        Some(ping.purpose)
    }

    /// The smoothed round trip, once known.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.smoothed
    }
}
