//! The client's side: it answers, and asks for a rekey when its own counters want one.

use std::time::Instant;

use super::{KeyChanges, Limits, Outgoing, Randomness, RekeyError, Share, answer_by, check_epoch};
use crate::{
    datagram,
    frame::{self, Control, RekeyFrame},
    keys::{Chain, Direction},
    record::{Opener, Usage},
};

/// The rekeys of one connection.
#[derive(Debug)]
pub(crate) struct Client {
    limits: Limits,
    /// `RekeyPlease` was said in this epoch.
    asked: bool,
    state: State,
    pub(super) changes: KeyChanges,
}

#[derive(Debug)]
enum State {
    Idle,
    /// `Rekey` has come; randomness is needed.
    Started {
        start: RekeyFrame,
        since: Instant,
    },
    /// `RekeyReply` was sent: our records are of the next epoch, the gateway's not yet.
    Replied {
        chain: Chain,
        since: Instant,
    },
}

impl Client {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, asked: false, state: State::Idle, changes: KeyChanges::default() }
    }

    /// What is to be said if a key is used up as far as it should be.
    pub(crate) fn handle_usage(&mut self, sealed: &Usage, opened: &Usage) -> Option<Outgoing> {
        self.ask_if([sealed, opened].into_iter().any(|usage| self.limits.are_reached(usage)))
    }

    /// The same for the keys of the datagrams, in this epoch.
    pub(crate) fn handle_datagram_usage(
        &mut self,
        usages: [&datagram::Usage; 2],
        epoch: u32,
    ) -> Option<Outgoing> {
        let mut current = usages.into_iter().filter(|usage| usage.epoch == epoch);
        self.ask_if(current.any(|usage| self.limits.are_reached_by_datagrams(usage)))
    }

    fn ask_if(&mut self, reached: bool) -> Option<Outgoing> {
        let idle = matches!(self.state, State::Idle);
        if !idle || self.asked || !reached {
            return None;
        }
        self.asked = true;
        Some(Outgoing { frame: frame::control(&Control::RekeyPlease), next_keys: None })
    }

    pub(crate) fn wants_randomness(&self) -> bool {
        matches!(self.state, State::Started { .. })
    }

    /// Answers, if there is something to be answered: our records behind the frame that is given
    /// back are of the next epoch.
    pub(crate) fn handle_randomness(
        &mut self,
        randomness: &Randomness,
        opener: &Opener,
    ) -> Result<Option<Outgoing>, RekeyError> {
        let State::Started { start, since } = &self.state else {
            return Ok(None);
        };
        let RekeyFrame::Start { epoch, random, public } = start else {
            return Err(RekeyError::Unexpected);
        };
        let share = Share::new(&randomness.secret);
        let reply = RekeyFrame::Reply { epoch: *epoch, public: share.public() };
        let chain = share.agree(public, opener.chain(), random, start, &reply)?;
        let next_keys = chain.stream_keys(Direction::ClientToServer);
        self.changes.accept(&chain, *epoch, Direction::ServerToClient);
        self.state = State::Replied { chain, since: *since };
        Ok(Some(Outgoing { frame: reply.to_bytes(), next_keys: Some(next_keys) }))
    }

    /// A step of the gateway's.
    pub(crate) fn handle_frame(
        &mut self,
        now: Instant,
        frame: &RekeyFrame,
        opener: &mut Opener,
    ) -> Result<(), RekeyError> {
        let current = opener.usage().epoch;
        match (frame, std::mem::replace(&mut self.state, State::Idle)) {
            (RekeyFrame::Start { epoch, .. }, State::Idle) => {
                check_epoch(current, *epoch)?;
                self.state = State::Started { start: *frame, since: now };
            }
            (RekeyFrame::Done { epoch }, State::Replied { chain, .. }) => {
                check_epoch(current, *epoch)?;
                self.changes.switch(&chain, *epoch, Direction::ClientToServer);
                opener.advance(chain);
                self.asked = false;
            }
            (RekeyFrame::Start { .. } | RekeyFrame::Reply { .. } | RekeyFrame::Done { .. }, _) => {
                return Err(RekeyError::Unexpected);
            }
        }
        Ok(())
    }

    /// When [`Client::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Idle => None,
            State::Started { since, .. } | State::Replied { since, .. } => Some(answer_by(*since)),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), RekeyError> {
        match self.poll_timeout() {
            Some(at) if now >= at => Err(RekeyError::Timeout),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_once_an_epoch() {
        let mut client = Client::new(Limits { records: 10, ..Limits::default() });
        let usage = |records| Usage { records, ..Usage::default() };
        assert!(client.handle_usage(&usage(9), &usage(9)).is_none());
        let asked = client.handle_usage(&usage(9), &usage(10)).map(|outgoing| outgoing.frame);
        assert_eq!(asked, Some(frame::control(&Control::RekeyPlease)));
        assert!(client.handle_usage(&usage(11), &usage(11)).is_none());
    }
}
