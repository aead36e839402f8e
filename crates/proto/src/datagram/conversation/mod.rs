//! What the two ends of a channel say to each other by datagram, besides packets: whether datagrams
//! get through ([`reach`]), from where ([`roaming`]) and how long they may be ([`path_mtu`]).
//!
//! Call the `handle_*` methods with what happens, then [`Conversation::poll_transmit`] for what is
//! to be sent, [`Conversation::poll_path`] for what the sending half has to know, and
//! [`Conversation::poll_timeout`] for when to call [`Conversation::handle_timeout`].

mod path_mtu;
mod pings;
mod reach;
mod roaming;

pub use path_mtu::PING_LEN_MIN;
pub use reach::Reason;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    frames::{self, Frame},
    outlet::{Path, Sent},
    random::Random,
};
use crate::{cipher::DatagramCipher, frame};
use path_mtu::PathMtu;
use pings::Pings;
use reach::Reach;
use roaming::Roaming;

/// How long a client sends nothing before it reminds the NATs on the way of itself.
pub const KEEPALIVE: Duration = Duration::from_secs(25);

const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// More is never on its way for a good reason; the oldest is left out.
const QUEUE_MAX: usize = 64;

/// Which end of a channel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client, and where the gateway is. It begins.
    Client {
        /// The gateway's address, with the port of `Welcome`.
        gateway: SocketAddr,
    },
    /// The gateway: it answers, and follows its client.
    Gateway,
}

/// What a conversation goes by.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long a client sends nothing before it pings, ±10%.
    pub keepalive: Duration,
    /// The longest packet inside the tunnel, in bytes: datagrams need not be longer than one takes.
    pub inner_mtu: u16,
    /// The cipher of the channel.
    pub cipher: DatagramCipher,
    /// Fresh random bytes, not those of the sealer.
    pub seed: [u8; 32],
}

/// One end's view of a channel.
#[derive(Debug)]
pub struct Conversation {
    overhead: usize,
    random: Random,
    pings: Pings,
    reach: Reach,
    roaming: Roaming,
    path_mtu: PathMtu,
    queue: VecDeque<Transmit>,
    /// As the sending half knows it.
    told: Option<Path>,
}

/// Frames that are to be sealed into a datagram of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to: not always where packets go.
    pub to: SocketAddr,
    /// The bytes of whole frames.
    pub frames: Vec<u8>,
}

/// What a ping is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To see whether anything gets through.
    Life,
    /// To see whether a datagram of this length does.
    Length(usize),
}

impl Conversation {
    /// For a channel that begins now.
    pub fn new(now: Instant, end: End, settings: &Settings) -> Self {
        let Settings { keepalive, inner_mtu, cipher, seed } = *settings;
        let overhead = cipher.overhead();
        let mut random = Random::new(seed);
        let mut jitter = || u64::from_be_bytes(random.bytes());
        let keepalive = matches!(end, End::Client { .. }).then_some(keepalive);
        let cap = usize::from(inner_mtu) + frame::HEADER_LEN + overhead;
        Self {
            overhead,
            reach: Reach::new(now, keepalive, jitter()),
            path_mtu: PathMtu::new(now, cap, jitter()),
            random,
            pings: Pings::default(),
            roaming: match end {
                End::Client { gateway } => Roaming::fixed(gateway),
                End::Gateway => Roaming::following(),
            },
            queue: VecDeque::new(),
            told: None,
        }
    }

    /// Authentic datagrams have come, `bytes` in all; `newest`: one of them is
    /// ([`super::Opened::newest`]). Before their frames.
    pub fn handle_received(&mut self, now: Instant, from: SocketAddr, bytes: usize, newest: bool) {
        self.reach.on_received(now);
        if self.roaming.on_datagram(now, from, bytes, newest, &mut self.random) {
            self.challenge(now);
        }
    }

    /// A frame of theirs. Packets are passed over.
    pub fn handle_frame(&mut self, now: Instant, from: SocketAddr, frame: &Frame<'_>) {
        match frame {
            Frame::Ping(payload) => self.answer(now, frame::pong(*payload)),
            Frame::PathChallenge(payload) => self.answer(now, frames::path_response(*payload)),
            Frame::Pong(payload) => match self.pings.answered(now, *payload) {
                // a late one, whose sender may be anywhere by now
                Some(Purpose::Length(_)) if self.roaming.current().is_none() => {}
                Some(Purpose::Length(length)) => {
                    if self.reach.on_answer() {
                        self.path_mtu.restart(now);
                    }
                    self.path_mtu.on_answer(now, length);
                }
                Some(Purpose::Life) | None => {}
            },
            Frame::PathResponse(payload) => {
                if self.roaming.on_response(from, *payload) {
                    self.path_mtu.verify(now);
                }
            }
            Frame::Packet(_) | Frame::Skipped => {}
        }
    }

    /// Packets have gone out as datagrams.
    pub fn handle_sent(&mut self, now: Instant, sent: Sent) {
        let Sent(activity) = sent;
        if let (Some(first), Some(last)) = (activity.first, activity.last) {
            self.reach.on_sent(last);
            if self.reach.is_up() {
                self.reach.on_traffic(first, last);
                self.path_mtu.on_sent(now, activity.longest);
            }
        }
    }

    /// This host could not send a datagram of `length` bytes, since it was too long.
    pub fn handle_too_long(&mut self, now: Instant, length: usize) {
        self.path_mtu.on_too_long(now, length);
    }

    /// The way to the other end may be another one: the host was asleep, or its address or route has
    /// changed. Asks at once; without an answer the path is down after T.
    pub fn handle_doubt(&mut self, now: Instant) {
        self.reach.on_doubt(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let patience = self.patience();
        if self.roaming.handle_timeout(now, patience) {
            self.challenge(now);
        }
        if self.roaming.current().is_none() && self.reach.is_up() {
            self.down(now);
        }
        match self.reach.handle_timeout(now, patience) {
            Some(reach::Due::Try) => self.ping_of(now, self.path_mtu.base()),
            Some(reach::Due::Keepalive) => self.ping(now),
            Some(reach::Due::Probe { first }) => {
                self.ping(now);
                if first {
                    self.path_mtu.verify(now);
                }
            }
            Some(reach::Due::Down) => self.path_mtu.stop(),
            None => {}
        }
        if self.reach.is_up() {
            let (round_trip, received) = (self.pings.round_trip(), self.reach.last_received());
            match self.path_mtu.handle_timeout(now, round_trip, received) {
                path_mtu::Due::Ping(length) => self.ping_of(now, length),
                path_mtu::Due::Down => self.down(now),
                path_mtu::Due::Nothing => {}
            }
        }
    }

    /// When [`Conversation::handle_timeout`] is due, and why; `None`: not before something happens.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        let patience = self.patience();
        let roaming = self.roaming.poll_timeout(patience).map(|at| (at, Reason::Roaming));
        let path_mtu = self.path_mtu.poll_timeout().filter(|_| self.reach.is_up());
        let path_mtu = path_mtu.map(|at| (at, Reason::PathMtu));
        let all = [self.reach.poll_timeout(patience), roaming, path_mtu];
        all.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// The next datagram to be sealed and sent. May be left out if the socket is full.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.queue.pop_front()
    }

    /// The path, for [`super::Outlet::update`], if it has changed since this was last asked.
    pub fn poll_path(&mut self) -> Option<Path> {
        let path = self.path();
        (self.told != Some(path)).then(|| *self.told.insert(path))
    }

    /// The path as it is.
    pub fn path(&self) -> Path {
        Path {
            up: self.reach.is_up(),
            to: self.roaming.current(),
            datagram_max: self.path_mtu.current(),
            allowance: self.roaming.allowance(),
            moves: self.roaming.moves(),
        }
    }

    /// The smoothed round trip by datagram, once known.
    pub fn round_trip(&self) -> Option<Duration> {
        self.pings.round_trip()
    }

    fn down(&mut self, now: Instant) {
        self.reach.on_down(now);
        self.path_mtu.stop();
    }

    /// T: how long an answer may take.
    fn patience(&self) -> Duration {
        PATIENCE_MIN.max(self.pings.round_trip().unwrap_or_default() * 4)
    }

    fn ping(&mut self, now: Instant) {
        let payload = self.pings.send(now, Purpose::Life);
        self.answer(now, frame::ping(payload));
    }

    /// A ping in a datagram of this length.
    fn ping_of(&mut self, now: Instant, datagram_len: usize) {
        let payload = self.pings.send(now, Purpose::Length(datagram_len));
        self.answer(now, frames::ping(payload, datagram_len - self.overhead));
    }

    /// To where the other end is.
    fn answer(&mut self, now: Instant, frames: Vec<u8>) {
        if let Some(to) = self.roaming.current() {
            self.send(now, to, frames);
        }
    }

    fn challenge(&mut self, now: Instant) {
        for (to, payload) in self.roaming.challenges() {
            self.send(now, to, frames::path_challenge(payload));
        }
    }

    fn send(&mut self, now: Instant, to: SocketAddr, frames: Vec<u8>) {
        if !self.roaming.admit(to, frames.len() + self.overhead) {
            return;
        }
        if self.queue.len() == QUEUE_MAX {
            self.queue.pop_front();
        }
        self.queue.push_back(Transmit { to, frames });
        self.reach.on_sent(now);
    }
}
