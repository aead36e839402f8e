//! The receiving half of a stream's keys.

use super::{
    HEADER_LEN, HEADER_START, LENGTH_MAX, LENGTH_MIN, NONCE_LEN, TIME_BITS, Usage, mask::Mask,
    nonce_bytes,
};
use crate::{
    cipher::{Aead, CipherId, TAG_LEN},
    keys::{Chain, Direction},
};

/// Opens records in one direction, in the order in which they were sealed.
pub struct Opener {
    cipher: CipherId,
    direction: Direction,
    /// The chain of this epoch, kept here for the next rekey.
    chain: Chain,
    aead: Aead,
    mask: Mask,
    usage: Usage,
}

/// Why bytes are no record, or not the next one. Each of these ends the connection, not the
/// session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The header is not that of a record.
    #[error("not a tunnel record")]
    Header,
    /// The length field is out of bounds.
    #[error("a tunnel record of {0} bytes")]
    Length(usize),
    /// Left out, repeated, reordered, or of another epoch.
    #[error("a tunnel record out of order")]
    Order,
    /// Changed on the way, or sealed with another key.
    #[error("a tunnel record that is not authentic")]
    Forged,
}

impl Opener {
    /// For a connection whose first epoch has this chain.
    pub(crate) fn new(cipher: CipherId, chain: Chain, direction: Direction) -> Self {
        Self {
            cipher,
            direction,
            aead: Aead::new(cipher, &chain.stream_keys(direction)),
            mask: Mask::new(cipher, &chain.mask_key(direction)),
            chain,
            usage: Usage::default(),
        }
    }

    /// The next record is one of the next epoch, which has this chain. The old keys are gone.
    pub(crate) fn advance(&mut self, chain: Chain) {
        self.aead = Aead::new(self.cipher, &chain.stream_keys(self.direction));
        self.chain = chain;
        self.usage = self.usage.next_epoch();
    }

    /// The chain of this epoch.
    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// What has been opened in this epoch.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The length of the record at the start of `bytes`, header included; `None` while its header
    /// is not complete.
    pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, OpenError> {
        let Some((header, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        if header[..3] != HEADER_START {
            return Err(OpenError::Header);
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
            return Err(OpenError::Length(length));
        }
        Ok(Some(HEADER_LEN + length))
    }

    /// Opens one whole record into `plaintext` and gives the plaintext's length. The record's
    /// nonce is unmasked where it stands.
    ///
    /// # Panics
    /// If `record` is not as long as [`Opener::record_len`] said, or `plaintext` too short.
    pub fn open(&mut self, record: &mut [u8], plaintext: &mut [u8]) -> Result<usize, OpenError> {
        let length = record.len();
        let (header, rest) = record.split_at_mut(HEADER_LEN);
        self.mask.apply(rest);
        let (nonce, body) = rest.split_at(NONCE_LEN);
        let mut full = [0; NONCE_LEN];
        full.copy_from_slice(nonce);
        // epoch and counter must be the expected ones, time decides nothing
        let Usage { epoch, records, .. } = self.usage;
        let expected = u64::from_be_bytes(nonce_bytes(epoch, records, 0)) >> TIME_BITS;
        if u64::from_be_bytes(full) >> TIME_BITS != expected {
            return Err(OpenError::Order);
        }
        let (ciphertext, tag) = body.split_at(body.len() - TAG_LEN);
        let plaintext = &mut plaintext[..ciphertext.len()];
        self.aead.open(&full, header, ciphertext, tag, plaintext).map_err(|_| OpenError::Forged)?;
        self.usage.add(length);
        Ok(ciphertext.len())
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("usage", &self.usage).finish_non_exhaustive()
    }
}
