//! The sending half of a channel.
//!
//! ```text
//!  packets ──┬─ cut ──► batch ──seal──► socket
//!            └► queue ────┘  └────────► stream, for what may not go by datagram
//! ```
//!
//! A packet is cut into datagrams that fit the path, straight into the batch. While the socket is
//! full, packets queue, where an old one can still be dropped.

use std::{io, net::SocketAddr, time::Instant};

use cipherwall_packet::offload::{self, OffloadHeader, Segments};
use cipherwall_proto::{
    datagram::{EpochKeys, Outlet, Path, SealError, Sealer, Sent, Transmit, Usage},
    frame,
    queue::Queue,
};

use super::{homes::Home, pool};
use crate::{
    tunnel::Sender,
    udp::{OutBatch, is_too_long},
};

/// What waits for a socket, in bytes: less than 100 ms of any path that is worth a datagram.
const QUEUE_MAX: usize = 512 * 1024;

/// Seals packets and sends them.
pub(super) struct Outgoing {
    sealer: Sealer,
    outlet: Outlet,
    /// How the present address of the other end is reached.
    home: Option<Home>,
    /// Datagrams that are being laid out; taken from the pool while there are any.
    batch: Option<OutBatch>,
    /// The batch is sealed, for this address, and the socket was full.
    blocked: Option<(SocketAddr, Home)>,
    /// Packets that wait for the socket.
    queue: Queue,
    /// Bytes of packets that were sent.
    pub(super) bytes: u64,
    /// Packets that were dropped since the socket was full.
    pub(super) dropped: u64,
    /// A datagram of this length does not fit the interface.
    too_long: Option<usize>,
    /// Whether the link sleeps until it is told of traffic.
    link_sleeps: bool,
    /// Whether the link knows that the socket is full.
    told_blocked: bool,
    /// The stream was given packets.
    diverted: bool,
}

impl Outgoing {
    pub(super) fn new(sealer: Sealer, path: Path) -> Self {
        let mut queue = Queue::default();
        queue.set_bytes_max(QUEUE_MAX);
        Self {
            outlet: Outlet::new(sealer.cipher(), path),
            sealer,
            home: None,
            batch: None,
            blocked: None,
            queue,
            bytes: 0,
            dropped: 0,
            too_long: None,
            link_sleeps: false,
            told_blocked: false,
            diverted: false,
        }
    }

    /// Whether packets go by datagram.
    pub(super) fn is_up(&self) -> bool {
        self.outlet.is_up()
    }

    /// The socket that is full, if it is.
    pub(super) fn blocked(&self) -> Option<&Home> {
        self.blocked.as_ref().map(|(_, home)| home)
    }

    pub(super) fn usage(&self) -> Usage {
        self.sealer.usage()
    }

    /// From now on datagrams are sealed with these keys.
    pub(super) fn install(&mut self, keys: &EpochKeys, stream: &Sender) {
        self.flush(stream);
        self.sealer.install(Instant::now(), keys);
    }

    /// What the conversation has to be told.
    pub(super) fn take_sent(&mut self) -> (Sent, Option<usize>) {
        (self.outlet.take_sent(), self.too_long.take())
    }

    /// The link goes to sleep unless the conversation has to be told something; `false` then.
    pub(super) fn link_sleeps(&mut self) -> bool {
        self.link_sleeps = self.outlet.is_quiet() && self.too_long.is_none();
        self.link_sleeps
    }

    /// Whether the stream was given packets, which have to be flushed.
    pub(super) fn take_diverted(&mut self) -> bool {
        std::mem::take(&mut self.diverted)
    }

    /// Whether the link has to be woken.
    pub(super) fn wakes_link(&mut self) -> bool {
        let is_quiet = self.outlet.is_quiet() && self.too_long.is_none();
        let sleeps = self.link_sleeps && !is_quiet;
        if sleeps {
            self.link_sleeps = false;
        }
        sleeps || self.is_blocked() && !std::mem::replace(&mut self.told_blocked, true)
    }

    /// The path has changed. What is under way goes on over the stream if there is none any more.
    pub(super) fn set_path(&mut self, path: Path, home: Option<Home>, stream: &Sender) {
        // what is laid out may be too long for the new one
        self.flush(stream);
        self.outlet.update(path);
        self.home = home;
        if !self.is_up() {
            // sealed already: lost, as datagrams may be
            self.drop_batch();
            let now = Instant::now();
            while let Some(packet) = self.queue.pop(now) {
                self.divert_packet(stream, &packet);
            }
        }
    }

    /// Takes a packet with its offload header in front; [`Outgoing::flush`] sends it.
    pub(super) fn push(&mut self, stream: &Sender, packet: &[u8]) {
        if self.is_blocked() {
            return self.queue.push(Instant::now(), packet.into());
        }
        if !self.is_up() || !self.lay_out(stream, packet) {
            self.divert_packet(stream, packet);
        }
    }

    /// Cuts a packet into datagrams; `false` if it has to go over the stream.
    fn lay_out(&mut self, stream: &Sender, packet: &[u8]) -> bool {
        let Some((header, bytes)) = packet.split_first_chunk::<{ offload::HEADER_LEN }>() else {
            return false;
        };
        let header = OffloadHeader::parse(header);
        let Ok(mut segments) = Segments::new(&header, bytes, self.outlet.packet_max()) else {
            return false;
        };
        let cipher = self.sealer.cipher();
        let (prefix, around) = (cipher.prefix_len(), cipher.overhead() + frame::HEADER_LEN);
        while let Some(len) = segments.next_len() {
            let datagram_len = around + len;
            let batch = self.batch.get_or_insert_with(pool::take_batch);
            let Some(room) = batch.room(datagram_len) else {
                self.flush(stream);
                if self.is_blocked() {
                    // what is cut already is sent later; for the rest TCP will care
                    self.dropped += 1;
                    return true;
                }
                continue;
            };
            let room = &mut room[prefix..];
            room[..frame::HEADER_LEN].copy_from_slice(&frame::header(frame::PACKET, len));
            segments.next_into(&mut room[frame::HEADER_LEN..]);
            batch.commit(datagram_len);
        }
        self.bytes += bytes.len() as u64;
        true
    }

    /// Sends what is laid out.
    pub(super) fn flush(&mut self, stream: &Sender) {
        if self.is_blocked() {
            return;
        }
        let Some(batch) = &mut self.batch else { return };
        if batch.is_empty() {
            return self.drop_batch();
        }
        let now = Instant::now();
        let (bytes, longest) = (batch.len(), batch.datagram_len());
        let Some(to) = self.outlet.admit(now, bytes, longest) else {
            return self.divert(stream);
        };
        let (datagrams, datagram_len) = batch.take_unsealed_bytes();
        match self.sealer.seal(now, datagrams, datagram_len) {
            Ok(()) => self.send(to, self.home.clone()),
            // a rekey is asked for at half of that
            Err(SealError::Exhausted) => self.divert(stream),
            Err(SealError::Cipher) => self.drop_batch(),
        }
    }

    /// The socket may take more.
    pub(super) fn unblock(&mut self, stream: &Sender) {
        self.told_blocked = false;
        if let Some((to, home)) = self.blocked.take() {
            self.send(to, Some(home));
        }
        let now = Instant::now();
        while !self.is_blocked()
            && let Some(packet) = self.queue.pop(now)
        {
            self.push(stream, &packet);
        }
        self.dropped += self.queue.take_dropped();
        self.flush(stream);
    }

    /// Sends what the conversation has to say. What cannot be sent now is lost, as datagrams are.
    pub(super) fn say(&mut self, transmit: &Transmit, home: Home, stream: &Sender) {
        self.flush(stream);
        if self.is_blocked() {
            return;
        }
        let cipher = self.sealer.cipher();
        let len = cipher.overhead() + transmit.frames.len();
        let batch = self.batch.get_or_insert_with(pool::take_batch);
        let Some(room) = batch.room(len) else { return self.drop_batch() };
        room[cipher.prefix_len()..][..transmit.frames.len()].copy_from_slice(&transmit.frames);
        batch.commit(len);
        let (datagrams, datagram_len) = batch.take_unsealed_bytes();
        match self.sealer.seal(Instant::now(), datagrams, datagram_len) {
            Ok(()) => self.send(transmit.to, Some(home)),
            Err(_) => self.drop_batch(),
        }
    }

    /// Sends a batch that is sealed.
    fn send(&mut self, to: SocketAddr, home: Option<Home>) {
        let (Some(batch), Some(home)) = (&mut self.batch, home) else { return self.drop_batch() };
        let longest = batch.datagram_len();
        match batch.send(&home.socket, to, home.address) {
            Ok(()) => self.drop_batch(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = Some((to, home));
            }
            Err(error) => {
                // whatever it is: the packets are lost, and if it goes on, the conversation notices
                if is_too_long(&error) {
                    self.too_long = Some(longest);
                }
                tracing::trace!(%to, %error, "datagrams cannot be sent");
                self.drop_batch();
            }
        }
    }

    /// Sends what is laid out, and not sealed, over the stream.
    fn divert(&mut self, stream: &Sender) {
        let cipher = self.sealer.cipher();
        let packet = cipher.prefix_len() + frame::HEADER_LEN - offload::HEADER_LEN;
        if let Some(mut batch) = self.batch.take() {
            let (datagrams, datagram_len) = batch.take_unsealed_bytes();
            for datagram in datagrams.chunks_mut(datagram_len) {
                let behind = datagram.len() - cipher.suffix_len();
                let packet = &mut datagram[packet..behind];
                packet[..offload::HEADER_LEN].copy_from_slice(&OffloadHeader::NONE.encode());
                self.divert_packet(stream, packet);
            }
            pool::give_back_batch(batch);
        }
    }

    fn divert_packet(&mut self, stream: &Sender, packet: &[u8]) {
        stream.take(packet);
        self.diverted = true;
    }

    fn drop_batch(&mut self) {
        self.blocked = None;
        self.batch.take().into_iter().for_each(pool::give_back_batch);
    }

    fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }
}
