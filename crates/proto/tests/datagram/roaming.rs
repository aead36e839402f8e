//! A client that changes its address, and those who pretend that it has.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use crate::{
    MS, S,
    ends::{CIPHERS, CLIENT, Flight, GATEWAY, Net, address, gateway_address},
};

const ATTACKER: u8 = 66;

fn current(net: &Net) -> Option<SocketAddr> {
    net.peers[GATEWAY].conversation.path().to
}

/// Both ends up and at rest, at 5 s.
fn net(cipher: usize) -> Net {
    let mut net = Net::new(CIPHERS[cipher], 20 * MS);
    net.run_until(5 * S);
    assert_eq!(net.up(), [true, true]);
    net
}

#[test]
fn the_session_follows_its_client_within_half_a_round_trip() {
    for cipher in CIPHERS {
        let mut net = Net::new(cipher, 20 * MS);
        net.run_until(5 * S);
        let (old, new) = (address(2, 40_000), address(3, 50_000));
        assert_eq!(current(&net), Some(old));
        net.peers[CLIENT].address = new;
        net.send(CLIENT, 1_000, 1);
        net.run_until(5_020 * MS);
        assert_eq!(current(&net), Some(new), "at once");
        let path = net.peers[GATEWAY].conversation.path();
        assert!(path.up && path.allowance.is_some());
        // both addresses are asked
        let asked: Vec<_> = net.seen.iter().rev().take(2).map(|f| f.bytes.len()).collect();
        assert_eq!(asked, [12 + cipher.overhead(); 2]);
        net.run_until(5_060 * MS);
        let path = net.peers[GATEWAY].conversation.path();
        assert_eq!((path.to, path.allowance), (Some(new), None), "and it has answered");
        net.send(GATEWAY, 1_200, 2);
        net.run_until(7 * S);
        assert_eq!(net.peers[CLIENT].numbers(true), [2]);
        assert_eq!(current(&net), Some(new));
        assert_eq!(net.up(), [true, true]);
    }
}

#[test]
fn an_older_datagram_from_a_new_address_moves_nothing() {
    let mut net = net(1);
    net.send(CLIENT, 100, 1);
    let mut held = net.seen.last().unwrap().clone();
    net.send(CLIENT, 100, 2);
    // the first of them took another way, and was overtaken
    net.fate = Box::new(|flight| vec![flight]);
    let real = address(2, 40_000);
    net.run_until(5 * S);
    let mut held_back = net;
    held.from = address(9, 9);
    // it never came from the real address
    let mut net = self::net(1);
    net.fate = Box::new(|_| vec![]);
    net.send(CLIENT, 100, 1);
    let mut first = net.seen.last().unwrap().clone();
    net.fate = Box::new(|flight| vec![flight]);
    net.send(CLIENT, 100, 2);
    net.run_until(6 * S);
    first.from = address(9, 9);
    first.at = net.now;
    net.inject(first);
    net.run_until(7 * S);
    assert_eq!(net.peers[GATEWAY].numbers(true), [2, 1], "it is a packet all the same");
    assert_eq!(current(&net), Some(real));
    held_back.run_until(6 * S);
    assert_eq!(current(&held_back), Some(real));
}

/// Copies of everything that the client sends come from the attacker's address, and first.
fn copier(net: &mut Net, drops_original: bool) {
    net.fate = Box::new(move |flight: Flight| {
        if flight.to != GATEWAY {
            return vec![flight];
        }
        let mut copy = flight.clone();
        copy.from = address(ATTACKER, 666);
        copy.at -= 10 * MS;
        if drops_original { vec![copy] } else { vec![copy, flight] }
    });
}

#[test]
fn a_copier_gets_no_more_than_three_times_what_it_sends_and_only_for_a_second() {
    let mut net = net(1);
    copier(&mut net, true);
    net.send(CLIENT, 1_000, 1);
    let copied = net.seen.last().unwrap().bytes.len();
    net.run_until(5_020 * MS);
    assert_eq!(current(&net), Some(address(ATTACKER, 666)));
    // a download that the gateway would send to the attacker, while its client hears nothing
    net.fate = Box::new(|_| vec![]);
    for ms in 5_020..5_900 {
        net.send(GATEWAY, 1_000, 2);
        net.run_until(MS * (ms + 1));
    }
    let sent = net.peers[GATEWAY].sent_to[&address(ATTACKER, 666)];
    assert!(sent <= 3 * copied, "{sent} bytes for {copied}");
    net.run_until(6_100 * MS);
    // the rest of it has arrived by the stream all the same
    let got = net.peers[CLIENT].got.len();
    assert!(got >= 879, "{got}");
    assert_eq!(current(&net), Some(address(2, 40_000)), "no answer in a second");
    assert_eq!(net.peers[GATEWAY].sent_to[&address(ATTACKER, 666)], sent);
}

/// The real client answers the challenge that goes to its address, too: with the highest counter,
/// so that the session is back after a round trip.
#[test]
fn the_owner_of_the_old_address_brings_the_session_back_by_its_answer() {
    let mut net = net(1);
    copier(&mut net, false);
    net.send(CLIENT, 1_000, 1);
    net.run_until(5_011 * MS);
    assert_eq!(current(&net), Some(address(ATTACKER, 666)));
    net.fate = Box::new(|flight| vec![flight]);
    net.run_until(5_060 * MS);
    let path = net.peers[GATEWAY].conversation.path();
    assert_eq!((path.to, path.allowance), (Some(address(2, 40_000)), None));
}

/// As long as it is the quicker one on the way, it is a relay like any other; it loses the session
/// with the first packet that comes from the client itself.
#[test]
fn a_relay_that_stops_loses_the_session_at_once() {
    let mut net = net(1);
    let attacker = address(ATTACKER, 666);
    copier(&mut net, true);
    for tenth in 50..58 {
        net.send(CLIENT, 100, 1);
        net.run_until(100 * MS * (tenth + 1));
    }
    net.fate = Box::new(|flight| vec![flight]);
    net.send(CLIENT, 100, 1);
    net.run_until(net.now - net.start + 20 * MS);
    assert_ne!(current(&net), Some(attacker));
}

/// A client could otherwise make the gateway send its download to somebody else's address.
#[test]
fn a_response_from_elsewhere_or_of_another_challenge_does_not_count() {
    let mut net = net(1);
    let (real, victim) = (address(2, 40_000), address(77, 7));
    // a datagram in the name of the victim
    net.peers[CLIENT].address = victim;
    net.send(CLIENT, 1_000, 1);
    net.peers[CLIENT].address = real;
    net.fate = Box::new(move |mut flight| {
        if flight.to == GATEWAY {
            flight.from = victim;
        }
        vec![flight]
    });
    // the challenge to its own address is answered in the victim's name, too
    net.run_until(5_500 * MS);
    let path = net.peers[GATEWAY].conversation.path();
    assert_eq!(path.to, Some(victim));
    assert!(path.allowance.is_some(), "still on trial");
    for ms in 5_500..5_990 {
        net.send(GATEWAY, 1_000, 2);
        net.run_until(MS * (ms + 1));
    }
    let came: usize = net.seen.iter().filter(|f| f.from == victim).map(|f| f.bytes.len()).sum();
    let sent = net.peers[GATEWAY].sent_to[&victim];
    assert!(sent <= 3 * came.max(2_000), "{sent} bytes for {came}");
}

#[test]
fn a_client_keeps_sending_to_its_gateway_whoever_answers() {
    let mut net = net(1);
    net.fate = Box::new(|mut flight| {
        if flight.to == CLIENT {
            flight.from = address(ATTACKER, 666);
        }
        vec![flight]
    });
    net.send(GATEWAY, 1_000, 1);
    net.run_until(6 * S);
    assert_eq!(net.peers[CLIENT].numbers(true), [1]);
    assert_eq!(net.peers[CLIENT].conversation.path().to, Some(gateway_address()));
}

#[test]
fn each_new_address_in_turn_is_on_trial_and_the_last_good_one_is_what_there_is_to_go_back_to() {
    let mut net = net(1);
    let lost = Rc::new(RefCell::new(0));
    let counter = lost.clone();
    // three NAT rebindings in a second, of which nobody answers
    net.fate = Box::new(move |flight| {
        if flight.to != GATEWAY {
            *counter.borrow_mut() += 1;
            return vec![];
        }
        vec![flight]
    });
    for port in 1..=3 {
        net.peers[CLIENT].address = address(2, port);
        net.send(CLIENT, 200, 1);
        net.run_until(5 * S + 100 * MS * u32::from(port));
        assert_eq!(current(&net), Some(address(2, port)));
    }
    net.peers[CLIENT].address = address(2, 40_000);
    net.run_until(6_500 * MS);
    assert_eq!(current(&net), Some(address(2, 40_000)));
    assert!(*lost.borrow() > 0);
}
