//! New keys for a running connection (A7; docs/protocol.md, "Rekey").
//!
//! ```text
//!  gateway -> client   Rekey      {epoch e + 1, random, X25519 public}
//!  client -> gateway   RekeyReply {epoch e + 1, X25519 public}    its next record is of e + 1
//!  gateway -> client   RekeyDone  {epoch e + 1}                   its next record is of e + 1
//! ```
//!
//! Each end changes its sending key right behind its own frame, and its receiving key right behind
//! the other end's. A stream keeps its order, so that no record is ever opened with the wrong key.
//!
//! Datagrams keep no order: their receivers accept the next epoch as soon as they can compute it, and
//! the one before for a while ([`KeyChange`]).
//!
//! Only the gateway starts; the client answers, and may ask for a rekey. Used by
//! [`crate::tunnel::Tunnel`], which passes frames, time and randomness on.

mod client;
mod gateway;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use sha2::{Digest, Sha256};

use crate::{
    cipher::DatagramCipher,
    datagram::{self, EpochKeys, KeyChange},
    frame::RekeyFrame,
    keys::{Chain, Direction, StreamKeys},
    record::{Opener, Usage},
};

/// Records of an epoch and a direction after which there must be a rekey.
pub const RECORDS_MAX: u64 = 1 << 24;
/// Bytes of records of an epoch and a direction after which there must be a rekey: 64 GiB.
pub const BYTES_MAX: u64 = 64 << 30;
/// Datagrams of an epoch and a direction after which there must be a rekey.
pub const DATAGRAMS_MAX: u64 = 1 << 26;
/// Datagrams that were not authentic under one key, after which there must be a rekey.
pub const FAILURES_MAX: u64 = 1 << 30;
/// How long a key may be in use, ±10%.
pub const INTERVAL: Duration = Duration::from_secs(4 * 3_600);

/// How long the other end may take for its step.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How far a key may be used up in either direction before there is a rekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records; at most [`RECORDS_MAX`].
    pub records: u64,
    /// Bytes of records, and of datagrams; at most [`BYTES_MAX`].
    pub bytes: u64,
    /// Datagrams; at most [`DATAGRAMS_MAX`].
    pub datagrams: u64,
    /// Datagrams that were not authentic; at most [`FAILURES_MAX`].
    pub failures: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            records: RECORDS_MAX,
            bytes: BYTES_MAX,
            datagrams: DATAGRAMS_MAX,
            failures: FAILURES_MAX,
        }
    }
}

impl Limits {
    fn are_reached(&self, usage: &Usage) -> bool {
        usage.records >= self.records || usage.bytes >= self.bytes
    }

    fn are_reached_by_datagrams(&self, usage: &datagram::Usage) -> bool {
        usage.datagrams >= self.datagrams
            || usage.bytes >= self.bytes
            || usage.failures >= self.failures
    }
}

/// When a gateway starts a rekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// After this time, ±10%.
    pub interval: Duration,
    /// After this much traffic.
    pub limits: Limits,
}

impl Default for Policy {
    fn default() -> Self {
        Self { interval: INTERVAL, limits: Limits::default() }
    }
}

/// Which end of a tunnel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client, and when it asks for a rekey.
    Client(Limits),
    /// The gateway, and when it starts a rekey.
    Gateway(Policy),
}

/// The rekeys of one connection, at either end.
#[derive(Debug)]
pub(crate) enum Rekeying {
    Client(client::Client),
    Gateway(gateway::Gateway),
}

impl Rekeying {
    /// For a connection that begins now; `seed` decides the jitter.
    pub(crate) fn new(now: Instant, side: Side, seed: u64) -> Self {
        match side {
            Side::Client(limits) => Rekeying::Client(client::Client::new(limits)),
            Side::Gateway(policy) => Rekeying::Gateway(gateway::Gateway::new(now, policy, seed)),
        }
    }

    /// A step of the other end's. The opener changes its key if the next record is one of the next
    /// epoch.
    pub(crate) fn handle_frame(
        &mut self,
        now: Instant,
        frame: &RekeyFrame,
        opener: &mut Opener,
    ) -> Result<Option<Outgoing>, RekeyError> {
        match self {
            Rekeying::Client(client) => client.handle_frame(now, frame, opener).map(|()| None),
            Rekeying::Gateway(gateway) => gateway.handle_frame(now, frame, opener).map(Some),
        }
    }

    /// The client asks for a rekey. A client has nobody to ask it.
    pub(crate) fn handle_please(&mut self, now: Instant) {
        match self {
            Rekeying::Client(_) => {}
            Rekeying::Gateway(gateway) => gateway.handle_please(now),
        }
    }

    /// How far the present keys are used up.
    pub(crate) fn handle_usage(&mut self, sealed: &Usage, opened: &Usage) -> Option<Outgoing> {
        match self {
            Rekeying::Client(client) => client.handle_usage(sealed, opened),
            Rekeying::Gateway(gateway) => {
                gateway.handle_usage(sealed, opened);
                None
            }
        }
    }

    /// How far the present keys of the datagrams are used up.
    pub(crate) fn handle_datagram_usage(
        &mut self,
        usages: [&datagram::Usage; 2],
        epoch: u32,
    ) -> Option<Outgoing> {
        match self {
            Rekeying::Client(client) => client.handle_datagram_usage(usages, epoch),
            Rekeying::Gateway(gateway) => {
                gateway.handle_datagram_usage(usages, epoch);
                None
            }
        }
    }

    /// The datagrams beside the stream have this cipher: rekeys change their keys, too.
    pub(crate) fn set_datagrams(&mut self, cipher: DatagramCipher) {
        match self {
            Rekeying::Client(client) => client.changes.cipher = Some(cipher),
            Rekeying::Gateway(gateway) => gateway.changes.cipher = Some(cipher),
        }
    }

    /// The next change of the datagrams' keys.
    pub(crate) fn poll_key_change(&mut self) -> Option<KeyChange> {
        match self {
            Rekeying::Client(client) => client.changes.queue.pop_front(),
            Rekeying::Gateway(gateway) => gateway.changes.queue.pop_front(),
        }
    }

    /// Whether the next step needs [`Rekeying::handle_randomness`].
    pub(crate) fn wants_randomness(&self) -> bool {
        match self {
            Rekeying::Client(client) => client.wants_randomness(),
            Rekeying::Gateway(gateway) => gateway.wants_randomness(),
        }
    }

    /// Takes the step that waits for randomness.
    pub(crate) fn handle_randomness(
        &mut self,
        now: Instant,
        randomness: &Randomness,
        opener: &Opener,
    ) -> Result<Option<Outgoing>, RekeyError> {
        match self {
            Rekeying::Client(client) => client.handle_randomness(randomness, opener),
            Rekeying::Gateway(gateway) => Ok(gateway.handle_randomness(now, randomness, opener)),
        }
    }

    /// When [`Rekeying::handle_timeout`] is due, if ever.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Rekeying::Client(client) => client.poll_timeout(),
            Rekeying::Gateway(gateway) => gateway.poll_timeout(),
        }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), RekeyError> {
        match self {
            Rekeying::Client(client) => client.handle_timeout(now),
            Rekeying::Gateway(gateway) => gateway.handle_timeout(now),
        }
    }
}

/// What rekeys do to the datagrams beside the stream, if there are any.
#[derive(Debug, Default)]
struct KeyChanges {
    cipher: Option<DatagramCipher>,
    queue: VecDeque<KeyChange>,
}

impl KeyChanges {
    /// The other end may use the keys of this chain from now on.
    fn accept(&mut self, chain: &Chain, epoch: u32, direction: Direction) {
        if let Some(cipher) = self.cipher {
            let keys = EpochKeys::new(cipher, chain, epoch, direction);
            self.queue.push_back(KeyChange::Accept(keys));
        }
    }

    /// This end uses the keys of this chain from now on.
    fn switch(&mut self, chain: &Chain, epoch: u32, direction: Direction) {
        if let Some(cipher) = self.cipher {
            let keys = EpochKeys::new(cipher, chain, epoch, direction);
            self.queue.push_back(KeyChange::Use(keys));
        }
    }
}

/// Fresh random bytes for one step of a rekey. Never to be used twice.
#[derive(zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct Randomness {
    /// This end's X25519 secret.
    pub secret: [u8; 32],
    /// What the gateway adds to the new chain.
    pub random: [u8; 32],
}

/// Why a rekey ended the connection, not the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RekeyError {
    /// A step that nobody waits for, or that only the other end takes.
    #[error("a step of a rekey out of order")]
    Unexpected,
    /// Another epoch than the next.
    #[error("a rekey to epoch {got} instead of {expected}")]
    Epoch {
        /// What it should have been.
        expected: u32,
        /// What it was.
        got: u32,
    },
    /// A public key that makes the shared secret known to everybody.
    #[error("a rekey with an unusable public key")]
    PublicKey,
    /// The other end did not take its step in time.
    #[error("no answer to a rekey within 30 s")]
    Timeout,
}

/// A frame that must not be left out, and what follows it.
#[derive(Debug)]
pub struct Outgoing {
    /// The bytes of the frame.
    pub frame: Vec<u8>,
    /// If there are any, the frame is the last of its record, and the next record is sealed with
    /// these keys.
    pub next_keys: Option<StreamKeys>,
}

/// An epoch must be the one after the present one.
fn check_epoch(current: u32, got: u32) -> Result<(), RekeyError> {
    let expected = current.wrapping_add(1);
    if got == expected { Ok(()) } else { Err(RekeyError::Epoch { expected, got }) }
}

/// One end's X25519 key for one rekey.
struct Share(PrivateKey);

impl Share {
    fn new(secret: &[u8; 32]) -> Self {
        #[allow(clippy::expect_used)]
        let key = PrivateKey::from_private_key(&X25519, secret).expect("any 32 bytes are a key");
        Self(key)
    }

    fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        #[allow(clippy::expect_used)]
        let key = self.0.compute_public_key().expect("every private key has a public one");
        public.copy_from_slice(key.as_ref());
        public
    }

    /// The chain behind `chain`. An all-zero shared secret is an error.
    fn agree(
        &self,
        theirs: &[u8; 32],
        chain: &Chain,
        random: &[u8; 32],
        start: &RekeyFrame,
        reply: &RekeyFrame,
    ) -> Result<Chain, RekeyError> {
        let hash = Sha256::new().chain_update(start.payload()).chain_update(reply.payload());
        let transcript: [u8; 32] = hash.finalize().into();
        let theirs = UnparsedPublicKey::new(&X25519, theirs);
        agreement::agree(&self.0, theirs, RekeyError::PublicKey, |shared| {
            Ok(chain.next(shared, random, &transcript))
        })
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Share(..)")
    }
}

impl std::fmt::Debug for Randomness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Randomness(..)")
    }
}

/// The instant by which a step must have been answered.
fn answer_by(since: Instant) -> Instant {
    since + ANSWER_WITHIN
}
