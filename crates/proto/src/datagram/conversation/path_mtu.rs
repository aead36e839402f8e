//! How long datagrams may be (RFC 8899): pings with padding, from 1,200 bytes up.
//!
//! ```text
//!  search   the longest that is of use, then what Ethernet carries, then halves in between;
//!           three pings each; again after 10 minutes, if it was not the longest
//!  verify   long datagrams were sent for 10 s, or traffic goes unanswered: three pings of the present
//!           length; if none is answered while short ones are, 1,200 again, and a new search
//! ```

use std::time::{Duration, Instant};

use crate::jitter::Jitter;

/// The least that a path must carry, in bytes of UDP payload.
pub const PING_LEN_MIN: usize = 1_200;

/// What a packet of 9,000 bytes carries with IPv6 and UDP.
const LENGTH_MAX: usize = 9_000 - 48;
/// What one of 1,500 bytes carries with IPv4, and with IPv6.
const ETHERNET: [usize; 2] = [1_500 - 28, 1_500 - 48];
const TRIES: u32 = 3;
/// The search ends when it is as close as that, in bytes.
const CLOSE: usize = 8;
const SEARCH_AGAIN: Duration = Duration::from_secs(600);
const SEARCH_SPREAD_PERCENT: u32 = 10;
const VERIFY_AFTER: Duration = Duration::from_secs(10);
/// A search is not urgent, but packets are shorter than need be meanwhile.
const SEARCH_PATIENCE_MIN: Duration = Duration::from_millis(500);

/// The search of one end. Lengths are those of datagrams: UDP payload, in bytes.
#[derive(Debug)]
pub(super) struct PathMtu {
    jitter: Jitter,
    base: usize,
    /// The longest that is of use.
    cap: usize,
    /// The longest that has got through.
    current: usize,
    /// The shortest that has not; more than `cap` if none has failed.
    too_long: usize,
    /// When `current` was seen to get through.
    verified: Instant,
    again_at: Instant,
    probe: Option<Probe>,
    /// Before the search goes on, `current` is verified.
    verify_next: bool,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    length: usize,
    tries: u32,
    since: Instant,
    at: Instant,
}

/// What a timer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// A ping of this length.
    Ping(usize),
    /// Not even the shortest gets through, though shorter ones do.
    Down,
    Nothing,
}

impl PathMtu {
    pub(super) fn new(now: Instant, cap: usize, seed: u64) -> Self {
        let cap = cap.min(LENGTH_MAX);
        let base = PING_LEN_MIN.min(cap);
        Self {
            jitter: Jitter::new(seed),
            base,
            cap,
            current: base,
            too_long: cap + 1,
            verified: now,
            again_at: now,
            probe: None,
            verify_next: false,
        }
    }

    /// The longest datagram that may be sent.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// Pings that find out whether a path is of use are so long.
    pub(super) fn base(&self) -> usize {
        self.base
    }

    /// The path is a new one: whether it carries the least comes first, then the search.
    pub(super) fn restart(&mut self, now: Instant) {
        (self.current, self.too_long) = (self.base, self.cap + 1);
        self.begin(now, self.base);
        (self.again_at, self.verify_next) = (now, false);
    }

    /// The path is down: nothing to be found out.
    pub(super) fn stop(&mut self) {
        self.probe = None;
        self.current = self.base;
    }

    /// Datagrams of up to so many bytes were sent.
    pub(super) fn on_sent(&mut self, now: Instant, longest: usize) {
        if longest >= self.base && now >= self.verified + VERIFY_AFTER {
            self.verify(now);
        }
    }

    /// Asks whether the present length still gets through.
    pub(super) fn verify(&mut self, now: Instant) {
        match self.probe {
            Some(probe) if probe.length <= self.current => {}
            // a search that is always interrupted would never end
            Some(_) => self.verify_next = true,
            None => self.begin(now, self.current),
        }
    }

    /// A ping of this length was answered.
    pub(super) fn on_answer(&mut self, now: Instant, length: usize) {
        if length < self.current {
            return;
        }
        let is_search = length > self.current;
        (self.current, self.verified) = (length, now);
        // one that was lost before
        self.too_long = self.too_long.max(length + 1);
        let has_ended = self.probe.take_if(|probe| probe.length <= length).is_some();
        let goes_on = has_ended && is_search;
        if goes_on || (self.probe.is_none() && self.again_at <= now) {
            self.search(now);
        }
    }

    /// This host cannot send datagrams of this length.
    pub(super) fn on_too_long(&mut self, now: Instant, length: usize) {
        if length <= self.base {
            return;
        }
        self.too_long = self.too_long.min(length);
        if self.current >= length {
            self.current = self.base;
        }
        if self.probe.is_none_or(|probe| probe.length >= length) {
            self.search(now);
        }
    }

    /// When [`PathMtu::handle_timeout`] is due, while the path is up.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.probe {
            Some(probe) => Some(probe.at),
            None => (self.current < self.cap).then_some(self.again_at),
        }
    }

    /// Time has passed. `round_trip`: if known; `received`: when something last got through to us.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        round_trip: Option<Duration>,
        received: Option<Instant>,
    ) -> Due {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return Due::Nothing;
        }
        let Some(probe) = &mut self.probe else {
            self.too_long = self.cap + 1;
            self.search(now);
            return self.handle_timeout(now, round_trip, received);
        };
        if probe.tries < TRIES {
            probe.tries += 1;
            let patience = round_trip.unwrap_or_default() * 3;
            probe.at = now + patience.max(SEARCH_PATIENCE_MIN);
            return Due::Ping(probe.length);
        }
        let probe = *probe;
        self.failed(now, probe, received)
    }

    /// Three pings of this length were not answered.
    fn failed(&mut self, now: Instant, probe: Probe, received: Option<Instant>) -> Due {
        self.probe = None;
        if probe.length > self.current {
            self.too_long = probe.length;
            self.search(now);
            return Due::Nothing;
        }
        if received.is_none_or(|at| at <= probe.since) {
            // nothing gets through; that is not for us to judge
            return Due::Nothing;
        }
        if self.current == self.base {
            return Due::Down;
        }
        self.too_long = self.current;
        self.current = self.base;
        // whether that gets through comes first
        self.begin(now, self.base);
        self.again_at = now;
        Due::Nothing
    }

    /// Looks for the next length to try; if there is none, for when to begin anew.
    fn search(&mut self, now: Instant) {
        if std::mem::take(&mut self.verify_next) {
            self.begin(now, self.current);
            self.again_at = now;
            return;
        }
        match self.candidate() {
            Some(length) => self.begin(now, length),
            None => {
                self.probe = None;
                self.again_at = now + self.jitter.spread(SEARCH_AGAIN, SEARCH_SPREAD_PERCENT);
            }
        }
    }

    fn candidate(&self) -> Option<usize> {
        let between = |length: &usize| *length > self.current && *length < self.too_long;
        let halfway = (self.current + self.too_long) / 2;
        let far = self.too_long - self.current > CLOSE;
        let likely = [self.cap].into_iter().chain(ETHERNET).find(between);
        likely.or(Some(halfway).filter(|length| far && between(length)))
    }

    fn begin(&mut self, now: Instant, length: usize) {
        self.probe = Some(Probe { length, tries: 0, since: now, at: now });
    }
}
