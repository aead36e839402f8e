//! What acknowledgements say of the path: how long it is and how much it delivers
//! (draft-cheng-iccrg-delivery-rate-estimation).
//!
//! KCP's acknowledgements repeat the time at which what they acknowledge was sent, in milliseconds, so
//! that what was known at that time is kept once for each millisecond.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Older times are forgotten, as their acknowledgements say nothing of the present path.
const KEPT: usize = 4_096;

/// Segments delivered, and what was known when the others were sent.
#[derive(Debug)]
pub(super) struct Samples {
    delivered: u64,
    delivered_at: Instant,
    /// When the segment was sent whose acknowledgement came last.
    first_sent: Instant,
    /// So many have to be delivered before samples tell of the path again, and not of a sender that
    /// had nothing to send.
    limited_until: u64,
    sent: VecDeque<Sent>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    ms: u64,
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    limited: bool,
}

/// What one datagram with acknowledgements says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) round_trip: Duration,
    /// Segments a second; `None` if it cannot be told.
    pub(super) rate: Option<f64>,
    /// The sender had less to send than the path takes.
    pub(super) limited: bool,
    /// Segments that had been delivered when this one was sent.
    pub(super) delivered_before: u64,
}

impl Samples {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            limited_until: 0,
            sent: VecDeque::new(),
        }
    }

    /// Segments delivered so far.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Segments are sent in the millisecond `ms`; `in_flight`: others before them.
    pub(super) fn on_sent(&mut self, now: Instant, ms: u64, in_flight: u64) {
        if in_flight == 0 {
            (self.first_sent, self.delivered_at) = (now, now);
        }
        if self.sent.back().is_some_and(|sent| sent.ms >= ms) {
            return;
        }
        if self.sent.len() == KEPT {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            ms,
            at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            limited: self.delivered < self.limited_until,
        });
    }

    /// There is nothing to send, though the path would take more than what is in flight.
    pub(super) fn on_limited(&mut self, in_flight: u64) {
        self.limited_until = self.delivered + in_flight.max(1);
    }

    /// Nothing is on its way: gives memory back.
    pub(super) fn rest(&mut self) {
        self.sent = VecDeque::new();
    }

    /// So many more have been delivered, the last of them sent in the millisecond `ms`.
    pub(super) fn on_acknowledged(&mut self, now: Instant, count: u64, ms: u64) -> Option<Sample> {
        self.delivered += count;
        if count > 0 {
            self.delivered_at = now;
        }
        let place = self.sent.binary_search_by_key(&ms, |sent| sent.ms).ok()?;
        let sent = self.sent[place];
        if count > 0 {
            self.first_sent = sent.at;
        }
        let sending = sent.at.saturating_duration_since(sent.first_sent);
        let receiving = now.saturating_duration_since(sent.delivered_at);
        let interval = sending.max(receiving).as_secs_f64();
        let delivered = self.delivered - sent.delivered;
        let rate = (count > 0 && interval > 0.0).then(|| delivered as f64 / interval);
        Some(Sample {
            round_trip: now.saturating_duration_since(sent.at),
            rate,
            limited: sent.limited,
            delivered_before: sent.delivered,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_is_measured_and_a_pause_of_the_sender_is_told_apart() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut samples = Samples::new(start);
        // two segments each millisecond, acknowledged after 50
        for ms in 0..200 {
            samples.on_sent(at(ms), ms, if ms == 0 { 0 } else { 50 });
            if ms >= 50 {
                let sample = samples.on_acknowledged(at(ms), 2, ms - 50).unwrap();
                assert_eq!(sample.round_trip, Duration::from_millis(50));
                assert!(!sample.limited);
                let rate = sample.rate.unwrap();
                // what was sent before the first acknowledgement knows only the time since the start
                assert!((1_900.0..2_100.0).contains(&rate) || ms <= 100, "{ms}: {rate}");
            }
        }
        samples.on_limited(100);
        samples.on_sent(at(200), 200, 100);
        assert!(samples.on_acknowledged(at(250), 1, 200).unwrap().limited);
        assert_eq!(samples.on_acknowledged(at(250), 1, 1_000), None, "never sent");
        assert_eq!(samples.on_acknowledged(at(250), 0, 200).unwrap().rate, None, "a repeated one");
    }
}
