//! One end of a conversation: datagrams in and out, and the stream that they carry.

use std::{net::SocketAddr, time::Instant};

use super::{Door, Head, OVERHEAD, path::Path, stream::Stream, wrap};
use crate::{datagram::Window, keys::Direction};

/// One end of a conversation. After each change, [`Conversation::poll`] and then
/// [`Conversation::transmit`] until it gives nothing.
pub struct Conversation {
    wrap: wrap::Wrap,
    direction: Direction,
    /// Of the next datagram.
    counter: u64,
    window: Window,
    path: Path,
    stream: Stream,
    /// The present address gets nothing more until something comes from there.
    refused: bool,
    /// Something authentic has come.
    heard: bool,
}

/// What has become of a try to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transmit {
    /// A datagram of so many bytes was written.
    Written(usize),
    /// There is a datagram of so many bytes, for which there was no room.
    NoRoom,
    /// There is nothing to send now.
    Nothing,
}

impl Conversation {
    /// A client's, with a number that nobody can guess: 8 random bytes.
    pub fn client(now: Instant, door: &Door, number: [u8; 8], gateway: SocketAddr) -> Self {
        let path = Path::fixed(gateway);
        let mut conversation = Self::new(now, door, number, Direction::ClientToServer, path);
        // the client trusts its gateway
        conversation.stream.admit();
        conversation
    }

    /// A gateway's, which begins with a datagram with this head, from there. Returns the datagram's
    /// time if it is authentic; [`super::Register`] decides whether the conversation begins. `secret`:
    /// random bytes, by which the client's addresses are tried.
    pub fn gateway(
        now: Instant,
        door: &Door,
        head: &Head,
        client: SocketAddr,
        datagram: &mut [u8],
        secret: [u8; 32],
    ) -> Option<(Self, u32)> {
        let path = Path::following(now, client, secret);
        let direction = Direction::ServerToClient;
        let mut conversation = Self::new(now, door, head.conversation, direction, path);
        let time_s = conversation.handle(now, client, head, datagram)?;
        Some((conversation, time_s))
    }

    fn new(now: Instant, door: &Door, number: [u8; 8], direction: Direction, path: Path) -> Self {
        let in_kcp = u32::from_be_bytes([number[0], number[1], number[2], number[3]]);
        Self {
            wrap: wrap::Wrap::new(door, number),
            direction,
            counter: 0,
            window: Window::default(),
            path,
            stream: Stream::new(now, in_kcp),
            refused: false,
            heard: false,
        }
    }

    /// The conversation's number.
    pub fn number(&self) -> [u8; 8] {
        self.wrap.conversation()
    }

    /// Takes a datagram with this head, which is opened where it stands. Returns its time, Unix
    /// seconds by the gateway's clock; `None` if it is not authentic or not new.
    pub fn handle(
        &mut self,
        now: Instant,
        from: SocketAddr,
        head: &Head,
        datagram: &mut [u8],
    ) -> Option<u32> {
        let expected = head.conversation == self.wrap.conversation()
            && head.direction != self.direction
            && self.window.accepts(head.counter);
        if !expected {
            return None;
        }
        let bytes = datagram.len();
        let (time_s, kcp) = self.wrap.open(head, datagram)?;
        let newest = self.window.highest().is_none_or(|highest| head.counter > highest);
        self.window.mark(head.counter);
        self.path.on_datagram(now, from, bytes, newest);
        self.heard = true;
        for number in self.stream.handle(now, kcp) {
            self.path.on_answer(from, number);
        }
        Some(time_s)
    }

    /// Decides what is to be sent.
    pub fn poll(&mut self, now: Instant) {
        let length = self.stream.path_length();
        self.refused = false;
        self.path.handle_timeout(now, length);
        if let Some(challenge) = self.path.challenge(now, length) {
            self.stream.challenge(challenge);
        }
        self.stream.poll(now);
    }

    /// Writes the next datagram to the room that `room` gives for so many bytes, if there is one.
    /// `time_s`: Unix seconds by the gateway's clock, as far as it is known.
    pub fn transmit<'a>(
        &mut self,
        time_s: u32,
        room: impl FnOnce(usize) -> Option<&'a mut [u8]>,
    ) -> Transmit {
        let Self { wrap, direction, counter, path, stream, refused, .. } = self;
        let mut outcome = Transmit::Nothing;
        stream.transmit(|kcp| {
            let len = kcp.len() + OVERHEAD;
            outcome = Transmit::NoRoom;
            let Some(datagram) = room(len).filter(|room| room.len() == len) else { return false };
            if !path.admits(len) {
                // as if it were lost on the way, but what comes from there makes room
                outcome = Transmit::Nothing;
                *refused = true;
                return false;
            }
            datagram[wrap::PREFIX_LEN..][..kcp.len()].copy_from_slice(kcp);
            if wrap.seal(*direction, *counter, time_s, datagram) {
                outcome = Transmit::Written(len);
            }
            *counter += 1;
            true
        });
        outcome
    }

    /// When [`Conversation::poll`] has something to do, if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        // what waits for an address that has to show itself first is not moved by time
        let stream = if self.refused { None } else { self.stream.poll_timeout() };
        let path = self.path.poll_timeout(self.stream.path_length());
        [path, stream].into_iter().flatten().min()
    }

    /// Where datagrams go.
    pub fn peer(&self) -> SocketAddr {
        self.path.current()
    }

    /// Whether anything authentic has come.
    pub fn is_heard(&self) -> bool {
        self.heard
    }

    /// The next datagram asks for an answer.
    pub fn ask(&mut self) {
        self.stream.ask();
    }

    /// The other end has logged in: it gets more room.
    pub fn admit(&mut self) {
        self.stream.admit();
    }

    /// So many bytes may wait for the path.
    pub fn set_unsent_max(&mut self, bytes: usize) {
        self.stream.set_unsent_max(bytes);
    }

    /// Whether [`Conversation::write`] takes something.
    pub fn has_room(&self) -> bool {
        self.stream.has_room()
    }

    /// Takes bytes of the stream, as many as there is room for.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.stream.write(bytes)
    }

    /// Whether [`Conversation::read`] gives something.
    pub fn is_readable(&self) -> bool {
        self.stream.is_readable()
    }

    /// Reads bytes of the stream.
    pub fn read(&mut self, bytes: &mut [u8]) -> usize {
        self.stream.read(bytes)
    }

    /// Whether the other end's part of the stream is over and read.
    pub fn is_at_end(&self) -> bool {
        self.stream.is_at_end()
    }

    /// Ends this end's part of the stream once everything has arrived.
    pub fn finish(&mut self) {
        self.stream.finish();
    }

    /// Whether that has been done.
    pub fn is_finished(&self) -> bool {
        self.stream.is_finished()
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { direction, path, stream, .. } = self;
        let mut conversation = f.debug_struct("Conversation");
        conversation.field("direction", direction).field("path", path).field("stream", stream);
        conversation.finish_non_exhaustive()
    }
}
