//! The datagrams of a session: whoever has the mask key can make heads that look right, whoever is on
//! the way can change, repeat and reorder what was sealed, and the peer is authenticated but not
//! trusted.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use cipherwall_proto::{
    cipher::DatagramCipher,
    client::{self, Answer},
    datagram::{
        Conversation, End, KEEPALIVE, Masks, Opener, Outlet, PING_LEN_MIN, Sealer, Settings, frames,
    },
    gateway,
    keys::{DoorKey, Root},
    knock::{Alpn, OPENER_LEN},
    message::{DatagramOffer, Text, Welcome},
};

const INDEX: u32 = 7;
const MASK_KEY: [u8; 32] = [8; 32];

/// First byte: the cipher, and which of the three. The rest is theirs.
pub(crate) fn run(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    let Some(cipher) = DatagramCipher::from_wire(1 + (kind & 3) % 3) else { return };
    match kind >> 2 & 3 {
        0 => noise(cipher, data),
        1 => meddling(cipher, data),
        _ => conversation(cipher, kind >> 4 & 1 == 0, data),
    }
}

/// A stranger's bytes: nothing ever comes out.
fn noise(cipher: DatagramCipher, data: &[u8]) {
    let (_, mut opener) = halves(cipher);
    let now = Instant::now();
    let heads: Vec<_> = Masks::new(&MASK_KEY).heads(data).collect();
    for head in heads {
        assert!(opener.open(now, &head, &mut data.to_vec()).is_none());
    }
    assert!(opener.receive(now, &mut data.to_vec()).is_none());
    assert_eq!(opener.usage().datagrams, 0);
    let _ = frames(data).count();
}

/// Datagrams that were sealed, and what becomes of them, three bytes each: which one, where it is
/// changed, and by how much (0: not at all). Each comes out at most once, as it was.
fn meddling(cipher: DatagramCipher, data: &[u8]) {
    let (mut sealer, mut opener) = halves(cipher);
    let now = Instant::now();
    let length = cipher.overhead() + 40;
    let mut sealed = vec![0; 256 * length];
    let room = cipher.prefix_len()..length - cipher.suffix_len();
    for (number, datagram) in sealed.chunks_mut(length).enumerate() {
        datagram[room.clone()].fill(number as u8);
    }
    sealer.seal(now, &mut sealed, length).expect("a fresh key seals");
    let mut came = [false; 256];
    for &[number, at, change] in data.as_chunks::<3>().0 {
        let number = usize::from(number);
        let mut datagram = sealed[number * length..][..length].to_vec();
        let at = usize::from(at) % length;
        datagram[at] ^= change;
        let newest = came[number..].iter().all(|came| !came);
        match opener.receive(now, &mut datagram) {
            Some(opened) => {
                assert!(change == 0 && !came[number], "a change or a replay went unnoticed");
                assert!(opened.plaintext.iter().all(|byte| usize::from(*byte) == number));
                assert_eq!(opened.newest, newest);
                came[number] = true;
            }
            None => assert!(change != 0 || came[number], "a datagram was lost"),
        }
    }
}

/// What a peer may say, and time: one byte for what happens, one for how.
fn conversation(cipher: DatagramCipher, is_client: bool, data: &[u8]) {
    let mut now = Instant::now();
    let address = |last: u8| SocketAddr::from(([192, 0, 2, last % 4], 1194));
    let end = if is_client { End::Client { gateway: address(0) } } else { End::Gateway };
    let settings = Settings { keepalive: KEEPALIVE, inner_mtu: 1_420, cipher, seed: [1; 32] };
    let mut conversation = Conversation::new(now, end, &settings);
    let mut outlet = Outlet::new(cipher, conversation.path());
    let mut said = Vec::new();
    for &[what, how] in data.as_chunks::<2>().0 {
        let from = address(what >> 4);
        match what & 7 {
            0 => now += Duration::from_millis(u64::from(how) * 20),
            1 => conversation.handle_received(now, from, usize::from(how) * 8, how & 1 == 0),
            2 => {
                // what it said itself, whatever it was, as its answer and as it is
                let bytes: &Vec<u8> = match said.get(usize::from(how) % said.len().max(1)) {
                    Some(bytes) => bytes,
                    None => continue,
                };
                let mut answer = bytes.clone();
                answer[0] = match answer[0] {
                    3 => 4,
                    9 => 10,
                    other => other,
                };
                for frame in frames(&answer) {
                    conversation.handle_frame(now, from, &frame);
                }
            }
            3 => {
                for frame in frames(&[&[how % 12, 0, 0, 8][..], &[how; 8]].concat()) {
                    conversation.handle_frame(now, from, &frame);
                }
            }
            4 => conversation.handle_too_long(now, usize::from(how) * 16),
            5 => conversation.handle_doubt(now),
            6 => {
                let length = outlet.datagram_max();
                let before = outlet.is_up();
                assert!(outlet.admit(now, length, length).is_none() || before);
                conversation.handle_sent(now, outlet.take_sent());
            }
            _ => now += Duration::from_secs(how.into()),
        }
        if conversation.poll_timeout().is_some_and(|(at, _)| at <= now) {
            conversation.handle_timeout(now);
        }
        while let Some(transmit) = conversation.poll_transmit() {
            assert!(!is_client || transmit.to == address(0));
            assert!(transmit.frames.len() + cipher.overhead() <= PING_LEN_MIN.max(1_472));
            assert!(frames(&transmit.frames).count() >= 1);
            said.push(transmit.frames);
        }
        if let Some(path) = conversation.poll_path() {
            assert!((PING_LEN_MIN..=1_472).contains(&path.datagram_max));
            assert!(!path.up || path.to.is_some());
            outlet.update(path);
        }
    }
}

/// What seals at the client and opens at the gateway, made as the programs make it.
fn halves(cipher: DatagramCipher) -> (Sealer, Opener) {
    let root = || Root([9; 32]);
    let ciphers = cipherwall_proto::cipher::CipherId::auto(true);
    let mut client = client::Opening::new(root(), &DoorKey([1; 32]), Alpn::Http1, "fuzz", &ciphers);
    let mut gateway = gateway::Opening::new(root(), true);
    client.offer_datagrams(&[cipher]);
    let request = client.request_salt("fuzz");
    gateway.handle_record(&request[OPENER_LEN..]).expect("a request");
    let (answer, theirs) = gateway.welcome(welcome());
    let Ok(Some(Answer::Welcome(ours))) = client.handle_record(&answer) else {
        unreachable!("the client understands the gateway");
    };
    let masks = Masks::new(&MASK_KEY);
    let channel = client.channel(&ours.welcome).expect("it was offered");
    let theirs = theirs.datagram.expect("it was asked for");
    (channel.into_halves(&masks, [1; 32]).0, theirs.into_halves(&masks, [2; 32]).1)
}

fn welcome() -> Welcome {
    Welcome {
        session_id: [5; 16].into(),
        token: [6; 16].into(),
        version: 0,
        cipher: 0,
        v4: Text([10, 8, 0, 2].into()),
        v6: Text([0xfd00, 0, 0, 0, 0, 0, 0, 2].into()),
        routes: Vec::new(),
        dns: Vec::new(),
        mtu: 1_420,
        keepalive: 15,
        time: 0,
        pins: Vec::new(),
        datagram: Some(DatagramOffer::new(1194, INDEX, MASK_KEY)),
    }
}
