//! User names, salts and password pre-hashes (A3; docs/protocol.md, "Secrets").

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

/// The longest user name, in bytes of UTF-8 after normalisation.
pub const USER_NAME_MAX: usize = 64;

/// Why a user name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserNameError {
    /// Nothing is left after trimming.
    #[error("the user name is empty")]
    Empty,
    /// More than [`USER_NAME_MAX`] bytes.
    #[error("the user name has {0} bytes; at most {USER_NAME_MAX} are allowed")]
    TooLong(usize),
    /// A control character or white space within the name.
    #[error("the user name holds {0:?}; letters, digits and signs are allowed, white space is not")]
    Character(char),
}

/// The one form in which a user name is stored, compared and hashed: NFC, lower case, without
/// surrounding white space, 1 to 64 bytes.
pub fn normalise_user(name: &str) -> Result<String, UserNameError> {
    let name: String = name.trim().nfc().flat_map(char::to_lowercase).nfc().collect();
    if name.is_empty() {
        return Err(UserNameError::Empty);
    }
    if name.len() > USER_NAME_MAX {
        return Err(UserNameError::TooLong(name.len()));
    }
    match name.chars().find(|c| c.is_control() || c.is_whitespace()) {
        Some(c) => Err(UserNameError::Character(c)),
        None => Ok(name),
    }
}

/// The salt of a user: `HMAC-SHA256(salt key, user)[..16]`. It exists for unknown users too, so
/// that asking for it tells nothing. `user` is normalised.
pub fn salt(salt_key: &[u8; 32], user: &str) -> [u8; 16] {
    let mut mac = hmac_sha256(salt_key);
    mac.update(user.as_bytes());
    first_16(&mac.finalize().into_bytes())
}

/// What a client sends instead of its password: `SHA-256(NFC(password) ‖ salt)` (A3). The gateway
/// stores only Argon2id of it.
pub fn prehash(password: &str, salt: &[u8; 16]) -> [u8; 32] {
    let password: zeroize::Zeroizing<String> = password.nfc().collect::<String>().into();
    Sha256::new().chain_update(password.as_bytes()).chain_update(salt).finalize().into()
}

/// HMAC-SHA256 with a 32-byte key.
pub(crate) fn hmac_sha256(key: &[u8; 32]) -> Hmac<Sha256> {
    #[allow(clippy::expect_used)]
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// The first 16 of 32 bytes.
pub(crate) fn first_16(bytes: &[u8]) -> [u8; 16] {
    let mut head = [0; 16];
    head.copy_from_slice(&bytes[..16]);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        assert_eq!(normalise_user("  Ali ").unwrap(), "ali");
        // "e" with a combining acute accent, and the composed letter
        assert_eq!(normalise_user("Rene\u{301}").unwrap(), normalise_user("RENÉ").unwrap());
        assert_eq!(normalise_user(" "), Err(UserNameError::Empty));
        assert_eq!(normalise_user(&"x".repeat(65)), Err(UserNameError::TooLong(65)));
        assert_eq!(normalise_user("a b"), Err(UserNameError::Character(' ')));
    }

    #[test]
    fn prehash_is_sha256_of_password_and_salt() {
        // sha256("secret" ‖ 16 zero bytes), from an independent implementation
        let expected = Sha256::digest([b"secret".as_slice(), &[0; 16]].concat());
        assert_eq!(prehash("secret", &[0; 16]), <[u8; 32]>::from(expected));
        assert_eq!(prehash("Rene\u{301}", &[1; 16]), prehash("René", &[1; 16]));
    }

    #[test]
    fn salts_differ_by_user_and_key() {
        assert_ne!(salt(&[1; 32], "ali"), salt(&[1; 32], "sara"));
        assert_ne!(salt(&[1; 32], "ali"), salt(&[2; 32], "ali"));
    }
}
