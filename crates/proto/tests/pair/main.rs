//! Both ends of a session on a virtual clock and a simulated stream: from the knock to the tunnel,
//! through a day of idling, cut paths, rekeys, and every kind of meddling on the way.

#![allow(clippy::unwrap_used)]

mod ends;
mod rekey;

use std::time::Duration;

use cipherwall_proto::{
    cipher::CipherId,
    client::{self, Answer, Credential},
    device::DeviceKey,
    frame::Control,
    gateway::{self, Demand},
    keys::{DoorKey, Root},
    knock::{Alpn, Verdict, Watch},
    message::{RefusalCode, Refused, Text, Welcome},
    tunnel::Event,
};
use ends::Pair;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn welcome() -> Welcome {
    Welcome {
        session_id: [1; 16].into(),
        token: [2; 16].into(),
        version: 0,
        cipher: 0,
        v4: Text("10.8.0.2".parse().unwrap()),
        v6: Text("fd00::2".parse().unwrap()),
        routes: vec![Text("0.0.0.0/1".parse().unwrap())],
        dns: vec![Text("10.8.0.1".parse().unwrap())],
        mtu: 1420,
        keepalive: 15,
        time: 1,
        pins: vec![[0; 32].into(), [1; 32].into()],
        datagram: None,
    }
}

/// Both openings of one TLS connection; what TLS would carry is passed by hand.
struct Openings {
    client: client::Opening,
    watch: Watch,
    gateway: gateway::Opening,
}

fn openings(alpn: Alpn, ciphers: &[CipherId]) -> Openings {
    let (root, door) = (|| Root([9; 32]), DoorKey([7; 32]));
    Openings {
        client: client::Opening::new(root(), &door, alpn, "test 1", ciphers),
        watch: Watch::new(&root(), &[DoorKey([6; 32]), door], alpn),
        gateway: gateway::Opening::new(root(), true),
    }
}

impl Openings {
    fn ask(&mut self, bytes: &[u8]) -> Demand {
        let Verdict::Opened { consumed } = self.watch.push(bytes) else { panic!("no knock") };
        self.gateway.handle_record(&bytes[consumed..]).unwrap().unwrap()
    }
}

#[test]
fn log_in_and_enrolment_carry_what_the_gateway_needs() {
    let device = DeviceKey::from_seed(&[5; 32]);
    for alpn in [Alpn::Http1, Alpn::Http2] {
        let mut o = openings(alpn, &CipherId::auto(true));
        let credential = Credential::Password { user: "ali", prehash: &[3; 32] };
        let bytes = o.client.request(&credential, &device);
        let Demand::Login { user, prehash, device: public } = o.ask(&bytes) else { panic!() };
        assert_eq!((user.as_str(), prehash, public), ("ali", [3; 32], device.public()));

        let mut o = openings(alpn, &CipherId::auto(true));
        let bytes = o.client.request(&Credential::Invitation { secret: &[4; 16] }, &device);
        let Demand::Enrol { secret, device: public, prehash } = o.ask(&bytes) else { panic!() };
        assert_eq!((secret, public, prehash), ([4; 16], device.public(), None));
    }
}

#[test]
fn a_refused_client_may_ask_for_a_salt_and_try_again_but_not_for_ever() {
    let device = DeviceKey::from_seed(&[5; 32]);
    let mut o = openings(Alpn::Http1, &CipherId::auto(true));
    let bytes = o.client.request_salt("ali");
    assert!(matches!(o.ask(&bytes), Demand::Salt { user } if user == "ali"));
    let answer = o.client.handle_record(&o.gateway.salt([8; 16])).unwrap();
    assert!(matches!(answer, Some(Answer::Salt(salt)) if salt == [8; 16]));
    for prehash in [[1; 32], [2; 32]] {
        let credential = Credential::Password { user: "ali", prehash: &prehash };
        let bytes = o.client.request(&credential, &device);
        assert!(matches!(o.gateway.handle_record(&bytes), Ok(Some(Demand::Login { .. }))));
        let refused = Refused::new(RefusalCode::Rejected);
        let answer = o.client.handle_record(&o.gateway.refuse(refused.clone())).unwrap();
        assert!(matches!(answer, Some(Answer::Refused(r)) if r == refused));
    }
    let credential = Credential::Password { user: "ali", prehash: &[3; 32] };
    let fourth = o.client.request(&credential, &device);
    let error = o.gateway.handle_record(&fourth).unwrap_err();
    assert_eq!(error, gateway::OpeningError::TooManyTries);
}

#[test]
fn a_log_in_stolen_from_another_connection_is_refused() {
    let device = DeviceKey::from_seed(&[5; 32]);
    let (root, door, ciphers) = (Root([8; 32]), DoorKey([7; 32]), CipherId::auto(true));
    let mut elsewhere = client::Opening::new(root, &door, Alpn::Http1, "test 1", &ciphers);
    let credential = Credential::Password { user: "ali", prehash: &[3; 32] };
    let stolen = elsewhere.request(&credential, &device);
    // even behind a knock of this connection's own
    let mut o = openings(Alpn::Http1, &ciphers);
    let demand = o.gateway.handle_record(&stolen[34..]).unwrap().unwrap();
    assert!(matches!(demand, Demand::Refuse(r) if r.code == RefusalCode::Rejected));
}

#[test]
fn versions_and_ciphers_must_meet() {
    let mut o = openings(Alpn::Http1, &[]);
    let bytes = o.client.request_salt("ali");
    let Demand::Refuse(refused) = o.ask(&bytes) else { panic!() };
    assert_eq!((refused.code, refused.versions), (RefusalCode::Version, None));
}

#[test]
fn an_idle_tunnel_lives_for_a_day_on_a_slow_path() {
    let mut pair = Pair::new(CipherId::ChaCha20Poly1305, 150 * MS);
    pair.run_until(24 * 3_600 * S);
    assert_eq!((pair.events(0), pair.events(1)), (vec![], vec![]));
    let known: Vec<_> = pair.ends.iter().filter_map(|end| end.tunnel.round_trip()).collect();
    assert!(!known.is_empty());
    for round_trip in known {
        assert!(round_trip.abs_diff(300 * MS) < MS, "{round_trip:?}");
    }
}

#[test]
fn a_cut_path_is_noticed_within_seconds_while_traffic_flows() {
    let mut pair = Pair::new(CipherId::Aes256Gcm, 50 * MS);
    pair.ends[0].tunnel.ping(pair.now);
    pair.send(0, &[]);
    pair.run_until(S);
    assert_eq!(pair.ends[0].tunnel.round_trip(), Some(100 * MS));
    pair.cut = true;
    pair.send(0, &[vec![1; 100]]);
    pair.run_until(60 * S);
    // sent at 1 s: probed at 1.4 s, suspect at 1.8 s, dead 30 s after the last sign of life at 0.1 s
    assert_eq!(pair.events(0), [(18, Event::Suspect), (301, Event::Dead)]);
    // the gateway waits for nothing: its keepalive notices
    let [(at, Event::Dead)] = pair.events(1)[..] else { panic!("{:?}", pair.events(1)) };
    assert!((170..=240).contains(&at), "{at}");
}

#[test]
fn a_path_that_comes_back_ends_the_suspicion() {
    let mut pair = Pair::new(CipherId::Aes256Gcm, 50 * MS);
    pair.cut = true;
    pair.send(0, &[vec![1; 100]]);
    pair.run_until(2_500 * MS);
    assert_eq!(pair.events(0), [(20, Event::Suspect)]);
    assert!(pair.ends[0].tunnel.is_suspect());
    pair.cut = false;
    pair.send(1, &[vec![2; 10]]);
    pair.run_until(3 * S);
    assert!(!pair.ends[0].tunnel.is_suspect());
}

#[test]
fn a_farewell_is_an_authenticated_end() {
    let mut pair = Pair::new(CipherId::Aes256Gcm, 50 * MS);
    pair.ends[0].tunnel.say(&Control::Close);
    pair.send(0, &[]);
    pair.run_until(S);
    assert_eq!(pair.events(1), [(0, Event::Peer(Control::Close))]);
}

/// What somebody on the way can do to a stream of bytes. Positions count modulo its length.
#[derive(Debug, Clone)]
enum Meddling {
    Flip { bit: usize },
    Drop { from: usize, length: usize },
    Repeat { from: usize, length: usize },
    Insert { at: usize, bytes: Vec<u8> },
    Swap { record: usize },
    Reflect,
}

fn meddling() -> impl Strategy<Value = Meddling> {
    let piece = || (any::<usize>(), 1usize..2_000);
    let bytes = proptest::collection::vec(any::<u8>(), 1..100);
    prop_oneof![
        any::<usize>().prop_map(|bit| Meddling::Flip { bit }),
        piece().prop_map(|(from, length)| Meddling::Drop { from, length }),
        piece().prop_map(|(from, length)| Meddling::Repeat { from, length }),
        (any::<usize>(), bytes).prop_map(|(at, bytes)| Meddling::Insert { at, bytes }),
        any::<usize>().prop_map(|record| Meddling::Swap { record }),
        Just(Meddling::Reflect),
    ]
}

/// `records` after the meddling; `theirs` are records of the other direction.
fn meddle(records: &[Vec<u8>], theirs: &[u8], meddling: &Meddling) -> Vec<u8> {
    let mut bytes = records.concat();
    let length = bytes.len();
    match meddling {
        Meddling::Flip { bit } => bytes[bit / 8 % length] ^= 1 << (bit % 8),
        Meddling::Drop { from, length: n } => {
            let from = from % length;
            bytes.drain(from..(from + n).min(length));
        }
        Meddling::Repeat { from, length: n } => {
            let from = from % length;
            let piece = bytes[from..(from + n).min(length)].to_vec();
            bytes.splice(from..from, piece);
        }
        Meddling::Insert { at, bytes: new } => {
            let at = at % length;
            bytes.splice(at..at, new.iter().copied());
        }
        Meddling::Swap { record } => {
            let mut records = records.to_vec();
            let at = record % (records.len() - 1);
            records.swap(at, at + 1);
            bytes = records.concat();
        }
        Meddling::Reflect => bytes = theirs.to_vec(),
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is done to the stream, what comes out is a beginning of what went in.
    #[test]
    fn meddling_never_changes_what_comes_out(meddling in meddling(), chacha: bool) {
        let cipher = if chacha { CipherId::ChaCha20Poly1305 } else { CipherId::Aes256Gcm };
        let mut pair = Pair::new(cipher, MS);
        let sent: Vec<Vec<u8>> = (0u8..6).map(|n| vec![n; 20 + 300 * usize::from(n)]).collect();
        let (start, now) = (pair.start, pair.now);
        let one = |packet| pair.ends[0].seal(now, std::slice::from_ref(packet));
        let records: Vec<Vec<u8>> = sent.iter().map(one).collect();
        let theirs = pair.ends[1].seal(now, &sent);
        let (whole, bytes) = (records.concat(), meddle(&records, &theirs, &meddling));
        prop_assume!(bytes != whole);
        pair.ends[1].receive(start, now, &bytes);
        let got = &pair.ends[1].got;
        prop_assert!(got.len() <= sent.len() && *got == sent[..got.len()], "{} packets", got.len());
        // all of it only if nothing before its end was touched
        prop_assert!(got.len() < sent.len() || bytes.starts_with(&whole));
    }

    /// Packets cross in both directions, in order, at any delay.
    #[test]
    fn packets_cross_in_order(
        sends in proptest::collection::vec((0usize..2, 1usize..3_000, 0u64..3_000), 1..60),
        delay in 0u64..1_000,
    ) {
        let mut pair = Pair::new(CipherId::ChaCha20Poly1305, Duration::from_millis(delay));
        let mut sent = [Vec::new(), Vec::new()];
        let mut at = Duration::ZERO;
        for (from, length, pause) in sends {
            let packet = vec![sent[from].len() as u8; length];
            pair.send(from, std::slice::from_ref(&packet));
            sent[from].push(packet);
            at += Duration::from_millis(pause);
            pair.run_until(at);
        }
        pair.run_until(at + 5 * S);
        prop_assert_eq!(&pair.ends[1].got, &sent[0]);
        prop_assert_eq!(&pair.ends[0].got, &sent[1]);
        prop_assert!(pair.ends.iter().all(|end| end.failed.is_none()));
    }
}
