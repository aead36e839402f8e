//! New keys while datagrams fly.

use std::time::Duration;

use cipherwall_proto::{
    datagram::OLD_KEYS_LIVE,
    rekey::{Limits, Policy},
};
use proptest::prelude::*;

use crate::{
    MS, S,
    ends::{CIPHERS, CLIENT, Flight, GATEWAY, MTU, Net},
};

fn net(cipher: usize, limits: Limits) -> Net {
    let policy = Policy { limits, ..Policy::default() };
    let mut net = Net::with(CIPHERS[cipher], 20 * MS, MTU, policy);
    net.run_until(S);
    net
}

fn epochs(net: &Net) -> [(u32, u32); 2] {
    [CLIENT, GATEWAY].map(|at| {
        let peer = &net.peers[at];
        (peer.sealer.usage().epoch, peer.opener.usage().epoch)
    })
}

#[test]
fn the_number_the_bytes_and_the_failures_of_datagrams_lead_to_a_rekey() {
    let count = Limits { datagrams: 100, ..Limits::default() };
    let bytes = Limits { bytes: 100_000, ..Limits::default() };
    for limits in [count, bytes] {
        for from in [CLIENT, GATEWAY] {
            let mut net = net(1, limits);
            for number in 0..110 {
                net.send(from, 1_000, number);
            }
            net.run_until(2 * S);
            assert_eq!(epochs(&net), [(1, 1); 2], "{limits:?} from {from}");
            let got = net.peers[1 - from].numbers(true);
            assert_eq!(got, (0..110).collect::<Vec<_>>(), "and none is lost by it");
        }
    }
    let mut net = net(1, Limits { failures: 10, ..Limits::default() });
    net.send(CLIENT, 1_000, 1);
    let good = net.seen.last().unwrap().clone();
    for at in 40..50 {
        let mut forged = good.clone();
        forged.bytes[at] ^= 1;
        forged.at = net.now;
        net.inject(forged);
    }
    net.run_until(2 * S);
    assert_eq!(epochs(&net), [(1, 1); 2]);
}

/// In which order anything arrives: an end never gets what it cannot open.
#[test]
fn datagrams_of_both_epochs_open_on_both_ends_while_the_change_is_under_way() {
    for cipher in 0..3 {
        let mut net = net(cipher, Limits { datagrams: 1_000, ..Limits::default() });
        let mut sent = 0;
        for ms in 1_000..3_000 {
            // some are late by half a second: of an epoch that is over for those who sent them
            net.fate = Box::new(move |mut flight| {
                flight.at += if ms % 7 == 0 { 500 * MS } else { Duration::ZERO };
                vec![flight]
            });
            for from in [CLIENT, GATEWAY] {
                net.send(from, 100, 1);
            }
            sent += 1;
            net.run_until(MS * (ms + 1));
        }
        net.run_until(5 * S);
        assert!(epochs(&net)[CLIENT].0 >= 1, "{:?}", epochs(&net));
        for at in [CLIENT, GATEWAY] {
            assert_eq!(net.peers[at].numbers(true).len(), sent, "{cipher}");
            assert_eq!(net.peers[at].opener.usage().failures, 0);
        }
    }
}

#[test]
fn the_epoch_before_is_accepted_for_30_seconds_and_a_replay_of_it_never() {
    for cipher in 0..3 {
        for (wait, opens) in [(29 * S, true), (OLD_KEYS_LIVE + S, false)] {
            let mut net = net(cipher, Limits { datagrams: 100, ..Limits::default() });
            net.send(CLIENT, 100, 200);
            let replayed = net.seen.last().unwrap().clone();
            net.fate = Box::new(|_| vec![]);
            net.send(CLIENT, 100, 201);
            let late = net.seen.last().unwrap().clone();
            net.fate = Box::new(|flight| vec![flight]);
            for number in 0..110 {
                net.send(CLIENT, 100, number);
            }
            net.run_until(2 * S);
            assert_eq!(epochs(&net), [(1, 1); 2]);
            net.run_until(S + wait);
            let before = net.peers[GATEWAY].got.len();
            for flight in [replayed, late] {
                net.inject(Flight { at: net.now, ..flight });
            }
            net.run_until(2 * S + wait);
            let new = net.peers[GATEWAY].got[before..].iter().map(|(packet, _)| packet[0]);
            assert_eq!(new.collect::<Vec<_>>(), if opens { vec![201] } else { vec![] });
        }
    }
}

/// A late datagram of the epoch before says nothing about where the client is now.
#[test]
fn what_comes_late_of_the_epoch_before_is_not_the_newest() {
    let mut net = net(1, Limits { datagrams: 100, ..Limits::default() });
    let real = net.peers[CLIENT].address;
    for number in 0..98 {
        net.send(CLIENT, 100, number);
    }
    net.fate = Box::new(|_| vec![]);
    for number in 98..105 {
        net.send(CLIENT, 100, number);
    }
    let mut late = net.seen.last().unwrap().clone();
    net.fate = Box::new(|flight| vec![flight]);
    net.run_until(2 * S);
    assert_eq!(epochs(&net), [(1, 1); 2]);
    net.send(CLIENT, 100, 1);
    net.run_until(3 * S);
    late.from = crate::ends::address(9, 9);
    late.at = net.now;
    net.inject(late);
    net.run_until(3_001 * MS);
    assert_eq!(net.peers[GATEWAY].got.last().map(|(packet, _)| packet[0]), Some(104));
    assert_eq!(net.peers[GATEWAY].conversation.path().to, Some(real));
}

#[test]
fn epochs_that_look_alike_on_the_wire_are_told_apart() {
    // 4 bits or 8 bits of it are there
    let mut net = net(1, Limits { datagrams: 20, ..Limits::default() });
    let first = net.seen[0].clone();
    let mut at = S;
    while epochs(&net)[GATEWAY].1 < 33 {
        for number in 0..25 {
            net.send(CLIENT, 100, number);
        }
        at += 100 * MS;
        net.run_until(at);
    }
    let before = net.peers[GATEWAY].opener.usage();
    net.inject(Flight { at: net.now, ..first });
    net.run_until(at + MS);
    assert_eq!(net.peers[GATEWAY].opener.usage().datagrams, before.datagrams);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Keys change again and again under loss, reordering and both ways at once: whatever arrives
    /// opens, and no epoch is left behind.
    #[test]
    fn keys_change_under_a_bad_network(
        limit in 100u64..200,
        delay in 1u64..150,
        late in 0u64..400,
        cipher in 0usize..3,
    ) {
        let limits = Limits { datagrams: limit, ..Limits::default() };
        let policy = Policy { limits, ..Policy::default() };
        let delay = Duration::from_millis(delay);
        let mut net = Net::with(CIPHERS[cipher], delay, MTU, policy);
        net.run_until(2 * S);
        let mut count = 0u64;
        net.fate = Box::new(move |mut flight| {
            count += 1;
            if count.is_multiple_of(5) {
                flight.at += Duration::from_millis(late);
            }
            if count.is_multiple_of(11) { vec![] } else { vec![flight] }
        });
        for step in 0..400 {
            net.send(CLIENT, 100, 1);
            net.send(GATEWAY, 300, 1);
            net.run_until(2 * S + 5 * MS * (step + 1));
        }
        net.run_until(20 * S);
        prop_assert!(epochs(&net)[CLIENT].0 > 0);
        let sealed = [CLIENT, GATEWAY].map(|at| epochs(&net)[at].0);
        let opened = [GATEWAY, CLIENT].map(|at| epochs(&net)[at].1);
        prop_assert_eq!(sealed, opened);
        for peer in &net.peers {
            prop_assert_eq!(peer.opener.usage().failures, 0);
            let got = peer.got.len();
            prop_assert!(got > 400 * 85 / 100, "{}", got);
        }
    }
}
