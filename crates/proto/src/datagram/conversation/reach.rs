//! Whether datagrams get through (A8).
//!
//! ```text
//!  down   a ping of 1,200 bytes: at once, after 0.25, 0.5, 1, 2, 4, 8 s, then every 15 to 30 s;
//!         its answer, or that to a path challenge of that length  -> up
//!  up     nothing received for T since traffic began  -> up to three pings within T;
//!         nothing received for another T              -> down
//! ```
//!
//! T = max(1 s, 4 × smoothed round trip). Any authentic datagram is life.

use std::time::{Duration, Instant};

use crate::jitter::Jitter;

const BACK_OFF_MS: [u64; 6] = [250, 500, 1_000, 2_000, 4_000, 8_000];
/// 15 to 30 s.
const LATER: Duration = Duration::from_millis(22_500);
const LATER_SPREAD_PERCENT: u32 = 33;
const KEEPALIVE_SPREAD_PERCENT: u32 = 10;
/// The other end's datagrams get through: perhaps ours do again. Not tried more often than that.
const HOPE: Duration = Duration::from_secs(1);
/// A gateway leaves an address alone from which nothing has come for so long: three times the
/// longest that a client takes.
const SILENT: Duration = Duration::from_secs(90);
/// Pings of one probe, so that loss is not taken for death.
pub(super) const TRIES: u32 = 3;

/// The timers of one end.
#[derive(Debug)]
pub(super) struct Reach {
    jitter: Jitter,
    /// Only clients keep their NAT's memory alive, and try without having heard anything.
    keepalive: Option<Duration>,
    keepalive_at: Instant,
    last_received: Option<Instant>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Down { tries: usize, last_try: Option<Instant>, next: Instant },
    Up { unanswered: Option<Instant>, probe: Option<Probe> },
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    since: Instant,
    sent: u32,
}

/// What a timer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// A ping of 1,200 bytes.
    Try,
    /// A short ping, for the NAT.
    Keepalive,
    /// A short ping; `first` of this probe.
    Probe { first: bool },
    /// Nothing gets through any more.
    Down,
}

/// Why a timer is set: for logs and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Datagrams do not get through; they may again.
    Try,
    /// To keep a NAT from forgetting.
    Keepalive,
    /// Traffic goes unanswered.
    Probe,
    /// A probe goes unanswered.
    Down,
    /// The other end may have moved.
    Roaming,
    /// How long datagrams may be.
    PathMtu,
}

impl Reach {
    pub(super) fn new(now: Instant, keepalive: Option<Duration>, seed: u64) -> Self {
        Self {
            jitter: Jitter::new(seed),
            keepalive,
            keepalive_at: now,
            last_received: None,
            state: State::Down { tries: 0, last_try: None, next: now },
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// When something authentic came last.
    pub(super) fn last_received(&self) -> Option<Instant> {
        self.last_received
    }

    /// Something was answered that was as long as a datagram has to be. Whether that is news.
    pub(super) fn on_answer(&mut self) -> bool {
        let is_news = !self.is_up();
        if is_news {
            self.state = State::Up { unanswered: None, probe: None };
        }
        is_news
    }

    /// Nothing gets through, as far as others know.
    pub(super) fn on_down(&mut self, now: Instant) {
        self.state = State::Down { tries: 0, last_try: Some(now), next: now + first_try() };
    }

    /// Anything was sent.
    pub(super) fn on_sent(&mut self, now: Instant) {
        if let Some(keepalive) = self.keepalive {
            self.keepalive_at = now + self.jitter.spread(keepalive, KEEPALIVE_SPREAD_PERCENT);
        }
    }

    /// Packets of the user were sent, from the first of these times to the last.
    pub(super) fn on_traffic(&mut self, first: Instant, last: Instant) {
        let behind = |at: &Instant| self.last_received.is_none_or(|received| *at > received);
        let since = [first, last].into_iter().find(behind);
        if let State::Up { unanswered, .. } = &mut self.state
            && unanswered.is_none()
        {
            *unanswered = since;
        }
    }

    /// Something authentic came.
    pub(super) fn on_received(&mut self, now: Instant) {
        self.last_received = Some(now);
        match &mut self.state {
            State::Up { unanswered, probe } => (*unanswered, *probe) = (None, None),
            State::Down { last_try, next, .. } => {
                let soon = last_try.map_or(now, |last| now.max(last + HOPE));
                *next = soon.min(*next);
            }
        }
    }

    /// The way to the other end may be another one: asks at once.
    pub(super) fn on_doubt(&mut self, now: Instant) {
        match &mut self.state {
            State::Up { unanswered, probe } => {
                unanswered.get_or_insert(now);
                *probe = Some(Probe { since: now, sent: 0 });
            }
            State::Down { tries, next, .. } => (*tries, *next) = (0, now),
        }
    }

    /// When [`Reach::handle_timeout`] is due, and why. `patience` is T.
    pub(super) fn poll_timeout(&self, patience: Duration) -> Option<(Instant, Reason)> {
        match self.state {
            State::Down { next, .. } => {
                let heard = self.last_received.is_some_and(|at| next < at + SILENT);
                (heard || self.keepalive.is_some()).then_some((next, Reason::Try))
            }
            State::Up { probe: Some(probe), .. } if probe.sent == TRIES => {
                Some((probe.since + patience, Reason::Down))
            }
            State::Up { probe: Some(probe), .. } => {
                Some((probe.since + patience * probe.sent / TRIES, Reason::Probe))
            }
            State::Up { unanswered, probe: None } => {
                let probe = unanswered.map(|since| (since + patience, Reason::Probe));
                let keepalive = self.keepalive.map(|_| (self.keepalive_at, Reason::Keepalive));
                probe.into_iter().chain(keepalive).min_by_key(|(at, _)| *at)
            }
        }
    }

    /// Time has passed: what is to be done, if anything.
    pub(super) fn handle_timeout(&mut self, now: Instant, patience: Duration) -> Option<Due> {
        let (_, reason) = self.poll_timeout(patience).filter(|(at, _)| now >= *at)?;
        match &mut self.state {
            State::Down { tries, last_try, next } => {
                let wait = BACK_OFF_MS.get(*tries).map(|ms| Duration::from_millis(*ms));
                let later = || self.jitter.spread(LATER, LATER_SPREAD_PERCENT);
                *next = now + wait.unwrap_or_else(later);
                (*tries, *last_try) = (*tries + 1, Some(now));
                Some(Due::Try)
            }
            State::Up { unanswered, probe } => match (reason, *probe) {
                (Reason::Keepalive, _) => {
                    // if it is not answered, the path is probed
                    unanswered.get_or_insert(now);
                    self.on_sent(now);
                    Some(Due::Keepalive)
                }
                (Reason::Down, _) => {
                    self.on_down(now);
                    Some(Due::Down)
                }
                (_, Some(Probe { since, sent })) => {
                    *probe = Some(Probe { since, sent: sent + 1 });
                    Some(Due::Probe { first: sent == 0 })
                }
                (_, None) => {
                    *probe = Some(Probe { since: now, sent: 1 });
                    Some(Due::Probe { first: true })
                }
            },
        }
    }
}

fn first_try() -> Duration {
    Duration::from_millis(BACK_OFF_MS[0])
}
