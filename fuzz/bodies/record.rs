//! The byte stream of a tunnel: whoever is on the way can change it.

use std::time::Instant;

use cipherwall_proto::{
    cipher::{CipherId, TAG_LEN},
    client::{self, Answer},
    frame::{self, Frame},
    gateway,
    keys::{DoorKey, Root},
    knock::Alpn,
    message::{Text, Welcome},
    record::{Inflow, InflowError, Opener, PLAINTEXT_MAX, PREFIX_LEN, Sealer},
};

/// More than any buffer of the receiver holds, in bytes.
const PLAINTEXT_TOTAL_MAX: usize = 400_000;

/// First byte: cipher, and whether the rest is the stream itself or what is sealed into it;
/// second byte: how many bytes arrive at once.
pub(crate) fn run(data: &[u8]) {
    let Some((&[kind, piece], data)) = data.split_first_chunk() else { return };
    let cipher = match kind & 1 {
        0 => CipherId::ChaCha20Poly1305,
        _ => CipherId::Aes256Gcm,
    };
    let piece = (usize::from(piece) + 1).pow(2) * 16;
    let (sealer, mut opener) = halves(cipher);
    if kind & 2 == 0 {
        // a stranger has no key: nothing ever comes out
        assert_eq!(receive(&mut opener, data, piece).0, Vec::<Vec<u8>>::new());
    } else {
        sealed_and_changed(sealer, &mut opener, data, piece);
    }
}

/// Two bytes: where the stream is changed; one: by how much (0: not at all); one: bytes of
/// plaintext in a record; one: how often the rest, which is frames, is said again. What comes out
/// is what went in, up to the change.
fn sealed_and_changed(sealer: Sealer, opener: &mut Opener, data: &[u8], piece: usize) {
    let Some((&[high, low, change, record_len, again], plaintext)) = data.split_first_chunk()
    else {
        return;
    };
    let most = PLAINTEXT_TOTAL_MAX / plaintext.len().max(1);
    let plaintext = plaintext.repeat((usize::from(again) + 1).min(most.max(1)));
    let record_len = ((usize::from(record_len) + 1) * 64).min(PLAINTEXT_MAX);
    let mut stream = seal(sealer, &plaintext, record_len);
    let (sent, flaw) = frames(&plaintext, record_len);
    if change == 0 || stream.is_empty() {
        let (received, error) = receive(opener, &stream, piece);
        assert_eq!(received, sent);
        assert_eq!(error.is_some(), flaw);
        return;
    }
    let at = usize::from(u16::from_be_bytes([high, low])) * stream.len() / (1 << 16);
    stream[at] ^= change;
    let (received, _) = receive(opener, &stream, piece);
    let record = at / (PREFIX_LEN + record_len + TAG_LEN);
    let (before, _) = frames(&plaintext[..record * record_len], record_len);
    assert_eq!(received, before, "the change in record {record} went unnoticed");
}

/// The two ends of one direction of a tunnel, made as the programs make them.
fn halves(cipher: CipherId) -> (Sealer, Opener) {
    let root = || Root([9; 32]);
    let door = DoorKey([1; 32]);
    let mut client = client::Opening::new(root(), &door, Alpn::Http1, "fuzz", &[cipher]);
    let mut gateway = gateway::Opening::new(root(), true);
    let request = client.request_salt("fuzz");
    let opener_len = cipherwall_proto::knock::OPENER_LEN;
    gateway.handle_record(&request[opener_len..]).expect("a request");
    let (answer, established) = gateway.welcome(welcome());
    let Ok(Some(Answer::Welcome(theirs))) = client.handle_record(&answer) else {
        unreachable!("the client understands the gateway");
    };
    (established.sealer, theirs.opener)
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
        datagram: None,
    }
}

fn seal(mut sealer: Sealer, plaintext: &[u8], record_len: usize) -> Vec<u8> {
    let now = Instant::now();
    let seal = |plaintext: &[u8]| {
        let mut record = [&[0; PREFIX_LEN][..], plaintext, &[0; TAG_LEN]].concat();
        sealer.seal(now, &mut record).expect("a fresh key seals");
        record
    };
    plaintext.chunks(record_len).flat_map(seal).collect()
}

/// The stream as it arrives, `piece` bytes at a time: the frames in it, and what ended it.
fn receive(
    opener: &mut Opener,
    mut stream: &[u8],
    piece: usize,
) -> (Vec<Vec<u8>>, Option<InflowError>) {
    let mut inflow = Inflow::default();
    let mut received = Vec::new();
    while !stream.is_empty() {
        let spare = inflow.spare();
        let count = piece.min(spare.len()).min(stream.len());
        assert!(count > 0, "there is always room once all frames have been taken");
        spare[..count].copy_from_slice(&stream[..count]);
        inflow.filled(count);
        stream = &stream[count..];
        loop {
            match inflow.next_frame(opener) {
                Ok(Some(frame)) => received.push(shown(&frame)),
                Ok(None) => break,
                Err(error) => return (received, Some(error)),
            }
        }
    }
    (received, None)
}

/// The whole frames in a plaintext, and whether something in it is no frame, or stands behind a
/// frame that must be the last of its record.
fn frames(whole: &[u8], record_len: usize) -> (Vec<Vec<u8>>, bool) {
    let mut found = Vec::new();
    let mut plaintext = whole;
    loop {
        let length = match frame::frame_len(plaintext) {
            Ok(Some(length)) if length <= plaintext.len() => length,
            Ok(_) => return (found, false),
            Err(_) => return (found, true),
        };
        match Frame::parse(&plaintext[..length]) {
            Ok(Frame::Rekey(step)) if step.is_last() => {
                let behind = plaintext.len() - length;
                let end = whole.len() - behind;
                if behind > 0 && !end.is_multiple_of(record_len) {
                    return (found, true);
                }
                found.push(shown(&Frame::Rekey(step)));
            }
            Ok(frame) => found.push(shown(&frame)),
            Err(_) => return (found, true),
        }
        plaintext = &plaintext[length..];
    }
}

/// A frame's content, to be compared.
fn shown(frame: &Frame<'_>) -> Vec<u8> {
    match frame {
        Frame::Packet(packet) => [b"packet ", *packet].concat(),
        Frame::Offload(header, packet) => [&header.encode()[..], packet].concat(),
        Frame::Ping(_) | Frame::Pong(_) | Frame::Control(_) | Frame::Rekey(_) | Frame::Skipped => {
            format!("{frame:?}").into_bytes()
        }
    }
}
