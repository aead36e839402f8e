//! The first bytes of a connection on the gateway, and what a web site sends before it knows
//! better. Anybody on the internet reaches this.

use cipherwall_proto::{
    hint::{self, HINT_LEN},
    keys::{DoorKey, Root},
    knock::{self, Alpn, SkipHttp2, Verdict, Watch},
};

/// The keys that the corpus's openers are made with.
fn keys() -> (Root, [DoorKey; 2]) {
    (Root([9; 32]), [DoorKey([1; 32]), DoorKey([2; 32])])
}

/// First byte: what looks at the bytes; second byte: in pieces of which length.
pub(crate) fn run(data: &[u8]) {
    let Some((&[kind, piece], data)) = data.split_first_chunk() else { return };
    let piece = usize::from(piece).max(1);
    match kind % 3 {
        0 => watch(Alpn::Http1, piece, data),
        1 => watch(Alpn::Http2, piece, data),
        _ => skip(piece, data),
    }
}

/// Pieces make no difference, and nothing opens but the opener.
fn watch(alpn: Alpn, piece: usize, data: &[u8]) {
    let (root, doors) = keys();
    let whole = Watch::new(&root, &doors, alpn).push(data);
    let mut watch = Watch::new(&root, &doors, alpn);
    let mut before = 0;
    let mut verdict = Verdict::Undecided;
    for bytes in data.chunks(piece) {
        verdict = match watch.push(bytes) {
            Verdict::Opened { consumed } => Verdict::Opened { consumed: before + consumed },
            other @ (Verdict::Undecided | Verdict::Visitor) => other,
        };
        if verdict != Verdict::Undecided {
            break;
        }
        before += bytes.len();
    }
    assert_eq!(verdict, whole);
    // what comes as early data is looked at in this way first
    assert!(hint::read(data, &doors).is_none() || data.len() >= HINT_LEN);
    if let Verdict::Opened { consumed } = whole {
        // the part that cannot be guessed
        let token_len = if alpn == Alpn::Http1 { 28 } else { 21 };
        let is_opener = |door| {
            let opener = knock::opener(&root, door, alpn);
            data[..consumed].ends_with(&opener[opener.len() - token_len..])
        };
        assert!(doors.iter().any(is_opener));
    }
}

/// Pieces make no difference here either.
fn skip(piece: usize, data: &[u8]) {
    let whole = SkipHttp2::default().skip(data).map(<[u8]>::to_vec);
    let mut skip = SkipHttp2::default();
    let mut left = Vec::new();
    for bytes in data.chunks(piece) {
        match skip.skip(bytes) {
            Ok(rest) => left.extend_from_slice(rest),
            Err(error) => {
                assert_eq!(whole, Err(error));
                return;
            }
        }
    }
    assert_eq!(whole, Ok(left));
}
