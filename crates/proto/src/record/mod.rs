//! Tunnel records on a stream (A6; docs/protocol.md, "Tunnel records").
//!
//! ```text
//!  17 03 03 | length (2) | nonce (8) | ciphertext (N) | tag (16)     length = 8 + N + 16
//!
//!  nonce, before masking:  epoch mod 16 (4 bits) | counter (36 bits) | time (24 bits)
//!  AEAD nonce   = iv XOR (0^4 ‖ nonce)       AAD = the 5 header bytes
//!  masked nonce = nonce XOR mask[..8], the mask being made from the 16 bytes behind the nonce
//! ```
//!
//! To whoever looks on, these are TLS application data records. The counter alone makes nonces
//! unique; a receiver takes exactly the next one.

mod batch;
mod inflow;
mod mask;
mod opener;
mod sealer;

pub use batch::Batch;
pub use inflow::{Inflow, InflowError};
pub use opener::{OpenError, Opener};
pub use sealer::{SealError, Sealer};

use crate::cipher::TAG_LEN;

/// Length of the header that looks like TLS's, in bytes.
pub const HEADER_LEN: usize = 5;
/// Length of the masked nonce, in bytes.
pub const NONCE_LEN: usize = 8;
/// What stands before the ciphertext, in bytes.
pub const PREFIX_LEN: usize = HEADER_LEN + NONCE_LEN;
/// The most plaintext in one record, in bytes.
pub const PLAINTEXT_MAX: usize = 16_377;
/// The longest record, in bytes.
pub const RECORD_MAX: usize = PREFIX_LEN + PLAINTEXT_MAX + TAG_LEN;
/// The least value of the length field: one byte of plaintext.
const LENGTH_MIN: usize = NONCE_LEN + 1 + TAG_LEN;
const LENGTH_MAX: usize = RECORD_MAX - HEADER_LEN;
/// The header bytes in front of the length: type application data, version TLS 1.2, as TLS 1.3
/// writes it (RFC 8446, 5.2).
const HEADER_START: [u8; 3] = [0x17, 0x03, 0x03];
pub(crate) const COUNTER_BITS: u32 = 36;
pub(crate) const TIME_BITS: u32 = 24;

/// How much the key of an epoch has been used in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The epoch: how many rekeys there were before.
    pub epoch: u32,
    /// Records; also the counter of the next one.
    pub records: u64,
    /// Bytes of records.
    pub bytes: u64,
}

impl Usage {
    fn add(&mut self, record_len: usize) {
        self.records += 1;
        self.bytes += record_len as u64;
    }

    fn next_epoch(self) -> Self {
        Self { epoch: self.epoch.wrapping_add(1), records: 0, bytes: 0 }
    }
}

/// The nonce of a record or datagram, before masking. `counter` is below 2^36.
pub(crate) fn nonce_bytes(epoch: u32, counter: u64, time_ms: u64) -> [u8; NONCE_LEN] {
    let time = time_ms & ((1 << TIME_BITS) - 1);
    let epoch = u64::from(epoch % 16) << (COUNTER_BITS + TIME_BITS);
    (epoch | counter << TIME_BITS | time).to_be_bytes()
}

/// The bytes that look like the end of a TLS connection (an encrypted close_notify): what a sender
/// adds behind an authenticated `Close` or `Kick`. `random` fills the body.
pub fn close_bytes(random: [u8; 19]) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..3].copy_from_slice(&HEADER_START);
    bytes[4] = 19;
    bytes[5..].copy_from_slice(&random);
    bytes
}
