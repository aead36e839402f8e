//! The frames in a datagram: each one whole.

use crate::frame::{self, HEADER_LEN, PACKET, PADDING, PING, PONG};

const PATH_CHALLENGE: u8 = 0x09;
const PATH_RESPONSE: u8 = 0x0a;

/// A frame of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// An IP packet, not yet checked.
    Packet(&'a [u8]),
    /// To be answered with the same bytes.
    Ping([u8; 8]),
    /// The answer to a ping.
    Pong([u8; 8]),
    /// Whoever can read this is asked to answer with the same bytes.
    PathChallenge([u8; 8]),
    /// The answer to a challenge.
    PathResponse([u8; 8]),
    /// Nothing of interest: padding, or a type of a later version.
    Skipped,
}

/// The frames of a datagram's plaintext, up to the first that is none.
pub fn frames(plaintext: &[u8]) -> Frames<'_> {
    Frames(plaintext)
}

/// An iterator over [`Frame`]s.
#[derive(Debug, Clone)]
pub struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let length = frame::frame_len(self.0).ok()??;
        let (frame, rest) = std::mem::take(&mut self.0).split_at_checked(length)?;
        let frame = Frame::parse(frame[0], &frame[HEADER_LEN..])?;
        self.0 = rest;
        Some(frame)
    }
}

impl<'a> Frame<'a> {
    /// `None` for what has no place in a datagram.
    fn parse(kind: u8, payload: &'a [u8]) -> Option<Self> {
        let eight = || payload.try_into().ok();
        match kind {
            PACKET => (!payload.is_empty()).then_some(Frame::Packet(payload)),
            PING => eight().map(Frame::Ping),
            PONG => eight().map(Frame::Pong),
            PATH_CHALLENGE => eight().map(Frame::PathChallenge),
            PATH_RESPONSE => eight().map(Frame::PathResponse),
            PADDING.. => Some(Frame::Skipped),
            _ => None,
        }
    }
}

/// The bytes of a ping, with padding behind it that makes it `length` bytes long if that is more.
pub(super) fn ping(payload: [u8; 8], length: usize) -> Vec<u8> {
    let mut bytes = frame::ping(payload);
    if let Some(zeros) = length.checked_sub(bytes.len() + HEADER_LEN) {
        bytes.extend_from_slice(&frame::header(PADDING, zeros));
        bytes.resize(length, 0);
    }
    bytes
}

/// The bytes of a path challenge.
pub(super) fn path_challenge(payload: [u8; 8]) -> Vec<u8> {
    [&frame::header(PATH_CHALLENGE, 8)[..], &payload].concat()
}

/// The bytes of a path response.
pub(super) fn path_response(payload: [u8; 8]) -> Vec<u8> {
    [&frame::header(PATH_RESPONSE, 8)[..], &payload].concat()
}
