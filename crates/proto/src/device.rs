//! The device key: Ed25519, made by the client at import. Its signature binds a log-in to one TLS
//! connection, so that a stolen token or enrolment secret alone opens nothing.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::keys::Proof;

/// What a signature is for. A signature for one purpose is no good for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A log-in with a password.
    Login,
    /// The use of an invitation.
    Enrol,
    /// Taking a session up again with its token.
    Resume,
}

impl Purpose {
    /// The signed bytes: `"cipherwall 1 " ‖ purpose ‖ 00 ‖ proof`.
    fn signed_bytes(self, proof: &Proof) -> Vec<u8> {
        let name: &[u8] = match self {
            Purpose::Login => b"login",
            Purpose::Enrol => b"enrol",
            Purpose::Resume => b"resume",
        };
        [b"cipherwall 1 ", name, &[0], &proof.0].concat()
    }
}

/// The private half of a device key.
pub struct DeviceKey(Ed25519KeyPair);

impl DeviceKey {
    /// The key that belongs to 32 random bytes.
    ///
    /// # Panics
    /// Never: every 32-byte string is an Ed25519 seed (RFC 8032, 5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        #[allow(clippy::expect_used)]
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are a seed"))
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.0.public_key().as_ref());
        public
    }

    /// Signs this TLS connection's proof.
    pub fn sign(&self, purpose: Purpose, proof: &Proof) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.0.sign(&purpose.signed_bytes(proof)).as_ref());
        bytes
    }
}

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceKey(..)")
    }
}

/// Whether `signature` was made by the device `public` for `purpose` on this TLS connection.
pub fn verify(public: &[u8; 32], purpose: Purpose, proof: &Proof, signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(&purpose.signed_bytes(proof), signature).is_ok()
}

/// The signature of a resume, which does not say whose it is: the gateway looks that up by the token
/// (A4).
#[derive(Debug, Clone)]
pub struct ResumeSignature {
    pub(crate) proof: Proof,
    pub(crate) signature: [u8; 64],
}

impl ResumeSignature {
    /// Whether it was made by the device with this public key, on the connection it came by.
    pub fn is_by(&self, public: &[u8; 32]) -> bool {
        verify(public, Purpose::Resume, &self.proof, &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_bound_to_device_purpose_and_connection() {
        let key = DeviceKey::from_seed(&[7; 32]);
        let signature = key.sign(Purpose::Login, &Proof([1; 32]));
        assert!(verify(&key.public(), Purpose::Login, &Proof([1; 32]), &signature));
        assert!(!verify(&key.public(), Purpose::Enrol, &Proof([1; 32]), &signature));
        assert!(!verify(&key.public(), Purpose::Resume, &Proof([1; 32]), &signature));
        assert!(!verify(&key.public(), Purpose::Login, &Proof([2; 32]), &signature));
        let other = DeviceKey::from_seed(&[8; 32]).public();
        assert!(!verify(&other, Purpose::Login, &Proof([1; 32]), &signature));
    }
}
