//! The gateway's side: it starts a rekey when time, volume or the client ask for one.

use std::time::{Duration, Instant};

use super::{KeyChanges, Outgoing, Policy, Randomness, RekeyError, Share, answer_by, check_epoch};
use crate::{
    datagram,
    frame::RekeyFrame,
    jitter::Jitter,
    keys::Direction,
    record::{Opener, Usage},
};

const SPREAD_PERCENT: u32 = 10;
/// A client that asks for a rekey gets at most one in this time.
const ASKED_GAP: Duration = Duration::from_secs(1);

/// The rekeys of one connection.
#[derive(Debug)]
pub(crate) struct Gateway {
    policy: Policy,
    jitter: Jitter,
    /// When the present epoch began.
    since: Instant,
    state: State,
    pub(super) changes: KeyChanges,
}

#[derive(Debug)]
enum State {
    /// Until the key is old, or the client has asked.
    Idle { due: Instant },
    /// Randomness is needed.
    Due,
    /// `Rekey` was sent.
    Started { share: Share, random: [u8; 32], frame: RekeyFrame, since: Instant },
}

impl Gateway {
    pub(crate) fn new(now: Instant, policy: Policy, seed: u64) -> Self {
        let mut jitter = Jitter::new(seed);
        let due = now + jitter.spread(policy.interval, SPREAD_PERCENT);
        Self {
            policy,
            jitter,
            since: now,
            state: State::Idle { due },
            changes: KeyChanges::default(),
        }
    }

    /// The client has asked for a rekey.
    pub(crate) fn handle_please(&mut self, now: Instant) {
        if let State::Idle { due } = &mut self.state {
            *due = (*due).min(now.max(self.since + ASKED_GAP));
        }
    }

    pub(crate) fn handle_usage(&mut self, sealed: &Usage, opened: &Usage) {
        let idle = matches!(self.state, State::Idle { .. });
        // until our own key is changed, too, its usage says nothing of this epoch
        let current = |usage: &&Usage| usage.epoch == opened.epoch;
        let mut usages = [sealed, opened].into_iter().filter(current);
        if idle && usages.any(|usage| self.policy.limits.are_reached(usage)) {
            self.state = State::Due;
        }
    }

    /// The same for the keys of the datagrams, in this epoch.
    pub(crate) fn handle_datagram_usage(&mut self, usages: [&datagram::Usage; 2], epoch: u32) {
        let limits = &self.policy.limits;
        let mut current = usages.into_iter().filter(|usage| usage.epoch == epoch);
        let idle = matches!(self.state, State::Idle { .. });
        if idle && current.any(|usage| limits.are_reached_by_datagrams(usage)) {
            self.state = State::Due;
        }
    }

    pub(crate) fn wants_randomness(&self) -> bool {
        matches!(self.state, State::Due)
    }

    /// Starts, if that is due.
    pub(crate) fn handle_randomness(
        &mut self,
        now: Instant,
        randomness: &Randomness,
        opener: &Opener,
    ) -> Option<Outgoing> {
        if !self.wants_randomness() {
            return None;
        }
        let share = Share::new(&randomness.secret);
        let epoch = opener.usage().epoch.wrapping_add(1);
        let random = randomness.random;
        let frame = RekeyFrame::Start { epoch, random, public: share.public() };
        self.state = State::Started { share, random, frame, since: now };
        Some(Outgoing { frame: frame.to_bytes(), next_keys: None })
    }

    /// The client's reply: from now on its records are of the next epoch, and ours behind the frame
    /// that is given back.
    pub(crate) fn handle_frame(
        &mut self,
        now: Instant,
        frame: &RekeyFrame,
        opener: &mut Opener,
    ) -> Result<Outgoing, RekeyError> {
        let RekeyFrame::Reply { epoch, public } = frame else {
            return Err(RekeyError::Unexpected);
        };
        let State::Started { share, random, frame: start, .. } = &self.state else {
            return Err(RekeyError::Unexpected);
        };
        check_epoch(opener.usage().epoch, *epoch)?;
        let chain = share.agree(public, opener.chain(), random, start, frame)?;
        let next_keys = chain.stream_keys(Direction::ServerToClient);
        self.changes.accept(&chain, *epoch, Direction::ClientToServer);
        self.changes.switch(&chain, *epoch, Direction::ServerToClient);
        opener.advance(chain);
        self.since = now;
        let due = now + self.jitter.spread(self.policy.interval, SPREAD_PERCENT);
        self.state = State::Idle { due };
        let done = RekeyFrame::Done { epoch: *epoch };
        Ok(Outgoing { frame: done.to_bytes(), next_keys: Some(next_keys) })
    }

    /// When [`Gateway::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Idle { due } => Some(*due),
            State::Due => None,
            State::Started { since, .. } => Some(answer_by(*since)),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), RekeyError> {
        match &self.state {
            State::Idle { due } if now >= *due => self.state = State::Due,
            State::Started { since, .. } if now >= answer_by(*since) => {
                return Err(RekeyError::Timeout);
            }
            State::Idle { .. } | State::Due | State::Started { .. } => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_do_not_change_keys_all_at_once() {
        let (now, policy) = (Instant::now(), Policy::default());
        let due = |seed| Gateway::new(now, policy, seed).poll_timeout().map(|due| due - now);
        let hours = |due: Duration| due.as_secs_f64() / 3_600.0;
        let mut all: Vec<f64> = (0..100).filter_map(due).map(hours).collect();
        all.sort_by(f64::total_cmp);
        assert!(all[0] >= 3.6 && all[0] < 3.7 && all[99] > 4.3 && all[99] <= 4.4, "{all:?}");
    }
}
