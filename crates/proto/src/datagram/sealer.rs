//! The sending half of a session's datagram keys.

use std::time::Instant;

use super::{Masks, Usage, channel::Cipher, channel::EpochKeys, packet, random::Random};
use crate::{
    cipher::{Aead, DatagramCipher, TAG_LEN},
    keys::Direction,
    record, rekey,
};

/// Datagrams of one epoch after which a sender stops: twice the number at which there must be a
/// rekey.
const DATAGRAMS_MAX: u64 = 2 * rekey::DATAGRAMS_MAX;
const _: () = assert!(DATAGRAMS_MAX < 1 << record::COUNTER_BITS);
/// Bytes of one epoch after which a sender stops.
const BYTES_MAX: u64 = 2 * rekey::BYTES_MAX;

/// Seals frames into datagrams in one direction.
pub struct Sealer {
    kind: DatagramCipher,
    index: u32,
    direction: Direction,
    masks: Masks,
    cipher: Cipher,
    usage: Usage,
    installed: Option<Instant>,
    random: Random,
}

/// Why a datagram cannot be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key has sealed as much as it may, and no rekey came. The connection must be replaced.
    #[error("the datagram key of this connection is used up")]
    Exhausted,
    /// The cipher refused.
    #[error("the cipher failed")]
    Cipher,
}

impl Sealer {
    pub(super) fn new(
        kind: DatagramCipher,
        index: u32,
        masks: Masks,
        keys: &EpochKeys,
        seed: [u8; 32],
    ) -> Self {
        Self {
            kind,
            index,
            direction: keys.direction(),
            masks,
            cipher: keys.cipher(),
            usage: Usage::new(keys.epoch),
            installed: None,
            random: Random::new(seed),
        }
    }

    /// What comes next is of the next epoch, which has these keys. The old ones are gone.
    pub fn install(&mut self, now: Instant, keys: &EpochKeys) {
        self.cipher = keys.cipher();
        self.usage = Usage::new(keys.epoch);
        self.installed = Some(now);
    }

    /// The cipher; it tells how much room there must be around the frames.
    pub fn cipher(&self) -> DatagramCipher {
        self.kind
    }

    /// What has been sealed in this epoch.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Seals datagrams where they stand, one behind the other, each `datagram_len` bytes and the
    /// last one perhaps shorter. Each is [`DatagramCipher::prefix_len`] bytes of room, whole frames,
    /// [`DatagramCipher::suffix_len`] bytes of room.
    ///
    /// # Errors
    /// The key is used up, and nothing was sealed; or the cipher failed, and nothing may be sent.
    ///
    /// # Panics
    /// If one of them has no byte of frames.
    pub fn seal(
        &mut self,
        now: Instant,
        datagrams: &mut [u8],
        datagram_len: usize,
    ) -> Result<(), SealError> {
        let last_len = match datagrams.len() % datagram_len {
            0 => datagram_len,
            rest => rest,
        };
        assert!(last_len > self.kind.overhead(), "a datagram with frames in it");
        let count = datagrams.len().div_ceil(datagram_len) as u64;
        let fits = self.usage.datagrams + count <= DATAGRAMS_MAX
            && self.usage.bytes + datagrams.len() as u64 <= BYTES_MAX;
        if !fits {
            return Err(SealError::Exhausted);
        }
        let installed = *self.installed.get_or_insert(now);
        let time_ms = now.saturating_duration_since(installed).as_millis() as u64;
        let Self { index, direction, masks, cipher, usage, random, .. } = self;
        match cipher {
            Cipher::Aead(aead) => {
                for datagram in datagrams.chunks_mut(datagram_len) {
                    seal_aead(aead, masks, *index, usage, time_ms, datagram)?;
                }
            }
            Cipher::Packet(cipher) => {
                for datagram in datagrams.chunks_mut(datagram_len) {
                    let (epoch, counter) = (usage.epoch, usage.datagrams);
                    let iv = masks.iv(*index, epoch, *direction, counter, random.bytes());
                    datagram[packet::IV_RANGE].copy_from_slice(&iv);
                    usage.add(datagram.len());
                }
                cipher.seal(datagrams.chunks_mut(datagram_len));
            }
        }
        Ok(())
    }
}

fn seal_aead(
    aead: &Aead,
    masks: &Masks,
    index: u32,
    usage: &mut Usage,
    time_ms: u64,
    datagram: &mut [u8],
) -> Result<(), SealError> {
    let index = index.to_be_bytes();
    let nonce = record::nonce_bytes(usage.epoch, usage.datagrams, time_ms);
    usage.add(datagram.len());
    let (head, body) = datagram.split_at_mut(super::HEAD_LEN);
    head[..index.len()].copy_from_slice(&index);
    head[index.len()..].copy_from_slice(&nonce);
    let (plaintext, tag) = body.split_at_mut(body.len() - TAG_LEN);
    aead.seal(&nonce, &index, plaintext, tag).map_err(|_| SealError::Cipher)?;
    masks.apply(datagram);
    Ok(())
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("usage", &self.usage).finish_non_exhaustive()
    }
}
