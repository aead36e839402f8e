//! The ciphers of the tunnel and the choice between them (A6).

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};

use zeroize::Zeroizing;

use crate::keys::StreamKeys;

/// Length of the authentication tag, in bytes.
pub const TAG_LEN: usize = 16;

/// A cipher of the stream, by its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CipherId {
    /// ChaCha20-Poly1305 (RFC 8439): number 1.
    ChaCha20Poly1305,
    /// AES-256-GCM: number 2.
    Aes256Gcm,
}

impl CipherId {
    /// The number on the wire.
    pub fn wire(self) -> u8 {
        match self {
            CipherId::ChaCha20Poly1305 => 1,
            CipherId::Aes256Gcm => 2,
        }
    }

    /// The cipher with this number; `None` for one this version does not know.
    pub fn from_wire(number: u8) -> Option<Self> {
        [CipherId::ChaCha20Poly1305, CipherId::Aes256Gcm].into_iter().find(|c| c.wire() == number)
    }

    /// The name that users see and give.
    pub fn name(self) -> &'static str {
        match self {
            CipherId::ChaCha20Poly1305 => "chacha20-poly1305",
            CipherId::Aes256Gcm => "aes-256-gcm",
        }
    }

    /// What a client offers when the user leaves the choice to it, best first.
    pub fn auto(aes_hardware: bool) -> Vec<CipherId> {
        if aes_hardware {
            vec![CipherId::Aes256Gcm, CipherId::ChaCha20Poly1305]
        } else {
            vec![CipherId::ChaCha20Poly1305]
        }
    }

    /// The gateway's choice among the numbers a client offers, in the client's order: AES only
    /// where the gateway has hardware for it too, unless the client offers nothing else.
    pub fn choose(offered: &[u8], aes_hardware: bool) -> Option<CipherId> {
        let mut known = offered.iter().filter_map(|&n| CipherId::from_wire(n));
        let first = known.next()?;
        match first {
            CipherId::Aes256Gcm if !aes_hardware => {
                Some(known.find(|&c| c == CipherId::ChaCha20Poly1305).unwrap_or(first))
            }
            CipherId::Aes256Gcm | CipherId::ChaCha20Poly1305 => Some(first),
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            CipherId::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            CipherId::Aes256Gcm => &AES_256_GCM,
        }
    }
}

/// A cipher of the datagrams, by its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatagramCipher {
    /// An AEAD, as in the stream: numbers 1 and 2.
    Aead(CipherId),
    /// CipherWall packets with keys of the session (B3), AES-256-CFB with HMAC-SHA256: number 3.
    Packet,
}

impl DatagramCipher {
    /// The number on the wire.
    pub fn wire(self) -> u8 {
        match self {
            DatagramCipher::Aead(cipher) => cipher.wire(),
            DatagramCipher::Packet => 3,
        }
    }

    /// The cipher with this number; `None` for one this version does not know.
    pub fn from_wire(number: u8) -> Option<Self> {
        match number {
            3 => Some(DatagramCipher::Packet),
            _ => CipherId::from_wire(number).map(DatagramCipher::Aead),
        }
    }

    /// The name that users see and give.
    pub fn name(self) -> &'static str {
        match self {
            DatagramCipher::Aead(cipher) => cipher.name(),
            DatagramCipher::Packet => "aes-256-cfb-hmac-sha256",
        }
    }

    /// What a client offers when the user leaves the choice to it, best first.
    pub fn auto(aes_hardware: bool) -> Vec<DatagramCipher> {
        CipherId::auto(aes_hardware).into_iter().map(DatagramCipher::Aead).collect()
    }

    /// The gateway's choice among the numbers a client offers, as [`CipherId::choose`].
    pub fn choose(offered: &[u8], aes_hardware: bool) -> Option<DatagramCipher> {
        match offered.iter().find_map(|&number| DatagramCipher::from_wire(number))? {
            DatagramCipher::Packet => Some(DatagramCipher::Packet),
            DatagramCipher::Aead(_) => {
                CipherId::choose(offered, aes_hardware).map(DatagramCipher::Aead)
            }
        }
    }
}

impl std::fmt::Display for CipherId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Display for DatagramCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One direction's AEAD key.
pub(crate) struct Aead {
    key: LessSafeKey,
    iv: Zeroizing<[u8; 12]>,
}

impl Aead {
    pub(crate) fn new(cipher: CipherId, keys: &StreamKeys) -> Self {
        #[allow(clippy::expect_used)]
        let key = UnboundKey::new(cipher.algorithm(), &keys.key).expect("both keys have 32 bytes");
        Self { key: LessSafeKey::new(key), iv: Zeroizing::new(keys.iv) }
    }

    /// `iv XOR (0^4 ‖ nonce)`.
    fn nonce(&self, nonce: &[u8; 8]) -> Nonce {
        let mut full = *self.iv;
        for (byte, n) in full[4..].iter_mut().zip(nonce) {
            *byte ^= n;
        }
        Nonce::assume_unique_for_key(full)
    }

    /// Encrypts `plaintext` where it stands; the tag goes to `tag`.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; 8],
        aad: &[u8],
        plaintext: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), aws_lc_rs::error::Unspecified> {
        let sealed =
            self.key.seal_in_place_separate_tag(self.nonce(nonce), Aad::from(aad), plaintext)?;
        tag.copy_from_slice(sealed.as_ref());
        Ok(())
    }

    /// Opens `ciphertext` with its `tag` into `plaintext`, which has the same length.
    pub(crate) fn open(
        &self,
        nonce: &[u8; 8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), aws_lc_rs::error::Unspecified> {
        let nonce = self.nonce(nonce);
        self.key.open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, plaintext)
    }

    /// Opens `sealed`, the ciphertext with its tag, where it stands.
    pub(crate) fn open_in_place<'a>(
        &self,
        nonce: &[u8; 8],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], aws_lc_rs::error::Unspecified> {
        self.key.open_in_place(self.nonce(nonce), Aad::from(aad), sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CipherId::{Aes256Gcm, ChaCha20Poly1305};

    #[test]
    fn aes_needs_hardware_at_both_ends() {
        assert_eq!(CipherId::choose(&[2, 1], true), Some(Aes256Gcm));
        assert_eq!(CipherId::choose(&[2, 1], false), Some(ChaCha20Poly1305));
        assert_eq!(CipherId::choose(&[1], true), Some(ChaCha20Poly1305));
        // the user insists
        assert_eq!(CipherId::choose(&[2], false), Some(Aes256Gcm));
        assert_eq!(CipherId::choose(&[1, 2], true), Some(ChaCha20Poly1305));
    }

    #[test]
    fn unknown_ciphers_are_passed_over() {
        assert_eq!(CipherId::choose(&[9, 1], true), Some(ChaCha20Poly1305));
        assert_eq!(CipherId::choose(&[9], true), None);
        assert_eq!(CipherId::choose(&[], true), None);
        assert_eq!(CipherId::choose(&[3, 1], true), Some(ChaCha20Poly1305));
    }

    #[test]
    fn datagrams_have_a_cipher_more() {
        use DatagramCipher::{Aead, Packet};
        assert_eq!(DatagramCipher::choose(&[3, 2], true), Some(Packet));
        assert_eq!(DatagramCipher::choose(&[9, 2, 3, 1], true), Some(Aead(Aes256Gcm)));
        assert_eq!(DatagramCipher::choose(&[2, 1], false), Some(Aead(ChaCha20Poly1305)));
        assert_eq!(DatagramCipher::choose(&[], true), None);
        for number in 0..=255 {
            let read = DatagramCipher::from_wire(number).map(DatagramCipher::wire);
            assert_eq!(read, (1..=3).contains(&number).then_some(number));
        }
    }
}
