//! The CipherWall packet (B1), to the letter:
//!
//! ```text
//!  HMAC-SHA256 (32) | IV (16) | AES-256-CFB128 ciphertext
//!  the HMAC is that of IV ‖ ciphertext, with a key of its own
//! ```
//!
//! Used by static mode and, with session keys, by session mode. Encryption and HMAC are both serial
//! within one packet, so several packets take turns: the processor works on the steps of one while
//! those of another are not done yet.

use std::array;

use aes::{
    Aes256Enc, Block,
    cipher::{
        Array, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser,
        KeyInit, ParBlocks, consts::U16, typenum::Unsigned,
    },
};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use self::mac::{Mac, TAG_LEN};

mod mac;

/// Length of what is in front of the ciphertext, in bytes.
pub const OVERHEAD: usize = TAG_LEN + IV_LEN;
/// Where the IV stands in a packet.
pub const IV_RANGE: std::ops::Range<usize> = TAG_LEN..OVERHEAD;

const IV_LEN: usize = BLOCK_LEN;
const BLOCK_LEN: usize = 16;
/// Packets that are sealed in turns: by measurement, more bring nothing (`benches/packet.rs`).
const LANES: usize = 8;

/// The two keys of a packet.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PacketKeys {
    /// For AES-256.
    pub enc: [u8; 32],
    /// For HMAC-SHA256.
    pub mac: [u8; 32],
}

/// Seals and opens packets with one pair of keys.
pub struct PacketCipher {
    aes: Box<Aes256Enc>,
    mac: Mac,
}

impl PacketCipher {
    /// With these keys.
    pub fn new(keys: &PacketKeys) -> Self {
        Self { aes: Box::new(Aes256Enc::new((&keys.enc).into())), mac: Mac::new(&keys.mac) }
    }

    /// Seals packets where they stand: 32 bytes of room, the IV, the plaintext. An IV must be
    /// unpredictable and used once (SP 800-38A, appendix C).
    ///
    /// # Panics
    /// If a packet is shorter than [`OVERHEAD`].
    pub fn seal<'a>(&self, packets: impl Iterator<Item = &'a mut [u8]>) {
        let mut packets = packets.fuse();
        loop {
            let mut group: [&mut [u8]; LANES] = array::from_fn(|_| Default::default());
            let mut count = 0;
            for (lane, packet) in group.iter_mut().zip(packets.by_ref()) {
                *lane = packet;
                count += 1;
            }
            if count == 0 {
                return;
            }
            let group = &mut group[..count];
            self.aes.encrypt_with_backend(EncryptGroup { packets: group });
            for packets in group.chunks_mut(mac::LANES) {
                self.mac.tag(packets, |packet, tag| packet[..TAG_LEN].copy_from_slice(tag));
            }
        }
    }

    /// Checks the HMAC first, in constant time, then decrypts in place. The IV stays readable at
    /// [`IV_RANGE`]. `None` is to be dropped without a word.
    pub fn open<'a>(&self, datagram: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let mut whole = None;
        self.open_each([((), datagram)].into_iter(), |(), opened| whole = opened);
        whole.map(|datagram| &mut datagram[OVERHEAD..])
    }

    /// As [`PacketCipher::open`] for several datagrams, in their order. Gives the whole datagram,
    /// with the plaintext behind [`OVERHEAD`]. Whatever comes with each is handed through.
    pub fn open_each<'a, T>(
        &self,
        datagrams: impl Iterator<Item = (T, &'a mut [u8])>,
        mut each: impl FnMut(T, Option<&'a mut [u8]>),
    ) {
        let mut datagrams = datagrams.fuse();
        loop {
            let mut group: [&'a mut [u8]; mac::LANES] = array::from_fn(|_| Default::default());
            let mut with: [Option<T>; mac::LANES] = array::from_fn(|_| None);
            let mut count = 0;
            for (comes_with, datagram) in datagrams.by_ref().take(mac::LANES) {
                group[count] = datagram;
                with[count] = Some(comes_with);
                count += 1;
            }
            if count == 0 {
                return;
            }
            let mut good = [false; mac::LANES];
            self.check(&mut group[..count], &mut good);
            for ((datagram, with), good) in group.into_iter().zip(with).zip(good) {
                let Some(with) = with else { break };
                if good {
                    self.aes.encrypt_with_backend(Decrypt { from_iv: &mut datagram[TAG_LEN..] });
                }
                each(with, good.then_some(datagram));
            }
        }
    }

    /// Which of these datagrams are authentic.
    fn check(&self, datagrams: &mut [&mut [u8]], good: &mut [bool; mac::LANES]) {
        if datagrams.iter().all(|datagram| datagram.len() > OVERHEAD) {
            let mut good = good.iter_mut();
            self.mac.tag(datagrams, |datagram, tag| {
                if let Some(good) = good.next() {
                    *good = datagram[..TAG_LEN].ct_eq(tag).into();
                }
            });
        } else if datagrams.len() > 1 {
            for (datagram, good) in datagrams.iter_mut().zip(good) {
                let mut one = [false; mac::LANES];
                self.check(array::from_mut(datagram), &mut one);
                *good = one[0];
            }
        }
    }
}

/// Encrypts some packets in turns: each block of ciphertext, encrypted, masks the next block of
/// plaintext.
struct EncryptGroup<'g, 'a> {
    packets: &'g mut [&'a mut [u8]],
}

impl BlockSizeUser for EncryptGroup<'_, '_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for EncryptGroup<'_, '_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let mut feedback = [Block::default(); LANES];
        // the plaintext to come of each packet
        let mut rest: [&mut [u8]; LANES] = array::from_fn(|_| Default::default());
        let mut active = self.packets.len();
        for (lane, packet) in self.packets.iter_mut().enumerate() {
            let (head, plaintext) = packet.split_at_mut(OVERHEAD);
            feedback[lane].copy_from_slice(&head[IV_RANGE]);
            rest[lane] = plaintext;
        }
        while active > 0 {
            let steps = rest[..active].iter().map(|rest| rest.len() / BLOCK_LEN).min().unwrap_or(0);
            for _ in 0..steps {
                encrypt_feedback(backend, &mut feedback, active);
                for (feedback, rest) in feedback.iter_mut().zip(&mut rest[..active]) {
                    if let Some((block, later)) = std::mem::take(rest).split_first_chunk_mut() {
                        *feedback = mask(block, feedback);
                        *rest = later;
                    }
                }
            }
            // those of which less than a block is left
            for lane in (0..active).rev() {
                if rest[lane].len() < BLOCK_LEN {
                    if !rest[lane].is_empty() {
                        backend.encrypt_block_inplace(&mut feedback[lane]);
                        mask_some(rest[lane], &feedback[lane]);
                    }
                    active -= 1;
                    rest.swap(lane, active);
                    feedback.swap(lane, active);
                }
            }
        }
    }
}

/// Encrypts the first `active` blocks.
#[inline(always)]
fn encrypt_feedback<B>(backend: &B, feedback: &mut [Block; LANES], active: usize)
where
    B: BlockCipherEncBackend<BlockSize = U16>,
{
    if active > 1 && B::ParBlocksSize::USIZE <= LANES {
        let (groups, _) = Array::slice_as_chunks_mut(feedback);
        groups.iter_mut().for_each(|group| backend.encrypt_par_blocks_inplace(group));
    } else {
        // also fast: what one block waits for, the processor uses for the next
        feedback[..active].iter_mut().for_each(|block| backend.encrypt_block_inplace(block));
    }
}

/// Decrypts one packet, whose IV and ciphertext are given: each block of them, encrypted, masks the
/// next one. From the end, so that no block is overwritten before it is used.
struct Decrypt<'a> {
    from_iv: &'a mut [u8],
}

impl BlockSizeUser for Decrypt<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Decrypt<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let span = B::ParBlocksSize::USIZE * BLOCK_LEN;
        let mut end = self.from_iv.len();
        while end > IV_LEN {
            // the first block of ciphertext to be decrypted now stands at `start + IV_LEN`
            let start = (end - IV_LEN - 1) / span * span;
            let mut blocks = ParBlocks::<B>::default();
            let count = (end - IV_LEN - start).div_ceil(BLOCK_LEN);
            let sources = self.from_iv[start..].chunks_exact(BLOCK_LEN);
            for (block, source) in blocks[..count].iter_mut().zip(sources) {
                block.copy_from_slice(source);
            }
            if count == B::ParBlocksSize::USIZE {
                backend.encrypt_par_blocks_inplace(&mut blocks);
            } else {
                backend.encrypt_tail_blocks_inplace(&mut blocks[..count]);
            }
            let ciphertext = self.from_iv[start + IV_LEN..end].chunks_mut(BLOCK_LEN);
            for (ciphertext, keystream) in ciphertext.zip(&blocks) {
                mask_some(ciphertext, keystream);
            }
            end = start + IV_LEN;
        }
    }
}

/// Masks a whole block and returns the result.
#[inline(always)]
fn mask(block: &mut [u8; BLOCK_LEN], keystream: &Block) -> Block {
    let masked = u128::from_ne_bytes(*block) ^ u128::from_ne_bytes((*keystream).into());
    *block = masked.to_ne_bytes();
    (*block).into()
}

/// Masks what is there of a block.
#[inline(always)]
fn mask_some(bytes: &mut [u8], keystream: &Block) {
    if let Ok(block) = <&mut [u8; BLOCK_LEN]>::try_from(&mut *bytes) {
        mask(block, keystream);
        return;
    }
    for (byte, keystream) in bytes.iter_mut().zip(keystream) {
        *byte ^= keystream;
    }
}

#[cfg(test)]
mod tests;
