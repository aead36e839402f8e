//! Frames: what is inside tunnel records (docs/protocol.md, "Frames").
//!
//! ```text
//!  type (1) | length (3) | payload
//! ```
//!
//! A frame may span records. Unknown types from 0x80 on are skipped; below, they end the
//! connection.

use cipherwall_packet::offload::{self, OffloadHeader};
use serde::{Deserialize, Serialize};

use crate::message::{self, MessageError};

/// Length of a frame's header, in bytes.
pub const HEADER_LEN: usize = 4;
/// The longest payload, in bytes: an offload header and a packet of 65,535 bytes, rounded up.
pub const PAYLOAD_MAX: usize = 65_600;

/// The longest payload of a control frame, in bytes.
const CONTROL_MAX: usize = 4_096;

/// Frame type of an IP packet.
pub const PACKET: u8 = 0x01;
/// Frame type of an offload packet: virtio header (10), packet.
pub const OFFLOAD: u8 = 0x02;
const PING: u8 = 0x03;
const PONG: u8 = 0x04;
const CONTROL: u8 = 0x05;
/// Frame type of padding, and the first of those that may be skipped by whoever does not know them.
pub const PADDING: u8 = 0x80;

/// A frame as it was received.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame<'a> {
    /// An IP packet.
    Packet(&'a [u8]),
    /// An IP packet with work left to do, not yet checked.
    Offload(OffloadHeader, &'a [u8]),
    /// To be answered with the same bytes.
    Ping([u8; 8]),
    /// The answer to a ping.
    Pong([u8; 8]),
    /// Something to be said.
    Control(Control),
    /// Nothing of interest: padding, or a type of a later version.
    Skipped,
}

/// What the ends say to each other inside the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Control {
    /// The sender is leaving for good; the session is over.
    Close,
    /// The gateway ends the session.
    Kick {
        /// Why.
        reason: KickReason,
    },
}

/// Why the gateway ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KickReason {
    /// A newer connection of the same device has taken over.
    Superseded,
    /// The gateway's owner has ended it.
    Revoked,
    /// The gateway is stopping; come back.
    Stopping,
}

/// Why bytes are no frame. Each of these ends the connection, not the session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`PAYLOAD_MAX`].
    #[error("a frame of {0} bytes")]
    TooLong(usize),
    /// A type below 0x80 that this version does not know.
    #[error("a frame of unknown type {0:#04x}")]
    UnknownType(u8),
    /// A payload of the wrong length for its type.
    #[error("a frame of type {kind:#04x} with {length} bytes")]
    Length {
        /// The frame's type.
        kind: u8,
        /// Its payload's length.
        length: usize,
    },
    /// A control frame that cannot be read.
    #[error("a control frame: {0}")]
    Control(#[from] MessageError),
}

/// The header of a frame.
pub fn header(kind: u8, length: usize) -> [u8; HEADER_LEN] {
    let [_, high, middle, low] = (length as u32).to_be_bytes();
    [kind, high, middle, low]
}

/// The length of the frame at the start of `bytes`, header included; `None` while its header is
/// not complete.
pub fn frame_len(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
    if length > PAYLOAD_MAX {
        return Err(FrameError::TooLong(length));
    }
    Ok(Some(HEADER_LEN + length))
}

impl<'a> Frame<'a> {
    /// Reads one whole frame.
    ///
    /// # Panics
    /// If `bytes` is not as long as [`frame_len`] said.
    pub fn parse(bytes: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let (kind, payload) = (bytes[0], &bytes[HEADER_LEN..]);
        let wrong_length = FrameError::Length { kind, length: payload.len() };
        let eight = || <[u8; 8]>::try_from(payload).map_err(|_| wrong_length.clone());
        match kind {
            PACKET if payload.is_empty() => Err(wrong_length),
            PACKET => Ok(Frame::Packet(payload)),
            OFFLOAD => match payload.split_first_chunk::<{ offload::HEADER_LEN }>() {
                Some((header, packet)) if !packet.is_empty() => {
                    Ok(Frame::Offload(OffloadHeader::parse(header), packet))
                }
                Some(_) | None => Err(wrong_length),
            },
            PING => Ok(Frame::Ping(eight()?)),
            PONG => Ok(Frame::Pong(eight()?)),
            CONTROL if payload.len() > CONTROL_MAX => Err(wrong_length),
            CONTROL => Ok(Frame::Control(message::unpack(payload)?)),
            PADDING.. => Ok(Frame::Skipped),
            _ => Err(FrameError::UnknownType(kind)),
        }
    }
}

/// The bytes of a ping frame.
pub fn ping(payload: [u8; 8]) -> Vec<u8> {
    [&header(PING, 8)[..], &payload].concat()
}

/// The bytes of a pong frame.
pub fn pong(payload: [u8; 8]) -> Vec<u8> {
    [&header(PONG, 8)[..], &payload].concat()
}

/// The bytes of a control frame.
pub fn control(control: &Control) -> Vec<u8> {
    let payload = message::pack(control);
    [&header(CONTROL, payload.len())[..], &payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_read_back() {
        assert_eq!(Frame::parse(&ping([7; 8])), Ok(Frame::Ping([7; 8])));
        assert_eq!(Frame::parse(&pong([7; 8])), Ok(Frame::Pong([7; 8])));
        let kick = Control::Kick { reason: KickReason::Superseded };
        assert_eq!(Frame::parse(&control(&kick)), Ok(Frame::Control(kick)));
        assert_eq!(Frame::parse(&control(&Control::Close)), Ok(Frame::Control(Control::Close)));
    }

    #[test]
    fn unknown_types_are_skipped_or_end_the_connection() {
        assert_eq!(Frame::parse(&[0x80, 0, 0, 1, 9]), Ok(Frame::Skipped));
        assert_eq!(Frame::parse(&[0xff, 0, 0, 0]), Ok(Frame::Skipped));
        assert_eq!(Frame::parse(&[0x7f, 0, 0, 0]), Err(FrameError::UnknownType(0x7f)));
        assert_eq!(Frame::parse(&[0x00, 0, 0, 0]), Err(FrameError::UnknownType(0)));
        let short = Frame::parse(&[0x03, 0, 0, 1, 9]);
        assert_eq!(short, Err(FrameError::Length { kind: 3, length: 1 }));
    }

    #[test]
    fn a_length_beyond_the_bound_is_known_from_the_header() {
        assert_eq!(frame_len(&[1, 0, 0]), Ok(None));
        assert_eq!(frame_len(&header(1, PAYLOAD_MAX)), Ok(Some(PAYLOAD_MAX + HEADER_LEN)));
        let long = frame_len(&header(1, PAYLOAD_MAX + 1));
        assert_eq!(long, Err(FrameError::TooLong(PAYLOAD_MAX + 1)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind: u8, payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bytes = [&header(kind, payload.len())[..], &payload].concat();
            let _ = Frame::parse(&bytes);
        }
    }
}
