//! What is inside tunnel records, from a peer that is authenticated but not trusted.

use cipherwall_proto::frame::{self, Frame};

/// A run of frames, cut as the receiver cuts it.
pub(crate) fn run(mut data: &[u8]) {
    while let Ok(Some(length)) = frame::frame_len(data) {
        let Some((bytes, rest)) = data.split_at_checked(length) else { return };
        data = rest;
        match Frame::parse(bytes) {
            Ok(Frame::Packet(packet)) => assert_eq!(packet.len(), length - frame::HEADER_LEN),
            Ok(Frame::Offload(header, packet)) => {
                assert_eq!(bytes[frame::HEADER_LEN..], [&header.encode()[..], packet].concat());
            }
            Ok(Frame::Ping(payload)) => assert_eq!(frame::ping(payload), bytes),
            Ok(Frame::Pong(payload)) => assert_eq!(frame::pong(payload), bytes),
            Ok(Frame::Control(control)) => {
                let again = frame::control(&control);
                assert_eq!(Frame::parse(&again), Ok(Frame::Control(control)));
            }
            Ok(Frame::Rekey(step)) => assert_eq!(step.to_bytes(), bytes),
            Ok(Frame::Skipped) => assert!(bytes[0] >= frame::PADDING),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
