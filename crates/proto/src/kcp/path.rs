//! Where the other end is. A client knows; a gateway follows the newest authentic datagram.
//!
//! A new address is taken at once, on trial: it gets at most three times the bytes that came from it,
//! until it answers a challenge, whose numbers nobody can know who is not there. If it does not, the
//! address before is the present one again. Acknowledgements prove nothing: what they say of what was
//! sent can be guessed.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::keys::expand;

/// How long a new address may take to answer, at least and at most, and in lengths of the path.
const PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE_MAX: Duration = Duration::from_secs(10);
const PATIENCE_LENGTHS: u32 = 3;
const AMPLIFICATION: u64 = 3;
/// Challenges of one trial. The first address has no other one to go back to, and gets them until it
/// answers, at last each so long after the other.
const CHALLENGES: u32 = 3;
const CHALLENGE_EACH: Duration = Duration::from_secs(10);
/// The first datagram only asks whether there is a gateway; from the second one on there are challenges.
const HEARD_FIRST: u32 = 2;
/// Who guesses more often than this is not believed any more. Late answers are wrong, too.
const WRONG_MAX: u32 = 32;

/// The addresses of one conversation.
pub(super) struct Path {
    follows: bool,
    current: SocketAddr,
    /// How often the address has changed.
    moves: u64,
    /// What the numbers of challenges are made from.
    secret: [u8; 32],
    trial: Option<Trial>,
}

/// Two numbers of 32 bits, as KCP has no longer ones.
pub(super) type Challenge = [u32; 2];

struct Trial {
    challenge: Challenge,
    answered: [bool; 2],
    wrong: u32,
    /// The last address that has answered.
    back: Option<SocketAddr>,
    since: Instant,
    /// Datagrams that came from there.
    heard: u32,
    received: u64,
    sent: u64,
    challenges: u32,
    /// When the last of them was sent.
    challenged_at: Instant,
}

impl Path {
    /// A client's: the gateway stays where it is.
    pub(super) fn fixed(gateway: SocketAddr) -> Self {
        Self { follows: false, current: gateway, moves: 0, secret: [0; 32], trial: None }
    }

    /// A gateway's, to the client at the address of its first datagram. `secret`: random.
    pub(super) fn following(now: Instant, client: SocketAddr, secret: [u8; 32]) -> Self {
        let mut path = Self { follows: true, current: client, moves: 0, secret, trial: None };
        path.begin_trial(now, None, 0);
        path
    }

    pub(super) fn current(&self) -> SocketAddr {
        self.current
    }

    fn begin_trial(&mut self, now: Instant, back: Option<SocketAddr>, received: u64) {
        let mut bytes = [0; 8];
        expand(&self.secret, "kcp challenge", &self.moves.to_be_bytes(), &mut bytes);
        let bits = u64::from_be_bytes(bytes);
        self.trial = Some(Trial {
            // 0 is a question without a number
            challenge: [(bits >> 32) as u32, bits as u32].map(|number| number.max(1)),
            answered: [false; 2],
            wrong: 0,
            back,
            since: now,
            heard: u32::from(received > 0),
            received,
            sent: 0,
            challenges: 0,
            challenged_at: now,
        });
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
                trial.on_datagram(now, bytes as u64);
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
        self.moves += 1;
        if back != Some(from) {
            self.begin_trial(now, back, bytes as u64);
        }
    }

    /// The challenge that is to be sent now. `length` of the path, as far as it is known.
    pub(super) fn challenge(
        &mut self,
        now: Instant,
        length: Option<Duration>,
    ) -> Option<Challenge> {
        let trial = self.trial.as_mut()?;
        if trial.next_challenge(patience(length)).is_none_or(|at| now < at) {
            return None;
        }
        trial.challenges = trial.challenges.saturating_add(1);
        trial.challenged_at = now;
        Some(trial.challenge)
    }

    /// A challenge with this number was answered.
    pub(super) fn on_answer(&mut self, from: SocketAddr, number: u32) {
        let Some(trial) = self.trial.as_mut().filter(|_| self.current == from) else { return };
        if !trial.challenge.contains(&number) {
            trial.wrong = trial.wrong.saturating_add(1);
        }
        for (known, answered) in trial.challenge.iter().zip(&mut trial.answered) {
            *answered |= *known == number;
        }
        if trial.answered == [true; 2] && trial.wrong <= WRONG_MAX {
            self.trial = None;
        }
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
    pub(super) fn poll_timeout(&self, length: Option<Duration>) -> Option<Instant> {
        let trial = self.trial.as_ref()?;
        let patience = patience(length);
        let ends = trial.back.map(|_| trial.since + patience);
        [ends, trial.next_challenge(patience)].into_iter().flatten().min()
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant, length: Option<Duration>) {
        let is_over = |trial: &mut Trial| now >= trial.since + patience(length);
        if let Some(back) = self.trial.as_ref().and_then(|trial| trial.back)
            && self.trial.take_if(is_over).is_some()
        {
            self.current = back;
            self.moves += 1;
        }
    }
}

impl Trial {
    fn on_datagram(&mut self, now: Instant, bytes: u64) {
        self.received += bytes;
        self.heard = self.heard.saturating_add(1);
        if self.back.is_none() && self.heard == HEARD_FIRST {
            (self.since, self.challenged_at) = (now, now);
        }
    }

    /// One at once, the others after one third of the patience, two, four, eight ...
    fn next_challenge(&self, patience: Duration) -> Option<Instant> {
        let (heard, most) = match self.back {
            Some(_) => (1, CHALLENGES),
            None => (HEARD_FIRST, u32::MAX),
        };
        let pause = match self.challenges {
            0 => Duration::ZERO,
            sent => (patience / 3 * (1 << sent.saturating_sub(2).min(8))).min(CHALLENGE_EACH),
        };
        (self.heard >= heard && self.challenges < most).then(|| self.challenged_at + pause)
    }
}

fn patience(length: Option<Duration>) -> Duration {
    length.unwrap_or_default().saturating_mul(PATIENCE_LENGTHS).clamp(PATIENCE, PATIENCE_MAX)
}

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { current, moves, trial, .. } = self;
        let mut path = f.debug_struct("Path");
        path.field("current", current).field("moves", moves).field("on_trial", &trial.is_some());
        path.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    fn answer(path: &mut Path, from: SocketAddr, challenge: Challenge) {
        challenge.into_iter().for_each(|number| path.on_answer(from, number));
    }

    /// A path whose first address has proved itself.
    fn path(now: Instant) -> Path {
        let mut path = Path::following(now, address(1), [7; 32]);
        path.on_datagram(now, address(1), 60, true);
        assert_eq!(path.challenge(now, None), None, "its first datagram only asks");
        path.on_datagram(now, address(1), 40, true);
        assert!(path.admits(300) && !path.admits(1));
        let challenge = path.challenge(now, None).unwrap();
        answer(&mut path, address(1), challenge);
        assert!(path.admits(1_000_000));
        path
    }

    #[test]
    fn a_new_address_is_trusted_once_it_answers_a_challenge() {
        let now = Instant::now();
        let mut path = path(now);
        path.on_datagram(now, address(2), 100, false);
        assert_eq!(path.current(), address(1), "an old datagram moves nothing");
        assert_eq!(path.challenge(now, None), None);
        path.on_datagram(now, address(2), 100, true);
        assert_eq!(path.current(), address(2));
        assert!(path.admits(300) && !path.admits(1));
        let challenge = path.challenge(now, None).unwrap();
        assert_eq!(path.challenge(now, None), None, "not twice at once");
        let next = path.poll_timeout(None).unwrap();
        assert_eq!(path.challenge(next, None), Some(challenge));
        answer(&mut path, address(1), challenge);
        path.on_answer(address(2), challenge[0]);
        path.on_answer(address(2), challenge[0]);
        assert!(!path.admits(1), "half of an answer, and from elsewhere");
        path.on_answer(address(2), challenge[1]);
        assert!(path.admits(1_000_000));
        assert_eq!(path.poll_timeout(None), None);
        path.handle_timeout(now + PATIENCE, None);
        assert_eq!((path.current(), path.moves), (address(2), 1));
    }

    #[test]
    fn nobody_can_tell_its_numbers_beforehand_or_try_them_out() {
        let now = Instant::now();
        let mut path = path(now);
        let mut challenges = Vec::new();
        for last in 2..12 {
            path.on_datagram(now, address(last), 100, true);
            challenges.push(path.challenge(now, None).unwrap());
        }
        let mut other = Path::following(now, address(1), [8; 32]);
        other.on_datagram(now, address(1), 100, true);
        other.on_datagram(now, address(1), 100, true);
        challenges.push(other.challenge(now, None).unwrap());
        let mut numbers = challenges.concat();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 22);
        assert!(!numbers.contains(&0) && numbers.iter().any(|number| number >> 24 != 0));
        let right = challenges[9];
        for number in 0..=WRONG_MAX {
            path.on_answer(address(11), number);
        }
        answer(&mut path, address(11), right);
        assert!(!path.admits(301), "after too many guesses");
    }

    #[test]
    fn without_an_answer_the_address_before_is_back() {
        let now = Instant::now();
        let mut path = path(now);
        path.on_datagram(now, address(2), 100, true);
        path.on_datagram(now, address(3), 100, true);
        path.handle_timeout(now + PATIENCE, None);
        assert_eq!(path.current(), address(1));
        path.on_datagram(now, address(2), 100, true);
        path.on_datagram(now, address(1), 100, true);
        assert!(path.admits(1_000_000), "it is back by itself");
        let mut fixed = Path::fixed(address(9));
        fixed.on_datagram(now, address(2), 100, true);
        assert_eq!(fixed.current(), address(9));
    }

    #[test]
    fn a_long_path_has_more_time() {
        let now = Instant::now();
        let mut path = path(now);
        let length = Some(Duration::from_millis(1_500));
        path.on_datagram(now, address(2), 100, true);
        let challenge = path.challenge(now, length).unwrap();
        let later = now + Duration::from_secs(3);
        path.handle_timeout(later, length);
        assert_eq!(path.current(), address(2));
        answer(&mut path, address(2), challenge);
        assert_eq!(path.poll_timeout(length), None);
        path.on_datagram(later, address(3), 100, true);
        path.handle_timeout(later + PATIENCE_MAX, Some(Duration::MAX));
        assert_eq!(path.current(), address(2), "but not forever");
    }

    #[test]
    fn the_first_address_is_asked_until_it_answers() {
        let now = Instant::now();
        let mut path = Path::following(now, address(1), [7; 32]);
        path.on_datagram(now, address(1), 60, true);
        assert_eq!(path.poll_timeout(None), None);
        let mut later = now + Duration::from_secs(3);
        path.on_datagram(later, address(1), 60, true);
        assert_eq!(path.poll_timeout(None), Some(later));
        let mut pauses = Vec::new();
        let mut challenge = Challenge::default();
        for _ in 0..20 {
            let next = path.poll_timeout(None).unwrap();
            path.handle_timeout(next, None);
            challenge = path.challenge(next, None).unwrap();
            assert_eq!(path.challenge(next, None), None);
            pauses.push(next - later);
            later = next;
        }
        assert!(pauses.is_sorted() && pauses[19] == CHALLENGE_EACH, "{pauses:?}");
        assert!(pauses.iter().sum::<Duration>() > Duration::from_secs(100));
        answer(&mut path, address(1), challenge);
        assert_eq!(path.poll_timeout(None), None);
    }
}
