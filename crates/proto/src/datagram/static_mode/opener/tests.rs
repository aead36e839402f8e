use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::datagram::static_mode::{Keepalive, Sealer, start};

const INSIDE: Inside =
    Inside { gateway: Ipv4Addr::new(10, 8, 0, 1), client: Ipv4Addr::new(10, 8, 0, 2) };
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

fn end(role: Role, policy: Policy) -> (Sealer, Opener) {
    start(&StaticKey::new([3; 64]), role, INSIDE, policy, Stored::default(), 1_000).unwrap()
}

fn ends() -> (Sealer, Opener) {
    (end(Role::Client, Policy::Auto).0, end(Role::Gateway, Policy::Auto).1)
}

/// An IPv4 packet without contents.
fn packet(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut packet = Keepalive::new(INSIDE, Instant::now()).echo().to_vec();
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet
}

fn sealed(sealer: &mut Sealer, packet: &[u8]) -> Vec<u8> {
    let mut datagram = [&[0; OVERHEAD], packet].concat();
    sealer.seal([datagram.as_mut_slice()].into_iter());
    datagram
}

#[test]
fn a_packet_arrives_as_it_was_once() {
    let (mut sealer, mut opener) = ends();
    let sent = packet(INSIDE.client, OTHER);
    let datagram = sealed(&mut sealer, &sent);
    assert_eq!(datagram.len(), sent.len() + 48);
    let opened = opener.open(&mut datagram.clone()).unwrap().bytes.to_vec();
    assert_eq!(opened, sent);
    assert_eq!(opener.open(&mut datagram.clone()), Err(Refused::Replayed));
}

#[test]
fn the_same_packet_never_looks_the_same() {
    let (mut sealer, _) = ends();
    let sent = packet(INSIDE.client, OTHER);
    let (one, other) = (sealed(&mut sealer, &sent), sealed(&mut sealer, &sent));
    assert!(one.iter().zip(&other).filter(|(a, b)| a == b).count() < 10);
}

#[test]
fn our_own_packets_are_not_taken_from_others_whatever_the_policy() {
    for policy in [Policy::Auto, Policy::Counter, Policy::Seen, Policy::Off] {
        for role in [Role::Client, Role::Gateway] {
            let (mut sealer, mut opener) = end(role, policy);
            let mut datagram = sealed(&mut sealer, &packet(INSIDE.client, INSIDE.client));
            assert_eq!(opener.open(&mut datagram), Err(Refused::Reflected));
        }
    }
}

#[test]
fn inside_is_exactly_one_packet_of_the_peer() {
    let (mut sealer, mut opener) = ends();
    let good = packet(INSIDE.client, OTHER);
    let with = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        bad
    };
    let long = [good.clone(), vec![0]].concat();
    for (bad, refused) in [
        (with(0, 0x55), Refused::Malformed),
        (with(0, 0x44), Refused::Malformed),
        (with(3, 27), Refused::Malformed),
        (long, Refused::Malformed),
        (good[..27].to_vec(), Refused::Malformed),
        (vec![0x45], Refused::Malformed),
        (packet(INSIDE.gateway, OTHER), Refused::ForeignAddress),
        (packet(OTHER, INSIDE.gateway), Refused::ForeignAddress),
    ] {
        assert_eq!(opener.open(&mut sealed(&mut sealer, &bad)), Err(refused), "{bad:?}");
    }
    assert!(opener.open(&mut sealed(&mut sealer, &good)).is_ok());

    let (mut gateway, mut client) =
        (end(Role::Gateway, Policy::Auto).0, end(Role::Client, Policy::Auto).1);
    assert!(client.open(&mut sealed(&mut gateway, &packet(OTHER, INSIDE.client))).is_ok());
    for (from, to) in [(INSIDE.gateway, OTHER), (INSIDE.client, INSIDE.client)] {
        let mut bad = sealed(&mut gateway, &packet(from, to));
        assert_eq!(client.open(&mut bad), Err(Refused::ForeignAddress));
    }
}

#[test]
fn a_run_is_stored_before_its_first_packet_and_never_comes_again() {
    let key = StaticKey::new([3; 64]);
    let mut stored = Stored::default();
    let mut runs = Vec::new();
    // the clock stands still, goes forward, goes back
    for unix_ms in [1_000, 1_000, 5_000, 7, 0] {
        let (_, mut opener) =
            start(&key, Role::Client, INSIDE, Policy::Auto, stored, unix_ms).unwrap();
        stored = opener.poll_store(Instant::now()).expect("at once");
        runs.push(stored.run);
    }
    assert_eq!(runs, [1_000, 1_001, 5_000, 5_001, 5_002]);
    let full = Stored { run: (1 << 48) - 1, ..Stored::default() };
    assert!(start(&key, Role::Client, INSIDE, Policy::Auto, full, 0).is_err());
}

#[test]
fn the_peers_progress_is_stored_every_second() {
    let (mut sealer, mut opener) = ends();
    let start = Instant::now();
    opener.poll_store(start);
    let mut next = || sealed(&mut sealer, &packet(INSIDE.client, OTHER));
    for _ in 0..4 {
        opener.open(&mut next()).unwrap();
    }
    assert_eq!(opener.poll_store(start + Duration::from_millis(999)), None);
    let stored = opener.poll_store(start + STORE_EVERY).expect("after a second");
    assert!(stored.nailed);
    assert_eq!(stored.peer.map(|peer| peer.counter), Some(3));
    assert_eq!(opener.poll_store(start + STORE_EVERY * 9), None, "nothing has changed");
    opener.open(&mut next()).unwrap();
    assert_eq!(opener.state().peer.map(|peer| peer.counter), Some(4), "on exit");
}

proptest! {
    /// Whatever strangers send, it is refused and changes nothing.
    #[test]
    fn noise_leaves_no_trace(mut noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut opener = end(Role::Gateway, Policy::Auto).1;
        let before = opener.state();
        prop_assert_eq!(opener.open(&mut noise), Err(Refused::NotAuthentic));
        prop_assert_eq!(opener.state(), before);
    }

    #[test]
    fn every_flipped_bit_is_refused(bit in 0usize..76 * 8) {
        let (mut sealer, mut opener) = ends();
        let mut datagram = sealed(&mut sealer, &packet(INSIDE.client, OTHER));
        datagram[bit / 8] ^= 1 << (bit % 8);
        let mut bad = datagram.clone();
        prop_assert_eq!(opener.open(&mut bad), Err(Refused::NotAuthentic));
        datagram[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(opener.open(&mut datagram).is_ok());
    }
}
