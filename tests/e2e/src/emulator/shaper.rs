//! What happens to a packet on an emulated link, and when. Pure: time and the seed of all chance
//! are parameters.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::link::{Counters, Link};

/// One direction of a link, with the packets in it.
#[derive(Debug)]
pub(super) struct Shaper {
    link: Link,
    chance: fastrand::Rng,
    is_cut: bool,
    /// When all packets accepted so far are sent.
    idle_from: Instant,
    /// When the last packet that is not overtaken arrives.
    last_arrival: Instant,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    counters: Counters,
}

/// Ordered by arrival, then by their order on the link.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    arrival: Instant,
    number: u64,
    packet: Vec<u8>,
}

impl Shaper {
    pub(super) fn new(link: Link, seed: u64, now: Instant) -> Shaper {
        Shaper {
            link,
            chance: fastrand::Rng::with_seed(seed),
            is_cut: false,
            idle_from: now,
            last_arrival: now,
            under_way: BinaryHeap::new(),
            counters: Counters::default(),
        }
    }

    /// For the packets that come from now on.
    pub(super) fn set(&mut self, link: Link) {
        self.link = link;
    }

    /// Nothing gets through any more.
    pub(super) fn cut(&mut self, now: Instant) {
        self.is_cut = true;
        self.counters.cut += self.under_way.len() as u64;
        self.under_way.clear();
        (self.idle_from, self.last_arrival) = (now, now);
    }

    /// Packets get through again.
    pub(super) fn restore(&mut self) {
        self.is_cut = false;
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// A packet comes to the link.
    pub(super) fn push(&mut self, now: Instant, packet: &[u8]) {
        self.counters.packets += 1;
        if self.is_cut {
            self.counters.cut += 1;
            return;
        }
        let Some(sent) = self.send(now, packet.len()) else {
            self.counters.dropped += 1;
            return;
        };
        // always both, so that one setting does not change the other's choices
        let (loss, late) = (self.chance.f64(), self.chance.f64());
        if loss < self.link.loss {
            self.counters.lost += 1;
            return;
        }
        let arrival = match self.link.reorder {
            Some(reorder) if late < reorder.share => sent + self.link.delay + reorder.delay,
            // never before its predecessor, also where the delay has become shorter
            Some(_) | None => {
                self.last_arrival = self.last_arrival.max(sent + self.link.delay);
                self.last_arrival
            }
        };
        let number = self.counters.packets;
        self.under_way.push(Reverse(UnderWay { arrival, number, packet: packet.to_vec() }));
    }

    /// The next packet that has arrived by now.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_arrival()? > now {
            return None;
        }
        self.counters.delivered += 1;
        self.under_way.pop().map(|Reverse(under_way)| under_way.packet)
    }

    /// When [`Shaper::pop`] will have something to give.
    pub(super) fn next_arrival(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(under_way)| under_way.arrival)
    }

    /// When a packet is sent to its last byte; `None` if the queue has no room for it.
    fn send(&mut self, now: Instant, packet_len: usize) -> Option<Instant> {
        let Some(rate) = self.link.rate else { return Some(now) };
        let start = self.idle_from.max(now);
        if start - now > self.link.queue {
            return None;
        }
        let nanoseconds = packet_len as u64 * 8 * 1_000_000_000 / rate.max(1);
        self.idle_from = start + Duration::from_nanos(nanoseconds);
        Some(self.idle_from)
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::Reorder;
    use super::*;

    /// A shaper on a clock that stands still unless it is told.
    struct Bench {
        shaper: Shaper,
        start: Instant,
    }

    impl Bench {
        fn new(link: Link) -> Bench {
            Bench::with_seed(link, 1)
        }

        fn with_seed(link: Link, seed: u64) -> Bench {
            let start = Instant::now();
            Bench { shaper: Shaper::new(link, seed, start), start }
        }

        fn push(&mut self, at_us: u64, mark: u8, len: usize) {
            self.shaper.push(self.start + Duration::from_micros(at_us), &vec![mark; len]);
        }

        /// When each packet arrives, in microseconds, with its mark.
        fn arrivals(&mut self) -> Vec<(u64, u8)> {
            let mut arrivals = Vec::new();
            while let Some(due) = self.shaper.next_arrival() {
                assert_eq!(self.shaper.pop(due - Duration::from_nanos(1)), None, "too early");
                let packet = self.shaper.pop(due).unwrap();
                arrivals.push(((due - self.start).as_micros() as u64, packet[0]));
            }
            arrivals
        }

        fn is_accounted_for(&self) -> bool {
            let Counters { packets, delivered, lost, dropped, cut } = self.shaper.counters();
            packets == delivered + lost + dropped + cut
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_unlimited_link_only_delays() {
        let mut bench = Bench::new(Link { delay: 7 * MS, ..Link::default() });
        bench.push(0, 1, 1500);
        bench.push(0, 2, 1500);
        bench.push(500, 3, 40);
        assert_eq!(bench.arrivals(), [(7_000, 1), (7_000, 2), (7_500, 3)]);
    }

    #[test]
    fn a_rate_spaces_packets_by_their_length() {
        // 8 Mbit/s: a byte in a microsecond
        let mut bench = Bench::new(Link { delay: MS, rate: Some(8_000_000), ..Link::default() });
        for mark in 1..=3 {
            bench.push(0, mark, 1500);
        }
        bench.push(10_000, 4, 100);
        assert_eq!(bench.arrivals(), [(2_500, 1), (4_000, 2), (5_500, 3), (11_100, 4)]);
    }

    #[test]
    fn a_full_queue_drops_what_comes_last_and_has_room_again_later() {
        let link = Link { rate: Some(8_000_000), queue: 3 * MS, ..Link::default() };
        let mut bench = Bench::new(link);
        for mark in 1..=5 {
            bench.push(0, mark, 1500);
        }
        bench.push(1_500, 6, 1500);
        let marks: Vec<u8> = bench.arrivals().into_iter().map(|(_, mark)| mark).collect();
        assert_eq!(marks, [1, 2, 3, 6], "the third waits 3 ms, the fourth would wait 4.5");
        assert_eq!(bench.shaper.counters().dropped, 2);
        assert!(bench.is_accounted_for());
    }

    #[test]
    fn losses_have_their_share_and_depend_on_the_seed_alone() {
        let survivors = |seed, reorder| {
            let mut bench = Bench::with_seed(Link { loss: 0.1, reorder, ..Link::default() }, seed);
            (0..50_000).for_each(|at| bench.push(at, (at % 251) as u8, 20));
            let mut arrivals = bench.arrivals();
            assert!(bench.is_accounted_for());
            arrivals.sort_unstable();
            arrivals.into_iter().map(|(_, mark)| mark).collect::<Vec<_>>()
        };
        let first = survivors(1, None);
        assert!((44_700..45_300).contains(&first.len()), "{} of 50,000", first.len());
        assert_eq!(first, survivors(1, None));
        assert_eq!(
            first.len(),
            survivors(1, Some(Reorder { share: 0.5, delay: MS })).len(),
            "reordering changes which packets are lost"
        );
        assert_ne!(first, survivors(2, None));
    }

    #[test]
    fn lost_packets_take_their_time_on_the_link() {
        let mut bench = Bench::new(Link { loss: 1.0, rate: Some(8_000_000), ..Link::default() });
        bench.push(0, 1, 1500);
        bench.shaper.set(Link { loss: 0.0, ..bench.shaper.link });
        bench.push(0, 2, 1500);
        assert_eq!(bench.arrivals(), [(3_000, 2)]);
    }

    #[test]
    fn late_packets_are_overtaken_and_the_others_stay_in_order() {
        let reorder = Some(Reorder { share: 0.2, delay: 5 * MS });
        let mut bench = Bench::new(Link { delay: MS, reorder, ..Link::default() });
        (0..200).for_each(|number: u8| bench.push(u64::from(number) * 1_000, number, 20));
        let arrivals = bench.arrivals();
        let (late, in_time): (Vec<_>, Vec<_>) =
            arrivals.into_iter().partition(|(at, mark)| at - u64::from(*mark) * 1_000 == 6_000);
        assert!((20..60).contains(&late.len()), "{} late ones", late.len());
        assert!(in_time.iter().all(|(at, mark)| at - u64::from(*mark) * 1_000 == 1_000));
    }

    #[test]
    fn a_shorter_delay_lets_nobody_overtake() {
        let mut bench = Bench::new(Link { delay: 50 * MS, ..Link::default() });
        bench.push(0, 1, 20);
        bench.shaper.set(Link { delay: MS, ..Link::default() });
        bench.push(10_000, 2, 20);
        bench.push(60_000, 3, 20);
        assert_eq!(bench.arrivals(), [(50_000, 1), (50_000, 2), (61_000, 3)]);
    }

    #[test]
    fn a_cut_loses_what_is_under_way_and_what_comes_until_it_is_restored() {
        let link = Link { delay: MS, rate: Some(8_000_000), ..Link::default() };
        let mut bench = Bench::new(link);
        (0..10).for_each(|_| bench.push(0, 1, 1500));
        bench.shaper.cut(bench.start);
        bench.push(1_000, 2, 1500);
        assert_eq!(bench.shaper.next_arrival(), None);
        bench.shaper.restore();
        bench.push(2_000, 3, 1500);
        assert_eq!(bench.arrivals(), [(4_500, 3)], "the old queue is in the way");
        assert_eq!(bench.shaper.counters().cut, 11);
        assert!(bench.is_accounted_for());
    }
}
