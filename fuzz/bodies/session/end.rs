//! One end of a connection, put together as the programs do it, without sockets.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use cipherwall_proto::{
    datagram::{self, Conversation, KEEPALIVE, KeyChange, Masks, Outlet, frames},
    frame::{self, Control, Frame},
    liveness::Keepalive,
    record::{Batch, Inflow, Opener, Sealer},
    rekey::{Limits, Policy, Randomness, Side},
    tunnel::{Event, Tunnel},
};

use super::{
    Settings,
    model::Packet,
    opening::{Halves, MASK_KEY},
};

pub(super) const CLIENT: usize = 0;
pub(super) const GATEWAY: usize = 1;
const INNER_MTU: u16 = 1_420;

/// One end.
pub(super) struct End {
    sealer: Sealer,
    opener: Opener,
    inflow: Inflow,
    pub(super) tunnel: Tunnel,
    /// Frames that wait for the socket, and packets that wait for room there.
    filling: Batch,
    waiting: VecDeque<Packet>,
    pub(super) stalled: bool,
    pub(super) beside: Option<Beside>,
    randomness: u64,
    /// What has become of it.
    pub(super) over: Option<Over>,
}

/// The datagrams beside its stream.
pub(super) struct Beside {
    pub(super) conversation: Conversation,
    sealer: datagram::Sealer,
    opener: datagram::Opener,
    outlet: Outlet,
}

/// Why an end does nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Over {
    /// It has given up waiting.
    Dead,
    /// The other end has said farewell.
    Farewell(Control),
    /// What it got was not the other end's, or this end has failed.
    Failed(String),
}

/// A datagram to be sent: to whom, and its bytes.
pub(super) type Datagram = (SocketAddr, Vec<u8>);

impl End {
    /// `at`: which one.
    pub(super) fn new(
        now: Instant,
        at: usize,
        halves: Halves,
        gateway: SocketAddr,
        settings: &Settings,
    ) -> End {
        let seed = u8::try_from(at).expect("an end") + 1;
        let (side, end) = if at == CLIENT {
            (Side::Client(Limits::default()), datagram::End::Client { gateway })
        } else {
            let interval = settings.rekey_interval;
            (Side::Gateway(Policy { interval, ..Policy::default() }), datagram::End::Gateway)
        };
        let mut tunnel = Tunnel::new(now, Keepalive::default(), side, seed.into());
        let beside = halves.channel.zip(settings.datagrams).map(|(channel, cipher)| {
            tunnel.set_datagrams(cipher);
            let settings = datagram::Settings {
                keepalive: KEEPALIVE,
                inner_mtu: INNER_MTU,
                cipher,
                seed: [seed; 32],
            };
            let conversation = Conversation::new(now, end, &settings);
            let (sealer, opener) = channel.into_halves(&Masks::new(&MASK_KEY), [seed + 10; 32]);
            Beside {
                outlet: Outlet::new(cipher, conversation.path()),
                conversation,
                sealer,
                opener,
            }
        });
        End {
            sealer: halves.sealer,
            opener: halves.opener,
            inflow: Inflow::default(),
            tunnel,
            filling: Batch::default(),
            waiting: VecDeque::new(),
            stalled: false,
            beside,
            randomness: u64::from(seed) << 32,
            over: None,
        }
    }

    /// The epochs of what it seals and of what it opens.
    pub(super) fn epochs(&self) -> (u32, u32) {
        (self.sealer.usage().epoch, self.opener.usage().epoch)
    }

    /// Takes a packet to send: as a datagram, if it may be one, which is given back; else it waits for
    /// the stream.
    pub(super) fn send(&mut self, now: Instant, packet: Packet) -> Option<Datagram> {
        let to = self.beside.as_mut().and_then(|beside| {
            let length = packet.length + frame::HEADER_LEN + beside.sealer.cipher().overhead();
            let fits = packet.length <= beside.outlet.packet_max();
            fits.then(|| beside.outlet.admit(now, length, length)).flatten()
        });
        let Some(to) = to else {
            self.waiting.push_back(packet);
            return None;
        };
        let beside = self.beside.as_mut()?;
        Some((to, beside.seal(now, &framed(packet))))
    }

    /// The records of what it wants to send; none while it is stalled.
    pub(super) fn records(&mut self, now: Instant) -> Vec<u8> {
        let mut records = Vec::new();
        self.step_rekey(now);
        while self.over.is_none() {
            let traffic = self.fill();
            if self.filling.is_empty() || self.stalled {
                break;
            }
            if let Err(error) = self.filling.seal(&mut self.sealer, now) {
                self.over = Some(Over::Failed(error.to_string()));
                break;
            }
            records.extend_from_slice(self.filling.sealed());
            self.filling.clear();
            self.tunnel.handle_sent(now, traffic);
            self.step_rekey(now);
        }
        records
    }

    /// The datagrams of its own that it wants to send.
    pub(super) fn datagrams(&mut self, now: Instant) -> Vec<Datagram> {
        let Some(beside) = &mut self.beside else { return Vec::new() };
        let sent = beside.outlet.take_sent();
        beside.conversation.handle_sent(now, sent);
        let mut datagrams = Vec::new();
        while let Some(transmit) = beside.conversation.poll_transmit() {
            let bytes = beside.seal(now, &transmit.frames);
            datagrams.push((transmit.to, bytes));
        }
        if let Some(path) = beside.conversation.poll_path() {
            beside.outlet.update(path);
        }
        datagrams
    }

    /// Takes bytes of the stream; gives the packets in them, and farewells' like by [`End::over`].
    pub(super) fn receive(&mut self, now: Instant, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while !bytes.is_empty() && self.over.is_none() {
            let spare = self.inflow.spare();
            let count = spare.len().min(bytes.len());
            spare[..count].copy_from_slice(&bytes[..count]);
            self.inflow.filled(count);
            bytes = &bytes[count..];
            self.over = self.read_frames(now, &mut packets).err().or(self.over.take());
        }
        self.change_keys(now);
        packets
    }

    fn read_frames(&mut self, now: Instant, packets: &mut Vec<Vec<u8>>) -> Result<(), Over> {
        let failed = |error: &dyn std::fmt::Display| Over::Failed(error.to_string());
        while let Some(frame) =
            self.inflow.next_frame(&mut self.opener).map_err(|error| failed(&error))?
        {
            self.tunnel.handle_received(now);
            if let Frame::Packet(packet) = frame {
                packets.push(packet.to_vec());
                continue;
            }
            match self.tunnel.handle_frame(now, &frame, &mut self.opener) {
                Ok(Some(Event::Peer(control))) => return Err(Over::Farewell(control)),
                Ok(Some(Event::Suspect | Event::Dead)) => panic!("no frame says so"),
                Ok(None) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(())
    }

    /// Takes a datagram from this address; gives the packets in it.
    pub(super) fn receive_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Vec<Vec<u8>> {
        let Some(beside) = &mut self.beside else { return Vec::new() };
        let mut bytes = bytes.to_vec();
        let Some(opened) = beside.opener.receive(now, &mut bytes) else { return Vec::new() };
        beside.conversation.handle_received(now, from, opened.len, opened.newest);
        let mut packets = Vec::new();
        for frame in frames(opened.plaintext) {
            if let datagram::Frame::Packet(packet) = frame {
                packets.push(packet.to_vec());
            }
            beside.conversation.handle_frame(now, from, &frame);
        }
        packets
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Instant {
        let beside = self.beside.as_ref().and_then(|beside| beside.conversation.poll_timeout());
        let tunnel = self.tunnel.poll_timeout().0;
        beside.map_or(tunnel, |(at, _)| at.min(tunnel))
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self.tunnel.handle_timeout(now) {
            Ok(Some(Event::Dead)) => self.over = Some(Over::Dead),
            Ok(Some(Event::Suspect | Event::Peer(_)) | None) => {}
            Err(error) => self.over = Some(Over::Failed(error.to_string())),
        }
        if let Some(beside) = &mut self.beside {
            if beside.conversation.poll_timeout().is_some_and(|(at, _)| at <= now) {
                beside.conversation.handle_timeout(now);
            }
            beside.opener.expire(now);
        }
    }

    /// Whether packets have gone into the batch.
    fn fill(&mut self) -> bool {
        while let Some(outgoing) = self.tunnel.poll_outgoing() {
            let pushed = match &outgoing.next_keys {
                Some(keys) => self.filling.push_last(&outgoing.frame, keys),
                None => self.filling.push(&outgoing.frame),
            };
            if !pushed {
                break;
            }
            self.tunnel.outgoing_taken();
        }
        if let Some(frames) = self.tunnel.poll_frames() {
            self.filling.push(&frames);
        }
        let mut traffic = false;
        while let Some(packet) = self.waiting.front() {
            if !self.filling.push(&framed(*packet)) {
                break;
            }
            self.waiting.pop_front();
            traffic = true;
        }
        traffic
    }

    fn step_rekey(&mut self, now: Instant) {
        self.tunnel.handle_usage(&self.sealer.usage(), &self.opener.usage());
        if let Some(beside) = &self.beside {
            let (sealed, opened) = (beside.sealer.usage(), beside.opener.usage());
            self.tunnel.handle_datagram_usage(&sealed, &opened, &self.opener);
        }
        if self.tunnel.wants_randomness() {
            self.randomness += 1;
            let [a, b, c, d, e, f, g, h] = self.randomness.to_be_bytes();
            let bytes = std::array::from_fn(|at| [a, b, c, d, e, f, g, h][at % 8]);
            let randomness = Randomness { secret: bytes, random: bytes };
            if let Err(error) = self.tunnel.handle_randomness(now, &randomness, &self.opener) {
                self.over = Some(Over::Failed(error.to_string()));
            }
        }
        self.change_keys(now);
    }

    fn change_keys(&mut self, now: Instant) {
        while let Some(change) = self.tunnel.poll_key_change() {
            let Some(beside) = &mut self.beside else { continue };
            match change {
                KeyChange::Accept(keys) => beside.opener.accept(&keys),
                KeyChange::Use(keys) => {
                    beside.sealer.install(now, &keys);
                    beside.opener.advance(now);
                }
            }
        }
    }
}

impl Beside {
    fn seal(&mut self, now: Instant, frames: &[u8]) -> Vec<u8> {
        let cipher = self.sealer.cipher();
        let (before, behind) = (vec![0; cipher.prefix_len()], vec![0; cipher.suffix_len()]);
        let mut datagram = [&before[..], frames, &behind].concat();
        let length = datagram.len();
        self.sealer.seal(now, &mut datagram, length).expect("keys are not used up");
        datagram
    }
}

fn framed(packet: Packet) -> Vec<u8> {
    [&frame::header(frame::PACKET, packet.length)[..], &packet.bytes()].concat()
}

/// How long an end may take to notice that the other one is gone, which says and gets nothing.
pub(super) const DEAD_WITHIN: Duration = Duration::from_secs(31);
/// And in which it wants an answer to a question that it has a reason for.
pub(super) const PONG_WITHIN: Duration = Duration::from_secs(5);
