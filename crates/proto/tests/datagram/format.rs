//! What is on the wire, and what becomes of datagrams that somebody has meddled with.

use std::time::Instant;

use cipherwall_proto::{
    cipher::DatagramCipher,
    datagram::{Masks, OLD_KEYS_LIVE},
    frame,
};
use proptest::prelude::*;

use crate::ends::{CIPHERS, INDEX, MASK_KEY, halves, log_in, open, packet, seal};

#[test]
fn several_datagrams_are_sealed_at_once_and_each_opens_once() {
    for cipher in CIPHERS {
        let [(mut sealer, _), (_, mut opener)] = halves(cipher);
        let (now, length) = (Instant::now(), 1_000);
        let (prefix, suffix) = (cipher.prefix_len(), cipher.suffix_len());
        let mut datagrams = vec![0; 9 * length + 200];
        for (number, datagram) in datagrams.chunks_mut(length).enumerate() {
            let room = prefix..datagram.len() - suffix;
            let frame = packet(room.len() - frame::HEADER_LEN, number as u8);
            datagram[room].copy_from_slice(&frame);
        }
        sealer.seal(now, &mut datagrams, length).unwrap();
        for (number, datagram) in datagrams.chunks(length).enumerate() {
            let plain =
                packet(datagram.len() - cipher.overhead() - frame::HEADER_LEN, number as u8);
            assert_eq!(open(&mut opener, now, datagram), Some((plain, true)), "{cipher} {number}");
        }
        for datagram in datagrams.chunks(length) {
            assert_eq!(open(&mut opener, now, datagram), None, "{cipher}: replayed");
        }
        let usage = opener.usage();
        assert_eq!((usage.datagrams, usage.bytes, usage.failures), (10, 9_200, 0));
        assert_eq!(usage, sealer.usage());
    }
}

#[test]
fn a_batch_opens_as_its_datagrams_do_one_by_one() {
    for cipher in CIPHERS {
        let [(mut sealer, _), (_, mut opener)] = halves(cipher);
        let now = Instant::now();
        let mut all: Vec<_> = (0..20).map(|n| seal(&mut sealer, now, &packet(50, n))).collect();
        let last = all[3].len() - 1;
        all[3][last] ^= 1;
        all.push(all[5].clone());
        all.swap(10, 11);
        let heads: Vec<_> = all.iter().filter_map(|datagram| opener.head(datagram)).collect();
        assert_eq!(heads.len(), all.len());
        let mut got = Vec::new();
        let datagrams = heads.into_iter().zip(all.iter_mut().map(Vec::as_mut_slice));
        opener.open_each(now, datagrams, |opened| got.push((opened.plaintext[4], opened.newest)));
        let late = |n| (n, n != 10);
        let expected = [0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 10, 12, 13, 14, 15, 16, 17, 18, 19];
        assert_eq!(got, expected.map(late), "{cipher}");
    }
}

#[test]
fn the_session_is_found_by_index_and_by_nothing_else() {
    for cipher in CIPHERS {
        let [(mut sealer, mut own), (_, mut opener)] = halves(cipher);
        let now = Instant::now();
        let datagram = seal(&mut sealer, now, &packet(100, 1));
        let masks = Masks::new(&MASK_KEY);
        let ours: Vec<_> = masks.heads(&datagram).map(|head| head.index == INDEX).collect();
        let expected = [cipher != DatagramCipher::Packet, cipher == DatagramCipher::Packet];
        assert_eq!(ours, expected, "{cipher}");
        assert_eq!(Masks::new(&[1; 32]).heads(&datagram).find(|head| head.index == INDEX), None);
        // a reflection is for nobody
        assert_eq!(open(&mut own, now, &datagram), None);
        // nor is it another session's with the same index
        let [_, channel] = log_in(10, cipher).channels;
        let (_, mut other) = channel.into_halves(&masks, [1; 32]);
        assert_eq!(open(&mut other, now, &datagram), None);
        assert_eq!(other.usage().failures, 1);
        // nor does the head's word suffice
        let mut head = opener.head(&datagram).unwrap();
        head.index += 1;
        assert!(opener.open(now, &head, &mut datagram.clone()).is_none());
        assert!(open(&mut opener, now, &datagram).is_some());
    }
}

#[test]
fn any_flipped_bit_and_any_truncation_is_dropped_and_what_was_sent_still_opens() {
    for cipher in CIPHERS {
        let [(mut sealer, _), (_, mut opener)] = halves(cipher);
        let now = Instant::now();
        let datagram = seal(&mut sealer, now, &packet(40, 1));
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&mut opener, now, &changed), None, "{cipher}, bit {bit}");
        }
        for length in 0..datagram.len() {
            assert_eq!(open(&mut opener, now, &datagram[..length]), None, "{cipher}, {length}");
        }
        let longer = [&datagram[..], &[0]].concat();
        assert_eq!(open(&mut opener, now, &longer), None);
        assert!(open(&mut opener, now, &datagram).is_some(), "{cipher}");
    }
}

#[test]
fn noise_of_any_length_is_dropped() {
    for cipher in CIPHERS {
        let [_, (_, mut opener)] = halves(cipher);
        let now = Instant::now();
        let mut noise = 1u64;
        for length in (0..200).chain([1_200, 1_472, 9_000, 65_507, 65_535]) {
            let bytes: Vec<_> = (0..length)
                .map(|_| {
                    noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (noise >> 56) as u8
                })
                .collect();
            assert_eq!(open(&mut opener, now, &bytes), None, "{cipher}, {length}");
        }
        // nobody without the mask key costs more than the look at the head
        assert_eq!(opener.usage().failures, 0);
    }
}

#[test]
fn a_datagram_that_is_too_late_for_the_window_is_dropped() {
    for cipher in CIPHERS {
        let [(mut sealer, _), (_, mut opener)] = halves(cipher);
        let now = Instant::now();
        let all: Vec<_> = (0..8_194).map(|_| seal(&mut sealer, now, &packet(1, 1))).collect();
        assert_eq!(open(&mut opener, now, &all[8_193]).map(|opened| opened.1), Some(true));
        assert_eq!(open(&mut opener, now, &all[2]).map(|opened| opened.1), Some(false));
        assert_eq!(open(&mut opener, now, &all[1]), None, "{cipher}");
        // by time it is not too late: the window decides
        assert!(open(&mut opener, now + 2 * OLD_KEYS_LIVE, &all[3]).is_some());
    }
}

/// A forged datagram must not move the window: only its authenticity says what its counter is worth.
#[test]
fn the_window_is_marked_only_by_authentic_datagrams() {
    for cipher in CIPHERS {
        let [(mut sealer, _), (_, mut opener)] = halves(cipher);
        let now = Instant::now();
        let good = seal(&mut sealer, now, &packet(100, 1));
        for _ in 0..10_000 {
            seal(&mut sealer, now, &packet(1, 1));
        }
        // far ahead, and changed where neither head nor sample is
        let mut forged = seal(&mut sealer, now, &packet(100, 2));
        let at = forged.len() - 20;
        forged[at] ^= 1;
        assert_eq!(open(&mut opener, now, &forged), None);
        assert_eq!(opener.usage().failures, 1);
        assert!(open(&mut opener, now, &good).is_some(), "{cipher}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever order they arrive in, each once, none twice; and no two look alike.
    #[test]
    fn all_arrive_once_in_any_order(
        lengths in proptest::collection::vec(1usize..1_400, 1..60),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..200),
        cipher in 0usize..3,
    ) {
        let [(mut sealer, _), (_, mut opener)] = halves(CIPHERS[cipher]);
        let now = Instant::now();
        let all: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(n, length)| (packet(*length, n as u8), seal(&mut sealer, now, &packet(*length, n as u8))))
            .collect();
        let mut came = vec![false; all.len()];
        for index in order {
            let at = index.index(all.len());
            let opened = open(&mut opener, now, &all[at].1);
            let highest = came.iter().rposition(|came| *came);
            let newest = highest.is_none_or(|highest| at > highest);
            let expected = (!came[at]).then(|| (all[at].0.clone(), newest));
            prop_assert_eq!(opened, expected);
            came[at] = true;
        }
    }

    /// Nothing about the bytes around the frames is the same twice.
    #[test]
    fn no_bytes_of_two_datagrams_are_alike(cipher in 0usize..3, length in 1usize..100) {
        let [(mut sealer, _), _] = halves(CIPHERS[cipher]);
        let now = Instant::now();
        let [a, b] = [0, 0].map(|n| seal(&mut sealer, now, &packet(length, n)));
        let same = a.windows(6).zip(b.windows(6)).filter(|(a, b)| a == b).count();
        prop_assert_eq!(same, 0);
    }
}
