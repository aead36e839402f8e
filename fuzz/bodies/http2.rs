//! Frames and fields of HTTP/2 from anybody.

use super::{
    frames::{Event, Frames},
    head::{Head, Read},
    hpack::Decoder,
};
use crate::site::request::Request;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Fields of a request, as nginx bounds them, and what they are held with.
const HEAD_MAX: usize = 40 * 1_024;
/// Those that are kept, and those that matter behind them.
const FIELDS_MAX: usize = 256 + 14;

/// First byte: in pieces of which length the rest comes (0: whole), and whether the preface is in front
/// of it already.
pub(crate) fn run(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    let preface = if kind & 0x80 == 0 { PREFACE } else { b"" };
    let bytes = [preface, data].concat();
    let piece = usize::from(kind & 0x7f);
    let whole = requests(&bytes, bytes.len().max(1));
    if piece > 0 {
        assert_eq!(whole, requests(&bytes, piece), "pieces matter");
    }
}

/// The paths that are asked for, until the connection is at its end.
fn requests(bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let (mut frames, mut decoder) = (Frames::new(), Decoder::new());
    let (mut head, mut paths, mut input) = (None, Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        input.extend_from_slice(piece);
        loop {
            let event = match frames.next(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(_) => return paths,
            };
            match event {
                Event::HeadersStart(header, _) => head = Some(Head::new(header.stream, true)),
                Event::Block(block, is_whole) => {
                    assert!(block.len() <= bytes.len());
                    let Some(open) = &mut head else { continue };
                    let mut block = &block[..];
                    loop {
                        match open.push(&mut decoder, block, is_whole) {
                            Ok(Read::Done(request, _)) => paths.push(path(&request)),
                            Ok(Read::Refused(request, status)) => {
                                assert!((400..=505).contains(&status));
                                let _ = path(&request);
                                block = &[];
                                continue;
                            }
                            Ok(Read::Reset(_)) => {
                                block = &[];
                                continue;
                            }
                            Ok(Read::More | Read::Over) => {}
                            Err(_) => return paths,
                        }
                        break;
                    }
                    if is_whole {
                        head = None;
                    }
                }
                Event::Data(_, data, _) => assert!(data.len() <= bytes.len()),
                Event::Frame(..)
                | Event::Setting(..)
                | Event::SettingsEnd
                | Event::DataStart(_) => {}
            }
        }
    }
    paths
}

/// Which leads nowhere but down from the root.
fn path(request: &Request) -> Vec<u8> {
    let held: usize = request.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(held <= HEAD_MAX, "{held} bytes of fields");
    assert!(request.fields.len() <= FIELDS_MAX, "{} fields", request.fields.len());
    let path = &request.target.path;
    assert_eq!(path.first(), Some(&b'/'));
    assert!(!path.contains(&0));
    assert!(!path.split(|byte| *byte == b'/').any(|part| part == b".."), "a path that leads up");
    path.clone()
}
