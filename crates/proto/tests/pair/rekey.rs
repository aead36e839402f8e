//! Rekeys (A7): nothing is lost or reordered, and nobody on the way or at the other end can make
//! more of them than an end of the connection.

use std::time::Duration;

use cipherwall_proto::{
    cipher::CipherId,
    frame::{self, Control, RekeyFrame},
    rekey::{Limits, Policy},
};
use proptest::prelude::*;

use crate::{MS, S, ends::Pair};

const CLIENT: usize = 0;
const GATEWAY: usize = 1;

fn every(interval: Duration) -> Policy {
    Policy { interval, ..Policy::default() }
}

fn pair(interval: Duration) -> Pair {
    Pair::with_rekeys(CipherId::Aes256Gcm, 20 * MS, Limits::default(), every(interval))
}

/// A pair that has just sent the frame, and the bytes of the record with it.
fn with_step(step: Step) -> (Pair, Vec<u8>) {
    let mut pair = pair(100 * S);
    let (from, hops) = match step {
        Step::Start => (GATEWAY, 0),
        Step::Reply => (CLIENT, 1),
        Step::Done => (GATEWAY, 2),
    };
    let asked = frame::control(&Control::RekeyPlease);
    pair.ends[CLIENT].say_bytes(&asked);
    pair.send(CLIENT, &[]);
    // the gateway lets a second pass; then each step takes 20 ms
    pair.run_until(S + 19 * MS + 20 * MS * hops);
    let [(_, bytes)] = pair.ends[1 - from].arriving.make_contiguous() else {
        panic!("{step:?} is not on its way");
    };
    let bytes = std::mem::take(bytes);
    pair.ends[1 - from].arriving.clear();
    (pair, bytes)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Start,
    Reply,
    Done,
}

/// Whether both ends still understand each other.
fn is_sound(pair: &mut Pair) -> bool {
    pair.now += 200 * MS;
    for from in [CLIENT, GATEWAY] {
        pair.ends[from].got.clear();
        pair.send(from, &[vec![from as u8; 100]]);
    }
    let now = pair.now - pair.start;
    pair.run_until(now + S);
    pair.ends.iter().all(|end| end.failed.is_none() && end.got.len() == 1)
}

#[test]
fn keys_change_after_four_hours_within_a_tenth() {
    let mut pair = Pair::new(CipherId::ChaCha20Poly1305, 150 * MS);
    pair.run_until(12_960 * S - S);
    assert_eq!(pair.ends[CLIENT].epochs(), (0, 0));
    pair.run_until(15_840 * S + S);
    assert_eq!(pair.ends[CLIENT].epochs(), (1, 1));
    pair.run_until(24 * 3_600 * S);
    let (epoch, _) = pair.ends[GATEWAY].epochs();
    assert!((5..=6).contains(&epoch), "{epoch} rekeys in a day");
    assert_eq!(pair.ends[CLIENT].epochs(), (epoch, epoch));
    assert!(is_sound(&mut pair));
}

/// The epoch is modulo 16 on the wire; many more go by here.
#[test]
fn keys_change_again_and_again() {
    let mut pair = pair(100 * MS);
    pair.run_until(10 * S);
    assert!(pair.ends[CLIENT].epochs().0 > 60, "{:?}", pair.ends[CLIENT].epochs());
    assert!(is_sound(&mut pair));
}

#[test]
fn the_gateway_changes_keys_after_so_many_records_or_bytes_either_way() {
    let records = Limits { records: 10, ..Limits::default() };
    let bytes = Limits { bytes: 10_000, ..Limits::default() };
    for (limits, from) in [(records, CLIENT), (records, GATEWAY), (bytes, CLIENT), (bytes, GATEWAY)]
    {
        let policy = Policy { limits, ..Policy::default() };
        let mut pair = Pair::with_rekeys(CipherId::Aes256Gcm, 20 * MS, Limits::default(), policy);
        for n in 1..=10 {
            assert_eq!(pair.ends[from].epochs(), (0, 0), "before {n} of {limits:?}");
            pair.send(from, &[vec![1; 975]]);
            pair.run_until(5 * MS * n);
        }
        pair.run_until(S);
        assert_eq!(pair.ends[CLIENT].epochs(), (1, 1), "{limits:?}");
        assert!(is_sound(&mut pair));
    }
}

#[test]
fn the_gateway_changes_keys_when_the_client_asks_but_not_more_than_once_a_second() {
    let limits = Limits { records: 5, ..Limits::default() };
    let mut pair = Pair::with_rekeys(CipherId::Aes256Gcm, 20 * MS, limits, Policy::default());
    for n in 1..=1_000 {
        pair.send(CLIENT, &[vec![1; 100]]);
        pair.run_until(10 * MS * n);
    }
    pair.run_until(11 * S);
    let (epoch, _) = pair.ends[CLIENT].epochs();
    assert!((8..=11).contains(&epoch), "{epoch} rekeys in 10 s");
    assert!(is_sound(&mut pair));
}

#[test]
fn each_step_has_to_come_within_30_s() {
    // the client does not answer `Rekey`, or the gateway does not say `RekeyDone`
    for (silent, waiting) in [(CLIENT, GATEWAY), (GATEWAY, CLIENT)] {
        let mut pair = pair(100 * S);
        pair.ends[silent].withholds_keys = true;
        pair.run_until(119 * S);
        assert!(pair.ends.iter().all(|end| !end.is_over()));
        pair.run_until(141 * S);
        let error = "no answer to a rekey within 30 s";
        assert_eq!(pair.ends[waiting].failed.as_deref(), Some(error));
    }
}

#[test]
fn steps_that_nobody_waits_for_end_the_connection() {
    let start = |epoch| RekeyFrame::Start { epoch, random: [1; 32], public: [9; 32] };
    let reply = |epoch| RekeyFrame::Reply { epoch, public: [9; 32] };
    let done = |epoch| RekeyFrame::Done { epoch };
    let out_of_order = "a step of a rekey out of order";
    for (from, steps, error) in [
        (GATEWAY, vec![reply(1)], out_of_order),
        (GATEWAY, vec![done(1)], out_of_order),
        (GATEWAY, vec![start(1), start(1)], out_of_order),
        (GATEWAY, vec![start(1), start(2)], out_of_order),
        // in one record, before it can be answered
        (GATEWAY, vec![start(1), done(1)], out_of_order),
        (GATEWAY, vec![start(0)], "a rekey to epoch 0 instead of 1"),
        (GATEWAY, vec![start(2)], "a rekey to epoch 2 instead of 1"),
        (CLIENT, vec![start(1)], out_of_order),
        (CLIENT, vec![reply(1)], out_of_order),
        (CLIENT, vec![done(1)], out_of_order),
    ] {
        let mut pair = pair(100 * S);
        for step in &steps {
            pair.ends[from].say_bytes(&step.to_bytes());
        }
        pair.send(from, &[]);
        pair.run_until(S);
        assert_eq!(pair.ends[1 - from].failed.as_deref(), Some(error), "{steps:?}");
    }
}

/// With all that an answer has, but not as one.
#[test]
fn a_client_cannot_start_a_rekey_in_answer_to_one() {
    let (mut pair, _) = with_step(Step::Start);
    let start = RekeyFrame::Start { epoch: 1, random: [1; 32], public: [9; 32] };
    pair.ends[CLIENT].say_bytes(&start.to_bytes());
    pair.send(CLIENT, &[]);
    pair.run_until(2 * S);
    let error = "a step of a rekey out of order";
    assert_eq!(pair.ends[GATEWAY].failed.as_deref(), Some(error));
}

#[test]
fn answers_for_another_epoch_end_the_connection() {
    for epoch in [0, 2, 17, u32::MAX] {
        let (mut pair, _) = with_step(Step::Start);
        pair.ends[CLIENT].say_bytes(&RekeyFrame::Reply { epoch, public: [9; 32] }.to_bytes());
        pair.send(CLIENT, &[]);
        pair.run_until(2 * S);
        let expected = format!("a rekey to epoch {epoch} instead of 1");
        assert_eq!(pair.ends[GATEWAY].failed.as_ref(), Some(&expected));

        let (mut pair, reply) = with_step(Step::Reply);
        let (start, now) = (pair.start, pair.now);
        pair.ends[GATEWAY].withholds_keys = true;
        pair.ends[GATEWAY].receive(start, now, &reply);
        pair.ends[GATEWAY].say_bytes(&RekeyFrame::Done { epoch }.to_bytes());
        pair.send(GATEWAY, &[]);
        pair.run_until(2 * S);
        assert_eq!(pair.ends[CLIENT].failed.as_ref(), Some(&expected));
    }
}

/// Points of small order: with them, everybody would know the shared secret (RFC 7748, 6.1).
#[test]
fn public_keys_that_give_no_secret_end_the_connection() {
    let one = std::array::from_fn(|at| u8::from(at == 0));
    for public in [[0; 32], one] {
        let mut evil_gateway = pair(100 * S);
        let start = RekeyFrame::Start { epoch: 1, random: [1; 32], public };
        evil_gateway.ends[GATEWAY].say_bytes(&start.to_bytes());
        evil_gateway.send(GATEWAY, &[]);
        evil_gateway.run_until(S);
        let (mut evil_client, _) = with_step(Step::Start);
        evil_client.ends[CLIENT].say_bytes(&RekeyFrame::Reply { epoch: 1, public }.to_bytes());
        evil_client.send(CLIENT, &[]);
        evil_client.run_until(2 * S);
        for error in [&evil_gateway.ends[CLIENT].failed, &evil_client.ends[GATEWAY].failed] {
            assert_eq!(error.as_deref(), Some("a rekey with an unusable public key"));
        }
    }
}

#[test]
fn nothing_follows_the_last_frame_of_an_epoch_in_its_record() {
    let (mut pair, _) = with_step(Step::Start);
    let reply = RekeyFrame::Reply { epoch: 1, public: [9; 32] }.to_bytes();
    pair.ends[CLIENT].say_bytes(&[reply, frame::ping([1; 8])].concat());
    pair.send(CLIENT, &[]);
    pair.run_until(2 * S);
    let error = "bytes behind a frame that changes the key";
    assert_eq!(pair.ends[GATEWAY].failed.as_deref(), Some(error));
}

/// Somebody else's answer leads to other keys: the next record does not open.
#[test]
fn an_answer_that_was_not_the_clients_leads_nowhere() {
    let (mut pair, _) = with_step(Step::Start);
    let reply = RekeyFrame::Reply { epoch: 1, public: [9; 32] };
    pair.ends[CLIENT].say_bytes(&reply.to_bytes());
    pair.send(CLIENT, &[]);
    pair.run_until(2 * S);
    assert_eq!(pair.ends[GATEWAY].epochs(), (1, 1));
    pair.send(CLIENT, &[vec![1; 100]]);
    pair.run_until(3 * S);
    assert_eq!(pair.ends[GATEWAY].failed.as_deref(), Some("a tunnel record out of order"));
    assert!(pair.ends[GATEWAY].got.is_empty());
}

/// A flipped bit anywhere in the record of any step, by somebody on the way.
#[test]
fn a_changed_step_ends_the_connection() {
    for step in [Step::Start, Step::Reply, Step::Done] {
        let (_, bytes) = with_step(step);
        for bit in 0..bytes.len() * 8 {
            let (mut pair, mut bytes) = with_step(step);
            let to = if step == Step::Reply { GATEWAY } else { CLIENT };
            let before = pair.ends[to].epochs();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (start, now) = (pair.start, pair.now);
            pair.ends[to].receive(start, now, &bytes);
            // a longer length waits for bytes that never come
            let waits = (3..5).contains(&(bit / 8));
            assert!(pair.ends[to].failed.is_some() || waits, "{step:?}, bit {bit}");
            assert_eq!(pair.ends[to].epochs(), before, "{step:?}, bit {bit}");
        }
    }
}

#[test]
fn a_step_that_is_said_twice_ends_the_connection() {
    for (step, to) in [(Step::Start, CLIENT), (Step::Reply, GATEWAY), (Step::Done, CLIENT)] {
        let (mut pair, bytes) = with_step(step);
        let (start, now) = (pair.start, pair.now);
        pair.ends[to].receive(start, now, &bytes);
        assert_eq!(pair.ends[to].failed, None, "{step:?}");
        pair.ends[to].receive(start, now, &bytes);
        assert!(pair.ends[to].failed.is_some(), "{step:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is on the way in both directions while the keys change again and again, in any
    /// pieces, with full sockets: every packet arrives, in order.
    #[test]
    fn packets_cross_in_order_while_keys_change(
        sends in proptest::collection::vec(
            (0usize..2, 1usize..60_000, 1usize..6, 0u64..60, any::<bool>()), 20..120),
        pieces in proptest::collection::vec(1usize..40_000, 1..20),
        delay in 0u64..80,
        interval in 1u64..100,
        chacha: bool,
        tight: bool,
    ) {
        let cipher = if chacha { CipherId::ChaCha20Poly1305 } else { CipherId::Aes256Gcm };
        let limits = if tight { Limits { records: 3, bytes: 5_000, ..Limits::default() } } else { Limits::default() };
        let policy = Policy { interval: Duration::from_millis(interval), limits };
        let delay = Duration::from_millis(delay);
        let mut pair = Pair::with_rekeys(cipher, delay, limits, policy);
        let mut pieces = pieces.into_iter().cycle();
        let mut sent = [Vec::new(), Vec::new()];
        let mut at = Duration::ZERO;
        for (n, (from, length, count, pause, stall)) in sends.into_iter().enumerate() {
            pair.ends[from].stalled = stall;
            let packets: Vec<_> = (0..count).map(|m| vec![(n * 7 + m) as u8; length]).collect();
            pair.send(from, &packets);
            sent[from].extend(packets);
            cut(&mut pair, &mut pieces);
            at += Duration::from_millis(pause);
            pair.run_until(at);
        }
        for from in [CLIENT, GATEWAY] {
            pair.ends[from].stalled = false;
            pair.send(from, &[]);
        }
        pair.run_until(at + 2 * S);
        for end in &pair.ends {
            prop_assert_eq!(&end.failed, &None);
        }
        prop_assert!(pair.ends[CLIENT].got == sent[GATEWAY], "to the client");
        prop_assert!(pair.ends[GATEWAY].got == sent[CLIENT], "to the gateway");
        prop_assert!(pair.ends[CLIENT].epochs().0 > 3, "{:?}", pair.ends[CLIENT].epochs());
        prop_assert!(is_sound(&mut pair));
    }
}

/// What is on its way arrives in pieces.
fn cut(pair: &mut Pair, pieces: &mut impl Iterator<Item = usize>) {
    for end in &mut pair.ends {
        for (at, bytes) in std::mem::take(&mut end.arriving) {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(pieces.next().unwrap().min(rest.len()));
                end.arriving.push_back((at, piece.to_vec()));
                rest = behind;
            }
        }
    }
}
