//! Packets that wait for a socket that is full, or for a connection that is away.
//!
//! While they wait for a socket, CoDel (RFC 8289) drops some, so that the TCP inside slows down
//! before a standing queue builds up (A21). While they wait for a connection, the oldest go first
//! (A9). Small packets (acknowledgements, DNS, pings) are never dropped to slow anybody down.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use cipherwall_packet::offload;

/// The most that waits, in bytes, where nothing else is said.
pub const BYTES_MAX: usize = 512 * 1024;
/// How old packets may be that a new connection is given (A9).
const AGE_MAX: Duration = Duration::from_secs(5);
/// So many bytes of the newest packets are kept whatever their age: a TCP connection that has been
/// waiting for longer than [`AGE_MAX`] between two attempts goes on at once when one arrives.
const NEWEST: usize = 32 * 1024;
/// Packets up to this length say too little about who fills the queue to be dropped for it.
const SMALL: usize = 256 + offload::HEADER_LEN;
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The standing delay that is accepted, as a part of the interval; 5 to 10% (RFC 8289, 4.3).
const TARGET_DIVISOR: u32 = 12;

/// A queue of packets, each with its offload header in front.
#[derive(Debug)]
pub struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    bytes_max: usize,
    dropped: u64,
    /// Delays are counted from here on, at the earliest.
    counts_from: Option<Instant>,
    codel: CoDel,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    packet: Box<[u8]>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            bytes_max: BYTES_MAX,
            dropped: 0,
            counts_from: None,
            codel: CoDel::new(INTERVAL_MIN),
        }
    }
}

impl Queue {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Packets dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// The path's round trip: who sends needs so long to hear of a drop, and as long again where a
    /// lost packet holds up those behind it.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.codel.interval = (round_trip * 2).max(INTERVAL_MIN);
    }

    /// Holds at most so many bytes from now on.
    pub fn set_bytes_max(&mut self, bytes: usize) {
        self.bytes_max = bytes;
        self.drop_excess();
    }

    /// Adds a packet; where there are too many, the oldest go.
    pub fn push(&mut self, now: Instant, packet: Box<[u8]>) {
        self.bytes += packet.len();
        self.waiting.push_back(Waiting { since: now, packet });
        self.drop_excess();
    }

    /// The next packet for a socket that has room.
    pub fn pop(&mut self, now: Instant) -> Option<Box<[u8]>> {
        loop {
            let Waiting { since, packet } = self.take_oldest()?;
            let is_short = self.bytes <= packet.len();
            let since = self.counts_from.map_or(since, |from| from.max(since));
            let delay = now.saturating_duration_since(since);
            if !self.codel.drops(now, delay, is_short, packet.len()) {
                return Some(packet);
            }
            self.dropped += 1;
        }
    }

    /// Takes over what another queue could not get rid of, in front of what is here. What is too
    /// old to be of use is dropped; the time that the rest has waited does not count.
    pub fn adopt(&mut self, now: Instant, mut other: Queue) {
        while let Some(oldest) = other.waiting.front()
            && now.saturating_duration_since(oldest.since) > AGE_MAX
            && other.bytes > NEWEST
        {
            other.drop_oldest();
        }
        self.put_in_front(other);
        self.forgive(now);
    }

    /// The time that packets have waited until now does not count.
    pub fn forgive(&mut self, now: Instant) {
        self.counts_from = Some(now);
    }

    /// Puts the packets of another queue in front.
    pub fn put_in_front(&mut self, mut other: Queue) {
        self.dropped += other.dropped;
        self.bytes += other.bytes;
        other.waiting.append(&mut self.waiting);
        self.waiting = other.waiting;
        self.drop_excess();
    }

    fn drop_excess(&mut self) {
        while self.bytes > self.bytes_max {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        self.take_oldest();
        self.dropped += 1;
    }

    fn take_oldest(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        self.bytes -= waiting.packet.len();
        Some(waiting)
    }
}

/// Controlled delay (RFC 8289, 5): the names are those of its pseudocode.
#[derive(Debug)]
struct CoDel {
    interval: Duration,
    /// When the delay will have been too long for an interval.
    first_above: Option<Instant>,
    dropping: bool,
    /// When it drops, or would have dropped, the next packet.
    drop_next: Option<Instant>,
    count: u32,
    last_count: u32,
}

impl CoDel {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            first_above: None,
            dropping: false,
            drop_next: None,
            count: 0,
            last_count: 0,
        }
    }

    /// Whether the packet that has left the queue after `delay` is to be dropped. `is_short`: no
    /// more waits than one packet like it, which may be one of 64 KiB that stands for many.
    fn drops(&mut self, now: Instant, delay: Duration, is_short: bool, length: usize) -> bool {
        let above = self.is_above_for_long(now, delay, is_short);
        if !above {
            self.dropping = false;
            return false;
        }
        if length <= SMALL {
            return false;
        }
        if self.dropping {
            let due = self.drop_next.filter(|due| now >= *due);
            if let Some(due) = due {
                self.count += 1;
                self.drop_next = Some(due + self.spacing());
            }
            return due.is_some();
        }
        self.dropping = true;
        // if it was dropping a short while ago, it goes on at about the rate that did it
        let delta = self.count - self.last_count;
        let is_recent = self.drop_next.is_some_and(|next| now < next + self.interval * 16);
        self.count = if delta > 1 && is_recent { delta } else { 1 };
        self.last_count = self.count;
        self.drop_next = Some(now + self.spacing());
        true
    }

    fn is_above_for_long(&mut self, now: Instant, delay: Duration, is_short: bool) -> bool {
        if delay < self.interval / TARGET_DIVISOR || is_short {
            self.first_above = None;
            return false;
        }
        now >= *self.first_above.get_or_insert(now + self.interval)
    }

    fn spacing(&self) -> Duration {
        self.interval.div_f64(f64::from(self.count).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn packet(length: usize) -> Box<[u8]> {
        vec![0; length].into()
    }

    /// Feeds packets to a socket that takes two a millisecond, for 3 s: `per_ms` is told the time
    /// in ms and the drops so far. Returns the drops, and the longest delay (in ms) of the second
    /// half.
    fn overload(per_ms: impl Fn(u32, u64) -> u32, length: usize) -> (u64, u128) {
        let (start, mut queue) = (Instant::now(), Queue::default());
        let (mut longest, mut dropped) = (0, 0);
        for ms in 0..3_000 {
            let now = start + MS * ms;
            for _ in 0..per_ms(ms, dropped) {
                queue.push(now, packet(length));
            }
            for _ in 0..2 {
                if let Some(oldest) = queue.waiting.front() {
                    let delay = now.duration_since(oldest.since).as_millis();
                    longest = if ms > 1_500 { delay.max(longest) } else { 0 };
                    queue.pop(now);
                }
            }
            dropped += queue.take_dropped();
        }
        (dropped, longest)
    }

    #[test]
    fn a_sender_who_heeds_drops_is_not_kept_waiting() {
        let heeds = |ms, drops| match (drops, ms % 10) {
            (0..3, 0) => 3,
            (3.., 0) => 1,
            _ => 2,
        };
        let (dropped, longest) = overload(heeds, 1_400);
        assert!((3..10).contains(&dropped), "{dropped}");
        assert!(longest < 10, "{longest} ms");
        let (dropped, longest) = overload(|_, _| 2, 1_400);
        assert_eq!((dropped, longest), (0, 0), "nothing waits, nothing is dropped");
    }

    #[test]
    fn small_packets_are_only_dropped_for_want_of_room() {
        let (dropped, _) = overload(|_, _| 3, 100);
        assert_eq!(dropped, 0);
        let mut queue = Queue::default();
        for _ in 0..BYTES_MAX {
            queue.push(Instant::now(), packet(100));
        }
        assert!(queue.len() <= BYTES_MAX && queue.take_dropped() > 0);
    }

    #[test]
    fn the_oldest_packets_go_first_and_the_newest_stay_whatever_their_age() {
        let (start, mut away) = (Instant::now(), Queue::default());
        for n in 0..100 {
            let mut bytes = packet(1_400);
            bytes[0] = n;
            away.push(start + MS * u32::from(n), bytes);
        }
        let mut queue = Queue::default();
        queue.push(start, packet(50));
        queue.adopt(start + AGE_MAX + MS * 50, away);
        assert_eq!(queue.waiting.front().unwrap().packet[0], 50, "younger than 5 s");
        let mut next = Queue::default();
        next.adopt(start + AGE_MAX * 9, queue);
        assert!(next.len() <= NEWEST && next.len() > NEWEST - 1_400, "{}", next.len());
        assert_eq!(next.waiting.back().unwrap().packet.len(), 50, "what came later is behind");
    }
}
