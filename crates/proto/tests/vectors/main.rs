//! The test vectors of `docs/protocol.md` against the code, so that the two cannot drift apart:
//! what the document says is computed here with the public functions, and every vector is used.

#![allow(clippy::unwrap_used)]

mod datagram;
mod document;
mod kcp;
mod static_mode;

use std::time::{Duration, Instant};

use cipherwall_packet::offload::{self, OffloadHeader};
use cipherwall_proto::{
    cipher::{CipherId, TAG_LEN},
    client::{Answer, Credential, Resumable},
    credential,
    device::Purpose,
    frame::{self, Control, Frame, KickReason},
    gateway::Demand,
    hint,
    invitation::{Endpoint, Invitation, Transport},
    keys::{Chain, Direction},
    knock::{self, Alpn, Verdict, Watch},
    liveness::Keepalive,
    record::{Batch, Opener, PREFIX_LEN, Sealer},
    rekey::{Limits, Policy, Randomness, Side},
    tunnel::Tunnel,
};
use document::Vectors;

const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");

#[test]
fn document_and_code_agree() {
    let vectors = Vectors::read(DOCUMENT);
    secrets(&vectors);
    invitation(&vectors);
    keys(&vectors);
    opener(&vectors);
    messages(&vectors);
    resume(&vectors);
    frames(&vectors);
    records(&vectors);
    datagram::all(&vectors);
    static_mode::all(&vectors);
    kcp::all(&vectors);
    let unused = vectors.unused();
    assert!(unused.is_empty(), "no code checks the vectors {unused:?}");
}

fn secrets(v: &Vectors) {
    let salt = credential::salt(&v.array("salt_key"), &v.text("user"));
    v.check("salt", &salt);
    v.check("prehash", &credential::prehash(&v.text("password"), &salt));
    v.check("door_key_id", &v.door().id());
    v.check("device_public", &v.device().public());
}

fn invitation(v: &Vectors) {
    let invitation = Invitation {
        endpoints: vec![Endpoint {
            host: "gateway.example".into(),
            port: 8443,
            transport: Transport::Tls,
            pins: [v.array("pin_in_use"), v.array("pin_spare")],
        }],
        user: v.text("user"),
        salt: v.array("salt"),
        door_key: v.array("door_key"),
        enrol_secret: v.array("enrol_secret"),
        expires: 1_900_000_000,
        sni: vec![],
    };
    v.check("invitation", invitation.to_link().as_bytes());
    assert_eq!(Invitation::from_link(&v.text("invitation")), Ok(invitation));
}

fn keys(v: &Vectors) {
    let root = v.root();
    v.check("knock", &root.knock(&v.door()));
    v.check("proof", &root.proof().0);
    v.check("login_signature", &v.device().sign(Purpose::Login, &root.proof()));
    v.check("enrol_signature", &v.device().sign(Purpose::Enrol, &root.proof()));
    v.check("resume_signature", &v.device().sign(Purpose::Resume, &root.proof()));
    for cipher in [CipherId::ChaCha20Poly1305, CipherId::Aes256Gcm] {
        let name = |what: &str| format!("{what}.cipher_{}", cipher.wire());
        let chain = root.chain(&v.array("session_id"), 1, cipher, None);
        v.check(&name("chain_0"), &chain.0);
        for (d, direction) in
            [("c2s", Direction::ClientToServer), ("s2c", Direction::ServerToClient)]
        {
            let keys = chain.stream_keys(direction);
            v.check(&name(&format!("key_{d}")), &keys.key);
            v.check(&name(&format!("iv_{d}")), &keys.iv);
            v.check(&name(&format!("mask_{d}")), &chain.mask_key(direction).0);
            let keys = Chain(v.array(&name("chain_1"))).stream_keys(direction);
            v.check(&name(&format!("key_{d}_epoch_1")), &keys.key);
            v.check(&name(&format!("iv_{d}_epoch_1")), &keys.iv);
        }
    }
}

fn opener(v: &Vectors) {
    v.check("hint", &hint::hint(&v.array("token"), &v.door()));
    for (name, alpn) in [("opener_http1", Alpn::Http1), ("opener_http2", Alpn::Http2)] {
        v.check(name, &knock::opener(&v.root(), &v.door(), alpn));
        let bytes = v.bytes(name);
        let verdict = Watch::new(&v.root(), &[v.door()], alpn).push(&bytes);
        assert_eq!(verdict, Verdict::Opened { consumed: bytes.len() }, "{name}");
    }
}

fn messages(v: &Vectors) {
    let (mut client, mut gateway) = v.openings(&[CipherId::Aes256Gcm, CipherId::ChaCha20Poly1305]);
    let (user, prehash) = (v.text("user"), v.array("prehash"));
    let login = Credential::Password { user: &user, prehash: &prehash };
    let sent = client.request(&login, &v.device());
    let (opener, message) = sent.split_at(knock::OPENER_LEN);
    v.check("opener_http1", opener);
    v.check_message("login_map", message);
    let Some(Demand::Login { user, prehash, device }) = gateway.handle_record(message).unwrap()
    else {
        panic!("the gateway does not see a log-in");
    };
    v.check("user", user.as_bytes());
    v.check("prehash", &prehash);
    v.check("device_public", &device);

    let (message, _) = gateway.welcome(v.welcome());
    v.check_message("welcome_map", &message);
    let Some(Answer::Welcome(established)) = client.handle_record(&message).unwrap() else {
        panic!("the client does not see a welcome");
    };
    v.check("token", &*established.welcome.token);
    v.check("session_id", &*established.welcome.session_id);
}

fn resume(v: &Vectors) {
    let (mut client, mut gateway) = v.openings(&CipherId::auto(true));
    let session = Resumable {
        token: v.array("token"),
        session_id: v.array("session_id"),
        version: 1,
        cipher: CipherId::Aes256Gcm,
    };
    let (sent, _) = client.resume(&session, &v.device());
    let message = &sent[knock::OPENER_LEN..];
    v.check_message("resume_map", message);
    let Some(Demand::Resume { token, signature }) = gateway.handle_record(message).unwrap() else {
        panic!("the gateway does not see a resume");
    };
    v.check("token", &token);
    assert!(signature.is_by(&v.array("device_public")));
}

fn frames(v: &Vectors) {
    let payload = 1u64.to_be_bytes();
    v.check("ping", &frame::ping(payload));
    v.check("pong", &frame::pong(payload));
    v.check("padding", &frame::header(frame::PADDING, 0));
    let kick = |reason| Control::Kick { reason };
    for (name, control) in [
        ("close", Control::Close),
        ("token_stored", Control::TokenStored),
        ("kick_superseded", kick(KickReason::Superseded)),
        ("kick_revoked", kick(KickReason::Revoked)),
        ("kick_stopping", kick(KickReason::Stopping)),
        ("rekey_please", Control::RekeyPlease),
    ] {
        v.check(name, &frame::control(&control));
        assert_eq!(Frame::parse(&v.bytes(name)), Ok(Frame::Control(control)));
    }

    let bytes = v.bytes("packet");
    assert_eq!(frame::frame_len(&bytes), Ok(Some(bytes.len())));
    let Ok(Frame::Packet(packet)) = Frame::parse(&bytes) else { panic!("no packet") };
    assert_eq!(offload::check(&OffloadHeader::NONE, packet), Ok(()));

    let bytes = v.bytes("offload_packet");
    assert_eq!(frame::frame_len(&bytes), Ok(Some(bytes.len())));
    let Ok(Frame::Offload(header, packet)) = Frame::parse(&bytes) else { panic!("no offload") };
    let mut pieces = Vec::new();
    let mut emit = |piece: &[u8]| pieces.push(piece[40..].to_vec());
    offload::split(&header, packet, &mut Vec::new(), &mut emit).unwrap();
    assert_eq!(pieces, [b"seve".to_vec(), b"n b".to_vec()]);
}

fn records(v: &Vectors) {
    for cipher in [CipherId::ChaCha20Poly1305, CipherId::Aes256Gcm] {
        let name = |what: &str| format!("{what}.cipher_{}", cipher.wire());
        let (mut client, mut gateway) = v.openings(&[cipher]);
        let (user, prehash) = (v.text("user"), v.array("prehash"));
        let login = Credential::Password { user: &user, prehash: &prehash };
        let request = client.request(&login, &v.device());
        gateway.handle_record(&request[knock::OPENER_LEN..]).unwrap().unwrap();
        let (message, mut gateway) = gateway.welcome(v.welcome());
        let Some(Answer::Welcome(mut client)) = client.handle_record(&message).unwrap() else {
            panic!("the client does not see a welcome");
        };
        let now = Instant::now();
        for (record, frame) in [("record_c2s_0", "ping"), ("record_c2s_1", "padding")] {
            v.check(&name(record), &seal(&mut client.sealer, now, &v.bytes(frame)));
            v.check(frame, &open(&mut gateway.opener, &v.bytes(&name(record))));
        }
        v.check(&name("record_s2c_0"), &seal(&mut gateway.sealer, now, &v.bytes("pong")));
        v.check("pong", &open(&mut client.opener, &v.bytes(&name("record_s2c_0"))));

        let ours = End::new(v, now, Side::Client(Limits::default()), client.sealer, client.opener);
        let theirs =
            End::new(v, now, Side::Gateway(Policy::default()), gateway.sealer, gateway.opener);
        rekey(v, name, now, ours, theirs);
    }
}

/// The rekey behind the records, and the first record of each end behind that.
fn rekey(v: &Vectors, name: impl Fn(&str) -> String, now: Instant, mut ours: End, mut theirs: End) {
    change_keys(v, now, &mut ours, &mut theirs);
    v.check(&name("record_c2s_epoch_1"), &seal(&mut ours.sealer, now, &v.bytes("ping")));
    v.check(&name("record_s2c_epoch_1"), &seal(&mut theirs.sealer, now, &v.bytes("pong")));
    v.check("ping", &open(&mut theirs.opener, &v.bytes(&name("record_c2s_epoch_1"))));
    v.check("pong", &open(&mut ours.opener, &v.bytes(&name("record_s2c_epoch_1"))));
}

fn change_keys(v: &Vectors, now: Instant, ours: &mut End, theirs: &mut End) {
    theirs.handle(now, &v.bytes("rekey_please"));
    theirs.tunnel.handle_timeout(now + Duration::from_secs(1)).unwrap();
    theirs.randomise(now, "rekey_secret_gateway");
    let wire = theirs.seal(now, "rekey");
    ours.open(now, &wire);
    ours.randomise(now, "rekey_secret_client");
    let wire = ours.seal(now, "rekey_reply");
    theirs.open(now, &wire);
    let wire = theirs.seal(now, "rekey_done");
    ours.open(now, &wire);
}

/// One end of a tunnel, as far as rekeys go.
struct End<'a> {
    v: &'a Vectors,
    tunnel: Tunnel,
    sealer: Sealer,
    opener: Opener,
}

impl<'a> End<'a> {
    fn new(v: &'a Vectors, now: Instant, side: Side, sealer: Sealer, opener: Opener) -> Self {
        let tunnel = Tunnel::new(now, Keepalive::default(), side, 1);
        Self { v, tunnel, sealer, opener }
    }

    fn randomise(&mut self, now: Instant, secret: &str) {
        assert!(self.tunnel.wants_randomness());
        let (secret, random) = (self.v.array(secret), self.v.array("rekey_random"));
        let randomness = Randomness { secret, random };
        self.tunnel.handle_randomness(now, &randomness, &self.opener).unwrap();
    }

    /// The record with what is to be said, which is the frame of that name.
    fn seal(&mut self, now: Instant, frame: &str) -> Vec<u8> {
        let outgoing = self.tunnel.poll_outgoing().unwrap();
        self.v.check(frame, &outgoing.frame);
        let mut batch = Batch::default();
        assert!(match &outgoing.next_keys {
            Some(keys) => batch.push_last(&outgoing.frame, keys),
            None => batch.push(&outgoing.frame),
        });
        self.tunnel.outgoing_taken();
        batch.seal(&mut self.sealer, now).unwrap();
        batch.sealed().to_vec()
    }

    fn open(&mut self, now: Instant, record: &[u8]) {
        let frame = open(&mut self.opener, record);
        self.handle(now, &frame);
    }

    fn handle(&mut self, now: Instant, frame: &[u8]) {
        let frame = Frame::parse(frame).unwrap();
        assert_eq!(self.tunnel.handle_frame(now, &frame, &mut self.opener), Ok(None));
    }
}

fn seal(sealer: &mut Sealer, now: Instant, plaintext: &[u8]) -> Vec<u8> {
    let mut record = [&[0; PREFIX_LEN][..], plaintext, &[0; TAG_LEN]].concat();
    sealer.seal(now, &mut record).unwrap();
    record
}

fn open(opener: &mut Opener, record: &[u8]) -> Vec<u8> {
    let mut plaintext = vec![0; record.len()];
    let length = opener.open(&mut record.to_vec(), &mut plaintext).unwrap();
    plaintext.truncate(length);
    plaintext
}
