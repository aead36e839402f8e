//! What KCP bytes from the other end have to look like before the library sees them.

use super::{DATAGRAM_MAX, OVERHEAD, SEGMENT_HEADER};

pub(super) const PUSH: u8 = 81;
pub(super) const ACK: u8 = 82;
pub(super) const ASK_WINDOW: u8 = 83;
pub(super) const TELL_WINDOW: u8 = 84;

/// One segment, of which nothing but the form has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) command: u8,
    /// Segments that its sender has room for.
    pub(super) window: u16,
    /// When it, or what it acknowledges, was sent, by the clock of the one who sent that.
    pub(super) time: u32,
    /// Its number, or the number that it acknowledges.
    pub(super) number: u32,
    /// All before this number have been received.
    pub(super) unacknowledged: u32,
    /// Bytes behind the header.
    pub(super) len: usize,
}

/// The segments of a datagram; `None` if it is not made of whole segments of this conversation, or is
/// longer than any that is sent. KCP's fragments of messages do not exist in a stream.
pub(super) fn segments(conversation: u32, kcp: &[u8]) -> Option<impl Iterator<Item = Segment>> {
    let all = Segments { conversation, rest: kcp };
    let mut end = all;
    let fits = !kcp.is_empty() && kcp.len() <= DATAGRAM_MAX - OVERHEAD;
    if fits {
        end.by_ref().for_each(drop);
    }
    (fits && end.rest.is_empty()).then_some(all)
}

/// A segment without data.
pub(super) fn encode(conversation: u32, segment: &Segment) -> [u8; SEGMENT_HEADER] {
    let mut bytes = [0; SEGMENT_HEADER];
    bytes[..4].copy_from_slice(&conversation.to_le_bytes());
    bytes[4] = segment.command;
    bytes[6..8].copy_from_slice(&segment.window.to_le_bytes());
    bytes[8..12].copy_from_slice(&segment.time.to_le_bytes());
    bytes[12..16].copy_from_slice(&segment.number.to_le_bytes());
    bytes[16..20].copy_from_slice(&segment.unacknowledged.to_le_bytes());
    bytes
}

#[derive(Clone, Copy)]
struct Segments<'a> {
    conversation: u32,
    /// What is left; it stays where a segment is not as it has to be.
    rest: &'a [u8],
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        let (header, rest) = self.rest.split_first_chunk::<SEGMENT_HEADER>()?;
        let number_at = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let segment = Segment {
            command: header[4],
            window: u16::from_le_bytes([header[6], header[7]]),
            time: number_at(8),
            number: number_at(12),
            unacknowledged: number_at(16),
            len: number_at(20) as usize,
        };
        let is_known = match segment.command {
            PUSH => true,
            ACK | ASK_WINDOW | TELL_WINDOW => segment.len == 0,
            _ => false,
        };
        let fragment = header[5];
        if number_at(0) != self.conversation || fragment != 0 || !is_known {
            return None;
        }
        self.rest = rest.get(segment.len..)?;
        Some(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kcp::SEGMENT_MAX;

    const CONVERSATION: u32 = 0x0102_0304;

    fn push(data: &[u8]) -> Vec<u8> {
        let segment =
            Segment { command: PUSH, window: 9, time: 7, number: 3, unacknowledged: 2, len: 0 };
        let mut bytes = encode(CONVERSATION, &segment).to_vec();
        bytes[20..24].copy_from_slice(&(data.len() as u32).to_le_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    fn count(bytes: &[u8]) -> Option<usize> {
        segments(CONVERSATION, bytes).map(Iterator::count)
    }

    #[test]
    fn whole_segments_are_read_and_anything_else_is_not() {
        let one = push(b"data");
        let segment = segments(CONVERSATION, &one).unwrap().next().unwrap();
        assert_eq!((segment.command, segment.number, segment.len), (PUSH, 3, 4));
        let two = [one.clone(), push(b"")].concat();
        assert_eq!(count(&two), Some(2));
        assert_eq!(count(b""), None);
        for length in 0..one.len() {
            assert_eq!(count(&one[..length]), None, "{length} bytes");
        }
        assert_eq!(count(&[&one[..], b"x"].concat()), None);
        assert_eq!(count(&push(&[0; SEGMENT_MAX])), Some(1));
        assert_eq!(count(&push(&[0; SEGMENT_MAX + 1])), None, "longer than any that is sent");
        for (at, wrong) in [(0, 5), (4, 80), (4, 85), (4, ACK), (5, 1), (20, 5), (23, 0x80)] {
            let mut changed = one.clone();
            changed[at] = wrong;
            assert_eq!(count(&changed), None, "byte {at}");
        }
    }
}
