//! The key schedule: every key of a connection, derived from the TLS exporter
//! (docs/protocol.md, "Keys"). TLS's own keys are never used.

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::datagram::packet::PacketKeys;
use crate::{
    cipher::{CipherId, DatagramCipher},
    credential::{first_16, hmac_sha256},
};
use hmac::Mac;

/// The label under which the TLS exporter gives the root of all keys (RFC 8446, 7.5).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-CipherWall-1";

/// `X(secret, label, context, n)`: HKDF-Expand-SHA256 with the info
/// `"cipherwall 1 " ‖ label ‖ 00 ‖ context`.
///
/// # Panics
/// If `out` is longer than 255 hashes (8,160 bytes), or `secret` shorter than a hash.
pub fn expand(secret: &[u8], label: &str, context: &[u8], out: &mut [u8]) {
    #[allow(clippy::expect_used)]
    Hkdf::<Sha256>::from_prk(secret)
        .expect("the secret has at least 32 bytes")
        .expand_multi_info(&[b"cipherwall 1 ", label.as_bytes(), &[0], context], out)
        .expect("the output is short");
}

/// The root secret of one TLS connection, from its exporter.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Root(pub [u8; 32]);

/// What device keys sign to bind a log-in to this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof(pub [u8; 32]);

/// The door key G: it proves "invited", hides the gateway from strangers, protects no traffic.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct DoorKey(pub [u8; 32]);

impl DoorKey {
    /// Four bytes that tell the gateway which of its door keys is meant: `SHA-256(G)[..4]`.
    pub fn id(&self) -> [u8; 4] {
        let hash = Sha256::digest(self.0);
        [hash[0], hash[1], hash[2], hash[3]]
    }
}

impl Root {
    /// The knock: `HMAC-SHA256(G, X(root, "knock", "", 32))[..16]`.
    pub fn knock(&self, door: &DoorKey) -> [u8; 16] {
        let mut secret = [0; 32];
        expand(&self.0, "knock", b"", &mut secret);
        let mut mac = hmac_sha256(&door.0);
        mac.update(&secret);
        secret.zeroize();
        first_16(&mac.finalize().into_bytes())
    }

    /// The proof: `X(root, "proof", "", 32)`.
    pub fn proof(&self) -> Proof {
        let mut proof = [0; 32];
        expand(&self.0, "proof", b"", &mut proof);
        Proof(proof)
    }

    /// `chain_0 = X(root, "chain", session id ‖ version ‖ stream cipher ‖ datagram cipher, 32)`;
    /// without datagrams their byte is 0.
    pub fn chain(
        &self,
        session_id: &[u8; 16],
        version: u8,
        cipher: CipherId,
        datagram: Option<DatagramCipher>,
    ) -> Chain {
        let mut context = [0; 19];
        context[..16].copy_from_slice(session_id);
        context[16] = version;
        context[17] = cipher.wire();
        context[18] = datagram.map_or(0, DatagramCipher::wire);
        let mut chain = [0; 32];
        expand(&self.0, "chain", &context, &mut chain);
        Chain(chain)
    }
}

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Client to gateway.
    ClientToServer,
    /// Gateway to client.
    ServerToClient,
}

impl Direction {
    /// The name of the direction in key labels.
    fn label(self) -> &'static str {
        match self {
            Direction::ClientToServer => "c2s",
            Direction::ServerToClient => "s2c",
        }
    }

    /// The number of the direction in datagrams.
    pub(crate) fn wire(self) -> u8 {
        match self {
            Direction::ClientToServer => 0,
            Direction::ServerToClient => 1,
        }
    }

    /// The other one.
    pub(crate) fn opposite(self) -> Self {
        match self {
            Direction::ClientToServer => Direction::ServerToClient,
            Direction::ServerToClient => Direction::ClientToServer,
        }
    }
}

/// The chain secret of an epoch, from which its keys come.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Chain(pub [u8; 32]);

impl Chain {
    /// The keys of the stream in one direction, for this epoch.
    pub fn stream_keys(&self, direction: Direction) -> StreamKeys {
        let d = direction.label();
        let mut keys = StreamKeys { key: [0; 32], iv: [0; 12] };
        expand(&self.0, &format!("key stream {d}"), b"", &mut keys.key);
        expand(&self.0, &format!("iv stream {d}"), b"", &mut keys.iv);
        keys
    }

    /// The key that masks the nonces of one direction. Only `chain_0` has one: it stays for the
    /// connection.
    pub fn mask_key(&self, direction: Direction) -> MaskKey {
        let mut mask = MaskKey([0; 32]);
        expand(&self.0, &format!("mask {}", direction.label()), b"", &mut mask.0);
        mask
    }

    /// The keys of the datagrams in one direction, for this epoch (ciphers 1 and 2).
    pub fn datagram_keys(&self, direction: Direction) -> StreamKeys {
        let d = direction.label();
        let mut keys = StreamKeys { key: [0; 32], iv: [0; 12] };
        expand(&self.0, &format!("key dgram {d}"), b"", &mut keys.key);
        expand(&self.0, &format!("iv dgram {d}"), b"", &mut keys.iv);
        keys
    }

    /// The keys of the datagrams in one direction, for this epoch (cipher 3).
    pub fn packet_keys(&self, direction: Direction) -> PacketKeys {
        let d = direction.label();
        let mut keys = PacketKeys { enc: [0; 32], mac: [0; 32] };
        expand(&self.0, &format!("cw enc {d}"), b"", &mut keys.enc);
        expand(&self.0, &format!("cw mac {d}"), b"", &mut keys.mac);
        keys
    }

    /// The chain of the next epoch (A7): `HKDF-Extract-SHA256(salt = this chain, IKM = shared ‖
    /// random ‖ transcript)`. `transcript`: SHA-256 of the payloads of `Rekey` and `RekeyReply`.
    pub(crate) fn next(&self, shared: &[u8], random: &[u8; 32], transcript: &[u8; 32]) -> Chain {
        let input = Zeroizing::new([shared, random, transcript].concat());
        let (mut extracted, _) = Hkdf::<Sha256>::extract(Some(&self.0), &input);
        let mut chain = Chain([0; 32]);
        chain.0.copy_from_slice(&extracted);
        extracted.zeroize();
        chain
    }
}

/// The keys of one direction of a stream, or of AEAD datagrams, in one epoch.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StreamKeys {
    /// The AEAD key.
    pub key: [u8; 32],
    /// What the nonce is combined with.
    pub iv: [u8; 12],
}

/// The key that masks the nonces of one direction on the wire, for a whole connection.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MaskKey(pub [u8; 32]);

macro_rules! redacted {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )*};
}
redacted!(Root, DoorKey, Chain, StreamKeys, MaskKey);
