//! Both ends of static mode on a virtual clock, with a network between them that loses, delays,
//! repeats and changes datagrams, and ends that are restarted or crash.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use cipherwall_proto::datagram::{
    packet::OVERHEAD,
    static_mode::{Inside, Opener, Policy, Role, Sealer, StaticKey, Stored, start},
};
use proptest::prelude::*;

const INSIDE: Inside =
    Inside { gateway: Ipv4Addr::new(10, 8, 0, 1), client: Ipv4Addr::new(10, 8, 0, 2) };
/// When the clocks of both ends start, in Unix milliseconds.
const EPOCH_MS: u64 = 1_790_000_000_000;

/// One end with what survives it.
struct End {
    role: Role,
    sealer: Sealer,
    opener: Opener,
    /// What is on the disk.
    stored: Stored,
    /// Each packet that came out, and how often.
    received: BTreeMap<u32, u32>,
}

impl End {
    fn new(role: Role, stored: Stored, clock: &Clock) -> Self {
        let key = StaticKey::new([0x5a; 64]);
        let unix_ms = EPOCH_MS + clock.ms;
        let (sealer, opener) =
            start(&key, role, INSIDE, Policy::Auto, stored, unix_ms).expect("a run number");
        let mut end = Self { role, sealer, opener, stored, received: BTreeMap::new() };
        end.store(clock);
        assert_ne!(end.stored.run, stored.run, "the run is stored before the first packet");
        end
    }

    fn store(&mut self, clock: &Clock) {
        if let Some(state) = self.opener.poll_store(clock.now()) {
            self.stored = state;
        }
    }

    /// Begins anew: after an orderly end, or after a crash that lost what was not stored.
    fn restart(&mut self, crash: bool, clock: &Clock) {
        let stored = if crash { self.stored } else { self.opener.state() };
        let received = std::mem::take(&mut self.received);
        *self = Self { received, ..Self::new(self.role, stored, clock) };
    }

    fn send(&mut self, number: u32) -> Vec<u8> {
        let mut datagram = [&[0; OVERHEAD], &packet(self.role, number)[..]].concat();
        self.sealer.seal([datagram.as_mut_slice()].into_iter());
        datagram
    }

    fn receive(&mut self, mut datagram: Vec<u8>) {
        if let Ok(packet) = self.opener.open(&mut datagram) {
            let number = u32::from_be_bytes(packet.bytes[20..24].try_into().expect("four bytes"));
            *self.received.entry(number).or_default() += 1;
        }
    }
}

/// An IPv4 packet of an experimental protocol, with a number in it.
fn packet(role: Role, number: u32) -> [u8; 24] {
    let (from, to) = match role {
        Role::Client => (INSIDE.client, Ipv4Addr::new(198, 51, 100, 7)),
        Role::Gateway => (Ipv4Addr::new(198, 51, 100, 7), INSIDE.client),
    };
    let mut packet = [0; 24];
    packet[0] = 0x45;
    packet[3] = 24;
    packet[8] = 64;
    packet[9] = 253;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet[20..].copy_from_slice(&number.to_be_bytes());
    packet
}

struct Clock {
    start: Instant,
    ms: u64,
}

impl Clock {
    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }
}

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// One end sends a packet.
    Send { gateway: bool },
    /// A datagram under way arrives, whichever it is.
    Arrive { which: u16 },
    /// A datagram under way is lost.
    Lose { which: u16 },
    /// A datagram that was sent at any time, to anybody, comes again to one end.
    Repeat { which: u16, gateway: bool },
    /// A datagram under way is changed.
    Change { which: u16, at: u16, by: u8 },
    /// Time passes.
    Wait { ms: u16 },
    /// One end begins anew.
    Restart { gateway: bool, crash: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => any::<bool>().prop_map(|gateway| Step::Send { gateway }),
        12 => any::<u16>().prop_map(|which| Step::Arrive { which }),
        2 => any::<u16>().prop_map(|which| Step::Lose { which }),
        6 => (any::<u16>(), any::<bool>()).prop_map(|(which, gateway)| Step::Repeat { which, gateway }),
        2 => (any::<u16>(), any::<u16>(), 1u8..).prop_map(|(which, at, by)| Step::Change { which, at, by }),
        3 => (0u16..2_000).prop_map(|ms| Step::Wait { ms }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(gateway, crash)| Step::Restart { gateway, crash }),
    ]
}

/// Client and gateway, and what is between them.
struct World {
    clock: Clock,
    ends: [End; 2],
    /// To whom, and what.
    under_way: Vec<(usize, Vec<u8>)>,
    /// All that was ever sent.
    recorded: Vec<Vec<u8>>,
    sent: [BTreeSet<u32>; 2],
    next: u32,
    crashes: u32,
}

impl World {
    fn new() -> Self {
        let clock = Clock { start: Instant::now(), ms: 0 };
        let end = |role| End::new(role, Stored::default(), &clock);
        let ends = [end(Role::Client), end(Role::Gateway)];
        let (under_way, recorded, sent) = Default::default();
        Self { clock, ends, under_way, recorded, sent, next: 0, crashes: 0 }
    }

    fn take(&mut self, which: u16) -> Option<(usize, Vec<u8>)> {
        let count = self.under_way.len();
        (count > 0).then(|| self.under_way.remove(usize::from(which) % count))
    }

    fn send(&mut self, from: usize) {
        self.next += 1;
        let datagram = self.ends[from].send(self.next);
        self.sent[from].insert(self.next);
        self.recorded.push(datagram.clone());
        self.under_way.push((1 - from, datagram));
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Send { gateway } => self.send(gateway.into()),
            Step::Arrive { which } => {
                if let Some((to, datagram)) = self.take(which) {
                    self.ends[to].receive(datagram);
                }
            }
            Step::Lose { which } => drop(self.take(which)),
            Step::Repeat { which, gateway } => {
                let count = self.recorded.len();
                if count > 0 {
                    let datagram = self.recorded[usize::from(which) % count].clone();
                    self.ends[usize::from(gateway)].receive(datagram);
                }
            }
            Step::Change { which, at, by } => {
                if let Some((to, mut datagram)) = self.take(which) {
                    let at = usize::from(at) % datagram.len();
                    datagram[at] ^= by;
                    self.ends[to].receive(datagram);
                }
            }
            Step::Wait { ms } => self.clock.ms += u64::from(ms),
            Step::Restart { gateway, crash } => {
                self.crashes += u32::from(crash);
                self.ends[usize::from(gateway)].restart(crash, &self.clock);
            }
        }
        for end in &mut self.ends {
            end.store(&self.clock);
        }
    }
}

proptest! {
    /// Whatever the network does, only what was sent comes out, and once, as long as nobody has
    /// forgotten anything: before a peer is nailed down, and in a crash, that is what happens.
    #[test]
    fn only_what_was_sent_comes_out_and_once(steps in prop::collection::vec(step(), 1..400)) {
        let mut world = World::new();
        // both know each other
        for _ in 0..4 {
            world.send(0);
            world.send(1);
            world.run(Step::Arrive { which: 0 });
            world.run(Step::Arrive { which: 0 });
        }
        world.run(Step::Wait { ms: 1_000 });
        for step in steps {
            world.run(step);
        }
        for to in 0..2 {
            for (number, times) in &world.ends[to].received {
                prop_assert!(world.sent[1 - to].contains(number), "{number} was never sent there");
                prop_assert!(*times <= 1 + world.crashes, "{number} came {times} times");
            }
        }
        // and both still understand each other
        for from in 0..2 {
            world.send(from);
            let (to, datagram) = world.under_way.pop().expect("just sent");
            world.ends[to].receive(datagram);
            prop_assert_eq!(world.ends[to].received.get(&world.next), Some(&1));
        }
    }
}

/// A crash forgets at most what came in its last second.
#[test]
fn after_a_crash_only_what_was_not_stored_yet_comes_again() {
    let mut world = World::new();
    for _ in 0..10 {
        world.send(0);
        world.run(Step::Arrive { which: 0 });
        world.run(Step::Wait { ms: 1_000 });
    }
    for _ in 0..2 {
        world.send(0);
        world.run(Step::Arrive { which: 0 });
    }
    world.run(Step::Restart { gateway: true, crash: true });
    for datagram in world.recorded.clone() {
        world.ends[1].receive(datagram);
    }
    let twice: Vec<_> =
        world.ends[1].received.iter().filter(|(_, times)| **times > 1).map(|(n, _)| *n).collect();
    assert_eq!(twice, [12], "the last one, which was not stored");
    world.run(Step::Restart { gateway: true, crash: false });
    for datagram in world.recorded.clone() {
        world.ends[1].receive(datagram);
    }
    assert!(world.ends[1].received.values().all(|times| *times <= 2), "and never again");
}

/// 100 packets in any order, with the window in between.
#[test]
fn late_packets_are_taken_within_the_window() {
    let mut world = World::new();
    for _ in 0..8_300 {
        world.send(0);
    }
    let mut datagrams = std::mem::take(&mut world.under_way);
    // the first four nail it down, then the last one comes
    for _ in 0..4 {
        world.ends[1].receive(datagrams.remove(0).1);
    }
    world.ends[1].receive(datagrams.pop().expect("the last one").1);
    for (_, datagram) in datagrams.into_iter().rev() {
        world.ends[1].receive(datagram);
    }
    // 8,192 with the last one, and the first four
    assert_eq!(world.ends[1].received.len(), 8_192 + 4);
}
