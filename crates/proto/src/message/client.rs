//! What a client asks before the tunnel.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

/// One message of a client: what it can do, and what it wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClientMessage<R = Request> {
    /// What it can do.
    #[serde(flatten)]
    pub offer: Offer,
    /// What it wants.
    pub request: R,
}

/// What a client can do; part of every message, so that each stands alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Offer {
    /// Lowest and highest protocol version.
    pub versions: (u8, u8),
    /// Name and version of the program, for the gateway's log.
    pub program: String,
    /// Cipher numbers, best first.
    pub ciphers: Vec<u8>,
    /// The transport it wants for its data.
    pub transport: String,
    /// Numbers of datagram ciphers, best first; none if it does not want datagrams. Exactly one, or
    /// none, with a resume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datagrams: Vec<u8>,
}

/// What a client wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Request {
    /// The salt of a user, when the profile has none for that name.
    GetSalt {
        /// The user name, normalised.
        user: String,
    },
    /// A log-in with a password (A3).
    Login(Login),
    /// The use of an invitation, by a new device or by the one that has used it (C1).
    Enrol(Enrol),
    /// A session that goes on (A4, A9). Tunnel records follow at once: the offer of this message
    /// holds nothing but the session's version and cipher.
    Resume(Resume),
}

/// A log-in with a password.
#[derive(Clone, Serialize, Deserialize)]
pub struct Login {
    /// The user name, normalised.
    pub user: String,
    /// [`crate::credential::prehash`] of the password.
    pub prehash: ByteArray<32>,
    /// The device's public key.
    pub device: ByteArray<32>,
    /// The device's signature over this connection's proof, for `login`.
    pub sig: ByteArray<64>,
}

/// The use of an invitation.
#[derive(Clone, Serialize, Deserialize)]
pub struct Enrol {
    /// The invitation's secret.
    pub secret: ByteArray<16>,
    /// The device's public key.
    pub device: ByteArray<32>,
    /// The device's signature over this connection's proof, for `enrol`.
    pub sig: ByteArray<64>,
    /// A password for a user who has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prehash: Option<ByteArray<32>>,
}

/// A session that goes on.
#[derive(Clone, Serialize, Deserialize)]
pub struct Resume {
    /// The session token.
    pub token: ByteArray<16>,
    /// The device's signature over this connection's proof, for `resume`.
    pub sig: ByteArray<64>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Enrol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrol").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Resume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resume").finish_non_exhaustive()
    }
}
