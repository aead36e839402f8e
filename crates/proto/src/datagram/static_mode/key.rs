//! The key file: 128 hexadecimal digits, the first half the AES key, the last half the HMAC key.

use std::fmt::Write;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::datagram::packet::PacketKeys;
use crate::keys::expand;

/// How many digits a key file has.
pub const KEY_DIGITS: usize = 2 * KEY_LEN;

const KEY_LEN: usize = 64;

/// The secret that both ends have.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct StaticKey([u8; KEY_LEN]);

/// Why the contents of a file are no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Something that is no digit.
    #[error("character {position} is not a hexadecimal digit")]
    NotHexadecimal {
        /// Counted from 1.
        position: usize,
    },
    /// Too many or too few.
    #[error("it has {0} hexadecimal digits instead of {KEY_DIGITS}")]
    Length(usize),
}

impl StaticKey {
    /// Of random bytes.
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Reads the contents of a key file: the digits, in either case, and the end of their line,
    /// which may be missing.
    ///
    /// # Errors
    /// Anything else. The error says nothing of the digits.
    pub fn parse(text: &[u8]) -> Result<Self, KeyError> {
        let digits = text.strip_suffix(b"\n").unwrap_or(text);
        let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
        if let Some(position) = digits.iter().position(|byte| !byte.is_ascii_hexdigit()) {
            return Err(KeyError::NotHexadecimal { position: position + 1 });
        }
        let (pairs, []) = digits.as_chunks::<2>() else {
            return Err(KeyError::Length(digits.len()));
        };
        let pairs: &[_; KEY_LEN] = pairs.try_into().map_err(|_| KeyError::Length(digits.len()))?;
        Ok(Self(pairs.map(|[high, low]| value(high) << 4 | value(low))))
    }

    /// The contents of a key file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(KEY_DIGITS + 1));
        for byte in self.0 {
            // a string takes whatever is written to it
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
        text
    }

    /// A name for files that belong to this key. Says nothing of it.
    pub fn id(&self) -> String {
        let mut id = [0; 8];
        self.derive("id", &mut id);
        id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The keys of the packets.
    pub(super) fn packet_keys(&self) -> PacketKeys {
        let mut keys = PacketKeys { enc: [0; 32], mac: [0; 32] };
        let (enc, mac) = self.0.split_at(32);
        keys.enc.copy_from_slice(enc);
        keys.mac.copy_from_slice(mac);
        keys
    }

    /// `X(HKDF-Extract(salt = "cipherwall static", IKM = key), label, "", n)`.
    pub(super) fn derive(&self, label: &str, out: &mut [u8]) {
        let (mut extracted, _) = Hkdf::<Sha256>::extract(Some(b"cipherwall static"), &self.0);
        expand(&extracted, label, b"", out);
        extracted.as_mut_slice().zeroize();
    }
}

impl std::fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StaticKey")
    }
}

/// Of a hexadecimal digit.
fn value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_half_encrypts_and_the_last_half_authenticates() {
        let text = format!("{}{}\n", "0123456789abcdef".repeat(4), "fedcba9876543210".repeat(4));
        let key = StaticKey::parse(text.as_bytes()).unwrap();
        let keys = key.packet_keys();
        assert_eq!(keys.enc[..8], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        assert_eq!(keys.mac[..8], [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10]);
        assert_eq!(*key.to_text(), text);
        for same in [text.to_uppercase(), text.trim().to_owned(), text.replace('\n', "\r\n")] {
            assert_eq!(StaticKey::parse(same.as_bytes()), Ok(key.clone()), "{same:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let digits = "a".repeat(KEY_DIGITS);
        for (text, expected) in [
            (String::new(), KeyError::Length(0)),
            (digits[1..].to_owned(), KeyError::Length(127)),
            (digits[2..].to_owned() + "\n", KeyError::Length(126)),
            (digits.clone() + "aa\n", KeyError::Length(130)),
            (digits.clone() + "\n\n", KeyError::NotHexadecimal { position: 129 }),
            (format!(" {digits}"), KeyError::NotHexadecimal { position: 1 }),
            (digits.replacen('a', "g", 1), KeyError::NotHexadecimal { position: 1 }),
        ] {
            assert_eq!(StaticKey::parse(text.as_bytes()), Err(expected), "{text:?}");
        }
        assert!(StaticKey::parse(&[0xff; KEY_DIGITS]).is_err());
    }

    #[test]
    fn nothing_of_the_key_is_shown() {
        assert_eq!(format!("{:?}", StaticKey::new([7; 64])), "StaticKey");
        let id = StaticKey::new([7; 64]).id();
        assert_eq!(id.len(), 16);
        assert_ne!(id, StaticKey::new([8; 64]).id());
    }
}
