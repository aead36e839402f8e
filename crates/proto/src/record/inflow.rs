//! Incoming bytes of a stream: cut into records, opened, cut into frames.

use super::{OpenError, Opener, PLAINTEXT_MAX};
use crate::frame::{self, Frame, FrameError};

/// How much is read from the socket at once, in bytes.
const SEALED_CAPACITY: usize = 256 * 1024;
/// Room for one frame of the longest kind, and for a record behind its beginning.
const PLAIN_CAPACITY: usize = 96 * 1024;
const _: () = assert!(PLAIN_CAPACITY >= frame::HEADER_LEN + frame::PAYLOAD_MAX + PLAINTEXT_MAX);

/// The buffers of one receiving stream. They hold no keys, and when [`Inflow::is_empty`] nothing
/// of a connection: then another connection may use them.
pub struct Inflow {
    sealed: Queue,
    plain: Queue,
    /// A record has been opened since somebody asked.
    authentic: bool,
}

/// Why what arrived is no tunnel. Each of these ends the connection, not the session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InflowError {
    /// A record.
    #[error(transparent)]
    Record(#[from] OpenError),
    /// A frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Something behind a frame that must be the last of its record.
    #[error("bytes behind a frame that changes the key")]
    NotLast,
}

impl Default for Inflow {
    fn default() -> Self {
        Self {
            sealed: Queue::new(SEALED_CAPACITY),
            plain: Queue::new(PLAIN_CAPACITY),
            authentic: false,
        }
    }
}

impl Inflow {
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.plain.is_empty()
    }

    /// Where the next bytes from the socket go; never empty after
    /// [`Inflow::next_frame`] has answered `None`.
    pub fn spare(&mut self) -> &mut [u8] {
        self.sealed.compact();
        &mut self.sealed.bytes[self.sealed.end..]
    }

    /// So many bytes have been put into [`Inflow::spare`].
    ///
    /// # Panics
    /// If there was no room for so many.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.sealed.bytes.len() - self.sealed.end, "more than there was room for");
        self.sealed.end += count;
    }

    /// The next whole frame; `None` when more bytes are needed. A frame that changes the key must
    /// be acted upon before the next call: what is behind it is sealed with another one.
    pub fn next_frame(&mut self, opener: &mut Opener) -> Result<Option<Frame<'_>>, InflowError> {
        loop {
            if let Some(length) = frame::frame_len(self.plain.filled())?
                && length <= self.plain.filled().len()
            {
                let start = self.plain.start;
                self.plain.consume(length);
                let frame = Frame::parse(&self.plain.bytes[start..start + length])?;
                // no record behind it has been opened yet: there was a whole frame
                if matches!(&frame, Frame::Rekey(step) if step.is_last()) && !self.plain.is_empty()
                {
                    return Err(InflowError::NotLast);
                }
                return Ok(Some(frame));
            }
            let Some(length) = Opener::record_len(self.sealed.filled())? else {
                return Ok(None);
            };
            if length > self.sealed.filled().len() {
                return Ok(None);
            }
            if self.plain.bytes.len() - self.plain.end < PLAINTEXT_MAX {
                self.plain.compact();
            }
            let record = &mut self.sealed.bytes[self.sealed.start..][..length];
            self.plain.end += opener.open(record, &mut self.plain.bytes[self.plain.end..])?;
            self.sealed.consume(length);
            self.authentic = true;
        }
    }

    /// Whether an authentic record has come since the last call. Any is life (A8), also one that
    /// holds only a part of a frame.
    pub fn take_authentic(&mut self) -> bool {
        std::mem::take(&mut self.authentic)
    }
}

impl std::fmt::Debug for Inflow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflow")
            .field("sealed", &self.sealed.filled().len())
            .field("plain", &self.plain.filled().len())
            .finish()
    }
}

/// Bytes that are added at the end and taken at the start.
struct Queue {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Queue {
    fn new(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity].into(), start: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        cipher::CipherId,
        keys::{Chain, Direction},
        record::{Batch, RECORD_MAX, Sealer},
    };

    fn halves(cipher: CipherId) -> (Sealer, Opener) {
        let (chain, direction) = (Chain([3; 32]), Direction::ClientToServer);
        (Sealer::new(cipher, &chain, direction), Opener::new(cipher, chain, direction))
    }

    /// Puts a packet into the batch as a TUN device would, an offload header in front.
    fn read_packet(batch: &mut Batch, packet: &[u8], offload: bool) -> usize {
        let mut bytes = vec![0u8; 10];
        bytes[0] = u8::from(offload);
        bytes.extend_from_slice(packet);
        let mut rest = &bytes[..];
        let mut slices = batch.packet_slices();
        assert!(slices[0].len() >= 96, "the offload header lies in one piece");
        for slice in &mut slices {
            let (now, later) = rest.split_at(rest.len().min(slice.len()));
            slice[..now.len()].copy_from_slice(now);
            rest = later;
        }
        assert!(rest.is_empty());
        bytes.len()
    }

    fn packets(inflow: &mut Inflow, opener: &mut Opener) -> Result<Vec<Vec<u8>>, InflowError> {
        let mut packets = Vec::new();
        while let Some(frame) = inflow.next_frame(opener)? {
            match frame {
                Frame::Packet(p) | Frame::Offload(_, p) => packets.push(p.to_vec()),
                Frame::Ping(_)
                | Frame::Pong(_)
                | Frame::Control(_)
                | Frame::Rekey(_)
                | Frame::Skipped => {}
            }
        }
        Ok(packets)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Packets of any length, in any pieces, come out as they went in.
        #[test]
        fn packets_cross_in_any_pieces(
            lengths in proptest::collection::vec((1usize..=65_535, any::<bool>()), 1..8),
            pieces in proptest::collection::vec(1usize..=100_000, 1..8),
            chacha: bool,
        ) {
            let cipher =
                if chacha { CipherId::ChaCha20Poly1305 } else { CipherId::Aes256Gcm };
            let (mut sealer, mut opener) = halves(cipher);
            let (mut batch, mut wire, mut sent) = (Batch::default(), Vec::new(), Vec::new());
            for (n, (length, offload)) in lengths.into_iter().enumerate() {
                if !batch.has_room() {
                    batch.seal(&mut sealer, Instant::now()).unwrap();
                    wire.extend_from_slice(batch.sealed());
                    batch.clear();
                }
                let packet: Vec<u8> = (0..length).map(|i| (i * 7 + n) as u8).collect();
                let read = read_packet(&mut batch, &packet, offload);
                let (head, known) = batch.packet_head(read);
                prop_assert_eq!(&head[..known], &packet[..length.min(40)]);
                batch.commit_packet(read);
                sent.push(packet);
            }
            batch.seal(&mut sealer, Instant::now()).unwrap();
            wire.extend_from_slice(batch.sealed());

            let (mut inflow, mut got) = (Inflow::default(), Vec::new());
            let mut rest = &wire[..];
            for piece in pieces.iter().cycle() {
                let spare = inflow.spare();
                let count = rest.len().min(*piece).min(spare.len());
                prop_assert!(!spare.is_empty());
                spare[..count].copy_from_slice(&rest[..count]);
                inflow.filled(count);
                rest = &rest[count..];
                got.extend(packets(&mut inflow, &mut opener).unwrap());
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, sent);
            prop_assert!(inflow.is_empty());
        }

        /// Whatever one flipped bit hits, nothing that was changed comes out.
        #[test]
        fn a_flipped_bit_ends_the_connection(bit in 0usize..8 * 1_029, chacha: bool) {
            let cipher =
                if chacha { CipherId::ChaCha20Poly1305 } else { CipherId::Aes256Gcm };
            let (mut sealer, mut opener) = halves(cipher);
            let mut batch = Batch::default();
            let read = read_packet(&mut batch, &[5; 1_000 - 4], false);
            batch.commit_packet(read);
            batch.seal(&mut sealer, Instant::now()).unwrap();
            let mut wire = batch.sealed().to_vec();
            prop_assert_eq!(wire.len(), 1_029);
            wire[bit / 8] ^= 1 << (bit % 8);
            let mut inflow = Inflow::default();
            inflow.spare()[..wire.len()].copy_from_slice(&wire);
            inflow.filled(wire.len());
            // a longer length waits for bytes that never come; all else is an error
            if let Ok(packets) = packets(&mut inflow, &mut opener) {
                prop_assert!(packets.is_empty() && (3..5).contains(&(bit / 8)));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1_000)) {
            let (_, mut opener) = halves(CipherId::Aes256Gcm);
            let mut inflow = Inflow::default();
            let bytes = [&[0x17, 3, 3, 0, 200][..], &bytes].concat();
            inflow.spare()[..bytes.len()].copy_from_slice(&bytes);
            inflow.filled(bytes.len());
            let _ = packets(&mut inflow, &mut opener);
        }
    }

    #[test]
    fn repeated_reordered_and_missing_records_are_noticed() {
        let (mut sealer, _) = halves(CipherId::Aes256Gcm);
        let records: Vec<Vec<u8>> = (0..3)
            .map(|n| {
                let mut batch = Batch::default();
                let read = read_packet(&mut batch, &[n; 50], false);
                batch.commit_packet(read);
                batch.seal(&mut sealer, Instant::now()).unwrap();
                batch.sealed().to_vec()
            })
            .collect();
        for order in [[0, 0], [1, 0], [0, 2]] {
            let (_, mut opener) = halves(CipherId::Aes256Gcm);
            let mut inflow = Inflow::default();
            for n in order {
                let record = &records[n];
                inflow.spare()[..record.len()].copy_from_slice(record);
                inflow.filled(record.len());
            }
            let result = packets(&mut inflow, &mut opener);
            assert_eq!(result, Err(InflowError::Record(OpenError::Order)), "{order:?}");
        }
    }

    #[test]
    fn a_packet_can_move_to_another_batch() {
        let (mut sealer, mut opener) = halves(CipherId::Aes256Gcm);
        let (mut from, mut to) = (Batch::default(), Batch::default());
        let packet: Vec<u8> = (0..40_000).map(|i| i as u8).collect();
        let first = read_packet(&mut from, &packet, true);
        from.commit_packet(first);
        let second = read_packet(&mut from, &packet, true);
        assert!(to.push(&frame::ping([1; 8])));
        assert!(to.take_packet(&from, second));
        to.seal(&mut sealer, Instant::now()).unwrap();
        let mut inflow = Inflow::default();
        inflow.spare()[..to.sealed().len()].copy_from_slice(to.sealed());
        inflow.filled(to.sealed().len());
        assert_eq!(packets(&mut inflow, &mut opener).unwrap(), [packet]);
    }

    #[test]
    fn packets_of_a_batch_that_was_never_sent_can_go_into_another() {
        let mut lost = Batch::default();
        let packets = [
            [&[0; 10], &[7; 60][..]].concat(),
            [&[1; 10], &[8; 40_000][..]].concat(),
            [&[0; 10], &[9; 1_400][..]].concat(),
        ];
        assert!(lost.push(&frame::ping([1; 8])));
        for packet in &packets {
            assert!(lost.push_packet(packet));
        }
        assert!(lost.packets().iter().map(|packet| &packet[..]).eq(packets.iter().map(|p| &p[..])));
    }

    #[test]
    fn records_are_as_long_as_tls_allows() {
        assert_eq!(RECORD_MAX, 16_406);
    }
}
