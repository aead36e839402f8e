//! Frames: what is inside tunnel records (docs/protocol.md, "Frames").
//!
//! ```text
//!  type (1) | length (3) | payload
//! ```
//!
//! A frame may span records; those of datagrams are in [`crate::datagram`]. Unknown types from 0x80 on are skipped; below, they end the
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
pub(crate) const PING: u8 = 0x03;
pub(crate) const PONG: u8 = 0x04;
const CONTROL: u8 = 0x05;
const REKEY: u8 = 0x06;
const REKEY_REPLY: u8 = 0x07;
const REKEY_DONE: u8 = 0x08;
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
    /// A step of a rekey.
    Rekey(RekeyFrame),
    /// Nothing of interest: padding, or a type of a later version.
    Skipped,
}

/// The three steps of a rekey (A7; [`crate::rekey`]). Each names the epoch that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RekeyFrame {
    /// The gateway starts: `Rekey`.
    Start {
        /// The epoch to come.
        epoch: u32,
        /// Goes into the new chain.
        random: [u8; 32],
        /// The gateway's share, X25519.
        public: [u8; 32],
    },
    /// The client answers: `RekeyReply`, the last frame of its last record under the old key.
    Reply {
        /// The epoch to come.
        epoch: u32,
        /// The client's share, X25519.
        public: [u8; 32],
    },
    /// The gateway has the answer: `RekeyDone`, the last frame of its last record under the old
    /// key.
    Done {
        /// The epoch to come.
        epoch: u32,
    },
}

/// What the ends say to each other inside the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Control {
    /// The sender is leaving for good; the session is over.
    Close,
    /// The client has stored the token of this connection's `Welcome`, a resume's; earlier tokens of
    /// the session are void from now on.
    TokenStored,
    /// The gateway ends the session.
    Kick {
        /// Why.
        reason: KickReason,
    },
    /// The client has used its keys up as far as it likes to and wants new ones.
    RekeyPlease,
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
            REKEY | REKEY_REPLY | REKEY_DONE => {
                RekeyFrame::parse(kind, payload).map(Frame::Rekey).ok_or(wrong_length)
            }
            PADDING.. => Ok(Frame::Skipped),
            _ => Err(FrameError::UnknownType(kind)),
        }
    }
}

impl RekeyFrame {
    /// Whether it must be the last frame of its record, since the next one has another key.
    pub fn is_last(&self) -> bool {
        match self {
            RekeyFrame::Start { .. } => false,
            RekeyFrame::Reply { .. } | RekeyFrame::Done { .. } => true,
        }
    }

    /// The payload.
    pub fn payload(&self) -> Vec<u8> {
        match self {
            RekeyFrame::Start { epoch, random, public } => {
                [&epoch.to_be_bytes()[..], random, public].concat()
            }
            RekeyFrame::Reply { epoch, public } => [&epoch.to_be_bytes()[..], public].concat(),
            RekeyFrame::Done { epoch } => epoch.to_be_bytes().to_vec(),
        }
    }

    /// The bytes of the frame.
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = match self {
            RekeyFrame::Start { .. } => REKEY,
            RekeyFrame::Reply { .. } => REKEY_REPLY,
            RekeyFrame::Done { .. } => REKEY_DONE,
        };
        let payload = self.payload();
        [&header(kind, payload.len())[..], &payload].concat()
    }

    /// `None` if the payload's length is wrong.
    fn parse(kind: u8, payload: &[u8]) -> Option<Self> {
        let (epoch, rest) = payload.split_first_chunk::<4>()?;
        let epoch = u32::from_be_bytes(*epoch);
        match kind {
            REKEY => {
                let (random, public) = rest.split_first_chunk::<32>()?;
                let public = public.try_into().ok()?;
                Some(RekeyFrame::Start { epoch, random: *random, public })
            }
            REKEY_REPLY => Some(RekeyFrame::Reply { epoch, public: rest.try_into().ok()? }),
            _ => rest.is_empty().then_some(RekeyFrame::Done { epoch }),
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
        for control in [Control::Close, Control::TokenStored] {
            assert_eq!(Frame::parse(&self::control(&control)), Ok(Frame::Control(control)));
        }
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
