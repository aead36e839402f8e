//! Where the other end is. A client knows; a gateway follows the newest authentic datagram.
//!
//! A new address is taken at once, on trial: it gets at most three times the bytes that came from it,
//! until it answers a challenge, or acknowledges something that was sent after the move. If it does
//! not, the address before is the present one again.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How long a new address may take to acknowledge something.
const PATIENCE: Duration = Duration::from_secs(1);
const AMPLIFICATION: u64 = 3;
/// Challenges of one trial.
const CHALLENGES: u32 = 3;

/// The addresses of one conversation.
#[derive(Debug)]
pub(super) struct Path {
    follows: bool,
    current: SocketAddr,
    /// How often the address has changed.
    moves: u32,
    trial: Option<Trial>,
}

#[derive(Debug)]
struct Trial {
    /// The last address that has acknowledged something.
    back: Option<SocketAddr>,
    since: Instant,
    received: u64,
    sent: u64,
    challenges: u32,
}

impl Path {
    /// A client's: the gateway stays where it is.
    pub(super) fn fixed(gateway: SocketAddr) -> Self {
        Self { follows: false, current: gateway, moves: 0, trial: None }
    }

    /// A gateway's, to the client at the address of its first datagram.
    pub(super) fn following(now: Instant, client: SocketAddr) -> Self {
        // what it is sent first is acknowledged soon
        let challenges = CHALLENGES;
        let trial = Trial { back: None, since: now, received: 0, sent: 0, challenges };
        Self { follows: true, current: client, moves: 0, trial: Some(trial) }
    }

    pub(super) fn current(&self) -> SocketAddr {
        self.current
    }

    /// An authentic datagram has come; `newest`: with the highest counter so far.
    pub(super) fn on_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: usize,
        newest: bool,
    ) {
        if self.current == from {
            if let Some(trial) = &mut self.trial {
                trial.received += bytes as u64;
            }
            return;
        }
        if !self.follows || !newest {
            return;
        }
        let back = match self.trial.take() {
            Some(trial) => trial.back,
            None => Some(self.current),
        };
        self.current = from;
        self.moves = self.moves.wrapping_add(1);
        if back != Some(from) {
            let received = bytes as u64;
            self.trial = Some(Trial { back, since: now, received, sent: 0, challenges: 0 });
        }
    }

    /// Something was acknowledged from there that was sent at `sent_at`.
    pub(super) fn on_acknowledged(&mut self, from: SocketAddr, sent_at: Instant) {
        // the time of what was sent is known to the millisecond
        let is_proof = |trial: &mut Trial| sent_at > trial.since || trial.back.is_none();
        if self.current == from {
            self.trial.take_if(is_proof);
        }
    }

    /// The number of a challenge that is to be sent now.
    pub(super) fn challenge(&mut self, now: Instant) -> Option<u32> {
        let at = self.next_challenge()?;
        let trial = self.trial.as_mut().filter(|_| now >= at)?;
        trial.challenges += 1;
        Some(self.moves)
    }

    /// A challenge with this number was answered.
    pub(super) fn on_answer(&mut self, from: SocketAddr, number: u32) {
        if self.current == from && number == self.moves {
            self.trial = None;
        }
    }

    fn next_challenge(&self) -> Option<Instant> {
        let trial = self.trial.as_ref().filter(|trial| trial.challenges < CHALLENGES)?;
        Some(trial.since + PATIENCE * trial.challenges / CHALLENGES)
    }

    /// Whether so many bytes may go to the present address; if so they count.
    pub(super) fn admits(&mut self, bytes: usize) -> bool {
        let Some(trial) = &mut self.trial else { return true };
        let sent = trial.sent + bytes as u64;
        let admitted = sent <= AMPLIFICATION * trial.received;
        if admitted {
            trial.sent = sent;
        }
        admitted
    }

    /// When [`Path::handle_timeout`] or [`Path::challenge`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let trial = self.trial.as_ref()?;
        let ends = trial.back.map(|_| trial.since + PATIENCE);
        [ends, self.next_challenge()].into_iter().flatten().min()
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let is_over = |trial: &mut Trial| now >= trial.since + PATIENCE;
        if let Some(back) = self.trial.as_ref().and_then(|trial| trial.back)
            && self.trial.take_if(is_over).is_some()
        {
            self.current = back;
            self.moves = self.moves.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    /// A path whose first address has proved itself.
    fn path(now: Instant) -> Path {
        let mut path = Path::following(now, address(1));
        path.on_datagram(now, address(1), 100, true);
        assert!(path.admits(300) && !path.admits(1));
        path.on_acknowledged(address(1), now);
        assert!(path.admits(1_000_000));
        path
    }

    #[test]
    fn a_new_address_is_trusted_once_it_acknowledges_what_went_there() {
        let now = Instant::now();
        let later = now + Duration::from_millis(500);
        let mut path = path(now);
        path.on_datagram(now, address(2), 100, false);
        assert_eq!(path.current(), address(1), "an old datagram moves nothing");
        path.on_datagram(now, address(2), 100, true);
        assert_eq!(path.current(), address(2));
        assert!(path.admits(300) && !path.admits(1));
        path.on_acknowledged(address(2), now - Duration::from_millis(5));
        assert!(!path.admits(1), "what it acknowledges went to the address before");
        path.on_acknowledged(address(2), later);
        assert!(path.admits(1_000_000));
        path.handle_timeout(now + PATIENCE);
        assert_eq!((path.current(), path.moves), (address(2), 1));
    }

    #[test]
    fn or_once_it_answers_a_challenge() {
        let now = Instant::now();
        let mut path = path(now);
        assert_eq!(path.challenge(now), None);
        path.on_datagram(now, address(2), 100, true);
        let number = path.challenge(now).unwrap();
        assert_eq!(path.challenge(now), None, "not twice at once");
        let next = path.poll_timeout().unwrap();
        assert_eq!(path.challenge(next), Some(number));
        path.on_answer(address(1), number);
        path.on_answer(address(2), number - 1);
        assert!(!path.admits(301));
        path.on_answer(address(2), number);
        assert!(path.admits(1_000_000));
        assert_eq!(path.poll_timeout(), None);
    }

    #[test]
    fn without_that_the_address_before_is_back() {
        let now = Instant::now();
        let mut path = path(now);
        path.on_datagram(now, address(2), 100, true);
        path.on_datagram(now, address(3), 100, true);
        path.handle_timeout(now + PATIENCE);
        assert_eq!(path.current(), address(1));
        path.on_datagram(now, address(2), 100, true);
        path.on_datagram(now, address(1), 100, true);
        assert!(path.admits(1_000_000), "it is back by itself");
        let mut fixed = Path::fixed(address(9));
        fixed.on_datagram(now, address(2), 100, true);
        assert_eq!(fixed.current(), address(9));
    }
}
