//! What users may expect of a session, without a word of how it is done.
//!
//! ```text
//!  a packet comes out unchanged, at most once, and only at the other end
//!  packets of one connection's stream come out in their order, without a gap
//!  whatever stops, stops for good with its connection: nothing of an old one comes out of a new one
//!  as long as the ways are whole no connection ends that nobody has ended
//!  what was sent by a stream that was not ended has come out when enough time has passed
//! ```

use std::collections::{BTreeSet, VecDeque};

/// A packet, as the one who sends it knows it: it names itself in its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packet {
    pub(super) number: u32,
    pub(super) length: usize,
}

impl Packet {
    const NAME_LEN: usize = 4;

    pub(super) fn bytes(self) -> Vec<u8> {
        let [a, b, c, d] = self.number.to_be_bytes();
        let mut bytes = vec![d; self.length];
        bytes[..Self::NAME_LEN].copy_from_slice(&[a, b, c, d]);
        bytes
    }

    /// The packet that these bytes are, if they are all of one.
    fn of(bytes: &[u8]) -> Packet {
        let name = bytes.first_chunk().expect("no packet is that short");
        let packet = Packet { number: u32::from_be_bytes(*name), length: bytes.len() };
        assert_eq!(packet.bytes(), bytes, "a packet was changed");
        packet
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    sent: u32,
    /// By the stream of this connection, and not out yet.
    by_stream: VecDeque<Packet>,
    /// By datagrams of this connection, and not out yet.
    by_datagram: BTreeSet<Packet>,
}

/// What both ends have sent, and what of it may still come out; by the sender's place.
#[derive(Debug, Default)]
pub(super) struct Model([Direction; 2]);

impl Model {
    /// The next packet of this end.
    pub(super) fn next(&mut self, from: usize, length: usize) -> Packet {
        self.0[from].sent += 1;
        Packet { number: self.0[from].sent, length }
    }

    pub(super) fn sent_by_stream(&mut self, from: usize, packet: Packet) {
        self.0[from].by_stream.push_back(packet);
    }

    pub(super) fn sent_by_datagram(&mut self, from: usize, packet: Packet) {
        self.0[from].by_datagram.insert(packet);
    }

    pub(super) fn came_by_stream(&mut self, from: usize, bytes: &[u8]) {
        let next = self.0[from].by_stream.pop_front();
        assert_eq!(Some(Packet::of(bytes)), next, "out of order, again, or made up");
    }

    pub(super) fn came_by_datagram(&mut self, from: usize, bytes: &[u8]) {
        let was_due = self.0[from].by_datagram.remove(&Packet::of(bytes));
        assert!(was_due, "a datagram's packet came again, or from nowhere");
    }

    /// Another connection takes the place of the one before.
    pub(super) fn connected(&mut self) {
        for direction in &mut self.0 {
            direction.by_stream.clear();
            direction.by_datagram.clear();
        }
    }

    /// Everything has had its time.
    pub(super) fn assert_settled(&self) {
        for direction in &self.0 {
            let left = &direction.by_stream;
            assert!(left.is_empty(), "{} packets were lost in a whole stream", left.len());
        }
    }
}
