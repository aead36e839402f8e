//! Control messages before the tunnel: the gateway reads those of anybody who holds an invitation,
//! the client those of a gateway whose key it knows.

use cipherwall_proto::{
    cipher::CipherId,
    client::{self, Answer, Resumable},
    device::DeviceKey,
    gateway::{self, Demand, TRIES},
    keys::{DoorKey, Root},
    knock::Alpn,
};

/// The keys that the corpus's messages are signed for.
fn root() -> Root {
    Root([9; 32])
}

/// First byte: who reads (a client with the high bit set has asked to resume), and whether the rest is the bytes of TLS records or the MessagePack in
/// a message whose header is right; second byte: in records of which length (0: one).
pub(crate) fn run(data: &[u8]) {
    let Some((&[kind, piece], data)) = data.split_first_chunk() else { return };
    let bytes = match kind & 1 {
        0 => data.to_vec(),
        _ => [b"IRVP", &(data.len() as u32).to_be_bytes()[..], data].concat(),
    };
    let piece = if piece == 0 { bytes.len() } else { usize::from(piece) };
    let records = bytes.chunks(piece.max(1));
    let resuming = kind & 0x80 != 0;
    match ((kind & 0x7f) >> 1) % 3 {
        0 => gateway(records),
        1 => client(Alpn::Http1, resuming, records),
        _ => client(Alpn::Http2, resuming, records),
    }
}

fn gateway<'a>(records: impl Iterator<Item = &'a [u8]>) {
    let mut opening = gateway::Opening::new(root(), true);
    let mut demands = 0;
    for record in records {
        match opening.handle_record(record) {
            Ok(None) => {}
            Ok(Some(demand)) => {
                demands += 1;
                if let Demand::Refuse(refused) = demand {
                    let answer = opening.refuse(refused);
                    assert_eq!(answer.len() % 1_024, 0);
                }
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
    }
    assert!(demands <= TRIES);
}

fn client<'a>(alpn: Alpn, resuming: bool, records: impl Iterator<Item = &'a [u8]>) {
    let ciphers = [CipherId::ChaCha20Poly1305];
    let door = DoorKey([1; 32]);
    let mut opening = client::Opening::new(root(), &door, alpn, "fuzz", &ciphers);
    if resuming {
        let (session_id, cipher) = ([5; 16], CipherId::ChaCha20Poly1305);
        let session = Resumable { token: [7; 16], session_id, version: 1, cipher };
        opening.resume(&session, &DeviceKey::from_seed(&[3; 32]));
    }
    for record in records {
        match opening.handle_record(record) {
            Ok(None) => {}
            Ok(Some(Answer::Salt(_))) => {}
            Ok(Some(Answer::Refused(refused))) => assert!(!refused.to_string().is_empty()),
            Ok(Some(Answer::Welcome(established))) => {
                assert!(!resuming);
                assert_eq!(established.cipher, CipherId::ChaCha20Poly1305);
                break;
            }
            Ok(Some(Answer::Resumed(welcome))) => {
                assert!(resuming);
                assert_eq!((*welcome.session_id, welcome.cipher), ([5; 16], 1));
                break;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
    }
}
