//! The keys of a session's datagrams, and how they reach those who seal and open.

use super::{Masks, Opener, Sealer, packet::PacketCipher, packet::PacketKeys};
use crate::{
    cipher::{Aead, CipherId, DatagramCipher},
    keys::{Chain, Direction, StreamKeys},
};

/// What both ends need for datagrams beside their stream, from epoch 0 on. From
/// [`crate::client::Opening::channel`] and [`crate::gateway::Established`].
pub struct Channel {
    cipher: DatagramCipher,
    index: u32,
    sealing: EpochKeys,
    opening: EpochKeys,
}

impl Channel {
    pub(crate) fn new(
        cipher: DatagramCipher,
        index: u32,
        chain: &Chain,
        sealing: Direction,
    ) -> Self {
        let keys = |direction| EpochKeys::new(cipher, chain, 0, direction);
        Self { cipher, index, sealing: keys(sealing), opening: keys(sealing.opposite()) }
    }

    /// The cipher.
    pub fn cipher(&self) -> DatagramCipher {
        self.cipher
    }

    /// The session in each datagram.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The two halves. `masks`: of the gateway that gave the index; `seed`: fresh random bytes.
    pub fn into_halves(self, masks: &Masks, seed: [u8; 32]) -> (Sealer, Opener) {
        let Self { cipher, index, sealing, opening } = self;
        (
            Sealer::new(cipher, index, masks.clone(), &sealing, seed),
            Opener::new(cipher, index, masks.clone(), &opening),
        )
    }
}

/// What a rekey changes ([`crate::tunnel::Tunnel::poll_key_change`]).
#[derive(Debug)]
pub enum KeyChange {
    /// The other end may use these from now on: for [`Opener::accept`].
    Accept(EpochKeys),
    /// This end uses these from now on: for [`Sealer::install`]. The epoch before is at its end: call
    /// [`Opener::advance`].
    Use(EpochKeys),
}

/// The keys of one direction in one epoch.
pub struct EpochKeys {
    pub(super) epoch: u32,
    direction: Direction,
    keys: Keys,
}

enum Keys {
    Aead(CipherId, StreamKeys),
    Packet(PacketKeys),
}

/// What seals and opens with the keys of an epoch.
pub(super) enum Cipher {
    Aead(Aead),
    Packet(PacketCipher),
}

impl EpochKeys {
    pub(crate) fn new(
        cipher: DatagramCipher,
        chain: &Chain,
        epoch: u32,
        direction: Direction,
    ) -> Self {
        let keys = match cipher {
            DatagramCipher::Aead(cipher) => Keys::Aead(cipher, chain.datagram_keys(direction)),
            DatagramCipher::Packet => Keys::Packet(chain.packet_keys(direction)),
        };
        Self { epoch, direction, keys }
    }

    /// The direction that these keys are for.
    pub(super) fn direction(&self) -> Direction {
        self.direction
    }

    pub(super) fn cipher(&self) -> Cipher {
        match &self.keys {
            Keys::Aead(cipher, keys) => Cipher::Aead(Aead::new(*cipher, keys)),
            Keys::Packet(keys) => Cipher::Packet(PacketCipher::new(keys)),
        }
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("cipher", &self.cipher).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for EpochKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EpochKeys").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
