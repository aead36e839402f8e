//! Up and down, the length of datagrams, and what a bad network does to all that.

use std::{cell::Cell, rc::Rc, time::Duration};

use cipherwall_proto::{
    cipher::DatagramCipher,
    datagram::{PING_LEN_MIN, Reason},
    rekey::Policy,
};
use proptest::prelude::*;

use crate::{
    MS, S,
    ends::{CIPHERS, CLIENT, Flight, GATEWAY, MTU, Net},
};

const GCM: DatagramCipher = CIPHERS[1];

/// A network that loses datagrams in both directions while this is set.
fn switch(net: &mut Net) -> Rc<Cell<bool>> {
    let cut = Rc::new(Cell::new(false));
    let is_cut = cut.clone();
    net.fate = Box::new(move |flight| if is_cut.get() { vec![] } else { vec![flight] });
    cut
}

/// A network that carries datagrams up to this length.
fn narrow(net: &mut Net, length: usize) -> Rc<Cell<usize>> {
    let limit = Rc::new(Cell::new(length));
    let carries = limit.clone();
    net.fate = Box::new(
        move |flight| {
            if flight.bytes.len() <= carries.get() { vec![flight] } else { vec![] }
        },
    );
    limit
}

/// A deterministic source of accidents.
fn accidents(seed: u64) -> impl FnMut(u64) -> bool {
    let mut state = seed;
    move |percent| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % 100 < percent
    }
}

fn datagram_max(net: &Net, at: usize) -> usize {
    net.peers[at].conversation.path().datagram_max
}

#[test]
fn both_ends_are_up_within_three_round_trips_and_know_the_length_of_datagrams() {
    for cipher in CIPHERS {
        let mut net = Net::new(cipher, 50 * MS);
        net.run_until(99 * MS);
        assert_eq!(net.up(), [false, false]);
        net.run_until(100 * MS);
        assert_eq!(net.up(), [true, false], "{cipher}: the first pong is there");
        net.run_until(300 * MS);
        assert_eq!(net.up(), [true, true], "{cipher}");
        let whole = usize::from(MTU) + 4 + cipher.overhead();
        assert_eq!([CLIENT, GATEWAY].map(|at| datagram_max(&net, at)), [whole, whole]);
        assert_eq!(net.peers[CLIENT].outlet.packet_max(), usize::from(MTU));
        assert_eq!(net.peers[CLIENT].conversation.round_trip(), Some(100 * MS));
        for from in [CLIENT, GATEWAY] {
            net.send(from, MTU.into(), 7);
        }
        net.run_until(S);
        for at in [CLIENT, GATEWAY] {
            assert_eq!(net.peers[at].numbers(true), [7], "{cipher}");
        }
    }
}

#[test]
fn packets_go_over_the_stream_until_datagrams_get_through() {
    let mut net = Net::new(GCM, 20 * MS);
    let cut = switch(&mut net);
    cut.set(true);
    net.run_until(10 * S);
    net.send(CLIENT, 1_000, 1);
    net.run_until(11 * S);
    assert_eq!(net.up(), [false, false]);
    assert_eq!(net.peers[GATEWAY].numbers(false), [1]);
    // at first often, later rarely
    let tries = |net: &Net| {
        net.seen.iter().map(|f| (f.at - net.start - 20 * MS).as_millis()).collect::<Vec<_>>()
    };
    assert_eq!(tries(&net), [0, 250, 750, 1_750, 3_750, 7_750]);
    net.run_until(600 * S);
    let later: Vec<_> = tries(&net)[6..].windows(2).map(|at| at[1] - at[0]).collect();
    assert!(
        later.iter().all(|gap| (15_000..30_000).contains(gap)) && later.len() > 20,
        "{later:?}"
    );
    cut.set(false);
    net.run_until(640 * S);
    assert_eq!(net.up(), [true, true], "both come back without a word from the user");
    net.send(CLIENT, 1_000, 2);
    net.run_until(641 * S);
    assert_eq!(net.peers[GATEWAY].numbers(true), [2]);
}

#[test]
fn traffic_goes_over_to_the_stream_two_seconds_after_datagrams_are_cut_off_and_back() {
    let mut net = Net::new(GCM, 20 * MS);
    let cut = switch(&mut net);
    net.run_until(2 * S);
    cut.set(true);
    // a download: packets one way, answers the other
    let mut number = 0;
    for tenth in 20..120 {
        number += 1;
        net.send(GATEWAY, 1_000, number);
        net.send(CLIENT, 60, number);
        net.run_until(100 * MS * (tenth + 1));
    }
    let downs: Vec<_> = [CLIENT, GATEWAY].map(|at| net.peers[at].log.last().copied()).to_vec();
    for down in downs {
        let Some((at, false, Some(_))) = down else { panic!("{down:?}") };
        assert!((4 * S..4_200 * MS).contains(&at), "{at:?}");
    }
    let by_stream = net.peers[CLIENT].numbers(false);
    assert!(by_stream.len() >= 78, "{}", by_stream.len());
    cut.set(false);
    net.run_until(60 * S);
    assert_eq!(net.up(), [true, true]);
}

#[test]
fn traffic_one_way_only_keeps_the_path_up() {
    let mut net = Net::new(GCM, 20 * MS);
    net.run_until(2 * S);
    for tenth in 20..400 {
        net.send(CLIENT, 1_000, 1);
        net.run_until(100 * MS * (tenth + 1));
    }
    assert_eq!(net.up(), [true, true]);
    assert_eq!(net.peers[GATEWAY].numbers(true).len(), 380);
}

/// A probe is three pings: one that is lost is not the end of the path.
#[test]
fn loss_does_not_look_like_death_where_only_probes_are_answered() {
    let mut net = Net::new(GCM, 20 * MS);
    net.run_until(2 * S);
    let mut happens = accidents(3);
    net.fate = Box::new(move |flight| if happens(5) { vec![] } else { vec![flight] });
    for tenth in 20..1_200 {
        net.send(CLIENT, 1_000, 1);
        net.run_until(100 * MS * (tenth + 1));
    }
    assert_eq!(net.peers[CLIENT].log.len(), 2, "{:?}", net.peers[CLIENT].log);
}

#[test]
fn an_idle_client_reminds_the_nat_every_25_seconds_and_stays_up() {
    let mut net = Net::new(GCM, 20 * MS);
    net.run_until(10 * S);
    let before = net.seen.len();
    net.run_until(3_600 * S);
    assert_eq!(net.up(), [true, true]);
    let idle: Vec<_> =
        net.seen[before..].iter().filter(|f| f.to == GATEWAY).map(|f| f.at).collect();
    let gaps: Vec<_> = idle.windows(2).map(|at| at[1] - at[0]).collect();
    assert!((131..=160).contains(&gaps.len()), "{}", gaps.len());
    assert!(gaps.iter().all(|gap| (22_400 * MS..=27_600 * MS).contains(gap)), "{gaps:?}");
    let answers = net.seen[before..].iter().filter(|f| f.to == CLIENT).count();
    assert!(answers.abs_diff(idle.len()) <= 1, "the gateway answers, no more: {answers}");
}

#[test]
fn a_doubted_path_is_asked_at_once_and_given_up_after_a_second() {
    let mut net = Net::new(GCM, 20 * MS);
    let cut = switch(&mut net);
    net.run_until(10 * S);
    let (sent, now) = (net.seen.len(), net.now);
    net.peers[CLIENT].conversation.handle_doubt(now);
    net.run_until(10 * S + 500 * MS);
    assert!(net.seen.len() > sent);
    assert_eq!(net.up(), [true, true]);
    cut.set(true);
    let now = net.now;
    net.peers[CLIENT].conversation.handle_doubt(now);
    net.run_until(11_600 * MS);
    assert_eq!(net.up(), [false, true]);
}

#[test]
fn a_narrow_path_is_searched_and_found() {
    for cipher in CIPHERS {
        for carries in [PING_LEN_MIN, 1_250, 1_333, 1_400, 1_451] {
            let mut net = Net::new(cipher, 20 * MS);
            narrow(&mut net, carries);
            net.run_until(20 * S);
            assert_eq!(net.up(), [true, true]);
            for at in [CLIENT, GATEWAY] {
                let found = datagram_max(&net, at);
                assert!(found <= carries && carries < found + 9, "{cipher}: {found} of {carries}");
            }
        }
    }
}

#[test]
fn jumbo_frames_are_used_where_the_inside_mtu_asks_for_them_and_no_further() {
    let wide = |carries| {
        let mut net = Net::with(GCM, 20 * MS, 60_000, Policy::default());
        narrow(&mut net, carries);
        net.run_until(40 * S);
        datagram_max(&net, CLIENT)
    };
    assert_eq!(wide(65_507), 9_000 - 48);
    assert!((8_000 - 8..=8_000).contains(&wide(8_000)));
    let ethernet = wide(1_472);
    assert!((1_472 - 8..=1_472).contains(&ethernet), "{ethernet}");
}

#[test]
fn a_path_that_does_not_carry_1200_bytes_is_left_alone() {
    let mut net = Net::new(GCM, 20 * MS);
    narrow(&mut net, PING_LEN_MIN - 1);
    net.run_until(60 * S);
    assert_eq!(net.up(), [false, false]);
    net.send(CLIENT, 500, 1);
    net.run_until(61 * S);
    assert_eq!(net.peers[GATEWAY].numbers(false), [1]);
}

#[test]
fn a_black_hole_is_found_whether_short_datagrams_still_come_or_not() {
    // answered: other traffic goes on both ways; silent: a lone download stands still
    for answered in [true, false] {
        let mut net = Net::new(GCM, 20 * MS);
        let limit = narrow(&mut net, 9_000);
        net.run_until(20 * S);
        assert_eq!(datagram_max(&net, GATEWAY), 1_452);
        limit.set(1_300);
        let mut found = None;
        for tenth in 200..600 {
            net.send(GATEWAY, net.peers[GATEWAY].outlet.packet_max(), 1);
            if answered {
                net.send(CLIENT, 60, 1);
            }
            net.run_until(100 * MS * (tenth + 1));
            if found.is_none() && datagram_max(&net, GATEWAY) <= 1_300 {
                found = Some(net.now - net.start - 20 * S);
            }
        }
        let found = found.expect("the black hole is found");
        assert!(found < 14 * S, "{found:?}");
        assert!(net.up()[GATEWAY]);
        let length = datagram_max(&net, GATEWAY);
        assert!((1_292..=1_300).contains(&length), "{length}, {answered}");
        // ten minutes later the path is what it was
        limit.set(9_000);
        net.run_until(760 * S);
        assert_eq!(datagram_max(&net, GATEWAY), 1_452);
    }
}

/// Not even 1,200 bytes get through any more: the packets go over the stream.
#[test]
fn a_path_that_becomes_too_narrow_goes_down() {
    let mut net = Net::new(GCM, 20 * MS);
    let limit = narrow(&mut net, 9_000);
    net.run_until(20 * S);
    limit.set(1_100);
    for tenth in 200..500 {
        net.send(GATEWAY, net.peers[GATEWAY].outlet.packet_max(), 1);
        net.send(CLIENT, 60, 1);
        net.run_until(100 * MS * (tenth + 1));
    }
    assert!(!net.up()[GATEWAY]);
    assert!(net.peers[CLIENT].numbers(false).len() > 100);
}

/// The kernel says so (EMSGSIZE), at a probe or at a packet.
#[test]
fn a_length_that_this_host_cannot_send_is_not_tried_again() {
    let mut net = Net::new(GCM, 20 * MS);
    net.run_until(S);
    let now = net.now;
    let peer = &mut net.peers[CLIENT];
    peer.conversation.handle_too_long(now, 1_452);
    assert_eq!(peer.conversation.path().datagram_max, PING_LEN_MIN);
    let sent = net.seen.len();
    net.run_until(20 * S);
    assert!(net.seen[sent..].iter().filter(|f| f.to == GATEWAY).all(|f| f.bytes.len() < 1_452));
    assert!((1_443..1_452).contains(&datagram_max(&net, CLIENT)));
}

#[test]
fn loss_reordering_and_repetition_cost_neither_the_path_nor_a_packet_twice() {
    for (cipher, seed) in CIPHERS.into_iter().zip(1..) {
        let mut net = Net::new(cipher, 20 * MS);
        net.run_until(2 * S);
        let mut happens = accidents(seed);
        net.fate = Box::new(move |flight| {
            let mut late = flight.clone();
            // up to a hundred packets later, at one a millisecond
            late.at += 100 * MS;
            match () {
                () if happens(5) => vec![],
                () if happens(10) => vec![late],
                () if happens(10) => vec![flight, late],
                () => vec![flight],
            }
        });
        let mut sent = 0u32;
        for ms in 2_000..32_000 {
            net.send(GATEWAY, 1_000, (ms % 251) as u8);
            sent += 1;
            if ms % 2 == 0 {
                net.send(CLIENT, 60, 1);
            }
            net.run_until(MS * (ms + 1));
        }
        net.run_until(33 * S);
        assert_eq!(net.peers[GATEWAY].log.len(), 3, "no down: {:?}", net.peers[GATEWAY].log);
        let got = net.peers[CLIENT].numbers(true).len();
        assert!((sent * 94 / 100..=sent * 96 / 100).contains(&(got as u32)), "{got} of {sent}");
        assert!(net.peers[CLIENT].numbers(false).is_empty());
    }
}

#[test]
fn a_datagram_that_is_replayed_at_once_or_later_changes_nothing() {
    for cipher in CIPHERS {
        let mut net = Net::new(cipher, 20 * MS);
        net.run_until(2 * S);
        for number in 0..20 {
            net.send(CLIENT, 500, number);
        }
        net.run_until(5 * S);
        let copies = net.seen.clone();
        let before = net.peers[GATEWAY].got.len();
        for (wait, from_elsewhere) in [(Duration::ZERO, false), (S, false), (60 * S, true)] {
            net.run_until(5 * S + wait);
            let sent = net.seen.len();
            for copy in &copies {
                let from = if from_elsewhere { crate::ends::address(66, 666) } else { copy.from };
                net.inject(Flight { at: net.now, from, ..copy.clone() });
            }
            net.run_until(5 * S + wait + 10 * MS);
            assert_eq!(net.seen.len(), sent, "{cipher}: no answer to a replay");
        }
        assert_eq!(net.peers[GATEWAY].got.len(), before);
        assert_eq!(net.peers[GATEWAY].opener.usage().failures, 0);
        let to = net.peers[GATEWAY].conversation.path().to;
        assert_eq!(to, Some(net.peers[CLIENT].address));
    }
}

#[test]
fn the_reason_of_a_timer_is_known() {
    let net = Net::new(GCM, 20 * MS);
    assert_eq!(net.peers[CLIENT].conversation.poll_timeout(), Some((net.now, Reason::Try)));
    assert_eq!(net.peers[GATEWAY].conversation.poll_timeout(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the network does for a while, once it works both ends are up, and every packet has
    /// come at most once.
    #[test]
    fn both_ends_come_back_from_anything(
        steps in proptest::collection::vec((0u64..100, 0u64..50, 50usize..1_500, 0u64..8_000), 1..12),
        cipher in 0usize..3,
        seed: u64,
    ) {
        let mut net = Net::new(CIPHERS[cipher], 30 * MS);
        let mut at = Duration::ZERO;
        let mut number = 0u8;
        for (loss, late, carries, ms) in steps {
            let mut happens = accidents(seed);
            net.fate = Box::new(move |mut flight| {
                if happens(late) {
                    flight.at += 300 * MS;
                }
                let lost = happens(loss) || flight.bytes.len() > carries;
                if lost { vec![] } else { vec![flight] }
            });
            let until = at + Duration::from_millis(ms);
            while at < until {
                number = number.wrapping_add(1);
                net.send(CLIENT, 500, number);
                net.send(GATEWAY, 1_200, number);
                at += 37 * MS;
                net.run_until(at);
            }
        }
        net.fate = Box::new(|flight| vec![flight]);
        net.run_until(at + 100 * S);
        prop_assert_eq!(net.up(), [true, true]);
        let usages = [net.peers[CLIENT].opener.usage(), net.peers[GATEWAY].opener.usage()];
        prop_assert_eq!(usages.map(|usage| usage.failures), [0, 0]);
    }
}
