//! Error codes (RFC 9113, 7) and frame types (6).

/// Why a stream or connection ends.
pub(super) type Code = u32;

pub(super) const NO_ERROR: Code = 0;
pub(super) const PROTOCOL_ERROR: Code = 1;
pub(super) const INTERNAL_ERROR: Code = 2;
pub(super) const FLOW_CONTROL_ERROR: Code = 3;
pub(super) const FRAME_SIZE_ERROR: Code = 6;
pub(super) const REFUSED_STREAM: Code = 7;
pub(super) const COMPRESSION_ERROR: Code = 9;
pub(super) const ENHANCE_YOUR_CALM: Code = 11;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const WITH_PRIORITY: u8 = 32;

/// The largest window (RFC 9113, 6.9.1).
pub(super) const WINDOW_MAX: i64 = 0x7fff_ffff;
