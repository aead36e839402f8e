//! The mask that hides the counter on the wire, as QUIC does it (RFC 9001, 5.4).

use aes::{
    Aes256,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use chacha20::{
    ChaCha20Legacy,
    cipher::{KeyIvInit, StreamCipher, StreamCipherSeek},
};
use zeroize::Zeroizing;

use super::NONCE_LEN;
use crate::{cipher::CipherId, keys::MaskKey};

/// How many bytes behind the nonce make its mask.
pub(super) const SAMPLE_LEN: usize = 16;

pub(super) enum Mask {
    /// `AES-256-ECB(key, sample)`.
    Aes(Box<Aes256>),
    /// `ChaCha20(key, block counter and nonce from the sample)`.
    ChaCha(Zeroizing<[u8; 32]>),
}

impl Mask {
    pub(super) fn new(cipher: CipherId, key: &MaskKey) -> Self {
        match cipher {
            CipherId::Aes256Gcm => Mask::Aes(Box::new(Aes256::new((&key.0).into()))),
            CipherId::ChaCha20Poly1305 => Mask::ChaCha(Zeroizing::new(key.0)),
        }
    }

    /// Masks or unmasks the nonce at the start of `bytes`; the sample follows it.
    ///
    /// # Panics
    /// If `bytes` is shorter than nonce and sample.
    pub(super) fn apply(&self, bytes: &mut [u8]) {
        let (nonce, rest) = bytes.split_at_mut(NONCE_LEN);
        let mut sample = [0; SAMPLE_LEN];
        sample.copy_from_slice(&rest[..SAMPLE_LEN]);
        for (byte, mask) in nonce.iter_mut().zip(self.mask(&sample)) {
            *byte ^= mask;
        }
    }

    fn mask(&self, sample: &[u8; SAMPLE_LEN]) -> [u8; NONCE_LEN] {
        let mut mask = [0; NONCE_LEN];
        match self {
            Mask::Aes(aes) => {
                let mut block = (*sample).into();
                aes.encrypt_block(&mut block);
                mask.copy_from_slice(&block[..NONCE_LEN]);
            }
            Mask::ChaCha(key) => {
                // The same block as with a counter of 32 bits and a nonce of 96 (RFC 8439); but
                // those of 64 bits each leave blocks behind the sample's, which the crate wants.
                let [c0, c1, c2, c3, c4, c5, c6, c7, nonce @ ..] = *sample;
                let blocks = u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
                let mut stream = ChaCha20Legacy::new((&**key).into(), (&nonce).into());
                // where 2^64 blocks are behind it there is no mask; both ends do the same
                let position = u128::from(blocks) * 64;
                if stream.try_seek(position).is_ok()
                    && stream.try_apply_keystream(&mut mask).is_err()
                {
                    mask = [0; NONCE_LEN];
                }
            }
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    /// RFC 9001, A.5: the ChaCha20 header protection sample and mask.
    #[test]
    fn chacha_mask_is_that_of_rfc_9001() {
        let key = bytes("25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4");
        let sample = bytes("5e5cd55c41f69080575d7999c25a5bfb");
        let mask = Mask::new(CipherId::ChaCha20Poly1305, &MaskKey(key.try_into().unwrap()));
        assert_eq!(mask.mask(sample.as_slice().try_into().unwrap())[..5], bytes("aefefe7d03"));
    }

    /// FIPS 197, C.3: AES-256 of one block.
    #[test]
    fn aes_mask_is_one_block_of_aes_256() {
        let key: Vec<u8> = (0..32).collect();
        let sample = bytes("00112233445566778899aabbccddeeff");
        let mask = Mask::new(CipherId::Aes256Gcm, &MaskKey(key.try_into().unwrap()));
        assert_eq!(mask.mask(sample.as_slice().try_into().unwrap())[..], bytes("8ea2b7ca516745bf"));
    }

    /// A block counter at the very end of its range, which a stranger can send, does not panic.
    #[test]
    fn every_sample_has_a_mask() {
        let mask = Mask::new(CipherId::ChaCha20Poly1305, &MaskKey([1; 32]));
        assert_eq!(mask.mask(&[0xff; SAMPLE_LEN]), [0; NONCE_LEN]);
        let mut sample = [0xff; SAMPLE_LEN];
        sample[4] = 0;
        assert_ne!(mask.mask(&sample), [0; NONCE_LEN]);
    }
}
