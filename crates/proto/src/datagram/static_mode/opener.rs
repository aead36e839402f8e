//! The receiving direction.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use cipherwall_packet::ip;

use super::{
    Inside, Policy, Role, StaticKey, Stored,
    iv::Ivs,
    replay::{Replay, Verdict},
};
use crate::datagram::packet::{IV_RANGE, OVERHEAD, PacketCipher};

/// How often the peer's progress is stored.
const STORE_EVERY: Duration = Duration::from_secs(1);

/// Opens datagrams of the peer.
pub struct Opener {
    cipher: PacketCipher,
    ivs: Ivs,
    role: Role,
    inside: Inside,
    replay: Replay,
    run: u64,
    stored: Option<(Instant, Stored)>,
}

/// An IP packet from the peer.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The whole IP packet, with right version, length and address.
    pub bytes: &'a [u8],
    /// No packet came that was sent later, so where it came from is where the peer is.
    pub newest: bool,
    /// By this packet the peer has been recognised as one of ours; [`Policy::Auto`] is
    /// [`Policy::Counter`] from now on.
    pub nailed: bool,
}

/// Why a datagram was dropped. The sender never learns of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// Noise, or of another key.
    NotAuthentic,
    /// One of our own packets has come back.
    Reflected,
    /// It came before, or is too old to tell.
    Replayed,
    /// Of a run before the current one: replayed, or the peer has lost its state directory and its
    /// clock was set back.
    OldRun,
    /// It has a random IV, while the peer is known to be one of ours.
    NoCounter,
    /// Not exactly one IP packet.
    Malformed,
    /// An IP packet with an address that is not the peer's, or not for us.
    ForeignAddress,
}

impl Opener {
    pub(super) fn new(
        key: &StaticKey,
        role: Role,
        inside: Inside,
        policy: Policy,
        stored: Stored,
    ) -> Self {
        Self {
            cipher: PacketCipher::new(&key.packet_keys()),
            ivs: Ivs::new(key),
            role,
            inside,
            replay: Replay::new(policy, stored.peer, stored.nailed),
            run: stored.run,
            stored: None,
        }
    }

    /// Opens datagrams in their order. Whatever comes with each is handed through.
    pub fn open_each<'a, T>(
        &mut self,
        datagrams: impl Iterator<Item = (T, &'a mut [u8])>,
        mut each: impl FnMut(T, Result<Packet<'a>, Refused>),
    ) {
        let Self { cipher, ivs, role, inside, replay, .. } = self;
        cipher.open_each(datagrams, |with, opened| {
            let packet = opened.ok_or(Refused::NotAuthentic);
            each(with, packet.and_then(|opened| judge(opened, ivs, *role, *inside, replay)));
        });
    }

    /// Opens one datagram.
    ///
    /// # Errors
    /// Why it is to be dropped.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<Packet<'a>, Refused> {
        let mut result = Err(Refused::NotAuthentic);
        self.open_each([((), datagram)].into_iter(), |(), opened| result = opened);
        result
    }

    /// What has to be stored now, if that is not stored yet: at once after the start, then every
    /// second.
    pub fn poll_store(&mut self, now: Instant) -> Option<Stored> {
        let state = self.state();
        let is_due = match &self.stored {
            None => true,
            Some((at, stored)) => *stored != state && now >= *at + STORE_EVERY,
        };
        is_due.then(|| {
            self.stored = Some((now, state));
            state
        })
    }

    /// What has to be stored at the end.
    pub fn state(&self) -> Stored {
        Stored { run: self.run, peer: self.replay.progress(), nailed: self.replay.is_nailed() }
    }
}

/// Everything behind the HMAC.
fn judge<'a>(
    datagram: &'a [u8],
    ivs: &Ivs,
    role: Role,
    inside: Inside,
    replay: &mut Replay,
) -> Result<Packet<'a>, Refused> {
    let hmac = datagram.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
    let iv = datagram[IV_RANGE].try_into().unwrap_or_default();
    let mark = ivs.decrypt(iv);
    if mark.is_some_and(|mark| mark.role == role) {
        return Err(Refused::Reflected);
    }
    let (newest, nailed) = match replay.judge(hmac, mark) {
        Verdict::Fresh { newest, nailed } => (newest, nailed),
        Verdict::Replayed => return Err(Refused::Replayed),
        Verdict::OldRun => return Err(Refused::OldRun),
        Verdict::NoCounter => return Err(Refused::NoCounter),
    };
    let bytes = &datagram[OVERHEAD..];
    let (source, destination) = ip::addresses(bytes).map_err(|_| Refused::Malformed)?;
    let client = IpAddr::from(inside.client);
    let expected = match role {
        Role::Gateway => source == client,
        // a gateway has no business with other addresses of this host or behind it
        Role::Client => destination == client && source != client,
    };
    if expected { Ok(Packet { bytes, newest, nailed }) } else { Err(Refused::ForeignAddress) }
}

#[cfg(test)]
mod tests;
