//! Keys in memory and in files.

use std::fmt;
use std::ops::Deref;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// `N` secret bytes: wiped when dropped, never shown by `Debug`, base64 in JSON.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Random bytes from the operating system.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut secret = Self([0; N]);
        getrandom::fill(&mut secret.0)?;
        Ok(secret)
    }
}

impl<const N: usize> From<[u8; N]> for Secret<N> {
    fn from(bytes: [u8; N]) -> Self {
        Self(bytes)
    }
}

impl<const N: usize> Deref for Secret<N> {
    type Target = [u8; N];

    fn deref(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<const N: usize> Serialize for Secret<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.0)))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Secret<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // The text must stay out of the error.
        let bytes = STANDARD.decode(text.as_bytes()).map(Zeroizing::new).ok();
        let bytes = bytes.and_then(|bytes| <[u8; N]>::try_from(bytes.as_slice()).ok());
        bytes.map(Self).ok_or_else(|| de::Error::custom(format!("expected {N} bytes in base64")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_base64_in_json_and_hidden_elsewhere() {
        let secret = Secret::from([7; 4]);
        let json = serde_json::to_string(&secret).expect("JSON");
        assert_eq!(json, "\"BwcHBw==\"");
        assert_eq!(serde_json::from_str::<Secret<4>>(&json).expect("read"), secret);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        let error = serde_json::from_str::<Secret<16>>(&json).expect_err("too short").to_string();
        assert!(error.contains("16 bytes") && !error.contains("BwcHBw"), "{error}");
    }
}
