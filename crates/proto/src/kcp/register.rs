//! Which datagrams may begin a conversation at a gateway: fresh ones of clients that know the time.
//!
//! A datagram that was recorded and comes again finds its conversation remembered, or its time over,
//! so that not even an answer shows that there is a gateway.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
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
/// How many are remembered at most; then the oldest is forgotten early. To get there takes the door key,
/// and who has it needs no replay to find the gateway, but must not keep out others.
const REMEMBERED_MAX: usize = 262_144;

/// The conversations of the last minutes.
#[derive(Debug)]
pub struct Register {
    since_s: u32,
    known: HashSet<[u8; 8]>,
    by_age: VecDeque<(Instant, u32, [u8; 8])>,
    /// Those with a time that is still fresh or to come, as the clock has been set back since.
    ahead: BTreeSet<(u32, [u8; 8])>,
}

impl Register {
    /// Of a gateway that has begun at `since_s`, Unix seconds: what was before, it does not remember.
    pub fn new(since_s: u32) -> Self {
        let (known, by_age) = (HashSet::new(), VecDeque::new());
        Self { since_s, known, by_age, ahead: BTreeSet::new() }
    }

    /// Whether a datagram with this head is worth being opened, though its conversation is unknown: at
    /// `now`, which is `now_s` in Unix seconds.
    pub fn considers(&mut self, now: Instant, now_s: u32, head: &Head) -> bool {
        self.forget(now, now_s);
        head.direction == Direction::ClientToServer
            && head.counter < COUNTERS
            && !self.known.contains(&head.conversation)
    }

    /// Whether the conversation begins with it, now that it is open and says this time. It is
    /// remembered then.
    pub fn admits(&mut self, now: Instant, now_s: u32, head: &Head, time_s: u32) -> bool {
        // the clock may have been fast at the start
        self.since_s = self.since_s.min(now_s);
        let admitted = self.considers(now, now_s, head)
            && time_s.abs_diff(now_s) <= TIME_OFF
            && time_s >= self.since_s;
        if admitted {
            if self.known.len() >= REMEMBERED_MAX {
                self.forget_oldest();
            }
            self.known.insert(head.conversation);
            self.by_age.push_back((now, time_s, head.conversation));
        }
        admitted
    }

    fn forget(&mut self, now: Instant, now_s: u32) {
        let is_old =
            |(at, ..): &mut (Instant, u32, _)| now.saturating_duration_since(*at) > REMEMBERED;
        while let Some((_, time_s, conversation)) = self.by_age.pop_front_if(is_old) {
            self.ahead.insert((time_s, conversation));
        }
        while let Some((time_s, conversation)) = self.ahead.first().copied()
            && time_s.saturating_add(TIME_OFF) < now_s
        {
            self.ahead.pop_first();
            self.known.remove(&conversation);
        }
    }

    fn forget_oldest(&mut self) {
        let by_time = self.ahead.pop_first().map(|(_, conversation)| conversation);
        let oldest = by_time.or_else(|| self.by_age.pop_front().map(|(.., oldest)| oldest));
        if let Some(oldest) = oldest {
            self.known.remove(&oldest);
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
    fn a_gateway_whose_clock_was_fast_at_the_start_takes_those_who_know_the_time() {
        let (mut register, now) = (Register::new(NOW_S + 3_600), Instant::now());
        assert!(register.admits(now, NOW_S + 3_600, &head(1, 0), NOW_S + 3_600));
        assert!(!register.admits(now, NOW_S, &head(2, 0), NOW_S - 1), "from before");
        assert!(register.admits(now, NOW_S, &head(3, 0), NOW_S));
        let later = now + Duration::from_secs(3_600);
        let again = [head(1, 0), head(3, 0)]
            .map(|head| register.admits(later, NOW_S + 3_600, &head, NOW_S + 3_600));
        assert_eq!(again, [false, true], "the first datagram of 1 is fresh once more");
        let later = later + REMEMBERED;
        assert!(register.considers(later, NOW_S + 3_840, &head(1, 0)));
        assert_eq!(register.known.len(), 1);
    }

    #[test]
    fn it_is_bounded_and_keeps_nobody_out() {
        let (mut register, now) = (Register::new(0), Instant::now());
        for number in 0..REMEMBERED_MAX as u64 {
            assert!(register.admits(now, NOW_S, &head(number, 0), NOW_S));
        }
        assert!(register.admits(now, NOW_S, &head(u64::MAX, 0), NOW_S));
        assert_eq!((register.known.len(), register.by_age.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(!register.considers(now, NOW_S, &head(1, 0)));
        assert!(register.considers(now, NOW_S, &head(0, 0)), "the oldest");
        let later = now + REMEMBERED + Duration::from_secs(1);
        assert!(register.admits(later, NOW_S + 241, &head(0, 0), NOW_S + 241));
        assert_eq!((register.known.len(), register.ahead.len()), (1, 0));
    }
}
