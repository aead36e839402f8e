//! Static mode (B1, B2, B4): one gateway and one client with the same key file, without log-in,
//! sessions or rekey. A datagram is a [`packet`](super::packet) that holds one IP packet.
//!
//! The format leaves the IV to the sender. Ours is a number that the peer can read but nobody else:
//! role, run and counter, encrypted with a key of its own (`iv`). It tells the receiver which
//! packets are new (`replay`); whoever sends random IVs instead is a peer as well.
//!
//! Used by the crate `static-mode`, which runs it for both programs. The two directions have nothing
//! in common but the key: a [`Sealer`] and an [`Opener`].

mod echo;
mod iv;
mod key;
mod opener;
mod replay;
mod seen;

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

pub use echo::{IDLE, Keepalive, UNANSWERED};
pub use key::{KEY_DIGITS, KeyError, StaticKey};
pub use opener::{Opener, Packet, Refused};
pub use replay::Policy;

use self::iv::{Ivs, Mark, VALUE_MAX};
use super::packet::{IV_RANGE, PacketCipher};

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end whose traffic goes through the other one.
    Client,
    /// The end through which it goes.
    Gateway,
}

/// The inside addresses of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inside {
    /// 10.8.0.1 by default.
    pub gateway: Ipv4Addr,
    /// 10.8.0.2 by default.
    pub client: Ipv4Addr,
}

/// What has to be known at the next start: kept in the state directory, for each key and role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// The last run of this end.
    pub run: u64,
    /// How far the peer has come, once it is recognised as one of ours.
    pub peer: Option<Progress>,
    /// Whether only packets with a counter are taken from now on, where the policy is
    /// [`Policy::Auto`].
    pub nailed: bool,
}

/// A run of the peer and its highest counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The run.
    pub run: u64,
    /// The highest counter of an authentic packet.
    pub counter: u64,
}

/// There is no higher run number. Somebody has written it into the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored run number {0} is the highest there is, so no packet can be sent any more")]
pub struct LastRun(u64);

/// Begins a run of this end, at `unix_ms`. Its number must be stored before the first packet is
/// sent: [`Opener::poll_store`] gives it at once.
///
/// # Errors
/// [`LastRun`].
pub fn start(
    key: &StaticKey,
    role: Role,
    inside: Inside,
    policy: Policy,
    stored: Stored,
    unix_ms: u64,
) -> Result<(Sealer, Opener), LastRun> {
    let run = unix_ms.min(VALUE_MAX).max(stored.run.saturating_add(1));
    if run > VALUE_MAX {
        return Err(LastRun(stored.run));
    }
    let sealer = Sealer {
        cipher: PacketCipher::new(&key.packet_keys()),
        ivs: Ivs::new(key),
        next: Mark { role, run, counter: 0 },
    };
    let opener = Opener::new(key, role, inside, policy, Stored { run, ..stored });
    Ok((sealer, opener))
}

/// The sending direction.
pub struct Sealer {
    cipher: PacketCipher,
    ivs: Ivs,
    next: Mark,
}

impl Sealer {
    /// Seals packets where they stand: [`OVERHEAD`](super::packet::OVERHEAD) bytes of room, then one
    /// IP packet.
    pub fn seal<'a>(&mut self, packets: impl Iterator<Item = &'a mut [u8]>) {
        let Self { cipher, ivs, next } = self;
        cipher.seal(packets.map(|packet| with_iv(packet, ivs, next)));
    }
}

fn with_iv<'a>(packet: &'a mut [u8], ivs: &Ivs, next: &mut Mark) -> &'a mut [u8] {
    packet[IV_RANGE].copy_from_slice(&ivs.encrypt(*next));
    *next = next.successor();
    packet
}
