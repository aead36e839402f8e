//! The opener: the first bytes of a client inside TLS (A19; docs/protocol.md, "The opening").
//!
//! ```text
//!  HTTP/1:  "IRVP /" ‖ base64url( 01 ‖ SHA-256(G)[..4] ‖ knock (16) )             34 bytes
//!  HTTP/2:  preface ‖ SETTINGS ‖ frame of type 0x49 on stream 0, payload = the same 21 bytes
//! ```
//!
//! It is the beginning of a legal request, so a web server waits for more until its last byte.
//! Until a valid opener is complete, the connection belongs to the web site.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;

use crate::keys::{DoorKey, Root};

/// Length of the opener in HTTP/1, in bytes.
pub const OPENER_LEN: usize = 34;
const TOKEN_LEN: usize = 21;
const H1_PREFIX: &[u8; 6] = b"IRVP /";
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const H2_FRAME_HEADER: usize = 9;
/// Type of the frame that ends an HTTP/2 connection (RFC 9113, 6.8).
const H2_GOAWAY: u8 = 7;
/// The HTTP/2 frame type of the opener: `I`, unknown to every web server.
const H2_TYPE: u8 = 0x49;
/// The opener must be among this many HTTP/2 frames.
const H2_FRAMES: usize = 4;
/// The largest HTTP/2 frame a peer may send before other sizes are agreed (RFC 9113, 4.2).
const H2_FRAME_MAX: usize = 16_384;

/// What the TLS handshake agreed to speak (ALPN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// `http/1.1`, or nothing.
    Http1,
    /// `h2`.
    Http2,
}

impl Alpn {
    /// From the name in the handshake.
    pub fn from_name(name: Option<&[u8]>) -> Self {
        if name == Some(b"h2") { Alpn::Http2 } else { Alpn::Http1 }
    }
}

/// `01 ‖ SHA-256(G)[..4] ‖ knock`.
fn token(root: &Root, door: &DoorKey) -> [u8; TOKEN_LEN] {
    let mut token = [0; TOKEN_LEN];
    token[0] = 1;
    token[1..5].copy_from_slice(&door.id());
    token[5..].copy_from_slice(&root.knock(door));
    token
}

/// The bytes that a client sends first.
pub fn opener(root: &Root, door: &DoorKey, alpn: Alpn) -> Vec<u8> {
    let token = token(root, door);
    match alpn {
        Alpn::Http1 => [H1_PREFIX.as_slice(), URL_SAFE_NO_PAD.encode(token).as_bytes()].concat(),
        Alpn::Http2 => {
            // an empty SETTINGS frame, as the preface demands
            let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
            let header = [0, 0, TOKEN_LEN as u8, H2_TYPE, 0, 0, 0, 0, 0];
            [H2_PREFACE.as_slice(), &settings, &header, &token].concat()
        }
    }
}

/// What the bytes of a connection have turned out to be so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Still the web site's, may become a client.
    Undecided,
    /// The web site's for good.
    Visitor,
    /// A client: the opener ended within the bytes just given, after this many of them.
    Opened {
        /// How many of the bytes given belong to the opener.
        consumed: usize,
    },
}

/// Looks at a connection's first bytes on the gateway. Holds at most one frame's payload.
pub struct Watch {
    tokens: Vec<[u8; TOKEN_LEN]>,
    state: State,
}

enum State {
    Http1 { seen: Vec<u8> },
    Http2Preface { seen: usize },
    Http2Header { frames: usize, header: Vec<u8> },
    Http2Payload { frames: usize, payload: Option<Vec<u8>>, left: usize },
    Visitor,
}

impl Watch {
    /// For a connection with this root; `doors`: the current and the previous door key.
    pub fn new(root: &Root, doors: &[DoorKey], alpn: Alpn) -> Self {
        let state = match alpn {
            Alpn::Http1 => State::Http1 { seen: Vec::with_capacity(OPENER_LEN) },
            Alpn::Http2 => State::Http2Preface { seen: 0 },
        };
        Self { tokens: doors.iter().map(|door| token(root, door)).collect(), state }
    }

    /// Takes the next bytes. After [`Verdict::Visitor`] or [`Verdict::Opened`] nothing more is
    /// learnt here.
    pub fn push(&mut self, bytes: &[u8]) -> Verdict {
        for (at, &byte) in bytes.iter().enumerate() {
            match self.push_byte(byte) {
                Verdict::Undecided => {}
                Verdict::Visitor => return Verdict::Visitor,
                Verdict::Opened { .. } => return Verdict::Opened { consumed: at + 1 },
            }
        }
        Verdict::Undecided
    }

    fn push_byte(&mut self, byte: u8) -> Verdict {
        let opened = match &mut self.state {
            State::Http1 { seen } => {
                seen.push(byte);
                if seen.len() <= H1_PREFIX.len() && byte != H1_PREFIX[seen.len() - 1] {
                    return self.visitor();
                }
                if seen.len() < OPENER_LEN {
                    return Verdict::Undecided;
                }
                let token = URL_SAFE_NO_PAD.decode(&seen[H1_PREFIX.len()..]).unwrap_or_default();
                self.is_token(&token)
            }
            State::Http2Preface { seen } => {
                if byte != H2_PREFACE[*seen] {
                    return self.visitor();
                }
                *seen += 1;
                if *seen == H2_PREFACE.len() {
                    self.state = State::Http2Header { frames: 0, header: Vec::new() };
                }
                return Verdict::Undecided;
            }
            State::Http2Header { frames, header } => {
                header.push(byte);
                if header.len() < H2_FRAME_HEADER {
                    return Verdict::Undecided;
                }
                let frames = *frames + 1;
                let next = http2_payload(frames, header);
                return self.next_frame(frames, next);
            }
            State::Http2Payload { frames, payload, left } => {
                if let Some(payload) = payload {
                    payload.push(byte);
                }
                *left -= 1;
                if *left > 0 {
                    return Verdict::Undecided;
                }
                let (frames, payload) = (*frames, payload.take());
                match payload {
                    Some(token) => self.is_token(&token),
                    None => return self.next_frame(frames, Some(State::header(frames))),
                }
            }
            State::Visitor => false,
        };
        if opened { Verdict::Opened { consumed: 0 } } else { self.visitor() }
    }

    fn next_frame(&mut self, frames: usize, next: Option<State>) -> Verdict {
        let between = matches!(next, Some(State::Http2Header { .. }));
        match next {
            Some(state) if !(between && frames >= H2_FRAMES) => {
                self.state = state;
                Verdict::Undecided
            }
            Some(_) | None => self.visitor(),
        }
    }

    fn visitor(&mut self) -> Verdict {
        self.state = State::Visitor;
        Verdict::Visitor
    }

    /// Constant-time comparison with every door's token.
    fn is_token(&self, given: &[u8]) -> bool {
        let mut found = subtle::Choice::from(0);
        for token in &self.tokens {
            found |= token.ct_eq(given);
        }
        found.into()
    }
}

impl State {
    fn header(frames: usize) -> State {
        State::Http2Header { frames, header: Vec::new() }
    }
}

/// What follows an HTTP/2 frame header; `None` for a frame that no client of ours sends.
fn http2_payload(frames: usize, header: &[u8]) -> Option<State> {
    let left = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
    if left > H2_FRAME_MAX {
        return None;
    }
    if left == 0 {
        return Some(State::header(frames));
    }
    let is_opener = header[3] == H2_TYPE && left == TOKEN_LEN && header[5..9] == [0; 4];
    Some(State::Http2Payload { frames, payload: is_opener.then(Vec::new), left })
}

/// Passes over the HTTP/2 frames that a gateway's web site has sent before it knew better: the
/// client reads until [`crate::message::MAGIC`], whose first three bytes would be a frame far too
/// long.
#[derive(Debug, Default)]
pub struct SkipHttp2 {
    header: Vec<u8>,
    left: usize,
    done: bool,
}

/// What ends the skipping before anything of ours has come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SkipError {
    /// Neither an HTTP/2 frame nor ours.
    #[error("the gateway sent an HTTP/2 frame of {0} bytes")]
    NotHttp2(usize),
    /// The web site has taken offence at what follows the opener: it was not recognised as one.
    #[error(
        "the gateway did not recognise this client and answered as a web site; the invitation is \
         probably too old, ask for a new one"
    )]
    GoAway,
}

impl SkipHttp2 {
    /// Takes the next bytes and gives what is left of them once the frames are over.
    pub fn skip<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], SkipError> {
        while !self.done && !bytes.is_empty() {
            if self.left > 0 {
                let n = self.left.min(bytes.len());
                self.left -= n;
                bytes = &bytes[n..];
                continue;
            }
            if self.header.is_empty() && bytes[0] == crate::message::MAGIC[0] {
                self.done = true;
                break;
            }
            self.header.push(bytes[0]);
            bytes = &bytes[1..];
            if self.header.len() == H2_FRAME_HEADER {
                let h = &self.header;
                let length = usize::from(h[0]) << 16 | usize::from(h[1]) << 8 | usize::from(h[2]);
                if length > H2_FRAME_MAX {
                    return Err(SkipError::NotHttp2(length));
                }
                if h[3] == H2_GOAWAY {
                    return Err(SkipError::GoAway);
                }
                self.left = length;
                self.header.clear();
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn root() -> Root {
        Root([9; 32])
    }
    fn door(n: u8) -> DoorKey {
        DoorKey([n; 32])
    }
    fn watch(alpn: Alpn) -> Watch {
        Watch::new(&root(), &[door(1), door(2)], alpn)
    }

    #[test]
    fn both_forms_open_in_any_pieces_with_either_door() {
        for alpn in [Alpn::Http1, Alpn::Http2] {
            for key in [1, 2] {
                let mut bytes = opener(&root(), &door(key), alpn);
                let length = bytes.len();
                bytes.extend_from_slice(b"IRVPrest");
                let whole = watch(alpn).push(&bytes);
                assert_eq!(whole, Verdict::Opened { consumed: length });
                let mut watch = watch(alpn);
                for (at, byte) in bytes.iter().enumerate() {
                    let verdict = watch.push(&[*byte]);
                    if at + 1 == length {
                        assert_eq!(verdict, Verdict::Opened { consumed: 1 });
                        break;
                    }
                    assert_eq!(verdict, Verdict::Undecided);
                }
            }
        }
        assert_eq!(opener(&root(), &door(1), Alpn::Http1).len(), OPENER_LEN);
    }

    #[test]
    fn a_wrong_door_or_connection_is_a_visit() {
        for alpn in [Alpn::Http1, Alpn::Http2] {
            let uninvited = opener(&root(), &door(3), alpn);
            assert_eq!(watch(alpn).push(&uninvited), Verdict::Visitor);
            let replayed = opener(&Root([8; 32]), &door(1), alpn);
            assert_eq!(watch(alpn).push(&replayed), Verdict::Visitor);
        }
    }

    #[test]
    fn a_request_is_a_visit_at_its_first_other_byte() {
        assert_eq!(watch(Alpn::Http1).push(b"I"), Verdict::Undecided);
        assert_eq!(watch(Alpn::Http1).push(b"GET / HTTP/1.1\r\n"), Verdict::Visitor);
        assert_eq!(watch(Alpn::Http2).push(b"GET "), Verdict::Visitor);
    }

    #[test]
    fn the_opener_is_among_the_first_four_frames_of_http2() {
        let settings_ack = [0, 0, 0, 4, 1, 0, 0, 0, 0];
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let bytes = opener(&root(), &door(1), Alpn::Http2);
        let (head, frame) = bytes.split_at(H2_PREFACE.len() + 9);
        let fourth = [head, &settings_ack, &ping, frame].concat();
        assert_eq!(watch(Alpn::Http2).push(&fourth), Verdict::Opened { consumed: fourth.len() });
        let fifth = [head, &settings_ack, &ping, &ping, frame].concat();
        assert_eq!(watch(Alpn::Http2).push(&fifth), Verdict::Visitor);
    }

    #[test]
    fn http2_frames_are_skipped_up_to_the_magic() {
        let bytes = [&[0, 0, 2, 4, 0, 0, 0, 0, 0, b'I', b'I'][..], b"IRVP...."].concat();
        for cut in 0..bytes.len() {
            let mut skip = SkipHttp2::default();
            let mut rest = skip.skip(&bytes[..cut]).unwrap().to_vec();
            rest.extend_from_slice(skip.skip(&bytes[cut..]).unwrap());
            assert_eq!(rest, b"IRVP....");
        }
        assert!(SkipHttp2::default().skip(b"HTTP/1.1 400").is_err());
        let go_away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0];
        assert_eq!(SkipHttp2::default().skip(&go_away), Err(SkipError::GoAway));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            watch(Alpn::Http1).push(&bytes);
            watch(Alpn::Http2).push(&bytes);
            watch(Alpn::Http2).push(&[H2_PREFACE.as_slice(), &bytes].concat());
            let _ = SkipHttp2::default().skip(&bytes);
        }
    }
}
