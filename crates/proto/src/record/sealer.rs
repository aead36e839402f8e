//! The sending half of a stream's keys.

use std::time::Instant;

use super::{COUNTER_BITS, HEADER_LEN, HEADER_START, PREFIX_LEN, RECORD_MAX, Usage, mask::Mask};
use crate::{
    cipher::{Aead, CipherId, TAG_LEN},
    keys::{Chain, Direction, StreamKeys},
    rekey,
};

/// Records of one epoch after which a sender stops: twice the number at which there must be a
/// rekey.
const RECORDS_MAX: u64 = 2 * rekey::RECORDS_MAX;
const _: () = assert!(RECORDS_MAX < 1 << COUNTER_BITS);
/// Bytes of one epoch after which a sender stops.
const BYTES_MAX: u64 = 2 * rekey::BYTES_MAX;

/// Seals records in one direction. Records leave in the order in which they were sealed.
pub struct Sealer {
    cipher: CipherId,
    aead: Aead,
    mask: Mask,
    usage: Usage,
    installed: Option<Instant>,
}

/// Why a record cannot be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key has sealed as much as it may, and no rekey came. The connection must be replaced.
    #[error("the key of this connection is used up")]
    Exhausted,
    /// The cipher refused.
    #[error("the cipher failed")]
    Cipher,
}

impl Sealer {
    /// For a connection whose first epoch has this chain.
    pub(crate) fn new(cipher: CipherId, chain: &Chain, direction: Direction) -> Self {
        Self {
            cipher,
            aead: Aead::new(cipher, &chain.stream_keys(direction)),
            mask: Mask::new(cipher, &chain.mask_key(direction)),
            usage: Usage::default(),
            installed: None,
        }
    }

    /// The next record is one of the next epoch, which has these keys. The old ones are gone.
    pub(crate) fn install(&mut self, now: Instant, keys: &StreamKeys) {
        self.aead = Aead::new(self.cipher, keys);
        self.usage = self.usage.next_epoch();
        self.installed = Some(now);
    }

    /// What has been sealed in this epoch.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Seals a record where it stands: [`PREFIX_LEN`] bytes of room, the plaintext, [`TAG_LEN`]
    /// bytes of room.
    ///
    /// # Panics
    /// If `record` has no plaintext or is longer than [`RECORD_MAX`].
    pub fn seal(&mut self, now: Instant, record: &mut [u8]) -> Result<(), SealError> {
        let length = record.len();
        assert!((PREFIX_LEN + TAG_LEN + 1..=RECORD_MAX).contains(&length), "one record's length");
        if self.usage.records >= RECORDS_MAX || self.usage.bytes >= BYTES_MAX {
            return Err(SealError::Exhausted);
        }
        let installed = *self.installed.get_or_insert(now);
        let time_ms = now.saturating_duration_since(installed).as_millis() as u64;
        let nonce = super::nonce_bytes(self.usage.epoch, self.usage.records, time_ms);
        self.usage.add(length);

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
        f.debug_struct("Sealer").field("usage", &self.usage).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_seals_no_more_than_it_may_and_the_next_one_does_again() {
        let (chain, now) = (Chain([3; 32]), Instant::now());
        let mut sealer = Sealer::new(CipherId::Aes256Gcm, &chain, Direction::ClientToServer);
        let mut record = [0; PREFIX_LEN + 100 + TAG_LEN];
        for (records, bytes) in [(1 << 25, 1), (1, 128 << 30)] {
            sealer.usage = Usage { epoch: 7, records: records - 1, bytes: bytes - 1 };
            assert_eq!(sealer.seal(now, &mut record), Ok(()));
            assert_eq!(sealer.seal(now, &mut record), Err(SealError::Exhausted));
            let keys = Chain([4; 32]).stream_keys(Direction::ClientToServer);
            sealer.install(now, &keys);
            assert_eq!(sealer.usage(), Usage { epoch: 8, records: 0, bytes: 0 });
            assert_eq!(sealer.seal(now, &mut record), Ok(()));
        }
    }
}
