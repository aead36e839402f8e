//! Datagrams: keys, both formats, the change of keys, and the negotiation.

use std::time::Instant;

use cipherwall_proto::{
    cipher::{CipherId, DatagramCipher},
    client::{Answer, Credential},
    datagram::{self, Frame, KeyChange, Masks, Opener, Sealer},
    keys::{Chain, Direction, expand},
    knock::OPENER_LEN,
    message::{DatagramOffer, Welcome},
    rekey::{Limits, Policy, Side},
};

use crate::{End, change_keys, document::Vectors};

const DIRECTIONS: [(&str, Direction, &str); 2] =
    [("c2s", Direction::ClientToServer, "ping"), ("s2c", Direction::ServerToClient, "pong")];

pub(crate) fn all(v: &Vectors) {
    let mut iv_key = [0; 32];
    expand(&v.bytes("mask_key"), "cw iv", b"", &mut iv_key);
    v.check("iv_key", &iv_key);
    for (name, frame) in [
        ("path_challenge", Frame::PathChallenge(1u64.to_be_bytes())),
        ("path_response", Frame::PathResponse(1u64.to_be_bytes())),
    ] {
        assert_eq!(datagram::frames(&v.bytes(name)).collect::<Vec<_>>(), [frame]);
    }
    for number in 1..=3 {
        let cipher = DatagramCipher::from_wire(number).unwrap();
        keys(v, cipher);
        datagrams(v, cipher);
    }
    let request = negotiate(v, &[3, 2].map(|n| DatagramCipher::from_wire(n).unwrap())).0;
    v.check_message("login_datagrams_map", &request);
}

fn keys(v: &Vectors, cipher: DatagramCipher) {
    let number = cipher.wire();
    let chain = v.root().chain(&v.array("session_id"), 1, CipherId::Aes256Gcm, Some(cipher));
    v.check(&format!("chain_0.datagram_{number}"), &chain.0);
    for epoch in 0..2 {
        let chain = Chain(v.array(&format!("chain_{epoch}.datagram_{number}")));
        for (d, direction, _) in DIRECTIONS {
            let name = |what: &str| format!("{what}_{d}_epoch_{epoch}.datagram_{number}");
            match cipher {
                DatagramCipher::Aead(_) => {
                    let keys = chain.datagram_keys(direction);
                    v.check(&name("key"), &keys.key);
                    v.check(&name("iv"), &keys.iv);
                }
                DatagramCipher::Packet => {
                    let keys = chain.packet_keys(direction);
                    v.check(&name("enc"), &keys.enc);
                    v.check(&name("mac"), &keys.mac);
                }
            }
        }
    }
}

/// The request, and both ends of the stream and of the channel.
fn negotiate<'a>(
    v: &'a Vectors,
    ciphers: &[DatagramCipher],
) -> (Vec<u8>, [(End<'a>, Sealer, Opener); 2]) {
    let (mut client, mut gateway) = v.openings(&[CipherId::Aes256Gcm, CipherId::ChaCha20Poly1305]);
    client.offer_datagrams(ciphers);
    let (user, prehash) = (v.text("user"), v.array("prehash"));
    let login = Credential::Password { user: &user, prehash: &prehash };
    let request = client.request(&login, &v.device())[OPENER_LEN..].to_vec();
    gateway.handle_record(&request).unwrap().unwrap();
    let index = u32::from_be_bytes(v.array("datagram_index"));
    let mask_key = v.array("mask_key");
    let offer = DatagramOffer::new(1194, index, mask_key);
    let (answer, theirs) = gateway.welcome(Welcome { datagram: Some(offer), ..v.welcome() });
    if ciphers[0] == DatagramCipher::Packet {
        v.check_message("welcome_datagram_map", &answer);
    }
    let Some(Answer::Welcome(ours)) = client.handle_record(&answer).unwrap() else {
        panic!("the client does not see a welcome");
    };
    let now = Instant::now();
    // the random bytes of the example are the first of this seed
    let masks = Masks::new(&mask_key);
    let channel = client.channel(&ours.welcome).unwrap();
    let (sealer, opener) = channel.into_halves(&masks, [0; 32]);
    let side = Side::Client(Limits::default());
    let client = (End::new(v, now, side, ours.sealer, ours.opener), sealer, opener);
    let (sealer, opener) = theirs.datagram.unwrap().into_halves(&masks, [0; 32]);
    let side = Side::Gateway(Policy::default());
    let gateway = (End::new(v, now, side, theirs.sealer, theirs.opener), sealer, opener);
    (request, [client, gateway])
}

fn datagrams(v: &Vectors, cipher: DatagramCipher) {
    let (_, [mut ours, mut theirs]) = negotiate(v, &[cipher]);
    let now = Instant::now();
    exchange(v, cipher, 0, now, &mut ours, &mut theirs);
    ours.0.tunnel.set_datagrams(cipher);
    theirs.0.tunnel.set_datagrams(cipher);
    change_keys(v, now, &mut ours.0, &mut theirs.0);
    for (end, sealer, opener) in [&mut ours, &mut theirs] {
        let Some(KeyChange::Accept(keys)) = end.tunnel.poll_key_change() else { panic!() };
        opener.accept(&keys);
        let Some(KeyChange::Use(keys)) = end.tunnel.poll_key_change() else { panic!() };
        sealer.install(now, &keys);
        opener.advance(now);
    }
    exchange(v, cipher, 1, now, &mut ours, &mut theirs);
    // the source of the random bytes is as the document has it
    v.bytes("datagram_random_0");
    v.bytes("datagram_random_1");
}

/// The first datagram of each direction.
fn exchange<'a>(
    v: &Vectors,
    cipher: DatagramCipher,
    epoch: u32,
    now: Instant,
    ours: &mut (End<'a>, Sealer, Opener),
    theirs: &mut (End<'a>, Sealer, Opener),
) {
    for (d, direction, frame) in DIRECTIONS {
        let (from, to) = match direction {
            Direction::ClientToServer => (&mut *ours, &mut *theirs),
            Direction::ServerToClient => (&mut *theirs, &mut *ours),
        };
        let name = format!("datagram_{d}_epoch_{epoch}.datagram_{}", cipher.wire());
        let (prefix, suffix) = (vec![0; cipher.prefix_len()], vec![0; cipher.suffix_len()]);
        let mut datagram = [&prefix[..], &v.bytes(frame), &suffix].concat();
        let length = datagram.len();
        from.1.seal(now, &mut datagram, length).unwrap();
        v.check(&name, &datagram);
        let mut datagram = v.bytes(&name);
        let opened = to.2.receive(now, &mut datagram).expect("it opens");
        v.check(frame, opened.plaintext);
    }
}
