//! Which of the ways to a gateway to try first, and when to try a better one again (C6).
//!
//! A *rung* is one endpoint of a profile: a gateway, a transport, a port. All of them, in the
//! profile's order of preference, are the *ladder*; 0 is the best.
//!
//! - **A race** ([`Ladder::order`]) begins with the rung that worked last on this network. Behind it
//!   comes whatever differs most from those before: another transport, another gateway, another
//!   port, the other address family. What blocks one way is likely to block those that are like it.
//! - **A strike** is what a rung gets whose connection dies young, twice in a row, while others go
//!   through: something lets it begin and then cuts it off. It comes last for two minutes, and for
//!   longer each time.
//! - **A climb** ([`Ladder::better`]): while another rung than the best carries the session, the
//!   better ones are tried beside it, one at a time, after 30 s, and after twice as long each time
//!   that this was in vain or did not hold for 10 minutes, up to 10 minutes. Another gateway is climbed to only while nothing is
//!   going on: it has another public address, so that connections inside the tunnel would break.
//!
//! All of it concerns one network; another one begins with what is remembered of it
//! ([`Ladder::enter_network`]).

mod order;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{invitation::Transport, jitter::Jitter};

/// A connection that ends before was cut off, or was no good from the beginning.
const YOUNG: Duration = Duration::from_secs(20);
/// A rung that has carried so much after that does not cut connections off at their beginning.
const PROOF_BYTES: u64 = 1 << 20;
/// One that has been in use for so long holds. Some networks end connections after many bytes.
const PROOF_TIME: Duration = Duration::from_secs(600);
/// How long one early death is remembered; each further one twice as long as the one before.
const STRIKE: Duration = Duration::from_secs(60);
const STRIKE_MAX: Duration = Duration::from_secs(600);
/// So many early deaths in a row make a strike: one may have been the gateway's own end.
const DEATHS: u32 = 2;
/// If nothing else got through either for so long, it was the path, and not the rung.
const OUTAGE: Duration = Duration::from_millis(1_500);
/// From the beginning of a connection to the first climb.
const CLIMB_FIRST: Duration = Duration::from_secs(30);
const CLIMB_MAX: Duration = Duration::from_secs(600);
const CLIMB_SPREAD_PERCENT: u32 = 10;

/// One address of one rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The rung, by its place in the profile.
    pub rung: usize,
    /// The gateway: the same for all rungs that lead to it.
    pub gateway: usize,
    /// What is spoken there.
    pub transport: Transport,
    /// Where that is.
    pub address: SocketAddr,
}

/// A candidate's place in a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Its index among the candidates given.
    pub at: usize,
    /// A connection with a higher value waits a moment for one with a lower value: 0 is as good as
    /// the first choice.
    pub reluctance: u8,
}

/// What is known about the rungs on the network where this host is.
#[derive(Debug, Clone)]
pub struct Ladder {
    deaths: BTreeMap<usize, Deaths>,
    worked: Option<Worked>,
    current: Option<Current>,
    doubt: Option<Doubt>,
    /// How long the next climb is waited for.
    interval: Duration,
    climb_at: Option<Instant>,
    jitter: Jitter,
}

/// Connections of one rung that died young, one after the other.
#[derive(Debug, Clone, Copy)]
struct Deaths {
    count: u32,
    until: Instant,
}

/// The current connection may be dead, or is.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    since: Instant,
    /// The rung, if this counts as an early death of it.
    young: Option<usize>,
}

/// What worked last.
#[derive(Debug, Clone, Copy)]
struct Worked {
    rung: usize,
    /// Not known of an earlier visit to this network.
    address: Option<SocketAddr>,
}

/// What carries the session.
#[derive(Debug, Clone, Copy)]
struct Current {
    candidate: Candidate,
    since: Instant,
    climbed: bool,
    /// Its early deaths are forgotten.
    pardoned: bool,
    /// It holds.
    proven: bool,
}

impl Ladder {
    /// For a network of which nothing is known; the seed decides the jitter.
    pub fn new(seed: u64) -> Self {
        Self {
            deaths: BTreeMap::new(),
            worked: None,
            current: None,
            doubt: None,
            interval: CLIMB_FIRST,
            climb_at: None,
            jitter: Jitter::new(seed),
        }
    }

    /// This host is on another network, where that rung has worked before, if any.
    pub fn enter_network(&mut self, remembered: Option<usize>) {
        self.deaths.clear();
        self.doubt = None;
        self.interval = CLIMB_FIRST;
        self.worked = remembered.map(|rung| Worked { rung, address: None });
    }

    /// The names of the gateways lead to other addresses than before.
    pub fn forget_address(&mut self) {
        if let Some(worked) = &mut self.worked {
            worked.address = None;
        }
    }

    /// This candidate has let us through to a gateway, which wants another request.
    pub fn answered(&mut self, candidate: Candidate) {
        self.worked = Some(Worked { rung: candidate.rung, address: Some(candidate.address) });
    }

    /// This candidate carries the session from now on: `climbed` to beside another one, or as the
    /// winner of a race.
    pub fn connected(&mut self, now: Instant, candidate: Candidate, climbed: bool) {
        if !climbed {
            self.lost(now);
            let doubt = self.doubt.filter(|it| now.saturating_duration_since(it.since) >= OUTAGE);
            self.pardon(doubt);
        }
        self.doubt = None;
        self.answered(candidate);
        self.current =
            Some(Current { candidate, since: now, climbed, pardoned: false, proven: false });
        self.wait_for_climb(now);
    }

    /// The connection may be dead: others are tried.
    pub fn suspect(&mut self, now: Instant) {
        let (Some(current), None) = (self.current, self.doubt) else { return };
        let is_young = now.saturating_duration_since(current.since) < YOUNG;
        let young = is_young.then_some(current.candidate.rung);
        self.doubt = Some(Doubt { since: now, young });
        if let Some(rung) = young {
            self.cut_off(now, rung);
        }
    }

    /// This rung lets connections begin and cuts them off, or swallows what they carry.
    pub fn cut_off(&mut self, now: Instant, rung: usize) {
        let deaths = self.deaths.get(&rung).filter(|it| now < it.until);
        let count = deaths.map_or(0, |it| it.count);
        let time = STRIKE.saturating_mul(1 << count.min(8)).min(STRIKE_MAX);
        self.deaths.insert(rung, Deaths { count: count + 1, until: now + time });
    }

    /// It has come back to life.
    pub fn alive(&mut self) {
        let doubt = self.doubt.take();
        self.pardon(doubt);
    }

    /// The connection has failed.
    pub fn lost(&mut self, now: Instant) {
        self.suspect(now);
        let Some(current) = self.current.take() else { return };
        self.climb_at = None;
        if current.climbed && !current.proven {
            self.interval = (self.interval * 2).min(CLIMB_MAX);
        }
    }

    /// The gateway has ended the connection, or the user: nothing against its rung.
    pub fn ended(&mut self) {
        self.current = None;
        self.climb_at = None;
    }

    /// A climb to this rung has ended the connection in use, for the gateway took it for its
    /// successor, and then brought nothing.
    pub fn swallowed(&mut self, now: Instant, rung: usize) {
        self.stayed(now, true);
        self.cut_off(now, rung);
        self.ended();
    }

    /// The connection has carried so many bytes by now.
    pub fn carried(&mut self, now: Instant, bytes: u64) {
        let Some(current) = &mut self.current else { return };
        let age = now.saturating_duration_since(current.since);
        let holds = age >= PROOF_TIME;
        if !current.pardoned && (holds || age >= YOUNG && bytes >= PROOF_BYTES) {
            current.pardoned = true;
            self.deaths.remove(&current.candidate.rung);
        }
        if !current.proven && holds {
            current.proven = true;
            if current.climbed || current.candidate.rung == 0 {
                self.interval = CLIMB_FIRST;
            }
        }
    }

    /// When [`Ladder::better`] is to be asked; `None` while the best rung carries the session.
    pub fn climb_at(&self) -> Option<Instant> {
        self.climb_at
    }

    /// The candidates that are better than what carries the session, best first, to be tried one
    /// after the other. `quiet`: so little is going on that another gateway's address would not
    /// disturb.
    pub fn better(&self, candidates: &[Candidate], quiet: bool) -> Vec<usize> {
        let Some(Current { candidate: current, .. }) = self.current else { return Vec::new() };
        let is_better =
            |it: &Candidate| it.rung < current.rung && (quiet || it.gateway == current.gateway);
        let all = candidates.iter().enumerate().filter(|(_, candidate)| is_better(candidate));
        let mut better: Vec<usize> = all.map(|(at, _)| at).collect();
        better.sort_by_key(|at| candidates[*at].rung);
        better
    }

    /// A climb was in vain; or there was none, since nothing could be `tried`.
    pub fn stayed(&mut self, now: Instant, tried: bool) {
        if tried {
            self.interval = (self.interval * 2).min(CLIMB_MAX);
        }
        self.wait_for_climb(now);
    }

    /// In which order to try the candidates; each of them is there once.
    pub fn order(&self, now: Instant, candidates: &[Candidate]) -> Vec<Choice> {
        let is_struck = |rung: usize| {
            self.deaths.get(&rung).is_some_and(|it| it.count >= DEATHS && now < it.until)
        };
        order::order(candidates, self.worked, is_struck)
    }

    /// It was no early death after all.
    fn pardon(&mut self, doubt: Option<Doubt>) {
        if let Some(deaths) = doubt.and_then(|it| it.young).and_then(|it| self.deaths.get_mut(&it))
        {
            deaths.count = deaths.count.saturating_sub(1);
        }
    }

    fn wait_for_climb(&mut self, now: Instant) {
        let below = self.current.filter(|current| current.candidate.rung > 0);
        let wait = self.jitter.spread(self.interval, CLIMB_SPREAD_PERCENT);
        self.climb_at = below.map(|_| now + wait);
    }
}
