//! Requests in HTTP/1 from anybody: to the web site, and for a folder of the owner's.

use super::{
    chunks::Rest,
    reader::{Reader, Step},
};
use crate::site::request::{BodyLength, Request};

/// More than nginx's buffers for a head hold.
const HEAD_MAX: usize = 40 * 1_024;
/// Those that are kept, and those that matter behind them.
const FIELDS_MAX: usize = 256 + 14;

/// First byte: in pieces of which length bodies come (0: whole). The rest is a connection's bytes.
pub(crate) fn run(data: &[u8]) {
    let Some((&piece, data)) = data.split_first() else { return };
    let piece = if piece == 0 { data.len().max(1) } else { piece.into() };
    assert_eq!(requests(data, data.len().max(1)), requests(data, piece), "pieces matter");
}

/// What a connection's requests are, and what is left of them: paths, and bytes of bodies.
fn requests(data: &[u8], piece: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = data;
    while let Some((request, length, behind)) = request(rest) {
        let mut body = Rest::new(length);
        let (mut kept, mut waiting) = (Vec::new(), Vec::new());
        rest = behind;
        while !body.is_over() && !rest.is_empty() {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            waiting.extend_from_slice(now);
            rest = later;
            if body.take(&mut waiting, |data| kept.extend_from_slice(data)).is_err() {
                return found;
            }
            // only what is behind the body is left over
            assert!(body.is_over() || waiting.is_empty());
        }
        assert!(kept.len() <= behind.len());
        if let BodyLength::Known(length) = length {
            assert!(kept.len() as u64 <= length);
        }
        rest = &behind[behind.len() - rest.len() - waiting.len()..];
        found.push((request.target.path, kept));
    }
    found
}

/// The first request with a whole and good head, and what is behind it.
fn request(data: &[u8]) -> Option<(Request, BodyLength, &[u8])> {
    let mut reader = Reader::new();
    for (at, byte) in data.iter().enumerate() {
        match reader.push(*byte) {
            Step::More => assert!(held(&reader.request) <= HEAD_MAX, "a head without an end"),
            Step::Done => {
                let request = reader.request;
                check(&request);
                let length = request.check().ok()?;
                return Some((request, length, &data[at + 1..]));
            }
            Step::Refused(status) => {
                assert!((400..=505).contains(&status), "status {status}");
                return None;
            }
        }
    }
    None
}

/// A path leads nowhere but down from the root.
fn check(request: &Request) {
    let path = &request.target.path;
    assert_eq!(path.first(), Some(&b'/'));
    assert!(!path.contains(&0), "a path with a 0");
    assert!(!path.split(|byte| *byte == b'/').any(|part| part == b".."), "a path that leads up");
    let _ = (request.wants_padding(), request.wants_keep_alive());
    assert!(request.fields.len() <= FIELDS_MAX, "{} fields", request.fields.len());
}

fn held(request: &Request) -> usize {
    request.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
}
