//! Whose a datagram is: index and counter, as the gateway's mask key shows them.
//!
//! One AES block, and a second one if no session has the index of the first: the work is the same
//! for every datagram, whoever sent it. Nothing here is authentic yet.

use std::sync::Arc;

use aes::{
    Aes256,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};
use zeroize::Zeroizing;

use super::{
    HEAD_LEN,
    packet::{self, IV_RANGE},
};
use crate::{
    cipher::{DatagramCipher, TAG_LEN},
    keys::{Direction, expand},
    record::{COUNTER_BITS, NONCE_LEN, TIME_BITS},
};

const BLOCK: usize = 16;

/// The mask key of a gateway, ready for use; a clone shares it.
#[derive(Clone)]
pub struct Masks(Arc<Blocks>);

struct Blocks {
    /// Masks the head of format (a).
    head: Aes256,
    /// Makes the IV of format (b).
    iv: Aes256,
}

/// What a datagram says of itself, if it is of the gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The session.
    pub index: u32,
    pub(super) form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Format (a), with its nonce.
    Aead([u8; NONCE_LEN]),
    /// Format (b).
    Packet { epoch: u8, direction: u8, counter: u64 },
}

impl Form {
    /// Whether datagrams of this cipher have this form.
    pub(super) fn is_of(self, cipher: DatagramCipher) -> bool {
        match (self, cipher) {
            (Form::Aead(_), DatagramCipher::Aead(_)) => true,
            (Form::Packet { .. }, DatagramCipher::Packet) => true,
            (Form::Aead(_) | Form::Packet { .. }, _) => false,
        }
    }

    /// The epoch, as much of it as there is: modulo 16 or 256.
    pub(super) fn epoch(self) -> u8 {
        match self {
            Form::Aead(nonce) => nonce[0] >> 4,
            Form::Packet { epoch, .. } => epoch,
        }
    }

    /// The same of an epoch that is known.
    pub(super) fn epoch_of(cipher: DatagramCipher, epoch: u32) -> u8 {
        match cipher {
            DatagramCipher::Aead(_) => epoch as u8 % 16,
            DatagramCipher::Packet => epoch as u8,
        }
    }

    /// The counter of the datagram.
    pub(super) fn counter(self) -> u64 {
        match self {
            Form::Aead(nonce) => {
                (u64::from_be_bytes(nonce) >> TIME_BITS) & ((1 << COUNTER_BITS) - 1)
            }
            Form::Packet { counter, .. } => counter,
        }
    }
}

impl Masks {
    /// Of this mask key: 32 random bytes of a gateway's process.
    pub fn new(mask_key: &[u8; 32]) -> Self {
        let mut iv = Zeroizing::new([0; 32]);
        expand(mask_key, "cw iv", b"", &mut *iv);
        Self(Arc::new(Blocks {
            head: Aes256::new(mask_key.into()),
            iv: Aes256::new((&*iv).into()),
        }))
    }

    /// What a datagram would say of itself in each format that it is long enough for, (a) first.
    /// The second is only computed if it is asked for.
    pub fn heads<'a>(&'a self, datagram: &'a [u8]) -> impl Iterator<Item = Head> + 'a {
        let first = std::iter::once_with(|| self.aead_head(datagram));
        first.chain(std::iter::once_with(|| self.packet_head(datagram))).flatten()
    }

    fn aead_head(&self, datagram: &[u8]) -> Option<Head> {
        if datagram.len() <= HEAD_LEN + TAG_LEN {
            return None;
        }
        let (head, rest) = datagram.split_first_chunk::<HEAD_LEN>()?;
        let mask = self.mask(rest.first_chunk()?);
        let [i0, i1, i2, i3, nonce @ ..] =
            std::array::from_fn::<_, HEAD_LEN, _>(|at| head[at] ^ mask[at]);
        Some(Head { index: u32::from_be_bytes([i0, i1, i2, i3]), form: Form::Aead(nonce) })
    }

    fn packet_head(&self, datagram: &[u8]) -> Option<Head> {
        if datagram.len() <= packet::OVERHEAD {
            return None;
        }
        let iv: &[u8; BLOCK] = datagram[IV_RANGE].first_chunk()?;
        let mut block = (*iv).into();
        self.0.iv.decrypt_block(&mut block);
        let [i0, i1, i2, i3, epoch, direction, c0, c1, c2, c3, c4, c5, ..] =
            <[u8; BLOCK]>::from(block);
        Some(Head {
            index: u32::from_be_bytes([i0, i1, i2, i3]),
            form: Form::Packet {
                epoch,
                direction,
                counter: u64::from_be_bytes([0, 0, c0, c1, c2, c3, c4, c5]),
            },
        })
    }

    /// Masks the head of a sealed datagram of format (a), which is long enough.
    pub(super) fn apply(&self, datagram: &mut [u8]) {
        let (head, rest) = datagram.split_at_mut(HEAD_LEN);
        let mut sample = [0; BLOCK];
        sample.copy_from_slice(&rest[..BLOCK]);
        for (byte, mask) in head.iter_mut().zip(self.mask(&sample)) {
            *byte ^= mask;
        }
    }

    /// The IV of format (b), which repeats never: the counter does not within an epoch.
    pub(super) fn iv(
        &self,
        index: u32,
        epoch: u32,
        direction: Direction,
        counter: u64,
        random: [u8; 4],
    ) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..4].copy_from_slice(&index.to_be_bytes());
        block[4] = epoch as u8;
        block[5] = direction.wire();
        block[6..12].copy_from_slice(&counter.to_be_bytes()[2..]);
        block[12..].copy_from_slice(&random);
        let mut block = block.into();
        self.0.iv.encrypt_block(&mut block);
        block.into()
    }

    fn mask(&self, sample: &[u8; BLOCK]) -> [u8; BLOCK] {
        let mut block = (*sample).into();
        self.0.head.encrypt_block(&mut block);
        block.into()
    }
}

impl std::fmt::Debug for Masks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Masks(..)")
    }
}
