//! The tunnel's conversation: pings, control messages, rekeys and timers.
//!
//! Packets do not pass through here; the owner of the sockets reports that some have gone out or
//! come in. Call the `handle_*` methods with what happens, then [`Tunnel::wants_randomness`],
//! [`Tunnel::poll_outgoing`] and [`Tunnel::poll_frames`] for bytes to seal and send, and
//! [`Tunnel::poll_timeout`] for when to call [`Tunnel::handle_timeout`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    cipher::DatagramCipher,
    datagram::{self, KeyChange},
    frame::{self, Control, Frame},
    liveness::{self, Due, Keepalive, Liveness},
    record::{Opener, Usage},
    rekey::{Outgoing, Randomness, RekeyError, Rekeying, Side},
};

/// One end of a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    liveness: Liveness,
    rekeying: Rekeying,
    /// Pings and pongs.
    frames: Vec<u8>,
    /// What must not be left out, in order.
    outgoing: VecDeque<Outgoing>,
}

/// What the owner has to act upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The path may be dead: try another one beside it.
    Suspect,
    /// The path is dead.
    Dead,
    /// The other end said something.
    Peer(Control),
}

/// Why a timer is set: for logs and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// To see whether the path works.
    Liveness(liveness::Reason),
    /// To start a rekey, or to stop waiting for one.
    Rekey,
}

impl Tunnel {
    /// A tunnel that begins now; `seed` decides the jitter.
    pub fn new(now: Instant, keepalive: Keepalive, side: Side, seed: u64) -> Self {
        Self {
            liveness: Liveness::new(now, keepalive, seed),
            rekeying: Rekeying::new(now, side, seed),
            frames: Vec::new(),
            outgoing: VecDeque::new(),
        }
    }

    /// Changes how patient this end is, from now on.
    pub fn set_keepalive(&mut self, now: Instant, keepalive: Keepalive) {
        self.liveness.set_keepalive(now, keepalive);
    }

    /// Sends a ping now, to learn the round trip.
    pub fn ping(&mut self, now: Instant) {
        let payload = self.liveness.ping(now);
        self.frames.extend_from_slice(&frame::ping(payload));
    }

    /// There is a reason to believe that the path is dead: suspect from now on, until it answers.
    pub fn doubt(&mut self, now: Instant) {
        let payload = self.liveness.doubt(now);
        self.frames.extend_from_slice(&frame::ping(payload));
    }

    /// Says something to the other end.
    pub fn say(&mut self, control: &Control) {
        self.outgoing.push_back(Outgoing { frame: frame::control(control), next_keys: None });
    }

    /// Takes a frame that is not a packet; packets are passed over. `opener` has opened it, and
    /// changes its key if the next record is one of the next epoch.
    ///
    /// # Errors
    /// A rekey went wrong, which ends the connection.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        opener: &mut Opener,
    ) -> Result<Option<Event>, RekeyError> {
        match frame {
            Frame::Ping(payload) => self.frames.extend_from_slice(&frame::pong(*payload)),
            Frame::Pong(payload) => self.liveness.on_pong(now, *payload),
            Frame::Rekey(step) => {
                self.outgoing.extend(self.rekeying.handle_frame(now, step, opener)?);
            }
            Frame::Control(Control::RekeyPlease) => self.rekeying.handle_please(now),
            Frame::Control(control) => return Ok(Some(Event::Peer(control.clone()))),
            Frame::Packet(_) | Frame::Offload(..) | Frame::Skipped => {}
        }
        Ok(None)
    }

    /// Records have gone out; `traffic`: with packets of the user in them.
    pub fn handle_sent(&mut self, now: Instant, traffic: bool) {
        self.liveness.on_sent(now, traffic);
    }

    /// Authentic records have come in.
    pub fn handle_received(&mut self, now: Instant) {
        self.liveness.on_received(now);
    }

    /// How far the keys are used up: those that seal and those that open.
    pub fn handle_usage(&mut self, sealed: &Usage, opened: &Usage) {
        self.outgoing.extend(self.rekeying.handle_usage(sealed, opened));
    }

    /// There are datagrams beside the stream: rekeys change their keys, too.
    pub fn set_datagrams(&mut self, cipher: DatagramCipher) {
        self.rekeying.set_datagrams(cipher);
    }

    /// How far the keys of the datagrams are used up. `opener`: that of the stream.
    pub fn handle_datagram_usage(
        &mut self,
        sealed: &datagram::Usage,
        opened: &datagram::Usage,
        opener: &Opener,
    ) {
        let epoch = opener.usage().epoch;
        self.outgoing.extend(self.rekeying.handle_datagram_usage([sealed, opened], epoch));
    }

    /// The next change of the datagrams' keys; to be acted upon at once, in order, whenever a frame
    /// or randomness was handled.
    pub fn poll_key_change(&mut self) -> Option<KeyChange> {
        self.rekeying.poll_key_change()
    }

    /// Whether a rekey waits for [`Tunnel::handle_randomness`].
    pub fn wants_randomness(&self) -> bool {
        self.rekeying.wants_randomness()
    }

    /// Starts or answers a rekey.
    ///
    /// # Errors
    /// The other end's public key is unusable, which ends the connection.
    pub fn handle_randomness(
        &mut self,
        now: Instant,
        randomness: &Randomness,
        opener: &Opener,
    ) -> Result<(), RekeyError> {
        self.outgoing.extend(self.rekeying.handle_randomness(now, randomness, opener)?);
        Ok(())
    }

    /// Time has passed.
    ///
    /// # Errors
    /// A rekey took too long, which ends the connection.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<Option<Event>, RekeyError> {
        self.rekeying.handle_timeout(now)?;
        Ok(match self.liveness.handle_timeout(now) {
            Some(Due::Ping(payload)) => {
                self.frames.extend_from_slice(&frame::ping(payload));
                None
            }
            Some(Due::Suspect) => Some(Event::Suspect),
            Some(Due::Dead) => Some(Event::Dead),
            None => None,
        })
    }

    /// When [`Tunnel::handle_timeout`] is due next, and why.
    pub fn poll_timeout(&self) -> (Instant, Reason) {
        let (at, reason) = self.liveness.poll_timeout();
        match self.rekeying.poll_timeout() {
            Some(rekey) if rekey < at => (rekey, Reason::Rekey),
            Some(_) | None => (at, Reason::Liveness(reason)),
        }
    }

    /// The next frame that must not be left out; once it has been taken, call
    /// [`Tunnel::outgoing_taken`].
    pub fn poll_outgoing(&self) -> Option<&Outgoing> {
        self.outgoing.front()
    }

    /// The frame of [`Tunnel::poll_outgoing`] is on its way.
    pub fn outgoing_taken(&mut self) {
        self.outgoing.pop_front();
    }

    /// Pings and pongs to be sent, if any. Where there is no room they may be left out: they would
    /// come too late to mean anything.
    pub fn poll_frames(&mut self) -> Option<Vec<u8>> {
        (!self.frames.is_empty()).then(|| std::mem::take(&mut self.frames))
    }

    /// Whether [`Event::Suspect`] was the last that is known of the path.
    pub fn is_suspect(&self) -> bool {
        self.liveness.is_suspect()
    }

    /// Whether traffic has gone unanswered for so long that the path may be dead, which becomes
    /// [`Event::Suspect`] if nothing comes back.
    pub fn is_doubtful(&self) -> bool {
        self.liveness.is_doubtful()
    }

    /// The shortest round trip so far, and of how many.
    pub fn shortest_round_trip(&self) -> Option<(Duration, u32)> {
        self.liveness.shortest_round_trip()
    }

    /// The latest round trip, and of how many.
    pub fn latest_round_trip(&self) -> Option<(Duration, u32)> {
        self.liveness.latest_round_trip()
    }

    /// The smoothed round trip, once known.
    pub fn round_trip(&self) -> Option<Duration> {
        self.liveness.round_trip()
    }
}
