//! Where the other end is. A client knows; a gateway follows the newest authentic datagram.
//!
//! A new address is taken at once, on trial: a path challenge goes there, and to the address before,
//! whose owner answers if it has not moved; by that answer the session is back. Until the new
//! address has answered it gets at most three times the bytes that came from it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::super::random::Random;

/// Challenges of one trial.
const TRIES: u32 = 3;
/// Of the three times what came from an address on trial, this is for challenges, pings and pongs ...
const OWN_SHARE: u64 = 2;
/// ... and this for packets.
const PACKET_SHARE: u64 = 1;
/// The first address has no other one to go back to.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// The addresses of one channel.
#[derive(Debug)]
pub(super) struct Roaming {
    follows: bool,
    current: Option<SocketAddr>,
    moves: u64,
    trial: Option<Trial>,
}

#[derive(Debug)]
struct Trial {
    challenge: [u8; 8],
    /// For the address before; another one, so that its owner cannot answer in the name of the new
    /// address.
    challenge_back: [u8; 8],
    /// The last address that has answered.
    back: Option<SocketAddr>,
    since: Instant,
    challenges: u32,
    /// Bytes that came from the new address.
    received: u64,
    /// Bytes that the conversation has sent there.
    sent: u64,
}

impl Roaming {
    /// A client's: the gateway stays where it is.
    pub(super) fn fixed(gateway: SocketAddr) -> Self {
        Self { follows: false, current: Some(gateway), moves: 0, trial: None }
    }

    /// A gateway's.
    pub(super) fn following() -> Self {
        Self { follows: true, current: None, moves: 0, trial: None }
    }

    pub(super) fn current(&self) -> Option<SocketAddr> {
        self.current
    }

    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    /// Bytes of packets that may go to the present address in all; `None` if it has answered.
    pub(super) fn allowance(&self) -> Option<u64> {
        self.trial.as_ref().map(|trial| PACKET_SHARE * trial.received)
    }

    /// Whether the conversation itself may send so many bytes to this address; if so they count.
    pub(super) fn admit(&mut self, to: SocketAddr, bytes: usize) -> bool {
        let Some(trial) = self.trial.as_mut().filter(|_| self.current == Some(to)) else {
            return true;
        };
        let sent = trial.sent + bytes as u64;
        let admitted = sent <= OWN_SHARE * trial.received;
        if admitted {
            trial.sent = sent;
        }
        admitted
    }

    /// An authentic datagram has come; `newest`: with the highest counter so far. Whether its address
    /// is a new one, and on trial from now on.
    pub(super) fn on_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: usize,
        newest: bool,
        random: &mut Random,
    ) -> bool {
        if self.current == Some(from) {
            if let Some(trial) = &mut self.trial {
                trial.received += bytes as u64;
            }
            return false;
        }
        if !self.follows || !newest {
            return false;
        }
        let back = self.trial.take().map_or(self.current, |trial| trial.back);
        self.current = Some(from);
        self.moves += 1;
        if back == Some(from) {
            return false;
        }
        self.trial = Some(Trial {
            challenge: random.bytes(),
            challenge_back: random.bytes(),
            back,
            since: now,
            challenges: 0,
            received: bytes as u64,
            sent: 0,
        });
        true
    }

    /// The challenges to be sent now, and where to.
    pub(super) fn challenges(&mut self) -> impl Iterator<Item = (SocketAddr, [u8; 8])> + use<> {
        let challenges = self.trial.as_mut().map(|trial| {
            trial.challenges += 1;
            let back = trial.back.map(|back| (back, trial.challenge_back));
            [self.current.map(|current| (current, trial.challenge)), back]
        });
        challenges.into_iter().flatten().flatten()
    }

    /// A path response has come; `true` if it ends the trial of the present address.
    pub(super) fn on_response(&mut self, from: SocketAddr, payload: [u8; 8]) -> bool {
        let is_answer = |trial: &mut Trial| trial.challenge == payload;
        self.current == Some(from) && self.trial.take_if(is_answer).is_some()
    }

    /// When [`Roaming::handle_timeout`] is due. `patience`: how long an address may take to answer.
    pub(super) fn poll_timeout(&self, patience: Duration) -> Option<Instant> {
        let trial = self.trial.as_ref()?;
        let patience = trial.patience(patience);
        Some(trial.since + patience * trial.challenges.min(TRIES) / TRIES)
    }

    /// Time has passed: whether another challenge is to be sent. Without an answer for long enough,
    /// the address before is the present one again.
    pub(super) fn handle_timeout(&mut self, now: Instant, patience: Duration) -> bool {
        let Some(at) = self.poll_timeout(patience) else {
            return false;
        };
        if now < at {
            return false;
        }
        let is_over = |trial: &mut Trial| trial.challenges >= TRIES;
        let Some(trial) = self.trial.take_if(is_over) else {
            return true;
        };
        self.current = trial.back;
        self.moves += 1;
        false
    }
}

impl Trial {
    fn patience(&self, patience: Duration) -> Duration {
        if self.back.is_none() { patience.max(FIRST_PATIENCE) } else { patience }
    }
}
