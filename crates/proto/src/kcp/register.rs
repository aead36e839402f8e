//! Which datagrams may begin a conversation at a gateway: fresh ones of clients that know the time.
//!
//! A datagram that was recorded and comes again finds its conversation remembered, or its time over,
//! so that not even an answer shows that there is a gateway.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use super::Head;
use crate::keys::Direction;

/// Counters with which a conversation may begin: the first ones may be lost.
const COUNTERS: u64 = 64;
/// How far the client's idea of the gateway's time may be off, seconds.
const TIME_OFF: u32 = 120;
/// How long a conversation's number is remembered: until any datagram that could begin it is too old.
const REMEMBERED: Duration = Duration::from_secs(240);
/// How many are remembered at most; when full, none begins.
const REMEMBERED_MAX: usize = 65_536;

/// The conversations of the last minutes.
#[derive(Debug)]
pub struct Register {
    since_s: u32,
    known: HashSet<[u8; 8]>,
    by_age: VecDeque<(Instant, [u8; 8])>,
}

impl Register {
    /// Of a gateway that has begun at `since_s`, Unix seconds: what was before, it does not remember.
    pub fn new(since_s: u32) -> Self {
        Self { since_s, known: HashSet::new(), by_age: VecDeque::new() }
    }

    /// Whether a datagram with this head is worth being opened, though its conversation is unknown.
    pub fn considers(&mut self, now: Instant, head: &Head) -> bool {
        self.forget(now);
        head.direction == Direction::ClientToServer
            && head.counter < COUNTERS
            && self.known.len() < REMEMBERED_MAX
            && !self.known.contains(&head.conversation)
    }

    /// Whether the conversation begins with it, now that it is open and says this time: at `now`,
    /// which is `now_s` in Unix seconds. It is remembered then.
    pub fn admits(&mut self, now: Instant, now_s: u32, head: &Head, time_s: u32) -> bool {
        let admitted = self.considers(now, head)
            && time_s.abs_diff(now_s) <= TIME_OFF
            && time_s >= self.since_s;
        if admitted {
            self.known.insert(head.conversation);
            self.by_age.push_back((now, head.conversation));
        }
        admitted
    }

    fn forget(&mut self, now: Instant) {
        let is_old = |(at, _): &mut (Instant, _)| now.saturating_duration_since(*at) > REMEMBERED;
        while let Some((_, conversation)) = self.by_age.pop_front_if(is_old) {
            self.known.remove(&conversation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u32 = 1_700_000_000;

    fn head(number: u64, counter: u64) -> Head {
        let conversation = number.to_be_bytes();
        Head { conversation, direction: Direction::ClientToServer, counter }
    }

    #[test]
    fn a_fresh_datagram_begins_a_conversation_once() {
        let (mut register, now) = (Register::new(NOW_S - 1_000), Instant::now());
        assert!(register.admits(now, NOW_S, &head(1, 63), NOW_S + 120));
        assert!(register.admits(now, NOW_S, &head(2, 0), NOW_S - 120));
        let later = now + REMEMBERED;
        assert!(!register.admits(later, NOW_S + 240, &head(1, 0), NOW_S + 120), "a replay");
        let later = now + REMEMBERED + Duration::from_secs(1);
        assert!(!register.admits(later, NOW_S + 241, &head(1, 0), NOW_S + 120), "too old by now");
        assert!(register.known.is_empty());
    }

    #[test]
    fn nothing_else_does() {
        let (mut register, now) = (Register::new(NOW_S - 10), Instant::now());
        let mut refused = |head: Head, time_s| assert!(!register.admits(now, NOW_S, &head, time_s));
        refused(head(1, 64), NOW_S);
        refused(head(1, 0), NOW_S - 121);
        refused(head(1, 0), NOW_S + 121);
        refused(head(1, 0), NOW_S - 11);
        refused(Head { direction: Direction::ServerToClient, ..head(1, 0) }, NOW_S);
    }

    #[test]
    fn it_is_bounded() {
        let (mut register, now) = (Register::new(0), Instant::now());
        for number in 0..REMEMBERED_MAX as u64 {
            assert!(register.admits(now, NOW_S, &head(number, 0), NOW_S));
        }
        assert!(!register.admits(now, NOW_S, &head(u64::MAX, 0), NOW_S));
        let later = now + REMEMBERED + Duration::from_millis(1);
        assert!(register.admits(later, NOW_S, &head(u64::MAX, 0), NOW_S));
        assert_eq!(register.known.len(), 1);
    }
}
