//! A session that goes on over another connection, both ends: the opening, and the tunnel records
//! that the client sends before it has an answer.

#![allow(clippy::unwrap_used)]

use std::time::Instant;

use cipherwall_proto::{
    cipher::{CipherId, TAG_LEN},
    client::{self, Answer, Credential, Resumable, Resumed},
    device::DeviceKey,
    frame,
    gateway::{self, Demand},
    keys::{DoorKey, Root},
    knock::{Alpn, Verdict, Watch},
    message::{MessageError, RefusalCode, Refused, Text, Welcome},
    record::{Opener, PREFIX_LEN, Sealer},
};
use proptest::prelude::*;

const SESSION_ID: [u8; 16] = [1; 16];
const DOOR: DoorKey = DoorKey([7; 32]);

fn device() -> DeviceKey {
    DeviceKey::from_seed(&[5; 32])
}

fn session(cipher: CipherId) -> Resumable {
    Resumable { token: [2; 16], session_id: SESSION_ID, version: 1, cipher }
}

fn welcome(session_id: [u8; 16]) -> Welcome {
    Welcome {
        session_id: session_id.into(),
        token: [3; 16].into(),
        version: 0,
        cipher: 0,
        v4: Text("10.8.0.2".parse().unwrap()),
        v6: Text("fd00::2".parse().unwrap()),
        routes: vec![],
        dns: vec![],
        mtu: 1420,
        keepalive: 15,
        time: 1,
        pins: vec![],
        datagram: None,
    }
}

/// One TLS connection, whose plaintext is passed by hand.
struct Ends {
    client: client::Opening,
    watch: Watch,
    gateway: gateway::Opening,
}

fn ends(root: u8, alpn: Alpn, aes_hardware: bool) -> Ends {
    let root = || Root([root; 32]);
    let ciphers = CipherId::auto(aes_hardware);
    Ends {
        client: client::Opening::new(root(), &DOOR, alpn, "test 1", &ciphers),
        watch: Watch::new(&root(), &[DOOR], alpn),
        gateway: gateway::Opening::new(root(), aes_hardware),
    }
}

impl Ends {
    fn ask(&mut self, bytes: &[u8]) -> Result<Option<Demand>, gateway::OpeningError> {
        let Verdict::Opened { consumed } = self.watch.push(bytes) else { panic!("no knock") };
        self.gateway.handle_record(&bytes[consumed..])
    }

    /// The request, seen to be good, and the client's halves.
    fn resume(&mut self, cipher: CipherId) -> Resumed {
        let (bytes, resumed) = self.client.resume(&session(cipher), &device());
        let Some(Demand::Resume { token, signature }) = self.ask(&bytes).unwrap() else { panic!() };
        assert_eq!(token, [2; 16]);
        assert!(signature.is_by(&device().public()));
        assert!(self.gateway.is_resuming());
        resumed
    }
}

fn seal(sealer: &mut Sealer, plaintext: &[u8]) -> Vec<u8> {
    let mut record = [&[0; PREFIX_LEN][..], plaintext, &[0; TAG_LEN]].concat();
    sealer.seal(Instant::now(), &mut record).unwrap();
    record
}

fn open(opener: &mut Opener, record: &[u8]) -> Option<Vec<u8>> {
    let mut plaintext = vec![0; record.len()];
    let length = opener.open(&mut record.to_vec(), &mut plaintext).ok()?;
    plaintext.truncate(length);
    Some(plaintext)
}

#[test]
fn records_sealed_before_the_answer_open_after_it_and_so_do_the_gateway_s() {
    for alpn in [Alpn::Http1, Alpn::Http2] {
        for cipher in [CipherId::ChaCha20Poly1305, CipherId::Aes256Gcm] {
            let mut ends = ends(9, alpn, true);
            let mut client = ends.resume(cipher);
            let early: Vec<_> =
                (1..=3).map(|n| seal(&mut client.sealer, &frame::ping([n; 8]))).collect();
            let (answer, mut gateway) = ends.gateway.welcome(welcome(SESSION_ID));
            for (n, record) in (1..).zip(&early) {
                assert_eq!(open(&mut gateway.opener, record), Some(frame::ping([n; 8])));
            }
            let Some(Answer::Resumed(welcome)) = ends.client.handle_record(&answer).unwrap() else {
                panic!("not resumed");
            };
            assert_eq!((*welcome.token, welcome.cipher), ([3; 16], cipher.wire()));
            let pong = seal(&mut gateway.sealer, &frame::pong([1; 8]));
            assert_eq!(open(&mut client.opener, &pong), Some(frame::pong([1; 8])));
            let next = seal(&mut client.sealer, &frame::ping([4; 8]));
            assert_eq!(open(&mut gateway.opener, &next), Some(frame::ping([4; 8])));
        }
    }
}

#[test]
fn the_session_s_cipher_is_kept_where_a_log_in_would_get_another() {
    let mut ends = ends(9, Alpn::Http1, false);
    let mut client = ends.resume(CipherId::Aes256Gcm);
    let record = seal(&mut client.sealer, &frame::ping([1; 8]));
    let (_, mut gateway) = ends.gateway.welcome(welcome(SESSION_ID));
    assert!(open(&mut gateway.opener, &record).is_some());
}

#[test]
fn a_resume_recorded_on_one_connection_is_worth_nothing_on_another() {
    let mut first = ends(9, Alpn::Http1, true);
    let (recorded, mut halves) = first.client.resume(&session(CipherId::Aes256Gcm), &device());
    let record = seal(&mut halves.sealer, &frame::ping([1; 8]));

    // even from somebody who knows the door key and knocks rightly
    let mut second = ends(8, Alpn::Http1, true);
    assert_eq!(Watch::new(&Root([8; 32]), &[DOOR], Alpn::Http1).push(&recorded), Verdict::Visitor);
    let demand = second.gateway.handle_record(&recorded[34..]).unwrap();
    let Some(Demand::Resume { signature, .. }) = demand else { panic!("{demand:?}") };
    assert!(!signature.is_by(&device().public()), "bound to the other connection");
    let (_, mut gateway) = second.gateway.welcome(welcome(SESSION_ID));
    assert_eq!(open(&mut gateway.opener, &record), None, "other keys, though the same session");
}

#[test]
fn another_device_s_signature_and_one_for_a_log_in_are_told_apart() {
    let mut ends = ends(9, Alpn::Http1, true);
    let thief = DeviceKey::from_seed(&[6; 32]);
    let (bytes, _) = ends.client.resume(&session(CipherId::Aes256Gcm), &thief);
    let Some(Demand::Resume { signature, .. }) = ends.ask(&bytes).unwrap() else { panic!() };
    assert!(!signature.is_by(&device().public()));
    assert!(signature.is_by(&thief.public()));
}

#[test]
fn bytes_behind_the_request_in_its_record_are_an_error() {
    let mut ends = ends(9, Alpn::Http1, true);
    let (mut bytes, mut halves) =
        ends.client.resume(&session(CipherId::ChaCha20Poly1305), &device());
    bytes.extend(seal(&mut halves.sealer, &frame::ping([1; 8])));
    let error = ends.ask(&bytes).unwrap_err();
    assert!(matches!(error, gateway::OpeningError::Message(MessageError::Trailing(_))), "{error}");
}

#[test]
fn a_refusal_reaches_the_client_and_ends_the_matter() {
    for code in
        [RefusalCode::Superseded, RefusalCode::Expired, RefusalCode::Revoked, RefusalCode::Rejected]
    {
        let mut ends = ends(9, Alpn::Http2, true);
        ends.resume(CipherId::Aes256Gcm);
        let answer = ends.gateway.refuse(Refused::new(code));
        let answer = ends.client.handle_record(&answer).unwrap();
        assert!(matches!(answer, Some(Answer::Refused(refused)) if refused.code == code));
    }
}

#[test]
fn a_welcome_to_another_session_or_with_another_cipher_ends_the_connection() {
    let mut right = ends(9, Alpn::Http1, true);
    right.resume(CipherId::Aes256Gcm);
    let (answer, _) = right.gateway.welcome(welcome([4; 16]));
    let error = right.client.handle_record(&answer).unwrap_err();
    assert_eq!(error, client::OpeningError::OtherSession);

    let mut ends = ends(9, Alpn::Http1, true);
    ends.client.resume(&session(CipherId::ChaCha20Poly1305), &device());
    // a gateway that goes by a log-in, where it may choose
    let log_in = self::ends(9, Alpn::Http1, true)
        .client
        .request(&Credential::Invitation { secret: &[4; 16] }, &device());
    ends.ask(&log_in).unwrap().unwrap();
    let (answer, _) = ends.gateway.welcome(welcome(SESSION_ID));
    let error = ends.client.handle_record(&answer).unwrap_err();
    assert_eq!(error, client::OpeningError::NotOffered { version: 1, cipher: 2 });
}

#[test]
fn a_gateway_of_another_version_says_so_and_knows_that_tunnel_records_follow() {
    let mut ends = ends(9, Alpn::Http1, true);
    let later = Resumable { version: 2, ..session(CipherId::Aes256Gcm) };
    let (bytes, _) = ends.client.resume(&later, &device());
    let Some(Demand::Refuse(refused)) = ends.ask(&bytes).unwrap() else { panic!() };
    assert_eq!((refused.code, refused.versions), (RefusalCode::Version, Some((1, 1))));
    assert!(ends.gateway.is_resuming());
}

proptest! {
    /// Whatever is changed in a request, the gateway sees no resume of the device.
    #[test]
    fn a_request_with_a_changed_byte_is_nobody_s(at in 42_usize..300, bit in 0_u8..8) {
        let mut ends = ends(9, Alpn::Http1, true);
        let (mut bytes, _) = ends.client.resume(&session(CipherId::Aes256Gcm), &device());
        bytes[at] ^= 1 << bit;
        if let Ok(Some(Demand::Resume { token, signature })) = ends.ask(&bytes) {
            let is_whole = token == [2; 16] && signature.is_by(&device().public());
            // outside of token and signature there is only what it says of itself, and padding
            let (clean, _) = self::ends(9, Alpn::Http1, true)
                .client
                .resume(&session(CipherId::Aes256Gcm), &device());
            let token_at = clean.windows(16).position(|window| window == [2; 16]).unwrap();
            let in_secrets = (token_at..token_at + 16).contains(&at)
                || (token_at + 16 + 6..token_at + 16 + 6 + 64).contains(&at);
            prop_assert!(!(is_whole && in_secrets), "byte {at}, bit {bit}");
        }
    }
}
