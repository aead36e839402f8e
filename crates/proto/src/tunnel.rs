//! The tunnel's conversation: pings, control messages and timers, the same on both ends.
//!
//! Packets do not pass through here; the owner of the sockets reports that some have gone out or
//! come in. Call the `handle_*` methods with what happens, then [`Tunnel::poll_frames`] for bytes
//! to seal and send, and [`Tunnel::poll_timeout`] for when to call [`Tunnel::handle_timeout`].

use std::time::{Duration, Instant};

use crate::{
    frame::{self, Control, Frame},
    liveness::{Due, Keepalive, Liveness, Reason},
};

/// One end of a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    liveness: Liveness,
    outgoing: Vec<u8>,
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

impl Tunnel {
    /// A tunnel that begins now; `seed` decides the jitter.
    pub fn new(now: Instant, keepalive: Keepalive, seed: u64) -> Self {
        Self { liveness: Liveness::new(now, keepalive, seed), outgoing: Vec::new() }
    }

    /// Sends a ping now, to learn the round trip.
    pub fn ping(&mut self, now: Instant) {
        let payload = self.liveness.ping(now);
        self.outgoing.extend_from_slice(&frame::ping(payload));
    }

    /// Says something to the other end.
    pub fn say(&mut self, control: &Control) {
        self.outgoing.extend_from_slice(&frame::control(control));
    }

    /// Takes a frame that is not a packet; packets are passed over.
    pub fn handle_frame(&mut self, now: Instant, frame: &Frame<'_>) -> Option<Event> {
        match frame {
            Frame::Ping(payload) => {
                self.outgoing.extend_from_slice(&frame::pong(*payload));
                None
            }
            Frame::Pong(payload) => {
                self.liveness.on_pong(now, *payload);
                None
            }
            Frame::Control(control) => Some(Event::Peer(control.clone())),
            Frame::Packet(_) | Frame::Offload(..) | Frame::Skipped => None,
        }
    }

    /// Records have gone out; `traffic`: with packets of the user in them.
    pub fn handle_sent(&mut self, now: Instant, traffic: bool) {
        self.liveness.on_sent(now, traffic);
    }

    /// Authentic records have come in.
    pub fn handle_received(&mut self, now: Instant) {
        self.liveness.on_received(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Event> {
        match self.liveness.handle_timeout(now)? {
            Due::Ping(payload) => {
                self.outgoing.extend_from_slice(&frame::ping(payload));
                None
            }
            Due::Suspect => Some(Event::Suspect),
            Due::Dead => Some(Event::Dead),
        }
    }

    /// When [`Tunnel::handle_timeout`] is due next, and why.
    pub fn poll_timeout(&self) -> (Instant, Reason) {
        self.liveness.poll_timeout()
    }

    /// The frames to be sent, if any.
    pub fn poll_frames(&mut self) -> Option<Vec<u8>> {
        (!self.outgoing.is_empty()).then(|| std::mem::take(&mut self.outgoing))
    }

    /// Whether [`Event::Suspect`] was the last that is known of the path.
    pub fn is_suspect(&self) -> bool {
        self.liveness.is_suspect()
    }

    /// The smoothed round trip, once known.
    pub fn round_trip(&self) -> Option<Duration> {
        self.liveness.round_trip()
    }
}
