//! Outgoing frames, laid out so that each record is sealed where it stands and the whole batch
//! leaves with one system call.
//!
//! ```text
//!  | prefix | plaintext 0..16377 | tag | prefix | plaintext 16377..32754 | tag | ...
//! ```
//!
//! A packet is read from the TUN device straight into the gaps between prefixes and tags, so that
//! nothing is copied between TUN and socket. Position `p` of the plaintext is at
//! `p / 16377 * RECORD_MAX + PREFIX_LEN + p % 16377` of the buffer.

use std::{io::IoSliceMut, time::Instant};

use cipherwall_packet::offload::{self, OffloadHeader};

use super::{PLAINTEXT_MAX, PREFIX_LEN, RECORD_MAX, SealError, Sealer};
use crate::{cipher::TAG_LEN, frame, keys::StreamKeys};

/// Records in a batch: three of the largest packets.
const RECORDS: usize = 16;
const CAPACITY: usize = RECORDS * PLAINTEXT_MAX;
/// The most that a TUN device gives at once: offload header and packet.
const READ_MAX: usize = offload::HEADER_LEN + 65_535;
/// How many records a packet can touch.
const PACKET_SLICES: usize = READ_MAX.div_ceil(PLAINTEXT_MAX) + 1;
/// So many bytes of a packet always lie in one piece: its offload header, and the headers behind.
const CONTIGUOUS_MIN: usize = 96;
/// Packets up to this length lose an idle offload header, which costs them a copy.
const SMALL_PACKET: usize = 2_048;

/// A buffer of frames on their way out. First filled, then sealed, then written out, then cleared.
pub struct Batch {
    buffer: Box<[u8]>,
    /// Plaintext so far, in bytes.
    plain: usize,
    /// After sealing: how many bytes of `buffer` are records.
    sealed: usize,
    /// Nothing can be added any more: what comes behind it is sealed with these keys.
    next_keys: Option<StreamKeys>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { buffer: vec![0; RECORDS * RECORD_MAX].into(), plain: 0, sealed: 0, next_keys: None }
    }
}

impl Batch {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.plain == 0
    }

    /// Bytes of frames in it.
    pub fn len(&self) -> usize {
        self.plain
    }

    /// Whether a packet of any length fits in.
    pub fn has_room(&self) -> bool {
        let wanted = CONTIGUOUS_MIN + frame::HEADER_LEN + READ_MAX;
        self.is_open() && CAPACITY - self.plain >= wanted
    }

    /// Adds the bytes of whole frames; `false`, and no change, if they do not fit.
    pub fn push(&mut self, frames: &[u8]) -> bool {
        if !self.is_open() || CAPACITY - self.plain < frames.len() {
            return false;
        }
        self.write(self.plain, frames);
        self.plain += frames.len();
        true
    }

    /// Adds the bytes of a frame that is the last under the present keys; those of the next epoch
    /// are installed as soon as the batch is sealed (A7). `false`, and no change, if it does not
    /// fit.
    pub fn push_last(&mut self, frame: &[u8], next_keys: &StreamKeys) -> bool {
        let fits = self.push(frame);
        if fits {
            self.next_keys = Some(next_keys.clone());
        }
        fits
    }

    /// Where a TUN device may put an offload header and a packet. [`Batch::commit_packet`] makes
    /// a frame of them; until then they are not part of the batch.
    ///
    /// # Panics
    /// Without [`Batch::has_room`].
    pub fn packet_slices(&mut self) -> [IoSliceMut<'_>; PACKET_SLICES] {
        assert!(self.has_room(), "room for a packet");
        self.pad_short_end();
        let start = self.plain + frame::HEADER_LEN;
        let mut left = READ_MAX;
        let mut offset = start % PLAINTEXT_MAX;
        let mut rest = &mut self.buffer[start / PLAINTEXT_MAX * RECORD_MAX..];
        std::array::from_fn(|_| {
            if left == 0 {
                return IoSliceMut::new(&mut []);
            }
            let (record, behind) = std::mem::take(&mut rest).split_at_mut(RECORD_MAX);
            rest = behind;
            let length = left.min(PLAINTEXT_MAX - offset);
            let slice = &mut record[PREFIX_LEN + offset..][..length];
            left -= length;
            offset = 0;
            IoSliceMut::new(slice)
        })
    }

    /// The first bytes of the packet that was just read (`read` bytes with its offload header):
    /// enough to see where it goes. The second value says how many of the 40 are there.
    pub fn packet_head(&self, read: usize) -> ([u8; 40], usize) {
        let mut head = [0; 40];
        let length = head.len().min(read.saturating_sub(offload::HEADER_LEN));
        self.read(self.plain + frame::HEADER_LEN + offload::HEADER_LEN, &mut head[..length]);
        (head, length)
    }

    /// Makes a frame of the `read` bytes that a TUN device has put into
    /// [`Batch::packet_slices`].
    pub fn commit_packet(&mut self, read: usize) {
        let Some(packet_len) = read.checked_sub(offload::HEADER_LEN).filter(|&n| n > 0) else {
            return;
        };
        let start = self.plain + frame::HEADER_LEN;
        let mut header = [0; offload::HEADER_LEN];
        self.read(start, &mut header);
        if OffloadHeader::parse(&header).is_none() && packet_len <= SMALL_PACKET {
            let mut packet = [0; SMALL_PACKET];
            let packet = &mut packet[..packet_len];
            self.read(start + offload::HEADER_LEN, packet);
            self.write(self.plain, &frame::header(frame::PACKET, packet_len));
            self.write(start, packet);
            self.plain = start + packet_len;
        } else {
            self.write(self.plain, &frame::header(frame::OFFLOAD, read));
            self.plain = start + read;
        }
    }

    /// Moves the packet that was just read into `from` (`read` bytes) over to this batch;
    /// `false`, and no change, if it does not fit.
    pub fn take_packet(&mut self, from: &Batch, read: usize) -> bool {
        if !self.has_room() {
            return false;
        }
        self.pad_short_end();
        let (start, source) = (self.plain + frame::HEADER_LEN, from.plain + frame::HEADER_LEN);
        let mut done = 0;
        while done < read {
            let piece = from.contiguous(source + done, read - done);
            self.write(start + done, piece);
            done += piece.len();
        }
        self.commit_packet(read);
        true
    }

    /// Adds a packet that has its offload header in front; `false`, and no change, if it does not
    /// fit.
    pub fn push_packet(&mut self, packet: &[u8]) -> bool {
        if !self.has_room() {
            return false;
        }
        self.pad_short_end();
        self.write(self.plain + frame::HEADER_LEN, packet);
        self.commit_packet(packet.len());
        true
    }

    /// The packet that was just read (`read` bytes with its offload header), as one piece.
    pub fn read_packet(&self, read: usize) -> Box<[u8]> {
        let mut packet = vec![0; read].into_boxed_slice();
        self.read(self.plain + frame::HEADER_LEN, &mut packet);
        packet
    }

    /// The packets in it, each with its offload header in front; for a batch that is not sealed
    /// and never will be.
    pub fn packets(&self) -> Vec<Box<[u8]>> {
        let (mut packets, mut position) = (Vec::new(), 0);
        while self.sealed == 0 && position + frame::HEADER_LEN <= self.plain {
            let mut header = [0; frame::HEADER_LEN];
            self.read(position, &mut header);
            let [kind, length @ ..] = header;
            let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
            position += frame::HEADER_LEN;
            let offset = if kind == frame::PACKET { offload::HEADER_LEN } else { 0 };
            if kind == frame::PACKET || kind == frame::OFFLOAD {
                let mut packet = vec![0; offset + length].into_boxed_slice();
                self.read(position, &mut packet[offset..]);
                packets.push(packet);
            }
            position += length;
        }
        packets
    }

    /// Seals all frames into records.
    pub fn seal(&mut self, sealer: &mut Sealer, now: Instant) -> Result<(), SealError> {
        let mut left = self.plain;
        for record in self.buffer.chunks_exact_mut(RECORD_MAX) {
            if left == 0 {
                break;
            }
            let plain = left.min(PLAINTEXT_MAX);
            let length = PREFIX_LEN + plain + TAG_LEN;
            sealer.seal(now, &mut record[..length])?;
            self.sealed += length;
            left -= plain;
        }
        if let Some(keys) = self.next_keys.take() {
            sealer.install(now, &keys);
        }
        Ok(())
    }

    /// The records, once sealed.
    pub fn sealed(&self) -> &[u8] {
        &self.buffer[..self.sealed]
    }

    /// Empties it for the next frames.
    pub fn clear(&mut self) {
        self.plain = 0;
        self.sealed = 0;
        self.next_keys = None;
    }

    /// Whether frames can be added.
    fn is_open(&self) -> bool {
        self.sealed == 0 && self.next_keys.is_none()
    }

    /// Fills the end of a record where the beginning of a packet would be cut in two.
    fn pad_short_end(&mut self) {
        let left = PLAINTEXT_MAX - self.plain % PLAINTEXT_MAX;
        if left < frame::HEADER_LEN + CONTIGUOUS_MIN {
            let length = left.saturating_sub(frame::HEADER_LEN);
            self.write(self.plain, &frame::header(frame::PADDING, length));
            self.write(self.plain + frame::HEADER_LEN, &[0; CONTIGUOUS_MIN][..length]);
            self.plain += frame::HEADER_LEN + length;
        }
    }

    /// The plaintext bytes from `position` on that lie in one piece, at most `length`.
    fn contiguous(&self, position: usize, length: usize) -> &[u8] {
        let offset = position % PLAINTEXT_MAX;
        let start = position / PLAINTEXT_MAX * RECORD_MAX + PREFIX_LEN + offset;
        &self.buffer[start..start + length.min(PLAINTEXT_MAX - offset)]
    }

    fn read(&self, position: usize, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let piece = self.contiguous(position + done, out.len() - done);
            out[done..done + piece.len()].copy_from_slice(piece);
            done += piece.len();
        }
    }

    fn write(&mut self, mut position: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let offset = position % PLAINTEXT_MAX;
            let (piece, rest) = bytes.split_at(bytes.len().min(PLAINTEXT_MAX - offset));
            let start = position / PLAINTEXT_MAX * RECORD_MAX + PREFIX_LEN + offset;
            self.buffer[start..start + piece.len()].copy_from_slice(piece);
            position += piece.len();
            bytes = rest;
        }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("plain", &self.plain)
            .field("sealed", &self.sealed)
            .finish_non_exhaustive()
    }
}
