//! The sending half of a stream's keys.

use std::time::Instant;

use super::{COUNTER_BITS, HEADER_LEN, HEADER_START, PREFIX_LEN, RECORD_MAX, mask::Mask};
use crate::{
    cipher::{Aead, CipherId, TAG_LEN},
    keys::StreamKeys,
};

/// Records of one epoch after which a sender stops: twice the number at which the gateway rekeys
/// (docs/protocol.md, "Rekey").
const RECORDS_MAX: u64 = 1 << 25;
const _: () = assert!(RECORDS_MAX < 1 << COUNTER_BITS);
/// Bytes of one epoch after which a sender stops.
const BYTES_MAX: u64 = 128 << 30;

/// Seals records in one direction. Records leave in the order in which they were sealed.
pub struct Sealer {
    aead: Aead,
    mask: Mask,
    counter: u64,
    bytes: u64,
    installed: Option<Instant>,
}

/// Why a record cannot be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key has sealed as much as it may. The connection must be replaced.
    #[error("the key of this connection is used up")]
    Exhausted,
    /// The cipher refused.
    #[error("the cipher failed")]
    Cipher,
}

impl Sealer {
    pub(crate) fn new(cipher: CipherId, keys: &StreamKeys) -> Self {
        Self {
            aead: Aead::new(cipher, keys),
            mask: Mask::new(cipher, &keys.mask),
            counter: 0,
            bytes: 0,
            installed: None,
        }
    }

    /// Seals a record where it stands: [`PREFIX_LEN`] bytes of room, the plaintext, [`TAG_LEN`]
    /// bytes of room.
    ///
    /// # Panics
    /// If `record` has no plaintext or is longer than [`RECORD_MAX`].
    pub fn seal(&mut self, now: Instant, record: &mut [u8]) -> Result<(), SealError> {
        let length = record.len();
        assert!((PREFIX_LEN + TAG_LEN + 1..=RECORD_MAX).contains(&length), "one record's length");
        if self.counter >= RECORDS_MAX || self.bytes >= BYTES_MAX {
            return Err(SealError::Exhausted);
        }
        let installed = *self.installed.get_or_insert(now);
        let time_ms = now.saturating_duration_since(installed).as_millis() as u64;
        let nonce = super::nonce_bytes(0, self.counter, time_ms);
        self.counter += 1;
        self.bytes += length as u64;

        let (header, rest) = record.split_at_mut(HEADER_LEN);
        header[..3].copy_from_slice(&HEADER_START);
        header[3..].copy_from_slice(&((length - HEADER_LEN) as u16).to_be_bytes());
        rest[..nonce.len()].copy_from_slice(&nonce);
        let (plaintext, tag) = rest[nonce.len()..].split_at_mut(length - PREFIX_LEN - TAG_LEN);
        self.aead.seal(&nonce, header, plaintext, tag).map_err(|_| SealError::Cipher)?;
        self.mask.apply(rest);
        Ok(())
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("counter", &self.counter).finish_non_exhaustive()
    }
}
